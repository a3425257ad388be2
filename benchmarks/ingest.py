"""Ingestion of 100,000 small files: how fast, how much memory, and what a second look at the unchanged folder costs.

The peer is what people write themselves: torchvision's ImageFolder, each file hashed and decoded by its loader.
"""

import argparse
import hashlib
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.common import apart, finish, parse

CLASSES, PAIRS = 10, 3


def generate(folder: Path, count: int) -> None:
    """Distinct small JPEG files in class folders: smooth colours with noise, 96 pixels square, about 3 kB each."""
    import numpy as np
    from PIL import Image

    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number)
        coarse = Image.fromarray(random.integers(0, 255, (6, 6, 3), dtype=np.uint8))
        path = folder / f"class{number % CLASSES}" / f"{number:06d}.jpg"
        coarse.resize((96, 96), Image.Resampling.BICUBIC).save(path, quality=85)


def ours(folder: Path, store: Path) -> int:
    """Materialize the dataset stage once; the rows it holds."""
    from tl_dagster import ArtifactStore, Declaration
    from tl_dagster.graph.stage import StageContext
    from tl_dagster.graph.stages.dataset import Dataset
    from tl_dagster.runtime.progress import Progress

    declaration = Declaration.model_validate({"name": "files", "source": {"kind": "folder", "path": str(folder)}})
    stage, context = (
        Dataset(declaration, folder),
        StageContext(ArtifactStore(store), {}, Progress(lambda _: None), None),
    )
    dataset = stage.run(context)
    stage.run_checks(context, dataset)
    return dataset.artifact.summary.rows


def plain(folder: Path) -> int:
    """ImageFolder, hashing and decoding each file."""
    from tl_dagster.runtime.libraries import import_torchvision

    images = import_torchvision().datasets.ImageFolder(folder)
    rows = {}
    for path, label in images.samples:
        image = images.loader(path)
        rows[path] = (hashlib.sha256(Path(path).read_bytes()).hexdigest(), label, image.size)
    return len(rows)


def run_side(side: str, folder: str, store: str) -> dict[str, float]:
    """One side: its seconds (without start and imports), and its rows."""
    with tempfile.TemporaryDirectory() as small:  # imports and first calls are not what is measured
        generate(Path(small, "files"), 100)
        plain(Path(small, "files")) if side == "plain" else ours(Path(small, "files"), Path(small, "store"))
    begun = time.perf_counter()
    rows = plain(Path(folder)) if side == "plain" else ours(Path(folder), Path(store))
    return {"seconds": time.perf_counter() - begun, "rows": rows}


def main() -> None:
    """Generate, time both sides in turn, and the second ingest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    options = parse(parser, files=100, pairs=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "files")
        generate(folder, options.files)
        time.sleep(3)  # files younger than two seconds are not trusted to stay as they are
        firsts, seconds, plains = [], [], []
        for pair in range(options.pairs):
            store = Path(temporary, f"store{pair}")
            firsts.append(apart(run_side, "ours", folder, store, environment={}))
            plains.append(apart(run_side, "plain", folder, store, environment={}))
            seconds.append(apart(run_side, "ours", folder, store, environment={}))
    first, again, other = (statistics.median(each["seconds"] for each in side) for side in (firsts, seconds, plains))
    ratio = statistics.median(b["seconds"] / a["seconds"] for a, b in zip(firsts, plains, strict=True))
    figures: dict[str, float | None] = {
        "files": options.files,
        "files_per_second": options.files / first,
        "first_ingest_seconds": first,
        "second_ingest_seconds": again,
        "first_over_second_seconds": statistics.median(
            a["seconds"] / b["seconds"] for a, b in zip(firsts, seconds, strict=True)
        ),
        "imagefolder_and_hash_seconds": other,
        "imagefolder_and_hash_over_ours_seconds": ratio,
        "peak_mb": max(each["peak_mb"] for each in firsts),
        "second_peak_mb": max(each["peak_mb"] for each in seconds),
    }
    finish("ingest", figures, {"first_over_second_seconds": {"at_least": 20}})


if __name__ == "__main__":
    main()
