"""Whether the transfer strategy chooses well: its verification on four sets, and the regret of each.

ELPV's solar cells and scikit-learn's digits; hymenoptera's photographs, their two given parts pooled; and a generated
set that is unlike any photograph: five shapes of periodic curves (sine, two sawteeth, square, triangle) of random
period, phase, place and height under heavy noise, 1,000 of each. Small pixels, so that the whole takes minutes. Only
the plain images train. The regret is by how many points of test accuracy the chosen cell lies under the best of the
four.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import apart, finish, fresh, photos, run_stages

SETS = ("cells", "hymenoptera", "digits", "curves")
MOST_POINTS = 1.0
SIDE = 64


def cells() -> dict[str, Any]:
    """The declared demo's images and splits, with the default taps."""
    path = Path(__file__).parent.parent / "assets" / "solar_cells" / "defs.yaml"
    declared = yaml.safe_load(path.read_text())["attributes"]
    return {
        **{name: declared[name] for name in ("source", "splits")},
        "backbone": {"resize": "squash", "image_size": 128},
    }


def insects() -> dict[str, Any] | None:
    """Hymenoptera; the pattern names no split, so that both parts are one pool."""
    found = photos()
    if found is None:
        return None
    source = {"kind": "folder", "path": str(found), "pattern": "(?P<label>ants|bees)/[^/]*$"}
    return {"source": source, "splits": {"test": 0.25, "validation": 0.15}}


def digits(folder: Path) -> dict[str, Any]:
    """Scikit-learn's digits as PNG files, each pixel a square of eight."""
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    for number, (image, label) in enumerate(zip(found.images, found.target, strict=True)):
        path = folder / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype("uint8")).resize((SIDE, SIDE), Image.Resampling.NEAREST).save(path)
    return {"source": {"kind": "folder", "path": str(folder)}, "backbone": {"image_size": SIDE}}


def curves(folder: Path, count: int) -> dict[str, Any]:
    """Curves under noise as PNG files; the number of a file is the seed of all that is random in it."""
    import numpy as np
    from PIL import Image

    across = np.linspace(0, 1, SIDE)
    for number in range(count):
        random = np.random.default_rng(number)
        turns = (across * random.uniform(2, 5) + random.uniform()) % 1
        sine = np.sin(2 * np.pi * turns)
        shapes = {
            "sine": sine,
            "rising": 2 * turns - 1,
            "falling": 1 - 2 * turns,
            "square": np.sign(sine),
            "triangle": 4 * np.abs(turns - 0.5) - 1,
        }
        name = list(shapes)[number % len(shapes)]
        height = SIDE * (random.uniform(0.4, 0.6) + random.uniform(0.1, 0.3) * shapes[name])
        line = np.exp(-0.5 * ((np.arange(SIDE)[:, None] - height) / 1.3) ** 2)
        pixels = np.clip(0.5 + 0.18 * random.normal(size=(SIDE, SIDE)) + 0.45 * line, 0, 1)
        path = folder / name / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * pixels).astype("uint8")).save(path)
    return {"source": {"kind": "folder", "path": str(folder)}, "backbone": {"image_size": SIDE}}


def declared(name: str, folder: Path, count: int) -> dict[str, Any] | None:
    """The declaration of a set; None where its images are not there."""
    found = {
        "cells": cells,
        "hymenoptera": insects,
        "digits": lambda: digits(folder / name),
        "curves": lambda: curves(folder / name, count),
    }[name]()
    # Generated curves look alike to a perceptual hash.
    shared = {"name": name, "augmentation": {"preset": "none"}, "duplicates": {"distance": 0}}
    return None if found is None else {**shared, **found}


def measure(settings: dict[str, Any], store: str, epochs: int | None) -> dict[str, Any]:
    """The verification of one set, as its artifact holds it."""
    import json

    from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
    from tl_dagster.graph.stages.bottleneck_features import BottleneckFeatures
    from tl_dagster.graph.stages.dataset import Dataset
    from tl_dagster.graph.stages.strategy_verification import StrategyVerification
    from tl_dagster.graph.stages.transfer_strategy import TransferStrategy

    settings = {**settings, "fine_tuning": {"epochs": epochs}}
    stages = [Dataset, AugmentedSplits, BottleneckFeatures, TransferStrategy, StrategyVerification]
    held = run_stages(settings, store, stages)
    found: dict[str, Any] = json.loads((held[-1].artifact.path / "verification.json").read_text())
    measured = {name: held[-2].artifact.summary.metrics.get(name) for name in ("size", "gain_of_lower_taps")}
    return {**found, **measured}


def figures_of(name: str, found: dict[str, Any]) -> dict[str, float | None]:
    """The figures of one set; the chosen cell and the best are printed."""
    print(f"{name}: chosen {found['chosen']}, best {found['best']}")
    return {
        f"{name}_regret_points": found["regret_points"],
        f"{name}_size": found["size"],
        f"{name}_gain_of_lower_taps": found["gain_of_lower_taps"],
        **{f"{name}_{row['cell']}_accuracy_percent": 100 * row["test_accuracy"] for row in found["cells"]},
        **{f"{name}_{row['cell']}_seconds": row["seconds"] for row in found["cells"]},
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    parser.add_argument("--curves", type=int, default=5000, help="how many images are generated")
    parser.add_argument("--epochs", type=int, help="of fine-tuning, instead of the strategy's own")
    given = parser.parse_args()
    targets = {f"{name}_regret_points": {"at_most": MOST_POINTS} for name in SETS}
    figures: dict[str, float | None] = dict.fromkeys(targets)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in given.sets:
            settings = declared(name, folder, given.curves)
            if settings is not None:
                found = apart(measure, settings, folder / "store", given.epochs, environment=fresh(folder))
                figures |= figures_of(name, found)
    finish("strategy", figures, targets, part=tuple(given.sets) != SETS)


if __name__ == "__main__":
    main()
