"""Logistic regression agrees with scikit-learn's, from tensors and from blocks, and validation chooses its L2."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from tl_dagster.features import blocks as module
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.feature_batches import moments
from tl_dagster.training.logistic_regression import fit_logistic_regression
from tl_dagster.training.settings import LinearTopModel
from tl_dagster.training.top_model import LabelledFeatures, fit_top_model

L2 = 0.01


def digits() -> tuple[torch.Tensor, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    mean, std = moments(images)
    return ((torch.from_numpy(images).float() - mean) / std).clamp(-3, 3), labels


def test_agrees_with_scikit_learn(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 100_000)
    features, labels = digits()
    start = torch.zeros(10, features.shape[1] + 1)
    found = fit_logistic_regression(features, torch.eye(10)[labels], L2, start, None, 500)
    reference = LogisticRegression(C=1 / (L2 * len(labels)), max_iter=5000, tol=1e-8).fit(
        features.double().numpy(), labels
    )
    ours = torch.addmm(found[:, -1], features, found[:, :-1].T).softmax(1).numpy()
    assert np.abs(ours - reference.predict_proba(features.double().numpy())).max() < 0.01


def test_class_weights_and_soft_targets_as_torch_computes_them():
    features, labels = digits()
    targets = torch.eye(10)[labels] * 0.9 + 0.01
    class_weights = torch.linspace(0.5, 2, 10)
    found = fit_logistic_regression(features, targets, L2, torch.zeros(10, 65), class_weights, 500).requires_grad_(True)
    logits = torch.addmm(found[:, -1], features, found[:, :-1].T)
    loss = torch.nn.functional.cross_entropy(logits, targets, class_weights) + L2 / 2 * found[:, :-1].square().sum()
    loss.backward()
    assert found.grad.abs().max() < 1e-3


def test_validation_chooses_the_strength():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 30)).astype(np.float32)
    labels = (features[:, 0] + rng.normal(size=400) > 0).astype(np.int64)
    train, validation = (
        LabelledFeatures(features[part], labels[part], np.arange(200)) for part in (slice(200), slice(200, 400))
    )
    found = fit_top_model(train, validation, 2, LinearTopModel(), Progress(print))
    losses = {l2: loss for l2, loss, _ in found.told["path"]}
    assert losses[found.told["l2"]] == min(losses.values()) == found.log_losses[1]  # calibrated
    assert len(losses) == len(LinearTopModel().l2)
