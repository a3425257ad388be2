"""Intervals for many models at once: they hold together, and name those that may be the best."""

import numpy as np
import pytest

from tl_dagster.evaluation.simultaneous import compare_all


def draw(random: np.random.Generator, truth: list[float], images: int) -> np.ndarray:
    """Which images models predict rightly: correlated, as those of models on the same images are."""
    hard = random.normal(size=images)
    noise = random.normal(size=(len(truth), images))
    score = 0.8 * hard + 0.6 * noise
    return np.array([each < np.quantile(score.ravel(), share) for each, share in zip(score, truth, strict=True)])


def test_all_intervals_hold_together():
    random = np.random.default_rng(0)
    truth = [0.8] * 12
    together = best = 0
    for _ in range(60):
        found = compare_all(draw(random, truth, 400), np.arange(400))
        inside = (found.interval[:, 0] <= 0.8) & (found.interval[:, 1] >= 0.8)
        together += inside.all()
        best += found.may_be_best.all()  # none is better
    assert together >= 51  # of 60 at 0.95, fewer have a chance of 0.001
    assert best >= 51


def test_a_worse_model_is_not_among_the_best():
    right = draw(np.random.default_rng(1), [0.9, 0.89, 0.6], 1000)
    found = compare_all(right, np.arange(1000))
    assert list(found.may_be_best) == [True, True, False]
    assert found.behind[2, 0] > 0.2 and found.behind[0] == pytest.approx([0, 0])


def test_groups_widen_the_intervals_and_certainty_is_never_total():
    right = draw(np.random.default_rng(2), [0.8, 0.7], 600)
    alone = compare_all(right, np.arange(600))
    copies = compare_all(np.repeat(right[:, :60], 10, axis=1), np.repeat(np.arange(60), 10))
    assert np.ptp(copies.interval, axis=1).min() > 1.5 * np.ptp(alone.interval, axis=1).max()
    perfect = compare_all(np.ones((2, 50), bool), np.arange(50))
    assert perfect.interval[0, 0] < 0.98 and perfect.may_be_best.all()
    alone = compare_all(np.array([[True] * 9, [True] * 6 + [False] * 3]), np.zeros(9))
    assert alone.may_be_best.all()  # of one group nothing is known


@pytest.mark.parametrize("groups", [3, 8, 15])
def test_few_groups_make_no_model_surely_worse(groups):
    random = np.random.default_rng(3)
    names = np.repeat(np.arange(groups), 40)
    wrong = 0
    for _ in range(40):
        own = np.repeat(random.normal(size=(6, groups)), 40, axis=1)
        right = 0.5 * own + random.normal(size=(6, len(names))) < 1
        wrong += not compare_all(right, names).may_be_best.all()
    assert wrong <= 6  # of 40 at 0.05, more have a chance of 0.003
