"""Logistic regression agrees with scikit-learn's; validation chooses its L2, beyond the edge of the grid too."""

import numpy as np
import pytest
import torch
from sklearn import linear_model
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler

from tl_dagster.features import blocks as module
from tl_dagster.models.calibration import Score
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.cross_validation import held_out_probabilities
from tl_dagster.training.feature_batches import LabelledFeatures, Targets, standardize
from tl_dagster.training.logistic_regression import LogisticRegression, fit_l2_path
from tl_dagster.training.settings import LinearTopModel
from tl_dagster.training.top_model import fit_top_model

L2 = 0.01


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Digits without the pixels that hardly vary, for which the standardizations differ."""
    images, labels = load_digits(return_X_y=True)
    return images[:, images.std(0) > 0.1].astype(np.float32), labels


def test_agrees_with_scikit_learn(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 100_000)
    features, labels = digits()
    ours = LogisticRegression(L2, 500).fit(features, torch.eye(10)[labels]).predict_logits(features)
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    reference = linear_model.LogisticRegression(C=1 / (L2 * len(labels)), max_iter=5000, tol=1e-8).fit(scaled, labels)
    assert np.abs(torch.from_numpy(ours).softmax(1).numpy() - reference.predict_proba(scaled)).max() < 0.01


def test_class_weights_and_soft_targets_as_torch_computes_them():
    features, labels = digits()
    targets = torch.eye(10)[labels] * 0.9 + 0.01
    class_weights = torch.linspace(0.5, 2, 10)
    model = LogisticRegression(L2, 500, class_weights).fit(features, targets)
    parameters = model.parameters.requires_grad_(True)
    logits = torch.addmm(parameters[:, -1], standardize(features)[:], parameters[:, :-1].T)
    loss = torch.nn.functional.cross_entropy(logits, targets, class_weights)
    (loss + L2 / 2 * parameters[:, :-1].square().sum()).backward()
    assert parameters.grad.abs().max() < 1e-3


def test_noise_in_a_nearly_constant_feature_is_not_blown_up():
    """Of the probes and label suspects as of the top model: such a feature is not divided by its deviation."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = rng.normal(size=(200, 3)) + 2 * labels[:, None]
    leaking = np.concatenate([features, 2e-4 * labels[:, None]], axis=1)
    targets, folds = np.eye(2, dtype=np.float32)[labels], np.arange(200) // 2 % 5
    without, with_it = (held_out_probabilities(rows, targets, folds, [0.01], 50)[0] for rows in (features, leaking))
    assert np.abs(without - with_it).max() < 0.01


def views(noise: float) -> tuple[LabelledFeatures, LabelledFeatures]:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 30)).astype(np.float32)
    labels = (features[:, 0] + noise * rng.normal(size=400) > 0).astype(np.int64)
    parts = slice(200), slice(200, 400)
    return tuple(LabelledFeatures(features[part], labels[part], np.arange(200)) for part in parts)


def test_validation_chooses_the_strength():
    lines: list[str] = []
    found = fit_top_model(*views(noise=1), 2, LinearTopModel(), Progress(lines.append))
    losses = {l2: loss for l2, loss, _ in found.metadata["path"]}
    chosen = found.metadata["l2"]
    assert losses[chosen] == min(losses.values()) == found.log_losses[1]  # calibrated
    assert list(losses) == LinearTopModel().l2  # 0.1 is the best: inside the grid, so nothing is tried beyond it
    assert f"chosen: l2 {chosen:g}" in lines[-2]


@pytest.mark.parametrize(("noise", "grid"), [(1.0, [0.003, 0.001]), (0.0, [30.0, 10.0])])
def test_the_search_goes_on_beyond_the_edge(noise, grid):
    found = fit_top_model(*views(noise), 2, LinearTopModel(l2=grid), Progress(print))
    strengths, losses, _ = zip(*found.metadata["path"], strict=True)
    assert list(strengths) == sorted(strengths, reverse=True) and set(grid) < set(strengths)
    assert losses[strengths.index(found.metadata["l2"])] == min(losses)
    assert found.metadata["l2"] not in grid


def test_a_single_strength_is_taken():
    found = fit_top_model(*views(noise=1), 2, LinearTopModel(l2=[30.0]), Progress(print))
    assert [l2 for l2, *_ in found.metadata["path"]] == [30.0] == [found.metadata["l2"]]


@pytest.mark.parametrize(("better", "last"), [(-1, 1e-6), (1, 1e3)])
def test_the_search_is_bounded(better, last):
    """With a loss that falls forever."""
    strengths: list[float] = []

    def score(network: torch.nn.Module) -> Score:
        norm = float(network.output.weight.detach().norm())
        strengths.append(norm)
        return Score(better * norm, 0.5)

    train = views(noise=0)[0]
    targets = Targets(train.labels, None, 2)
    grid = LinearTopModel(l2=[1e-4, 1e-5] if better < 0 else [100, 10])
    _, metadata = fit_l2_path(standardize(train.features), targets, None, score, grid, Progress(print))
    assert metadata["l2"] == last and len(strengths) == 3
