"""Bootstrap intervals against the textbook's, and paired comparisons."""

import numpy as np
import pytest

from tl_dagster.evaluation.bootstrap import compare, intervals, resampled
from tl_dagster.evaluation.metrics import measure


def predictions(count: int, classes: int = 2, seed: int = 0):
    random = np.random.default_rng(seed)
    truth = random.integers(classes, size=count)
    logits = random.normal(size=(count, classes)) + 1.5 * np.eye(classes)[truth]
    return truth, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 7])
def test_draws_surround_what_is_measured(classes):
    truth, probabilities = predictions(400, classes)
    found, draws = measure(truth, probabilities), resampled(truth, probabilities, np.arange(400))
    assert set(draws) == {"accuracy", "balanced_accuracy", "macro_f1", "log_loss", "auc"} | (
        {"top5_error"} if classes > 5 else set()
    )
    for name, (low, high) in intervals(found["accuracy"], draws, 400).items():
        assert low < found[name] < high
        assert abs(draws[name].mean() - found[name]) < 0.1 * (high - low) + 0.005
    error = np.sqrt(found["accuracy"] * (1 - found["accuracy"]) / 400)
    assert draws["accuracy"].std() == pytest.approx(error, rel=0.1)


def test_a_draw_is_the_measure_of_the_images_drawn(monkeypatch):
    """One draw, built image by image."""
    monkeypatch.setattr("tl_dagster.evaluation.bootstrap.RESAMPLES", 1)
    truth, probabilities = predictions(50, 6)
    groups = np.arange(50) // 3
    rows = [row for group in np.random.default_rng(0).integers(17, size=17) for row in np.flatnonzero(groups == group)]
    expected = measure(truth[rows], probabilities[rows])
    for name, values in resampled(truth, probabilities, groups).items():
        assert values[0] == pytest.approx(expected[name])


def test_groups_widen():
    """Ten copies of each image tell no more than one."""
    truth, probabilities = predictions(100)
    once = resampled(truth, probabilities, np.arange(100))["accuracy"].std()
    copies = np.repeat(truth, 10), np.repeat(probabilities, 10, axis=0)
    assert resampled(*copies, np.repeat(np.arange(100), 10))["accuracy"].std() == pytest.approx(once, rel=0.1)
    assert resampled(*copies, np.arange(1000))["accuracy"].std() < 0.5 * once


def test_blocks_change_nothing(monkeypatch):
    truth, probabilities = predictions(60)
    whole = resampled(truth, probabilities, np.arange(60))
    monkeypatch.setattr("tl_dagster.evaluation.bootstrap.BLOCK", 60 * 7)
    for name, values in resampled(truth, probabilities, np.arange(60)).items():
        assert np.allclose(values, whole[name])


def test_nothing_is_certain():
    """Where every image is right the draws know no error; Wilson's interval does."""
    truth, probabilities = np.arange(20) % 2, np.eye(2)[np.arange(20) % 2] * 0.8 + 0.1
    low, high = intervals(1.0, resampled(truth, probabilities, np.arange(20)), 20)["accuracy"]
    assert (low, high) == (pytest.approx(0.8389, abs=1e-3), 1)
    one = intervals(1.0, resampled(truth[:1], probabilities[:1], np.zeros(1)), 1)
    assert set(one) == {"accuracy"} and one["accuracy"][0] < 0.3


def test_mcnemar_by_hand():
    truth = np.zeros(20, dtype=np.int64)
    right = np.ones(20, bool), np.arange(20) >= 6
    shares = [np.where(each[:, None], [0.9, 0.1], [0.1, 0.9]) for each in right]
    draws = tuple(resampled(truth, each, np.arange(20)) for each in shares)
    found = compare(right, draws)
    assert (found["only_first"], found["only_second"], found["difference"]) == (6, 0, 0.3)
    assert found["p_value"] == pytest.approx(2 / 2**6)
    assert 0 < found["low"] < 0.3 < found["high"]
    assert compare((right[0], right[0]), (draws[0], draws[0]))["p_value"] == 1
