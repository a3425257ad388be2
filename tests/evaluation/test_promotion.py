"""The paired test of promotion: against scipy, against all signs, and against what it promises."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from tl_dagster.evaluation.promotion import level_of_comparison, measure_gain


def drawn(seed: int, accuracies: tuple[float, float], images: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images two models with independent errors predict correctly."""
    random = np.random.default_rng(seed)
    return random.random(images) < accuracies[0], random.random(images) < accuracies[1]


def test_each_image_a_group_it_is_mcnemars_exact_test():
    first, second = drawn(0, (0.9, 0.8), 300)
    gain = measure_gain(first, second, np.arange(300), 0.05)
    expected = binomtest(gain.only_first, gain.only_first + gain.only_second, alternative="greater").pvalue
    assert gain.p_value == pytest.approx(expected, rel=1e-12)
    assert gain.gain == pytest.approx(first.mean() - second.mean())


def test_groups_keep_their_sign_together():
    random = np.random.default_rng(1)
    groups = np.repeat(np.arange(9), 4)
    first, second = random.random(36) < 0.8, random.random(36) < 0.6
    sums = np.array([first[groups == each].sum() - second[groups == each].sum() for each in range(9)], int)
    totals = [sum(sign * each for sign, each in zip(signs, sums, strict=True)) for signs in product((1, -1), repeat=9)]
    expected = np.mean(np.array(totals) >= sums.sum())
    assert measure_gain(first, second, groups, 0.05).p_value == pytest.approx(expected)


def test_few_images_that_differ_prove_nothing():
    first, second = np.ones(1000, bool), np.ones(1000, bool)
    second[:3] = False
    gain = measure_gain(first, second, np.arange(1000), 0.05)
    assert gain.p_value == 1 / 8
    assert not gain.exceeds(0)


def test_one_group_or_equal_models_prove_nothing():
    first, second = np.ones(50, bool), np.zeros(50, bool)
    assert not measure_gain(first, second, np.zeros(50), 0.05).exceeds(0)
    assert not measure_gain(first, first, np.arange(50), 0.05).exceeds(0)


def test_a_margin_has_to_be_exceeded_surely():
    first, second = drawn(2, (0.95, 0.85), 2000)
    gain = measure_gain(first, second, np.arange(2000), 0.025)
    assert gain.exceeds(0.05)
    assert not gain.exceeds(0.12)


def test_all_comparisons_with_one_champion_share_one_budget():
    levels = [level_of_comparison(0.95, number) for number in range(1, 10_001)]
    assert levels[0] == pytest.approx(0.025)
    assert 0.0499 < sum(levels) < 0.05


@pytest.mark.parametrize("grouped", [False, True])
def test_equal_models_are_seldom_promoted(grouped: bool):
    groups = np.arange(400) // (4 if grouped else 1)
    promoted = [measure_gain(*drawn(seed, (0.85, 0.85), 400), groups, 0.025).exceeds(0) for seed in range(400)]
    assert np.mean(promoted) < 0.05
