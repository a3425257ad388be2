"""The evaluation of a real pipeline: what it measures, draws and says."""

import json

import pandas as pd
import pytest

from tests.conftest import Pipeline
from tl_dagster.graph.stage import StageContext
from tl_dagster.graph.stages.evaluation import Evaluation
from tl_dagster.runtime.progress import Progress

TITLES = {
    "Confusion matrices",
    "Reliability",
    "ROC curves",
    "Learning curves",
    "Accuracy against training images",
    "Worst mistakes",
}


def held(pipeline: Pipeline):
    return pipeline.store.get_current("cells", "evaluation").artifact


@pytest.fixture(autouse=True)
def mislabelled(photos):
    """Every fourth functional cell lies in the wrong folder, so that every model makes mistakes."""
    for photo in sorted((photos / "functional").iterdir())[::4]:
        photo.rename(photos / "defective" / photo.name)


def test_every_model_is_measured_and_drawn(pipeline: Pipeline):
    assert pipeline.run(scratch_baseline={"epochs": 1, "image_size": 32}).success
    artifact = held(pipeline)
    found = json.loads((artifact.path / "metrics.json").read_text())
    assert list(found["models"]) == ["scratch_convnet", "top_model", "fine_tuned_model"]
    for name, model in found["models"].items():
        predictions = pd.read_parquet(_predictions(pipeline, name))
        test = predictions[predictions["split"] == "test"]
        assert model["accuracy"] == pytest.approx((test["label"] == test["predicted"]).mean())
        low, high = model["intervals"]["accuracy"]
        assert low <= model["accuracy"] <= high and low < high
        assert sum(images for _, _, images in model["confusion"]) == found["images"] == len(test)
        assert artifact.summary.metrics[f"{name}_accuracy_low"] == low
    assert [point["fraction"] for point in found["learning_curve"]][-1] == 1
    assert len(found["comparisons"]) == 3
    assert set(artifact.summary.figures) >= TITLES
    for file in artifact.summary.figures.values():
        assert (artifact.path / file).stat().st_size < 75_000
    report = pipeline.store.layout.report("cells", artifact.fingerprint).read_text()
    assert "convnet from scratch" in report and "Grad-CAM" in report and "McNemar" in report


def test_an_image_that_is_gone_is_no_failure(pipeline: Pipeline, photos):
    assert pipeline.run().success
    before = held(pipeline)
    for photo in list(photos.rglob("*.png"))[::2]:
        photo.unlink()
    pipeline.store.root.joinpath("artifacts/evaluation", before.fingerprint).rename(pipeline.store.root / "before")
    stage = Evaluation(pipeline.declaration(), pipeline.store.root.parent)
    inputs = {name: pipeline.store.get_current("cells", name).artifact for name in stage.inputs}
    again = stage.run(StageContext(pipeline.store, inputs, Progress(lambda line: None), None)).artifact
    assert again.summary.metrics == before.summary.metrics
    assert "Worst mistakes" in again.summary.figures


def _predictions(pipeline: Pipeline, name: str):
    scratch = name.startswith("scratch_")
    path = pipeline.store.get_current("cells", "scratch_baseline" if scratch else name).artifact.path
    return (path / "convnet" if scratch else path) / "predictions.parquet"
