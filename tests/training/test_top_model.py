"""The top model agrees with scikit-learn's logistic regression."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from tl_dagster.spec import TopModel
from tl_dagster.training.top_model import fit


def test_agrees_with_scikit_learn():
    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.float32)
    train, held_out = slice(0, 1200), slice(1200, None)
    l2 = 0.01
    settings = TopModel(l2=[l2], max_iterations=500)
    number = np.arange(len(labels[held_out]))
    found = fit(
        (images[train], np.eye(10, dtype=np.float32)[labels[train]]),
        (images[held_out], labels[held_out], number),
        settings,
    )
    mean, std = found.mean.numpy(), found.std.numpy()
    reference = LogisticRegression(C=1 / (l2 * 1200), max_iter=5000).fit((images[train] - mean) / std, labels[train])
    logits = (images[held_out] - mean) / std @ found.weight.numpy().T + found.bias.numpy()
    expected = reference.predict_proba((images[held_out] - mean) / std)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.abs(probabilities - expected).max() < 0.02


def test_validation_chooses_the_strength():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 30)).astype(np.float32)
    labels = (features[:, 0] + rng.normal(size=400) > 0).astype(np.int64)
    targets = np.eye(2, dtype=np.float32)[labels]
    found = fit((features[:200], targets[:200]), (features[200:], labels[200:], np.arange(200)), TopModel())
    losses = {l2: loss for l2, loss, _ in found.path}
    assert losses[found.l2] == min(losses.values())
    assert len(losses) == len(TopModel().l2)
