"""What an image went into, among 1,000,000, and why an asset ran: how long the answers take.

The store is made up: a dataset of a million rows, their views and one feature of each view in shards as an extraction
writes them, and a model, an evaluation and a champion made from these. The command ``tl-dagster lineage`` is asked for
an image by its id, from its start to its end. "Why" is asked of a pipeline of solar cells that was run, in a process
that has Dagster and the project's definitions loaded (which take two seconds); files of the source are listed again.

- ``image_seconds``: median of some images.
- ``why_seconds``: median of some questions, for all assets of the pipeline.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import apart, finish, is_smallest, parse
from benchmarks.harness.projects import PROGRAM, make_project
from benchmarks.manifest import rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from tl_dagster.store.artifacts import Artifact

TARGETS = {"image_seconds": {"at_most": 2.0}, "why_seconds": {"at_most": 1.0}}
SHARD, WIDTH = 20_000, 16
KEY = {
    "backbone": "timm/tf_efficientnet_lite0",
    "tap": "",
    "pooling": "avg",
    "precision": "bf16",
    "resize": {"size": 224},
}


def make_store(root: str, count: int) -> dict[str, list[str]]:
    """Write the store, and return ``ids`` of a few images."""
    import numpy as np

    from tl_dagster.data.augmentation import Augmenter
    from tl_dagster.data.settings import Augmentation, Splits
    from tl_dagster.data.splits import assign_splits, list_views, write_views
    from tl_dagster.features.cache import FeatureColumn
    from tl_dagster.store.artifacts import MANIFEST, ArtifactStore, ArtifactSummary, Materialization

    store, images = ArtifactStore(Path(root)), rows(count).sort_values("id", ignore_index=True)
    plain = Augmentation(preset="none")
    views = list_views(images, assign_splits(images, Splits()), plain)
    views["key"] = Augmenter(plain).identities(views["id"], views["view"])
    column = FeatureColumn(store.layout.features, KEY)
    values, keys = np.zeros((SHARD, WIDTH), np.float16), views["key"].tolist()
    for first in range(0, count, SHARD):
        part = keys[first : first + SHARD]
        column.write(part, values[: len(part)])

    def build(stage: str, inputs: dict[str, str], columns: tuple[str, ...] = ()) -> "Artifact":
        def write(folder: Path) -> ArtifactSummary:
            if stage == "dataset":
                images.to_parquet(folder / MANIFEST)
            if stage in ("augmented_splits", "bottleneck_features"):
                write_views(folder, views)
            return ArtifactSummary(rows=count, computed=count, feature_columns=columns)

        artifact = store.build(stage, (stage[:1] * 64), write, inputs=inputs)
        store.set_current("made_up", stage, Materialization(artifact, False, count, 0))
        return artifact

    _build_chain(build, column.name)
    return {"ids": [str(images["id"].iloc[number]) for number in range(0, count, count // 5)]}


def _build_chain(build: "Callable[..., Artifact]", column: str) -> None:
    dataset = build("dataset", {})
    splits = build("augmented_splits", {"dataset": dataset.data_version})
    features = build("bottleneck_features", {"augmented_splits": splits.data_version}, (column,))
    top = build("top_model", {"bottleneck_features": features.data_version})
    inputs = {"bottleneck_features": features.data_version, "top_model": top.data_version}
    build("fine_tuned_model", inputs)


def image_seconds(count: int) -> float:
    """Return what the command takes for an image of so many."""
    with tempfile.TemporaryDirectory() as temporary:
        store = Path(temporary, "store")
        made = apart(make_store, str(store), count, environment={})
        environment = {**os.environ, "TL_DAGSTER_STORE": str(store), "DAGSTER_HOME": temporary}
        seconds = []
        for identity in made["ids"]:
            begun = time.perf_counter()
            done = subprocess.run(
                [PROGRAM, "lineage", identity, "--json"], env=environment, check=True, capture_output=True, text=True
            )
            seconds.append(time.perf_counter() - begun)
            answer = json.loads(done.stdout)
            if [each["rows"] for each in answer["features"]] != [1] or len(answer["artifacts"]) != 5:
                raise RuntimeError(f"the answer is not whole: {answer}")
    return statistics.median(seconds)


def why_seconds(times: int) -> float:
    """Return what the answer takes, for all assets of a pipeline."""
    with tempfile.TemporaryDirectory() as temporary:
        project = make_project(Path(temporary), 60)
        project.run()
        code = f"from benchmarks.lineage import ask_why; ask_why({times})"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            cwd=project.folder,
            env=project.environment,
            check=True,
            capture_output=True,
            text=True,
        )
    return statistics.median(json.loads(done.stdout.splitlines()[-1]))


def ask_why(times: int) -> None:
    """Ask why each asset of the project in the working folder ran; print the seconds of each answer."""
    from tl_dagster.graph.causes import explain_last, explain_now
    from tl_dagster.graph.history import open_instance
    from tl_dagster.graph.project import find_project
    from tl_dagster.store.artifacts import ArtifactStore

    project = find_project()
    declaration, seconds = project.get_declaration("cells"), []
    with open_instance() as instance:
        for _ in range(times):
            begun = time.perf_counter()
            for now in explain_now(instance, ArtifactStore(), declaration, project.root):
                explain_last(instance, "cells", now.asset)
            seconds.append(time.perf_counter() - begun)
    print(json.dumps(seconds))


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    options = parse(parser, images=2000)
    figures: dict[str, float | None] = {
        "image_seconds": image_seconds(options.images),
        "why_seconds": why_seconds(1 if is_smallest() else 5),
    }
    finish("lineage", figures, TARGETS)


if __name__ == "__main__":
    main()
