"""Label suspects: held-out predictions, and which labels they contradict."""

import numpy as np

from tl_dagster.evaluation.label_suspects import contradicted
from tl_dagster.training.cross_validation import held_out_probabilities


def clusters(swapped: int):
    random = np.random.default_rng(0)
    truth = np.arange(300) % 3
    features = (np.eye(3)[truth] * 4 + random.normal(size=(300, 3))).astype(np.float32)
    labels = truth.copy()
    labels[:swapped] = (labels[:swapped] + 1) % 3
    return features, labels


def test_swapped_labels_are_found_and_no_others():
    features, labels = clusters(swapped=9)
    folds = np.arange(300) // 7 % 5
    probabilities = held_out_probabilities(features, np.eye(3, dtype=np.float32)[labels], folds, [0.01], 50)[0]
    assert np.allclose(probabilities.sum(1), 1)
    found = contradicted(probabilities, labels)
    assert set(found.tolist()) <= set(range(9)) and len(found) >= 6


def test_predictions_are_held_out():
    """Two images that have a class to themselves are predicted from one of them at most."""
    features, labels = clusters(swapped=0)
    labels[:2], features[:2] = 3, 50
    targets = np.eye(4, dtype=np.float32)[labels]
    apart = held_out_probabilities(features, targets, np.arange(300) % 5, [0.01], 50)[0]
    assert (apart[:2, 3] > 0.5).all()
    together = held_out_probabilities(features, targets, np.arange(300) // 2 % 5, [0.01], 50)[0]
    assert np.isnan(together[:2]).all() and not np.isnan(together[2:]).any()
    assert not {0, 1} & set(contradicted(together, labels).tolist())


def test_one_fold_says_nothing():
    features, labels = clusters(swapped=0)
    folds = np.zeros(300)
    folds[0] = 1
    probabilities = held_out_probabilities(features, np.eye(3, dtype=np.float32)[labels], folds, [0.01], 50)[0]
    assert np.isnan(probabilities).sum() >= 3 * 200


def test_no_contradiction_no_suspect():
    assert len(contradicted(np.eye(3)[np.arange(30) % 3] * 0.9 + 0.03, np.arange(30) % 3)) == 0
