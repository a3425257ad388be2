"""Feature extraction, end to end, against the loop that people write themselves; and against what the cores allow.

Both sides compute the penultimate layer's features, which are all that such a loop computes.

End to end: a process of its own that imports its libraries, loads the network, then reads, decodes, resizes, forwards
and writes every photograph. Our network was compiled before, as a machine does once for a network; what that takes is
measured, and the ratio that includes it is given too. The peer does the same with torchvision's transforms on
PIL images, a DataLoader with two workers and batches of 32, in fp32, and saves one array. Both run in turn, with files
that the operating system has in memory, each of our runs with an empty feature cache.

The bound is what the same cores would need for decoding and then forwarding, one after the other. Decoding alone: all
batches of our loader, drawn and dropped, after the first. Forwarding alone: the same compiled network, on one batch
that is in memory. In the window that our steady rate is of, the loader is a few batches ahead already, which the bound
is not charged with. Where a GPU forwards, the two overlap, and the share may exceed 1.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import (
    apart,
    build_runner,
    compile_network,
    extract,
    finish,
    fresh,
    ingest,
    is_smallest,
    open_engine,
    parse,
    photos,
    repeat_photos,
)

if TYPE_CHECKING:
    import torch

BACKBONES: dict[str, dict[str, Any]] = {
    "resnet50": {"name": "torchvision/resnet50", "weights": "random:0", "taps": ["penultimate"]},
    "efficientnet_lite0": {"name": "timm/tf_efficientnet_lite0", "taps": ["penultimate"]},
}
IMAGES = {"resnet50": 2_000, "efficientnet_lite0": 5_000}  # the peer takes two minutes for either
PAIRS = 3


class Photographs:
    """The peer's data set: each file opened by PIL and transformed."""

    def __init__(self, files: list[str], transform: "Callable[[Any], torch.Tensor]") -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> "torch.Tensor":
        from PIL import Image

        return self.transform(Image.open(self.files[number]).convert("RGB"))


def plain(settings: dict[str, Any], store: str, saved: str) -> dict[str, Any]:
    """The peer; also the relative difference of our features, extracted before, to its own."""
    begun = time.perf_counter()
    import numpy as np
    import torch

    from tl_dagster.data.views import views_to_draw
    from tl_dagster.runtime.libraries import import_torchvision

    import_torchvision()
    from torchvision import transforms

    engine, table = open_engine(settings, store)
    backbone, (column,) = engine.features.backbone, engine.features.columns()
    files = [view.uri for view in views_to_draw(table, engine.manifest())]
    size, resize = backbone.size, backbone.resize
    steps = [
        transforms.Resize(round(size / resize.crop_fraction), transforms.InterpolationMode(resize.interpolation)),
        transforms.CenterCrop(size),
        transforms.ToTensor(),
        transforms.Normalize(backbone.mean, backbone.std),
    ]
    photographs: Any = Photographs(files, transforms.Compose(steps))
    model, rows = backbone.load(), []
    with torch.no_grad():
        for images in torch.utils.data.DataLoader(photographs, batch_size=32, num_workers=2):
            rows.append(model(images).numpy())
    features = np.concatenate(rows)
    np.save(saved, features)
    seconds = time.perf_counter() - begun
    ours = column.read(table["key"].tolist())[:].astype(np.float32)
    difference = np.linalg.norm(ours - features, axis=1) / np.linalg.norm(features, axis=1)
    return {"seconds": seconds, "difference": float(np.median(difference))}


def alone(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """Seconds per image of decoding without a network, and of the network without decoding."""
    from tl_dagster.data.views import views_to_draw
    from tl_dagster.features.loading import DEPTH

    engine, table = open_engine(settings, store)
    views = views_to_draw(table, engine.manifest())
    with engine.loader(len(views)) as loader:
        batches = loader.batches(views)
        pixels = next(batches).copy()
        begun = time.perf_counter()
        drawn = sum(len(batch) for batch in batches)
        decode = (time.perf_counter() - begun) / max(drawn, 1)
    runner = build_runner(engine)
    runner.consider_compiling(pixels, len(views), lambda line: None)
    runner(pixels)()
    begun = time.perf_counter()
    for _ in range(count := -(-len(views) // len(pixels))):
        runner(pixels)()
    forward = (time.perf_counter() - begun) / (count * len(pixels))
    ahead = min(len(views), DEPTH * engine.batch_size)
    return {"decode": decode, "forward": forward, "compiled": runner.compiled, "ahead": ahead}


def measure(name: str, source: Path, folder: Path, count: int) -> dict[str, float | None]:
    """All figures of one backbone, as medians of ``count`` pairs."""
    store = folder / name / "store"
    settings = {
        "name": "photographs",
        "source": {"kind": "folder", "path": str(source)},
        "augmentation": {"preset": "none", "views": 1},
        "backbone": BACKBONES[name],
    }
    environment, rounds = fresh(folder), []
    rows: int = apart(ingest, settings, store, environment=environment)["rows"]
    # Without, in the smallest form: it takes longer than all else.
    compiling = 0.0 if is_smallest() else apart(compile_network, settings, store, environment=environment)["seconds"]
    for _ in range(count):
        shutil.rmtree(store / "features", ignore_errors=True)
        mine = apart(extract, settings, store, environment=environment)
        peer = apart(plain, settings, store, folder / "features.npy", environment=environment)
        bound = apart(alone, settings, store, environment=environment)
        rounds.append((mine, peer, bound))
    share = [
        ((rows - bound["ahead"]) * bound["decode"] + rows * bound["forward"]) / (rows / mine["rate"])
        for mine, _, bound in rounds
    ]
    middle = statistics.median
    return {
        f"plain_loop_over_ours_seconds_{name}": middle(peer["seconds"] / mine["seconds"] for mine, peer, _ in rounds),
        f"plain_loop_over_ours_and_compiling_seconds_{name}": middle(
            peer["seconds"] / (mine["seconds"] + compiling) for mine, peer, _ in rounds
        ),
        f"compiling_seconds_{name}": compiling,
        f"ours_seconds_{name}": middle(mine["seconds"] for mine, _, _ in rounds),
        f"plain_loop_seconds_{name}": middle(peer["seconds"] for _, peer, _ in rounds),
        f"ours_views_per_second_{name}": middle(mine["rate"] for mine, _, _ in rounds),
        f"compiled_{name}": float(all(mine["compiled"] and bound["compiled"] for mine, _, bound in rounds)),
        f"decode_alone_ms_per_image_{name}": 1e3 * middle(bound["decode"] for _, _, bound in rounds),
        f"forward_alone_ms_per_image_{name}": 1e3 * middle(bound["forward"] for _, _, bound in rounds),
        f"share_of_bound_{name}": middle(share),
        f"relative_difference_to_plain_loop_{name}": middle(peer["difference"] for _, peer, _ in rounds),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, help=f"instead of {IMAGES}")
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES), choices=BACKBONES)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    options = parse(parser, images=80, backbones=["efficientnet_lite0"], pairs=1)
    ratios, shares = "plain_loop_over_ours_seconds_", "share_of_bound_"
    targets = {f"{ratios}{name}": {"at_least": 4.0} for name in BACKBONES}
    targets |= {f"{shares}{name}": {"at_least": 0.85} for name in BACKBONES}
    figures: dict[str, float | None] = dict.fromkeys(targets)
    if source := photos():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for name in options.backbones:
                images = options.images or IMAGES[name]
                repeat_photos(source, folder / name / "photographs", range(images))
                figures |= {f"images_{name}": images}
                figures |= measure(name, folder / name / "photographs", folder, options.pairs)
    finish("extraction", figures, targets, part=options.backbones != list(BACKBONES))


if __name__ == "__main__":
    main()
