"""The top model: both kinds, calibrated, the same from memory and from the disk."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits

from tl_dagster.features import blocks as module
from tl_dagster.models.heads import build_head, compute_logits
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.feature_batches import LabelledFeatures
from tl_dagster.training.settings import LinearTopModel, MlpTopModel
from tl_dagster.training.top_model import balanced_class_weights, fit_top_model

SETTINGS = {
    "linear": LinearTopModel(l2=[0.1, 0.01]),
    "mlp": MlpTopModel(kind="mlp", hidden=32, epochs=5, batch_size=64, learning_rate=0.01),
}
each_kind = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


def digits() -> tuple[LabelledFeatures, LabelledFeatures]:
    images, labels = load_digits(return_X_y=True)
    features = images.astype(np.float16)
    return tuple(
        LabelledFeatures(features[part], labels[part], np.arange(len(labels[part])))
        for part in (slice(0, 1200), slice(1200, None))
    )


def fitted(settings, train=None, validation=None, classes=10, **more):
    views = digits()
    return fit_top_model(train or views[0], validation or views[1], classes, settings, Progress(print), **more)


@each_kind
def test_learns_digits(settings):
    found = fitted(settings)
    validation = digits()[1]
    logits = compute_logits(build_head(found.state), validation.features, 10)
    assert (logits.argmax(1) == validation.labels).mean() > 0.88
    loss = torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(validation.labels))
    assert loss.item() == pytest.approx(found.log_losses[1], rel=1e-4)  # so the temperature is in the state


@each_kind
def test_reading_from_the_disk_gives_the_same_bits(settings, monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 100_000)
    in_memory, streamed = fitted(settings), fitted(settings, memory=0)
    for name, value in in_memory.state.items():
        assert torch.equal(value, streamed.state[name]), name


def test_size_of_blocks_hardly_matters(monkeypatch):
    whole = fitted(SETTINGS["linear"])
    monkeypatch.setattr(module, "BLOCK_BYTES", 10_000)
    parts = fitted(SETTINGS["linear"])
    assert (whole.state["output.weight"] - parts.state["output.weight"]).abs().max() < 1e-2
    assert whole.log_losses == pytest.approx(parts.log_losses, rel=1e-2)


@each_kind
def test_classifier_round_trip(settings, tmp_path):
    found = fitted(settings)
    save_file(found.state, tmp_path / "model.safetensors")
    module = build_head(load_file(tmp_path / "model.safetensors"))
    assert not module.training and all(parameter.requires_grad for parameter in module.parameters())
    assert set(module.state_dict()) == set(found.state)
    assert all(torch.equal(value, found.state[name]) for name, value in module.state_dict().items())


@each_kind
def test_a_thousand_classes_of_one_image(settings):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(1000, 8)).astype(np.float16)
    train = LabelledFeatures(features, np.arange(1000), np.arange(1000))
    validation = LabelledFeatures(features[:5], np.arange(5), np.array([0, 0, 1, 1, 2]))
    quick = settings.model_copy(update={"balanced": True, "max_iterations": 3, "epochs": 2})
    found = fitted(quick, train, validation, classes=1001)  # and one without images
    assert all(value.isfinite().all() for value in found.state.values())


@each_kind
def test_balanced_serves_the_small_class(settings):
    rng = np.random.default_rng(0)
    labels = (np.arange(2000) % 20 == 0).astype(np.int64)
    features = (rng.normal(size=(2000, 4)) + labels[:, None]).astype(np.float32)
    views = LabelledFeatures(features, labels, np.arange(2000))

    def recall(settings) -> float:
        logits = compute_logits(build_head(fitted(settings, views, views, classes=2).state), features, 2)
        return (logits.argmax(1) == labels)[labels == 1].mean()

    assert recall(settings.model_copy(update={"balanced": True})) > recall(settings) + 0.2


def test_class_weights():
    weights = balanced_class_weights(np.array([0, 0, 0, 2]), 4)
    assert weights.tolist() == pytest.approx([4 / 6, 1, 2, 1])


def test_a_nan_loss_names_the_learning_rate():
    train = digits()[0]
    wrong = LabelledFeatures(train.features.astype(np.float32) * np.float32(np.nan), train.labels, train.images)
    with pytest.raises(InputError, match=r"top_model\.learning_rate"):
        fitted(SETTINGS["mlp"], wrong)
