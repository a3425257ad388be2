"""Fine-tuning from the boundary's cached activations against the same training that computes them in each epoch.

The two sides run in turn, each in a process of its own, on hymenoptera's photographs; what is compared is the time of
an epoch (training and validation) after the first. The losses should be the same: the largest relative difference of
any epoch's training loss is a figure too.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import apart, finish, fresh, parse, photos, prepare_stage, run_stages

PAIRS, EPOCHS = 3, 3
NETWORKS: dict[str, dict[str, Any]] = {
    "vgg16_last_block": {
        "backbone": {"name": "torchvision/vgg16", "weights": "vgg16_features.pth", "taps": ["features"]},
        "depth": "top",
    },
    "efficientnet_lite0_last_two_stages": {
        "backbone": {"name": "timm/tf_efficientnet_lite0", "taps": ["penultimate"]},
        "depth": "last 2 stages",
    },
}
TARGETS = {
    **{f"{name}_recomputed_over_cached_seconds": {"at_least": 3.0} for name in NETWORKS},
    **{f"{name}_losses_relative_difference": {"at_most": 0.01} for name in NETWORKS},
}


def prepare(settings: dict[str, Any], store: str) -> dict[str, Any]:
    """Features, activations and top model: everything before fine-tuning."""
    from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
    from tl_dagster.graph.stages.bottleneck_features import BottleneckFeatures
    from tl_dagster.graph.stages.dataset import Dataset
    from tl_dagster.graph.stages.top_model import TopModel
    from tl_dagster.graph.stages.transfer_strategy import TransferStrategy

    kinds = [Dataset, AugmentedSplits, BottleneckFeatures, TransferStrategy, TopModel]
    return {"views": run_stages(settings, store, kinds)[1].artifact.summary.rows}


def tune(settings: dict[str, Any], store: str, gigabytes: float) -> dict[str, Any]:
    """Fine-tune: seconds of an epoch after the first, and each epoch's training loss."""
    from tl_dagster.graph.stages.fine_tuned_model import FineTunedModel
    from tl_dagster.models.spec import read_spec
    from tl_dagster.runtime.progress import Progress

    stage, context = prepare_stage({**settings, "compute": {"activation_cache_gb": gigabytes}}, store, FineTunedModel)
    ended: list[float] = []

    def log(line: str) -> None:
        if line.startswith("epoch "):
            ended.append(time.perf_counter())

    artifact = stage.run(replace(context, progress=Progress(log))).artifact
    history = read_spec(artifact.path).training.history
    shutil.rmtree(artifact.path)  # the other side trains the same model
    return {
        "epoch_seconds": (ended[-1] - ended[1]) / (len(ended) - 2),
        "losses": [each["training_loss"] for each in history[1:]],
        "from_cache": artifact.summary.metadata["frozen_part"] == "from the feature cache",
    }


def measure(name: str, settings: dict[str, Any], folder: Path, count: int) -> dict[str, float | None]:
    """Both sides in turn, ``count`` times."""
    environment, store = fresh(folder), folder / "store"
    apart(prepare, settings, store, environment=environment)
    apart(tune, settings, store, 0.0, environment=environment)  # whatever is compiled once is compiled now
    ratios, cached, recomputed = [], [], []
    for _ in range(count):
        recomputed.append(apart(tune, settings, store, 0.0, environment=environment))
        cached.append(apart(tune, settings, store, 100.0, environment=environment))
        ratios.append(recomputed[-1]["epoch_seconds"] / cached[-1]["epoch_seconds"])
    if not all(each["from_cache"] for each in cached) or any(each["from_cache"] for each in recomputed):
        raise RuntimeError("the two sides are not what they should be")
    pairs = zip(cached[0]["losses"], recomputed[0]["losses"], strict=True)
    return {
        f"{name}_recomputed_over_cached_seconds": statistics.median(ratios),
        f"{name}_cached_epoch_seconds": statistics.median(each["epoch_seconds"] for each in cached),
        f"{name}_recomputed_epoch_seconds": statistics.median(each["epoch_seconds"] for each in recomputed),
        f"{name}_losses_relative_difference": max(abs(a - b) / b for a, b in pairs),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="at least 2: the first is not timed")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    options = parse(parser, networks=["efficientnet_lite0_last_two_stages"], epochs=2, pairs=1)
    figures: dict[str, float | None] = dict.fromkeys(TARGETS)
    source = photos()
    for name in options.networks:
        backbone = dict(NETWORKS[name]["backbone"])
        if file := backbone.get("weights"):
            backbone["weights"] = str(Path(os.environ.get("TL_BENCH_WEIGHTS", ""), file))
            if not Path(backbone["weights"]).is_file():
                print(f"no {file}: set TL_BENCH_WEIGHTS to its folder")
                continue
        if source:
            settings = {
                "name": "tuned",
                "source": {"kind": "folder", "path": str(source), "pattern": "(?P<label>ants|bees)/[^/]*$"},
                "backbone": backbone,
                "fine_tuning": {"depth": NETWORKS[name]["depth"], "epochs": options.epochs, "learning_rate": 1e-5},
            }
            with tempfile.TemporaryDirectory() as temporary:
                figures |= measure(name, settings, Path(temporary), options.pairs)
    finish("finetune", figures, TARGETS, part=options.networks != list(NETWORKS))


if __name__ == "__main__":
    main()
