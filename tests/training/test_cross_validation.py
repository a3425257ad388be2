"""All folds in one search give what a logistic regression for each fold gives."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.datasets import load_digits

import tl_dagster.features.blocks as module
from tl_dagster.training.cross_validation import cross_validate, held_out_probabilities, spread_folds
from tl_dagster.training.logistic_regression import LogisticRegression


@pytest.mark.parametrize("l2", [0.1, 0.01])
def test_as_each_fold_by_itself(monkeypatch, l2):
    monkeypatch.setattr(module, "BLOCK_BYTES", 50_000)
    features, labels = load_digits(return_X_y=True)
    features = features.astype(np.float32)  # with pixels that never vary in some folds
    targets, folds = np.eye(10, dtype=np.float32)[labels], np.arange(len(labels)) % 3
    together = held_out_probabilities(features, targets, folds, [1.0, l2], 300)[1]
    for fold in range(3):
        others, own = folds != fold, folds == fold
        model = LogisticRegression(l2, 300).fit(features[others], torch.from_numpy(targets[others]))
        assert np.abs(softmax(model.predict_logits(features[own]), axis=1) - together[own]).max() < 0.01


def test_the_strength_of_least_log_loss_is_chosen():
    random = np.random.default_rng(0)
    labels = random.integers(2, size=300)
    features = random.normal(size=(300, 200)).astype(np.float32)
    features[:, 0] += labels
    folds = spread_folds(labels, np.arange(300), 5)
    chosen = cross_validate(features, labels, folds, [10.0, 1.0, 0.001], 100)
    each = [cross_validate(features, labels, folds, [l2], 100) for l2 in (10.0, 1.0, 0.001)]
    assert chosen.losses.mean() == pytest.approx(min(one.losses.mean() for one in each), abs=1e-3)
    assert chosen.l2 != 0.001  # which overfits noise of 200 features


def test_groups_stay_whole_and_a_class_of_one_image_is_left_out():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2])
    groups = np.array([*"aabbccdd", "e"])
    folds = spread_folds(labels, groups, 2)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    found = cross_validate(np.eye(9, dtype=np.float32), labels, folds, [0.1], 20)
    assert list(found.known) == [*range(8)] and np.isnan(found.probabilities[8]).all()
