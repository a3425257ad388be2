"""Metrics against numbers worked out by hand."""

import numpy as np
import pytest

from tl_dagster.evaluation.metrics import (
    calibration,
    calibration_error,
    calibration_error_by_chance,
    confusion,
    measure,
)


def test_by_hand():
    truth = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    found = measure(truth, probabilities)
    assert found["accuracy"] == 0.75
    assert found["top5_error"] is None
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.7]).mean())
    assert found["auc"] == 1
    assert found["ece"] == pytest.approx((0.1 + 0.2 + 0.6 + 0.3) / 4)  # each image has a bin to itself
    assert found["per_class"][1] == {"precision": 0.5, "recall": 1.0, "f1": pytest.approx(2 / 3), "support": 1}
    assert confusion(truth, probabilities).tolist() == [[2, 1], [0, 1]]


def test_calibration_averages_within_bins():
    probabilities = np.array([[0.95, 0.05], [0.99, 0.01], [0.4, 0.6]])
    counts, confidence, accuracy = calibration(np.array([0, 1, 1]), probabilities)
    assert counts[-1] == 2 and counts.sum() == 3
    assert confidence[-1] == pytest.approx(0.97) and accuracy[-1] == 0.5
    assert measure(np.array([0, 1, 1]), probabilities)["ece"] == pytest.approx((2 * 0.47 + 0.4) / 3)


def test_top5():
    probabilities = np.tile(np.array([0.3, 0.2, 0.15, 0.14, 0.11, 0.1]), (6, 1))
    assert measure(np.arange(6), probabilities)["top5_error"] == pytest.approx(1 / 6)
    equal = np.full((6, 6), 1 / 6)
    assert measure(np.arange(6), equal)["top5_error"] == pytest.approx(1 / 6)


@pytest.mark.parametrize("images", [1, 7])
def test_absent_classes_do_not_count(images):
    """The classes that the test images lack have no recall; with them missing there is no AUC."""
    truth = np.zeros(images, dtype=np.int64)
    found = measure(truth, np.tile([0.6, 0.3, 0.1], (images, 1)))
    assert found["accuracy"] == found["balanced_accuracy"] == found["macro_f1"] == 1
    assert found["auc"] is None
    assert [row["support"] for row in found["per_class"]] == [images, 0, 0]


def test_calibration_error_by_chance():
    """Calibrated models stay below it in all but one of twenty test splits; an overconfident one does not."""
    random = np.random.default_rng(0)
    confidence = random.uniform(0.5, 1, 300)
    probabilities = np.stack([confidence, 1 - confidence], 1)
    bound = calibration_error_by_chance(probabilities)
    truths = [(random.random(300) >= confidence).astype(int) for _ in range(200)]
    assert 0.88 < np.mean([calibration_error(truth, probabilities) <= bound for truth in truths]) < 0.99
    overconfident = (random.random(300) >= confidence - 0.2).astype(int)
    assert calibration_error(overconfident, probabilities) > bound
