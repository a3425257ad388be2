"""The baseline without transfer: what it writes, and what it depends on."""

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import Pipeline
from tl_dagster.backbones.description import describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.data.splits import read_views
from tl_dagster.graph.stage import StageContext
from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
from tl_dagster.graph.stages.dataset import Dataset
from tl_dagster.graph.stages.scratch_baseline import ScratchBaseline
from tl_dagster.models.predictions import read_predictions
from tl_dagster.models.scratch_networks import UntrainedBackbone
from tl_dagster.runtime.progress import Progress
from tl_dagster.store.artifacts import Materialization

SMALL = {"architectures": ["convnet", "backbone"], "image_size": 48, "epochs": 2, "batch_size": 8}


def run(pipeline: Pipeline, **changes) -> tuple[ScratchBaseline, StageContext, Materialization]:
    declaration = pipeline.declaration(**{"scratch_baseline": SMALL, **changes})
    inputs = {}
    for kind in (Dataset, AugmentedSplits, ScratchBaseline):
        stage = kind(declaration, pipeline.store.root.parent)
        work = StageContext(pipeline.store, inputs, Progress(print), None)
        held = stage.run(work)
        inputs = {**inputs, stage.name: held.artifact}
    return stage, work, held


def test_each_network_has_its_predictions_and_is_told_of(pipeline):
    _, work, held = run(pipeline)
    table = read_views(work.inputs["augmented_splits"].path)
    told = json.loads((held.artifact.path / "scratch.json").read_text())
    assert {name: each["parameters"] for name, each in told.items()} == {"convnet": 94_370, "backbone": 3_373_570}
    for name, each in told.items():
        rows, truth, probabilities, classes = read_predictions(held.artifact.path / name, "test")
        assert set(rows["id"]) == set(table[table["split"] == "test"]["id"])
        assert probabilities.shape == (len(truth), 2) and classes == ["defective", "functional"]
        assert (held.artifact.path / name / "model.safetensors").exists()
        assert len(each["history"]) == 2
        lowest = min(each["history"], key=lambda row: row["validation_log_loss"])
        assert each["epoch"] == lowest["epoch"]
        metrics = held.artifact.summary.metrics
        assert metrics[f"{name}_validation_accuracy"] == pytest.approx(lowest["validation_accuracy"])
        assert metrics[f"{name}_seconds"] == pytest.approx(each["seconds"], abs=0.1)
    (picture,) = held.artifact.summary.figures.values()
    assert (held.artifact.path / picture).stat().st_size < 70_000
    assert not list((pipeline.store.root / "checkpoints").glob("*"))
    assert run(pipeline)[2].reused
    before = sorted((pipeline.store.root / "artifacts" / "scratch_network").iterdir())
    alone = run(pipeline, scratch_baseline={**SMALL, "architectures": ["convnet"]})[2]  # trained already
    assert alone.computed == 0 and before == sorted((pipeline.store.root / "artifacts" / "scratch_network").iterdir())


def test_killed_between_two_networks(pipeline, tmp_path, monkeypatch):
    """The first is not trained again, and the artifact is that of an undisturbed run."""
    module = "tl_dagster.training.scratch_model.UntrainedBackbone"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module, killed)
        run(pipeline)
    assert len(list((pipeline.store.root / "artifacts" / "scratch_network").iterdir())) == 1
    resumed = run(pipeline)[2].artifact.path
    other = Pipeline(
        type(pipeline.store)(tmp_path / "other"), pipeline.instance, Path(pipeline.settings["source"]["path"])
    )
    undisturbed = run(other)[2].artifact.path
    for file in ("convnet/model.safetensors", "backbone/model.safetensors", "backbone/predictions.parquet"):
        assert (resumed / file).read_bytes() == (undisturbed / file).read_bytes()


def test_what_it_depends_on(pipeline):
    def version(**changes) -> str:
        declaration = pipeline.declaration(**{"scratch_baseline": {"epochs": 3}, **changes})
        return ScratchBaseline(declaration, pipeline.store.root).code_version()

    own, both = version(), {"scratch_baseline": {"epochs": 3, "architectures": ["convnet", "backbone"]}}
    assert version(scratch_baseline={"epochs": 4}) != own
    assert version(augmentation={"seed": 1}) != own
    assert version(backbone={"resize": "squash"}) != own
    assert version(backbone={"image_size": 96, "weights": "random:0", "taps": ["stage2"]}) == own
    assert version(top_model={"l2": [1.0]}, augmentation={"views": 5}) == own
    assert version(**both) != own
    assert version(**both, backbone={"image_size": 96}) != version(**both)


@pytest.mark.parametrize("name", ["torchvision/googlenet", "torchvision/squeezenet1_1", "timm/vit_tiny_patch16_224"])
def test_architectures_with_more_outputs_or_no_dense_layer(store, name):
    size = 224 if "vit" in name else 64
    info = describe_backbone(Backbone(name=name, image_size=size))
    model = UntrainedBackbone(info, size, 3).train()
    logits = model(torch.zeros(2, 3, size, size))
    logits.square().sum().backward()
    assert logits.shape == (2, 3) and model.head.weight.grad is not None
