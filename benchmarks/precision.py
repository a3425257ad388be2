"""What computing features in bf16 instead of fp32 costs in accuracy: the top model's, over five split seeds.

ELPV's solar cells as `assets/solar_cells` declares them, but with two views of each image instead of eight, so that
fp32 takes minutes; and hymenoptera's photographs, its two parts pooled and divided again by each seed, with the
default augmentation. A quarter of the images tests. Both precisions see the same images, views, splits and settings.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import apart, finish, fresh, parse, photos, run_stages

PRECISIONS = ("fp32", "bf16")
MOST_POINTS = 0.5
SETS = ["cells", "hymenoptera"]


def cells() -> dict[str, Any]:
    """The declared demo."""
    path = Path(__file__).parent.parent / "assets" / "solar_cells" / "defs.yaml"
    declared: dict[str, Any] = yaml.safe_load(path.read_text())["attributes"]
    return {**declared, "augmentation": {**declared["augmentation"], "views": 2, "test_views": 2}}


def insects(folder: Path) -> dict[str, Any]:
    """Hymenoptera; the pattern names no split, so that both parts are one pool."""
    return {
        "name": "hymenoptera",
        "source": {"kind": "folder", "path": str(folder), "pattern": "(?P<label>ants|bees)/[^/]*$"},
        "splits": {"test": 0.25, "validation": 0.15},
    }


def measure(settings: dict[str, Any], store: str, seeds: int) -> dict[str, Any]:
    """Test accuracies under each precision and seed, and how far the features lie apart.

    Features are cached: each view is forwarded once in each precision, whatever the number of seeds.
    """
    import numpy as np

    from tl_dagster import ArtifactStore
    from tl_dagster.features.feature_table import FeatureTable
    from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
    from tl_dagster.graph.stages.bottleneck_features import BottleneckFeatures
    from tl_dagster.graph.stages.dataset import Dataset
    from tl_dagster.graph.stages.top_model import TopModel
    from tl_dagster.graph.stages.transfer_strategy import TransferStrategy
    from tl_dagster.models.predictions import read_predictions

    accuracies: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    features = {}
    for seed in range(seeds):
        for precision in PRECISIONS:
            declared = {
                **settings,
                "splits": {**settings["splits"], "seed": seed},
                "backbone": {**settings.get("backbone", {}), "precision": precision},
                "compute": {"activation_cache_gb": 0},  # nothing is fine-tuned
            }
            kinds = [Dataset, AugmentedSplits, BottleneckFeatures, TransferStrategy, TopModel]
            paths = [each.artifact.path for each in run_stages(declared, store, kinds)]
            rows = read_predictions(paths[-1], "test")[0]
            accuracies[precision].append(float((rows["label"] == rows["predicted"]).mean()))
            if seed == 0:
                table = FeatureTable.open(paths[2], ArtifactStore(Path(store)).layout.features)
                features[precision] = table.features()[:].astype(np.float32)
    exact, ours = (features[precision] for precision in PRECISIONS)
    difference = np.linalg.norm(ours - exact, axis=1) / np.linalg.norm(exact, axis=1)
    return {"accuracies": accuracies, "difference": float(np.median(difference)), "test_images": len(rows)}


def summarize(name: str, result: dict[str, Any]) -> dict[str, float | None]:
    """The figures of one data set."""
    means = {precision: 100 * statistics.mean(result["accuracies"][precision]) for precision in PRECISIONS}
    pairs = zip(*(result["accuracies"][precision] for precision in PRECISIONS), strict=True)
    return {
        **{f"{name}_top_model_accuracy_{precision}_percent": mean for precision, mean in means.items()},
        f"{name}_bf16_minus_fp32_mean_points_absolute": abs(means["bf16"] - means["fp32"]),
        f"{name}_bf16_minus_fp32_largest_of_a_seed_points": max(100 * abs(bf16 - fp32) for fp32, bf16 in pairs),
        f"{name}_features_relative_difference_median": result["difference"],
        f"{name}_test_images_of_last_seed": result["test_images"],
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    options = parse(parser, seeds=1, sets=["hymenoptera"])
    targets = {f"{name}_bf16_minus_fp32_mean_points_absolute": {"at_most": MOST_POINTS} for name in SETS}
    figures: dict[str, float | None] = dict.fromkeys(targets)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        declared = {"cells": cells()} if "cells" in options.sets else {}
        if "hymenoptera" in options.sets and (source := photos()):
            declared["hymenoptera"] = insects(source)
        for name, settings in declared.items():
            result = apart(measure, settings, folder / "store", options.seeds, environment=fresh(folder))
            figures |= summarize(name, result)
    finish("precision", figures, targets, part=options.sets != SETS)


if __name__ == "__main__":
    main()
