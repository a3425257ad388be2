"""Feature extraction, end to end, against the loop that people write themselves; and against what the cores allow.

End to end: a process of its own that imports its libraries, loads the network, compiles it where it decides to, then
reads, decodes, resizes, forwards and writes every photograph. The peer does the same with torchvision's transforms on
PIL images, a DataLoader with two workers and batches of 32, in fp32, and saves one array. Both run in turn, with files
that the operating system has in memory, each of our runs without features or compiled networks of an earlier one.

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

from benchmarks.common import apart, finish, fresh, photos, prepared, repeat_photos, run_stages

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from tl_dagster.stages.base import Work
    from tl_dagster.stages.frozen import Frozen

BACKBONES: dict[str, dict[str, str]] = {
    "resnet50": {"name": "torchvision/resnet50", "weights": "random:0"},
    "efficientnet_lite0": {"name": "timm/tf_efficientnet_lite0"},
}
PAIRS = 3


def ingest(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """What comes before extraction; not timed."""
    from tl_dagster.stages.augmented_splits import AugmentedSplits
    from tl_dagster.stages.dataset import Dataset

    return {"rows": run_stages(settings, store, [Dataset, AugmentedSplits])[-1].artifact.outcome.rows}


def opened(settings: dict[str, Any], store: str) -> "tuple[Frozen, pd.DataFrame, Work]":
    """The declared backbone, the table of views, and what the stage has in hand."""
    from tl_dagster.stages.augmented_splits import read_views
    from tl_dagster.stages.bottleneck_features import BottleneckFeatures
    from tl_dagster.stages.frozen import Frozen

    stage, work = prepared(settings, store, BottleneckFeatures)
    return Frozen(stage.declaration, work.store), read_views(work.inputs["augmented_splits"].path), work


def ours(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """Fill the feature cache."""
    begun = time.perf_counter()
    frozen, table, work = opened(settings, store)
    done = frozen.fill(table, frozen.columns(), work)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "rate": done.views_per_second, "compiled": done.compiled, "steps": dict(done.seconds)}


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
    """The peer; also how far our features, extracted before, lie from its own."""
    begun = time.perf_counter()
    import numpy as np
    import torch

    from tl_dagster.features.backbones import load
    from tl_dagster.libraries import import_torchvision
    from tl_dagster.stages.dataset import read_manifest
    from tl_dagster.stages.frozen import views_to_draw

    import_torchvision()
    from torchvision import transforms

    frozen, table, work = opened(settings, store)
    files = [view.uri for view in views_to_draw(table, read_manifest(work.inputs["dataset"].path))]
    known, size = frozen.info.preprocess, frozen.resize.size
    steps = [
        transforms.Resize(round(size / known["crop_fraction"]), transforms.InterpolationMode(known["interpolation"])),
        transforms.CenterCrop(size),
        transforms.ToTensor(),
        transforms.Normalize(known["mean"], known["std"]),
    ]
    photographs: Any = Photographs(files, transforms.Compose(steps))
    model, rows = load(frozen.info, frozen.weights).eval(), []
    with torch.no_grad():
        for images in torch.utils.data.DataLoader(photographs, batch_size=32, num_workers=2):
            rows.append(model(images).numpy())
    features = np.concatenate(rows)
    np.save(saved, features)
    seconds = time.perf_counter() - begun
    mine = frozen.columns()[0].read(table["key"].tolist())[:].astype(np.float32)
    apart_by = np.linalg.norm(mine - features, axis=1) / np.linalg.norm(features, axis=1)
    return {"seconds": seconds, "difference": float(np.median(apart_by))}


def alone(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """Seconds per image of decoding without a network, and of the network without decoding."""
    from tl_dagster.features.backbones import load, tapped
    from tl_dagster.features.loading import DEPTH
    from tl_dagster.features.network import Network
    from tl_dagster.stages.dataset import read_manifest
    from tl_dagster.stages.frozen import views_to_draw

    frozen, table, work = opened(settings, store)
    views = views_to_draw(table, read_manifest(work.inputs["dataset"].path))
    with frozen.loader(len(views)) as loader:
        batches = loader.batches(views)
        pixels = next(batches).copy()
        begun = time.perf_counter()
        drawn = sum(len(batch) for batch in batches)
        decode = (time.perf_counter() - begun) / max(drawn, 1)
    recipe, info = frozen.columns()[0].recipe, frozen.info
    network = tapped(load(info, frozen.weights), [(recipe["tap"], recipe["pooling"])])
    model = Network(
        network, [recipe], frozen.precision, info.preprocess["mean"], info.preprocess["std"], loader.batch_size
    )
    model.consider_compiling(pixels, len(views), lambda line: None)
    model(pixels)()
    begun = time.perf_counter()
    for _ in range(count := -(-len(views) // len(pixels))):
        model(pixels)()
    forward = (time.perf_counter() - begun) / (count * len(pixels))
    ahead = min(len(views), DEPTH * loader.batch_size)
    return {"decode": decode, "forward": forward, "compiled": model.compiled, "ahead": ahead}


def measure(name: str, source: Path, store: Path, folder: Path) -> dict[str, float | None]:
    """All figures of one backbone."""
    settings = {
        "name": "photographs",
        "source": {"kind": "folder", "path": str(source)},
        "augmentation": {"preset": "none", "views": 1},
        "backbone": BACKBONES[name],
    }
    rows: int = apart(ingest, settings, store, environment=fresh(folder))["rows"]
    rounds = []
    for pair in range(PAIRS):
        environment = {**fresh(folder / f"{name}{pair}"), "TL_DAGSTER_STORE": fresh(folder)["TL_DAGSTER_STORE"]}
        shutil.rmtree(store / "features", ignore_errors=True)
        mine = apart(ours, settings, store, environment=environment)
        peer = apart(plain, settings, store, folder / "features.npy", environment=environment)
        bound = apart(alone, settings, store, environment=environment)
        rounds.append((mine, peer, bound))
    share = [
        ((rows - bound["ahead"]) * bound["decode"] + rows * bound["forward"]) / (rows / mine["rate"])
        for mine, _, bound in rounds
    ]
    middle = statistics.median
    return {
        f"plain_loop_over_ours_seconds_compiling_included_{name}": middle(
            peer["seconds"] / mine["seconds"] for mine, peer, _ in rounds
        ),
        f"ours_seconds_compiling_included_{name}": middle(mine["seconds"] for mine, _, _ in rounds),
        f"plain_loop_seconds_{name}": middle(peer["seconds"] for _, peer, _ in rounds),
        f"ours_views_per_second_after_compiling_{name}": middle(mine["rate"] for mine, _, _ in rounds),
        f"compiled_{name}": float(all(mine["compiled"] and bound["compiled"] for mine, _, bound in rounds)),
        f"decode_alone_ms_per_image_{name}": 1e3 * middle(bound["decode"] for _, _, bound in rounds),
        f"forward_alone_ms_per_image_{name}": 1e3 * middle(bound["forward"] for _, _, bound in rounds),
        f"share_of_bound_{name}": middle(share),
        f"relative_difference_to_plain_loop_{name}": middle(peer["difference"] for _, peer, _ in rounds),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=3_000)
    images = parser.parse_args().images
    ratios, shares = "plain_loop_over_ours_seconds_compiling_included_", "share_of_bound_"
    targets = {f"{ratios}{name}": {"at_least": 4.0} for name in BACKBONES}
    targets |= {f"{shares}{name}": {"at_least": 0.85} for name in BACKBONES}
    figures: dict[str, float | None] = dict.fromkeys(targets)
    if source := photos():
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            repeat_photos(source, folder / "photographs", range(images))
            figures = {"images": images}
            for name in BACKBONES:
                figures |= measure(name, folder / "photographs", folder / "store", folder)
    finish("extraction", figures, targets)


if __name__ == "__main__":
    main()
