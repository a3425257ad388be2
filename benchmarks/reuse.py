"""What is shared: one pass over the images for several taps of a backbone, and its rows with every other pipeline.

Four backbones, each tapped at three layers, on all of hymenoptera's photographs with two views of each; random weights
where no file is at hand. Then a second pipeline of another name divides the same images by another seed and trains
another top model, and a third takes one of the taps alone: both should forward nothing.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import apart, finish, fresh, parse, photos, run_stages

TAPS = ["stage2", "stage3", "penultimate"]
# Backbone, and the file of its weights; None: those that a package ships, or random ones.
BACKBONES: dict[str, tuple[str, str | None]] = {
    "efficientnet_lite0": ("timm/tf_efficientnet_lite0", None),
    "squeezenet1_1": ("torchvision/squeezenet1_1", "squeezenet1_1.pth"),
    "mobilenet_v2": ("torchvision/mobilenet_v2", "mobilenet_v2.pth"),
    "resnet18": ("torchvision/resnet18", "resnet18.pth"),
}


def backbone(name: str, taps: list[str]) -> dict[str, Any]:
    """The declared backbone."""
    model, file = BACKBONES[name]
    path = Path(os.environ.get("TL_BENCH_WEIGHTS", ""), file or "")
    if file is None:
        return {"name": model, "taps": taps}
    return {"name": model, "taps": taps, "weights": str(path) if path.is_file() else "random:0"}


def extract(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """The first three stages: images, views forwarded, images decoded."""
    from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
    from tl_dagster.graph.stages.bottleneck_features import BottleneckFeatures
    from tl_dagster.graph.stages.dataset import Dataset

    dataset, _, features = run_stages(settings, store, [Dataset, AugmentedSplits, BottleneckFeatures])
    decoded = features.artifact.summary.metrics.get("images_decoded", 0) if features.computed else 0
    return {"images": dataset.artifact.summary.metrics["images"], "forwarded": features.computed, "decoded": decoded}


def measure(name: str, source: Path, folder: Path) -> dict[str, float | None]:
    """Three pipelines of one backbone, one after the other."""
    settings: dict[str, Any] = {
        "name": "first",
        "source": {"kind": "folder", "path": str(source), "pattern": "(?P<label>ants|bees)/[^/]*$"},
        "augmentation": {"views": 2, "test_views": 2},
        "backbone": backbone(name, TAPS),
    }
    second = {**settings, "name": "second", "splits": {"seed": 1}, "top_model": {"l2": [0.5], "balanced": True}}
    third = {**settings, "name": "third", "backbone": backbone(name, TAPS[1:2])}
    third["fine_tuning"] = {"depth": "none"}  # of one lower tap
    runs = [apart(extract, each, folder / "store", environment=fresh(folder)) for each in (settings, second, third)]
    return {
        f"{name}_pretrained": float(settings["backbone"].get("weights") != "random:0"),
        f"{name}_three_taps_views_forwarded_over_images": runs[0]["forwarded"] / runs[0]["images"],
        f"{name}_three_taps_images_decoded_over_images": runs[0]["decoded"] / runs[0]["images"],
        f"{name}_second_pipeline_views_forwarded": runs[1]["forwarded"],
        f"{name}_one_tap_views_forwarded": runs[2]["forwarded"],
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbones", nargs="*", default=list(BACKBONES), choices=BACKBONES)
    names = parse(parser, backbones=["squeezenet1_1"]).backbones
    most = {
        "three_taps_images_decoded_over_images": 1.0,
        "three_taps_views_forwarded_over_images": 2.0,
        "second_pipeline_views_forwarded": 0.0,
        "one_tap_views_forwarded": 0.0,
    }
    targets = {f"{name}_{figure}": {"at_most": bound} for name in BACKBONES for figure, bound in most.items()}
    figures: dict[str, float | None] = dict.fromkeys(targets)
    if source := photos():
        with tempfile.TemporaryDirectory() as temporary:
            for name in names:
                figures |= measure(name, source, Path(temporary))
    finish("reuse", figures, targets, part=names != list(BACKBONES))


if __name__ == "__main__":
    main()
