"""Fine-tuning starts from the top model, trains the upper part only, and is never worse on validation."""

import dagster as dg
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import softmax

from tests.conftest import POOR
from tl_dagster.backbones.splitting import split_backbone
from tl_dagster.models.calibration import calibrated_score, temperature, validate
from tl_dagster.models.networks import build_tuned_network
from tl_dagster.models.predictions import read_predictions
from tl_dagster.models.spec import ModelSpec, read_spec
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.feature_batches import Targets
from tl_dagster.training.fine_tuning import FineTuningData, fine_tune, frozen_digest, predict
from tl_dagster.training.settings import ResolvedFineTuning

FP32 = {"backbone": {"precision": "fp32", "image_size": 64, "taps": ["stage4", "stage5"]}}


def described(pipeline, **changes) -> ModelSpec:
    assert pipeline.run(upto="fine_tuned_model", **changes).success
    return read_spec(pipeline.held()["fine_tuned_model"].artifact.path)


def untuned(pipeline, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """The upper part as fine-tuning begins."""
    features = pipeline.engine(**FP32).features
    taps = [(tap.module, tap.pooling) for tap in spec.taps]
    return split_backbone(features.backbone, features.load(), taps, spec.frozen_through).upper.state_dict()


def tuning(**changes) -> dict:
    return {"fine_tuning": {"epochs": 2, "learning_rate": 1e-3, "depth": "top", **changes}}


def test_cached_and_recomputed_give_the_same_losses(pipeline):
    changes = {**FP32, **tuning()}
    cached = described(pipeline, **changes)
    assert cached.training.activations
    path = pipeline.held()["fine_tuned_model"].artifact.path
    path.rename(path.with_name("moved"))
    recomputed = described(pipeline, **changes, compute={"activation_cache_gb": 0})
    assert recomputed.training.activations is None
    assert recomputed.training.history == cached.training.history
    assert pipeline.held()["fine_tuned_model"].artifact.path == path  # where the frozen part runs is not what it is


def test_a_frozen_part_that_ran_uncompiled_goes_on_so(pipeline, monkeypatch):
    """Compiled, it would end with other last bits."""
    recomputed = {**FP32, **tuning(), "compute": {"activation_cache_gb": 0}}
    undisturbed = described(pipeline, **recomputed).training.history
    held = pipeline.held()["fine_tuned_model"].artifact
    held.path.rename(held.path.with_name("moved"))

    def no_power(state, *_):
        if len(state.history) > 1:
            raise RuntimeError("no power")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="no power"):
        patched.setattr("tl_dagster.training.loop._should_stop", no_power)
        pipeline.run(upto="fine_tuned_model", **recomputed)
    assert list(pipeline.store.layout.checkpoints.iterdir())
    monkeypatch.setattr(
        "tl_dagster.backbones.inference.InferenceRunner.consider_compiling", lambda *_: pytest.fail("asked again")
    )
    assert described(pipeline, **recomputed).training.history == undisturbed


@pytest.mark.parametrize("depth", ["top", "last 2 stages", "all"])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_starts_at_the_top_models_loss(pipeline, depth, kind):
    top_model = {"kind": "linear", "l2": [0.1]} if kind == "linear" else {"kind": "mlp", "epochs": 3}
    pipeline.settings["top_model"] = top_model
    found = described(pipeline, **FP32, **standstill(depth))
    first, then = found.training.history
    assert then["validation_log_loss"] == pytest.approx(first["validation_log_loss"], rel=2e-3)
    assert then["validation_accuracy"] == pytest.approx(first["validation_accuracy"])


def standstill(depth: str) -> dict:
    """Settings that train nothing: epoch 1 is the network as training starts from it."""
    return tuning(depth=depth, epochs=1, learning_rate=1e-12, head_learning_rate=1e-12, weight_decay=0)


def test_the_top_model_itself_is_a_candidate_and_is_never_worse(pipeline):
    """Not its weights on the network's own path, where bf16 gives other predictions."""
    bf16 = {"backbone": {**FP32["backbone"], "precision": "bf16"}}
    for rate in (1e-12, 1e-3, 0.1):  # hardly trained, trained, spoilt
        found = described(pipeline, **bf16, **tuning(depth="all", learning_rate=rate, epochs=1)).training
        held = pipeline.held()
        top, tuned = (held[name].artifact for name in ("top_model", "fine_tuned_model"))
        for name in ("validation_log_loss", "validation_accuracy"):
            assert found.history[0][name] == top.summary.metrics[name]
            assert found.history[found.epoch][name] == pytest.approx(tuned.summary.metrics[name], rel=1e-5)
        assert tuned.summary.metrics["validation_log_loss"] <= top.summary.metrics["validation_log_loss"]
        same = (top.path / "predictions.parquet").read_bytes() == (tuned.path / "predictions.parquet").read_bytes()
        assert same == (found.epoch == 0)
    assert same


class Upper(torch.nn.Module):
    """A trained layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)
        torch.nn.init.eye_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)

    def forward(self, inputs: torch.Tensor) -> list[torch.Tensor]:
        """Return its features."""
        return [self.layer(inputs)]


def test_less_sure_and_more_accurate_epochs_win():
    """Label smoothing leaves a network less sure than it is right, and the top model is calibrated."""
    random = np.random.default_rng(0)
    values = torch.from_numpy(random.normal(size=(400, 8))).float()
    true, rows = random.normal(size=(3, 8)), np.arange(400)
    labels = (values.numpy() @ true.T).argmax(1)
    weight = torch.from_numpy(true + random.normal(size=(3, 8))).float()
    head = {"mean": torch.zeros(8), "std": torch.ones(8), "output.weight": weight, "output.bias": torch.zeros(3)}
    model = build_tuned_network(Upper(), head, [False] * 8)

    def inputs(rows, size, epoch):
        for start in range(0, len(rows), size):
            chosen = values[rows[start : start + size]]
            yield chosen, torch.zeros(len(chosen), 0)

    targets = Targets(labels, None, 3)
    data = FineTuningData(inputs, rows[:200, None], rows[200:], np.arange(200), labels, targets)
    rates = {"learning_rate": 0.02, "head_learning_rate": 0.02}
    settings = ResolvedFineTuning(depth="top", epochs=5, label_smoothing=0.7, averaging=0, batch_size=20, **rates)
    start = calibrated_score(predict(model, inputs, rows[200:], "fp32").numpy(), labels[200:], np.arange(200))
    depths = {name: 0 for name, _ in model.upper.named_parameters()}
    found = fine_tune(model, data, settings, depths, "fp32", start, Progress(print))
    assert found.epoch > 0 and found.score.accuracy > start.accuracy + 0.05 and found.score.temperature < 0.9
    logits = predict(model, inputs, rows[200:], "fp32").numpy()
    loss, accuracy = validate(softmax(logits, 1), labels[200:], np.arange(200))
    assert loss == pytest.approx(found.score.log_loss, rel=1e-5) and accuracy == found.score.accuracy
    assert temperature(logits, labels[200:], np.arange(200)) == pytest.approx(1, rel=1e-2)
    unsure = logits * found.score.temperature
    assert validate(softmax(unsure, 1), labels[200:], np.arange(200))[0] > start.log_loss  # so it would have lost


def test_what_is_frozen_stays_to_the_bit(pipeline):
    found = described(pipeline, **FP32, **POOR, **tuning(learning_rate=3e-4))
    assert found.training.epoch > 0
    before = untuned(pipeline, found)
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
    assert described(pipeline, **tuning(fresh_augmentation=True)).training.history == first.training.history
    assert described(pipeline, **tuning()).training.history[1] != first.training.history[1]
    assert first.training.history[0]["validation_log_loss"] > 0


@pytest.mark.parametrize(
    "option", [{"mixup": 0.2}, {"label_smoothing": 0.1}, {"optimiser": "sgd"}, {"decay_towards": "pretrained"}]
)
def test_options_change_what_is_trained(pipeline, option):
    plain, other = described(pipeline, **tuning()), described(pipeline, **tuning(**option))
    assert np.isfinite(other.training.history[-1]["training_loss"])
    assert other.training.history[-1] != plain.training.history[-1]
    assert other.training.history[0] == plain.training.history[0]


def test_lower_stages_learn_more_slowly(pipeline):
    """With a decay of (almost) nothing, only the highest stage moves."""
    found = described(pipeline, **FP32, **POOR, **tuning(depth="last 2 stages", layer_decay=1e-9, weight_decay=0))
    assert found.training.epoch > 0
    before = untuned(pipeline, found)
    after = load_file(pipeline.held()["fine_tuned_model"].artifact.path / "model.safetensors")
    moved = {
        name: float((value - after[f"upper.{name}"]).abs().max())
        for name, value in before.items()
        if "conv_pw" in name and name.endswith("weight")
    }
    assert max(value for name, value in moved.items() if "blocks.4" in name) < 1e-7
    assert min(value for name, value in moved.items() if "blocks.6" in name) > 1e-5


def test_a_network_that_cannot_be_cut(pipeline, monkeypatch):
    monkeypatch.setattr("tl_dagster.backbones.splitting.upper_module", lambda *_: None)
    first, then = described(pipeline, **FP32, **standstill("top")).training.history
    assert then["validation_log_loss"] == pytest.approx(first["validation_log_loss"], rel=2e-3)
    assert "cannot be cut" in pipeline.held()["fine_tuned_model"].artifact.summary.metadata["frozen_part"]


def test_depth_none_hands_the_top_model_on(pipeline):
    found = described(pipeline, fine_tuning={"depth": "none"})
    held = pipeline.held()
    top, tuned = (read_predictions(held[name].artifact.path, "test") for name in ("top_model", "fine_tuned_model"))
    assert (top[2] == tuned[2]).all() and found.training.epoch == 0 and held["fine_tuned_model"].computed == 0


def test_a_top_model_of_other_taps_is_refused(pipeline):
    taps = {"backbone": {"taps": ["lower", "higher"]}}

    def run(strategy, *names):
        changes = {**taps, "fine_tuning": {"depth": "auto"}, "transfer_strategy": {"strategy": strategy}}
        job = pipeline.definitions(**changes).resolve_job_def("cells")
        wanted = [dg.AssetKey(["cells", name]) for name in names]
        return job.execute_in_process(instance=pipeline.instance, asset_selection=wanted)

    run("features-high", "dataset", "augmented_splits", "bottleneck_features", "transfer_strategy", "top_model")
    with pytest.raises(dg.Failure, match="other taps than transfer_strategy has chosen"):
        run("features-low", "transfer_strategy", "fine_tuned_model")


def test_a_vector_as_boundary(pipeline):
    """The dense layers of AlexNet can be tuned alone."""
    alexnet = {"backbone": {"name": "torchvision/alexnet", "weights": "random:0", "image_size": 64}}
    first, then = described(pipeline, **alexnet, **standstill("above classifier.1")).training.history
    assert then["validation_log_loss"] == pytest.approx(first["validation_log_loss"], rel=2e-2)


def test_fresh_views_of_other_transforms_are_another_model(pipeline):
    """With one view of each image, the transforms are in no other asset."""
    one = {**tuning(fresh_augmentation=True, epochs=1)}
    before = described(pipeline, **one, augmentation={"views": 1})
    changed = {"views": 1, "transforms": [{"VerticalFlip": {"p": 1.0}}]}
    assert described(pipeline, **one, augmentation=changed).training.history != before.training.history
