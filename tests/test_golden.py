"""When a stage's output changes for the same settings and inputs, its recipe must be bumped.

`python -m tests.test_golden` writes the values anew, after the recipe was bumped.
"""

import json
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from tests.conftest import Pipeline
from tl_dagster import ArtifactStore
from tl_dagster.data.decoding import DECODER_VERSION
from tl_dagster.graph.stages import STAGES
from tl_dagster.models.predictions import read_predictions
from tl_dagster.store.artifacts import Artifact

GOLDEN = Path(__file__).parent / "golden.json"
SETTINGS = {
    "backbone": {"precision": "fp32", "image_size": 64, "taps": ["lower", "higher"]},
    "augmentation": {"preset": "dihedral", "views": 3},
    "transfer_strategy": {"verify": True},
    "splits": {"test": 0.2, "validation": 0.2},
    "fine_tuning": {"epochs": 4, "learning_rate": 3e-5},  # ends with another model than it begins with
    "scratch_baseline": {"epochs": 1, "image_size": 32},
}


def outputs(pipeline: Pipeline) -> dict[str, dict]:
    """Recipe and a few numbers of each stage's output on sixty real photographs."""
    assert pipeline.run(**SETTINGS).success
    held = {name: each.artifact for name, each in pipeline.held().items()}
    features = pipeline.features().features()[:]
    probabilities = {name: read_predictions(held[name].path, "test")[2] for name in ("top_model", "fine_tuned_model")}
    scratch = read_predictions(held["scratch_baseline"].path / "convnet", "test")[2]
    found = {
        "dataset": [int(held["dataset"].data_version[:8], 16)],
        "augmented_splits": [int(held["augmented_splits"].data_version[:8], 16)],
        "bottleneck_features": [
            DECODER_VERSION,
            float(features.mean()),
            float(features.std()),
            *map(float, features[0, :5]),
        ],
        "transfer_strategy": numbers_in(held["transfer_strategy"]),
        "strategy_verification": numbers_in(held["strategy_verification"]),
        "scratch_baseline": [float(value) for value in scratch[:5, 0]],
        "top_model": [float(value) for value in probabilities["top_model"][:5, 0]],
        "fine_tuned_model": [float(value) for value in probabilities["fine_tuned_model"][:5, 0]],
        "evaluation": [held["evaluation"].summary.metrics[f"{name}_accuracy"] for name in probabilities],
        "champion": numbers_in(held["champion"]),
    }
    return {stage.name: {"recipe": stage.version, "values": found[stage.name]} for stage in STAGES}


def numbers_in(artifact: Artifact) -> list[float]:
    """An artifact's metrics, but for times."""
    return [float(value) for name, value in sorted(artifact.summary.metrics.items()) if "seconds" not in name]


@pytest.fixture
def found(pipeline: Pipeline) -> dict[str, dict]:
    return outputs(pipeline)


def test_output_changes_only_with_its_recipe(found):
    golden = json.loads(GOLDEN.read_text())
    assert set(golden) == set(found)
    for name, each in found.items():
        assert each["recipe"] == golden[name]["recipe"], f"{name}: write the golden values anew (see above)"
        np.testing.assert_allclose(
            each["values"], golden[name]["values"], rtol=1e-2, atol=2e-2, err_msg=f"bump the recipe of {name}"
        )


def main() -> None:
    import os
    import tempfile

    import pandas as pd

    from tests.conftest import copy_photos, elpv

    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        labels = pd.read_csv(elpv() / "labels.csv", sep=r"\s+", names=["image", "probability", "module"])
        os.environ["TL_DAGSTER_STORE"] = str(Path(folder, "store"))
        photos = copy_photos(Path(folder, "photos"), labels, 30)
        values = outputs(Pipeline(ArtifactStore(Path(folder, "store")), instance, photos))
    GOLDEN.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
