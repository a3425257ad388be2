"""Label suspects: held-out predictions, and which labels they contradict."""

import numpy as np

from tl_dagster.training.label_suspects import contradicted, held_out_probabilities


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
    probabilities = held_out_probabilities(features, np.eye(3, dtype=np.float32)[labels], folds, 0.01, 50)
    assert np.allclose(probabilities.sum(1), 1)
    found = contradicted(probabilities, labels)
    assert set(found.tolist()) <= set(range(9)) and len(found) >= 6


def test_predictions_are_held_out():
    """An image alone in its class cannot be predicted by a model that has not seen it."""
    features, labels = clusters(swapped=0)
    labels[0], features[0] = 3, 50
    probabilities = held_out_probabilities(features, np.eye(4, dtype=np.float32)[labels], np.arange(300) % 5, 0.01, 50)
    assert probabilities[0, 3] < 0.05


def test_no_contradiction_no_suspect():
    assert len(contradicted(np.eye(3)[np.arange(30) % 3] * 0.9 + 0.03, np.arange(30) % 3)) == 0
