"""Whether the transfer strategy chooses well: its verification on four sets, and the regret of each.

ELPV's solar cells and scikit-learn's digits; hymenoptera's photographs, their two parts pooled; and a generated
set that is unlike any photograph: five shapes of periodic curves (sine, two sawteeth, square, triangle) of random
period, phase, place and height under heavy noise, 1,000 of each. Small pixels, so that the whole takes minutes. Only
the plain images train. The regret is by how many points of test accuracy the chosen cell lies under the best of the
four.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import apart, finish, fresh, parse, photos, run_stages

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
    folder = photos()
    if folder is None:
        return None
    source = {"kind": "folder", "path": str(folder), "pattern": "(?P<label>ants|bees)/[^/]*$"}
    return {"source": source, "splits": {"test": 0.25, "validation": 0.15}}


def digits(folder: Path) -> dict[str, Any]:
    """Scikit-learn's digits as PNG files, each pixel a square of eight."""
    from PIL import Image
    from sklearn.datasets import load_digits

    images = load_digits()
    for number, (image, label) in enumerate(zip(images.images, images.target, strict=True)):
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
    settings = {
        "cells": cells,
        "hymenoptera": insects,
        "digits": lambda: digits(folder / name),
        "curves": lambda: curves(folder / name, count),
    }[name]()
    # Generated curves look alike to a perceptual hash.
    shared = {"name": name, "augmentation": {"preset": "none"}, "duplicates": {"distance": 0}}
    return None if settings is None else {**shared, **settings}


def measure(settings: dict[str, Any], store: str, epochs: int | None) -> dict[str, Any]:
    """The verification of one set, as its artifact holds it."""
    from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
    from tl_dagster.graph.stages.bottleneck_features import BottleneckFeatures
    from tl_dagster.graph.stages.dataset import Dataset
    from tl_dagster.graph.stages.strategy_verification import StrategyVerification
    from tl_dagster.graph.stages.transfer_strategy import TransferStrategy

    settings = {**settings, "fine_tuning": {"epochs": epochs}}
    stages = [Dataset, AugmentedSplits, BottleneckFeatures, TransferStrategy, StrategyVerification]
    *_, decision, verification = (each.artifact for each in run_stages(settings, store, stages))
    results: dict[str, Any] = json.loads((verification.path / "verification.json").read_text())
    return {**results, **{name: decision.summary.metrics.get(name) for name in ("size", "gain_of_lower_taps")}}


def summarize(name: str, results: dict[str, Any]) -> dict[str, float | None]:
    """The figures of one set; the chosen cell and the best are printed."""
    print(f"{name}: chosen {results['chosen']}, best {results['best']}")
    return {
        f"{name}_regret_points": results["regret_points"],
        f"{name}_size": results["size"],
        f"{name}_gain_of_lower_taps": results["gain_of_lower_taps"],
        **{f"{name}_{row['cell']}_accuracy_percent": 100 * row["test_accuracy"] for row in results["cells"]},
        **{f"{name}_{row['cell']}_seconds": row["seconds"] for row in results["cells"]},
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=SETS, choices=SETS)
    parser.add_argument("--curves", type=int, default=5000, help="how many images are generated")
    parser.add_argument("--epochs", type=int, help="of fine-tuning, instead of the strategy's own")
    options = parse(parser, sets=["curves"], curves=200, epochs=1)
    targets = {f"{name}_regret_points": {"at_most": MOST_POINTS} for name in SETS}
    figures: dict[str, float | None] = dict.fromkeys(targets)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in options.sets:
            settings = declared(name, folder, options.curves)
            if settings is not None:
                results = apart(measure, settings, folder / "store", options.epochs, environment=fresh(folder))
                figures |= summarize(name, results)
    finish("strategy", figures, targets, part=tuple(options.sets) != SETS)


if __name__ == "__main__":
    main()
