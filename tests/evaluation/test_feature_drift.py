"""The test for drift keeps its rate of false alarms, with groups too, and sees a shift."""

import numpy as np
import pytest

from tl_dagster.evaluation.feature_drift import measure_drift


def draw(random: np.random.Generator, groups: int, size: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Features of images in groups whose images are alike, and the groups' names."""
    features = np.repeat(random.normal(size=(groups, 64)), size, axis=0) + 0.3 * random.normal(size=(groups * size, 64))
    return features, np.repeat([f"{name}{number}" for number in range(groups)], size)


@pytest.mark.parametrize(("size", "new_size"), [(1, 1), (4, 4), (5, 1), (1, 5)])
def test_false_alarms_are_as_many_as_stated(size, new_size):
    random = np.random.default_rng(1)
    values = []
    for _ in range(100):
        (known, before), (new, after) = draw(random, 40, size, "a"), draw(random, 10, new_size, "b")
        values.append(measure_drift(known, new, before, after).p_value)
    assert np.mean(np.array(values) < 0.1) <= 0.18  # of 100 at 0.1, more than 18 have a chance of 0.005


def test_a_shift_is_seen_and_the_farthest_image_is_named():
    random = np.random.default_rng(2)
    (known, before), (new, after) = draw(random, 200, 1, "a"), draw(random, 20, 1, "b")
    new[:, :8] += 1.5
    new[7] = 30 * random.normal(size=64)
    drift = measure_drift(known, new, before, after)
    assert drift.p_value <= 0.005
    assert list(drift.rows) == [*range(20)] and drift.distances.argmax() == 7
    assert measure_drift(known[:3], new[:1], before[:3], after[:1]).p_value >= 0.25
