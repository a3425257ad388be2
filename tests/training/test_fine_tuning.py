"""Fine-tuning starts from the top model, trains the upper part only, and is never worse on validation."""

import json

import dagster as dg
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tl_dagster.backbones.splitting import split_backbone
from tl_dagster.features.backbone_features import BackboneFeatures
from tl_dagster.models.predictions import read_predictions
from tl_dagster.training.fine_tuning import frozen_digest

FP32 = {"backbone": {"precision": "fp32", "image_size": 64, "taps": ["stage4", "stage5"]}}


def described(pipeline, **changes) -> dict:
    assert pipeline.run(upto="fine_tuned_model", **changes).success
    return json.loads((pipeline.held()["fine_tuned_model"].artifact.path / "model.json").read_text())


def tuning(**changes) -> dict:
    return {"fine_tuning": {"epochs": 2, "learning_rate": 1e-3, "depth": "top", **changes}}


def test_cached_and_recomputed_give_the_same_losses(pipeline):
    changes = {**FP32, **tuning()}
    cached = described(pipeline, **changes)
    assert cached["activations"]
    path = pipeline.held()["fine_tuned_model"].artifact.path
    path.rename(path.with_name("moved"))
    recomputed = described(pipeline, **changes, compute={"activation_cache_gb": 0})
    assert recomputed["activations"] is None
    assert recomputed["history"] == cached["history"]
    assert pipeline.held()["fine_tuned_model"].artifact.path == path  # where the frozen part runs is not what it is


def test_a_frozen_part_that_ran_uncompiled_goes_on_so(pipeline, monkeypatch):
    """Compiled, it would end with other last bits."""
    recomputed = {**FP32, **tuning(), "compute": {"activation_cache_gb": 0}}
    undisturbed = described(pipeline, **recomputed)["history"]
    held = pipeline.held()["fine_tuned_model"].artifact
    held.path.rename(held.path.with_name("moved"))

    def no_power(state, *_):
        if len(state.history) > 1:
            raise RuntimeError("no power")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="no power"):
        patched.setattr("tl_dagster.training.loop._should_stop", no_power)
        pipeline.run(upto="fine_tuned_model", **recomputed)
    assert list((pipeline.store.root / "checkpoints").iterdir())
    monkeypatch.setattr(
        "tl_dagster.backbones.inference.InferenceRunner.consider_compiling", lambda *_: pytest.fail("asked again")
    )
    assert described(pipeline, **recomputed)["history"] == undisturbed


@pytest.mark.parametrize("depth", ["top", "last 2 stages", "all"])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_starts_at_the_top_models_loss(pipeline, depth, kind):
    top_model = {"kind": "linear", "l2": [0.1]} if kind == "linear" else {"kind": "mlp", "epochs": 3}
    pipeline.settings["top_model"] = top_model
    found = described(pipeline, **FP32, **tuning(depth=depth, epochs=1))
    top = pipeline.held()["top_model"].artifact.outcome.metrics
    assert found["history"][0]["validation_log_loss"] == pytest.approx(top["validation_log_loss"], rel=2e-3)
    assert found["history"][0]["validation_accuracy"] == pytest.approx(top["validation_accuracy"])
    best = min(found["history"], key=lambda epoch: epoch["validation_log_loss"])
    assert best["epoch"] == found["epoch"]


def test_what_is_frozen_stays_to_the_bit(pipeline):
    found = described(pipeline, **FP32, **tuning(learning_rate=3e-4))
    assert found["epoch"] > 0
    frozen = BackboneFeatures(pipeline.declaration(**FP32), pipeline.store)
    before = split_backbone(frozen, found["taps"], found["frozen_through"]).upper.state_dict()
    after = load_file(pipeline.held()["fine_tuned_model"].artifact.path / "model.safetensors")
    assert not any("running_" in name for name in after)  # batch norm is folded; the lower part is not there at all
    same = {name: torch.equal(value, after[f"upper.{name}"]) for name, value in before.items()}
    assert all(equal for name, equal in same.items() if "conv_dw" in name)
    assert not all(same.values())


class Statistics(torch.nn.Module):
    """A network with what must not change: a frozen layer, and batch norm with statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.norm = torch.nn.Linear(4, 4).requires_grad_(False), torch.nn.BatchNorm1d(4)


def test_a_changed_statistic_is_found():
    model = Statistics()
    before = frozen_digest(model)
    assert frozen_digest(model) == before
    model.norm.running_mean += 1e-6
    assert frozen_digest(model) != before
    model.norm.running_mean.zero_()
    model.norm.weight.data += 1  # trained parameters may change
    assert frozen_digest(model) == before


def test_fresh_views_are_new_in_each_epoch_and_the_same_again(pipeline):
    first = described(pipeline, **tuning(fresh_augmentation=True))
    held = pipeline.held()["fine_tuned_model"].artifact
    held.path.rename(held.path.with_name("moved"))
    assert described(pipeline, **tuning(fresh_augmentation=True))["history"] == first["history"]
    assert described(pipeline, **tuning())["history"][1] != first["history"][1]
    assert first["history"][0]["validation_log_loss"] > 0


@pytest.mark.parametrize(
    "option", [{"mixup": 0.2}, {"label_smoothing": 0.1}, {"optimiser": "sgd"}, {"decay_towards": "pretrained"}]
)
def test_options_change_what_is_trained(pipeline, option):
    plain, other = described(pipeline, **tuning()), described(pipeline, **tuning(**option))
    assert np.isfinite(other["history"][-1]["training_loss"])
    assert other["history"][-1] != plain["history"][-1]
    assert other["history"][0] == plain["history"][0]


def test_lower_stages_learn_more_slowly(pipeline):
    """With a decay of (almost) nothing, only the highest stage moves."""
    found = described(pipeline, **FP32, **tuning(depth="last 2 stages", layer_decay=1e-9, weight_decay=0))
    before = split_backbone(
        BackboneFeatures(pipeline.declaration(**FP32), pipeline.store), found["taps"], found["frozen_through"]
    )
    after = load_file(pipeline.held()["fine_tuned_model"].artifact.path / "model.safetensors")
    moved = {
        name: float((value - after[f"upper.{name}"]).abs().max())
        for name, value in before.upper.state_dict().items()
        if "conv_pw" in name and name.endswith("weight")
    }
    assert max(value for name, value in moved.items() if "blocks.4" in name) < 1e-7
    assert min(value for name, value in moved.items() if "blocks.6" in name) > 1e-5


def test_a_network_that_cannot_be_cut(pipeline, monkeypatch):
    monkeypatch.setattr("tl_dagster.backbones.taps.upper_module", lambda *_: None)
    found = described(pipeline, **FP32, **tuning(epochs=1))
    top = pipeline.held()["top_model"].artifact.outcome.metrics
    assert found["history"][0]["validation_log_loss"] == pytest.approx(top["validation_log_loss"], rel=2e-3)
    assert "cannot be cut" in pipeline.held()["fine_tuned_model"].artifact.outcome.metadata["frozen_part"]


def test_depth_none_hands_the_top_model_on(pipeline):
    found = described(pipeline, fine_tuning={"depth": "none"})
    held = pipeline.held()
    top, tuned = (read_predictions(held[name].artifact.path, "test") for name in ("top_model", "fine_tuned_model"))
    assert (top[2] == tuned[2]).all() and found["epoch"] == 0 and held["fine_tuned_model"].computed == 0


def test_a_top_model_of_other_taps_is_refused(pipeline):
    taps = {"backbone": {"taps": ["lower", "higher"]}}

    def run(strategy, *names):
        changes = {**taps, "fine_tuning": {"depth": "auto"}, "transfer_strategy": {"strategy": strategy}}
        job = pipeline.definitions(**changes).resolve_job_def("cells")
        wanted = [dg.AssetKey(["cells", name]) for name in names]
        return job.execute_in_process(instance=pipeline.instance, asset_selection=wanted)

    run("features-high", "dataset", "augmented_splits", "bottleneck_features", "transfer_strategy", "top_model")
    with pytest.raises(dg.Failure, match="other taps than transfer_strategy says now"):
        run("features-low", "transfer_strategy", "fine_tuned_model")


def test_a_vector_as_boundary(pipeline):
    """The dense layers of AlexNet can be tuned alone."""
    alexnet = {"backbone": {"name": "torchvision/alexnet", "weights": "random:0", "image_size": 64}}
    found = described(pipeline, **alexnet, **tuning(depth="above classifier.1", epochs=1))
    top = pipeline.held()["top_model"].artifact.outcome.metrics
    assert found["history"][0]["validation_log_loss"] == pytest.approx(top["validation_log_loss"], rel=2e-2)


def test_fresh_views_of_other_transforms_are_another_model(pipeline):
    """With one view of each image, the transforms are in no other asset."""
    one = {**tuning(fresh_augmentation=True, epochs=1)}
    before = described(pipeline, **one, augmentation={"views": 1})
    changed = {"views": 1, "transforms": [{"VerticalFlip": {"p": 1.0}}]}
    assert described(pipeline, **one, augmentation=changed)["history"] != before["history"]
