"""Fine-tuning starts from the top model, trains the upper part only, and is never worse on validation."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tl_dagster.features.backbones import tail
from tl_dagster.stages.frozen import Frozen
from tl_dagster.stages.predictions import read_predictions


@pytest.mark.parametrize("gigabytes", [4.0, 0.0], ids=["cached activations", "recomputed"])
def test_cached_and_recomputed(pipeline, gigabytes):
    changes = {
        "compute": {"activation_cache_gb": gigabytes},
        "backbone": {"precision": "fp32", "taps": ["stage4", "stage5"]},
    }
    assert pipeline.run(**changes, fine_tuning={"epochs": 2, "learning_rate": 1e-4}).success
    held = pipeline.held()
    top, tuned = (held[name].artifact for name in ("top_model", "fine_tuned_model"))
    history = json.loads((tuned.path / "model.json").read_text())["history"]
    assert history[0]["validation_accuracy"] == pytest.approx(top.outcome.metrics["validation_accuracy"])
    kept = json.loads((tuned.path / "model.json").read_text())["epoch"]
    assert min(history, key=lambda epoch: epoch["validation_log_loss"])["epoch"] == kept
    assert history[-1]["training_loss"] != history[-2].get("training_loss")
    assert len(history) == 3


def test_first_epoch_gives_the_top_models_predictions(pipeline):
    """With a learning rate of (almost) nothing, what is handed on predicts as the top model does."""
    assert pipeline.run(
        backbone={"precision": "fp32"}, fine_tuning={"learning_rate": 1e-30, "head_learning_rate": 1e-30}
    ).success
    held = pipeline.held()
    top, tuned = (read_predictions(held[name].artifact.path, "test") for name in ("top_model", "fine_tuned_model"))
    assert abs(top[2] - tuned[2]).max() < 1e-2


def test_depthwise_layers_and_statistics_stay(pipeline):
    assert pipeline.run(fine_tuning={"epochs": 2, "learning_rate": 1e-3}).success
    frozen = Frozen(pipeline.declaration(), pipeline.store)
    before = tail(
        frozen.load(), frozen.info.module("stage4"), [(frozen.info.module("penultimate"), "avg")]
    ).state_dict()
    tuned = pipeline.held()["fine_tuned_model"].artifact
    after = load_file(tuned.path / "model.safetensors")
    assert not any("running_" in name for name in after)
    for name, value in before.items():
        same = torch.equal(value, after[f"upper.{name}"])
        if "conv_dw" in name:
            assert same, name
    if json.loads((tuned.path / "model.json").read_text())["epoch"]:
        assert not torch.equal(before["upper.conv_head.weight"], after["upper.upper.conv_head.weight"])
