"""Many models on the same images: intervals that hold for all of them at once, so that picking the best spoils none.

Single-step max-T intervals (Hothorn, Bretz & Westfall, "Simultaneous inference in general parametric models", 2008,
Biometrical Journal 50) from a cluster bootstrap; differences from the best as in multiple comparisons with the best
(Hsu 1981, Ann. Statist. 9).
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, t

__all__ = ["SimultaneousIntervals", "compare_all"]

RESAMPLES, LEVEL = 2_000, 0.95
BLOCK = 200  # resamples in memory at once


@dataclass(frozen=True)
class SimultaneousIntervals:
    """Accuracies of k models with intervals, all of which hold together with a chance of 95 %.

    Attributes:
        accuracy: (k,).
        interval: (k, 2).
        behind: (k, 2) interval of the accuracy that each is behind the best; below 0: it may be better.
        may_be_best: bool (k,) whether it is not surely worse than the best.
    """

    accuracy: np.ndarray
    interval: np.ndarray
    behind: np.ndarray
    may_be_best: np.ndarray


def compare_all(right: np.ndarray, groups: np.ndarray) -> SimultaneousIntervals:
    """Compare models by their accuracy on the same images.

    Args:
        right: bool (k, n), which images each predicts rightly; the best is the first with the highest accuracy.
        groups: (n,) group of each image, of any type; whole groups are drawn.
    """
    accuracy = right.mean(1)
    count = len(np.unique(groups))
    if count < 2:
        wide = np.tile([0.0, 1.0], (len(right), 1))
        return SimultaneousIntervals(accuracy, wide, wide - wide[:, ::-1], np.ones(len(right), bool))
    # A bootstrap of few groups is too narrow: Student's t instead of the normal, and the unbiased variance.
    wider = float(t.ppf(0.975, count - 1) / norm.ppf(0.975)) * (count / (count - 1)) ** 0.5
    draws = _draw(right, groups)
    # Where all draws agree, as with every image right, there is an error all the same: that of one group more, wrong.
    floor = np.sqrt(0.5 * (count + 0.5)) / (count + 1) ** 1.5
    interval = _around(accuracy, draws, floor, wider)
    best = int(accuracy.argmax())
    gaps = accuracy[best] - accuracy
    critical = _critical_difference(accuracy, draws) * wider
    errors = (draws[:, [best]] - draws).std(0)
    errors = np.where(gaps > 0, np.maximum(errors, gaps.clip(max=1 / count) / 2), errors)  # as above
    behind = np.stack([gaps - critical * errors, gaps + critical * errors], 1)
    return SimultaneousIntervals(accuracy, interval, behind, behind[:, 0] <= 0)


def _draw(right: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the accuracies (RESAMPLES, k) on draws of the groups with replacement."""
    numbers = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(numbers)
    hits = np.stack([np.bincount(numbers, row) for row in right])  # (k, groups)
    random = np.random.default_rng(0)
    parts = []
    for _ in range(RESAMPLES // BLOCK):
        drawn = random.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=BLOCK)
        parts.append(drawn @ hits.T / (drawn @ sizes)[:, None])
    return np.concatenate(parts)


def _around(values: np.ndarray, draws: np.ndarray, floor: float, wider: float) -> np.ndarray:
    errors = np.maximum(draws.std(0), floor)
    critical = np.quantile((np.abs(draws - values) / errors).max(1), LEVEL)
    critical = max(float(critical), 1.96) * wider
    interval: np.ndarray = np.stack([values - critical * errors, values + critical * errors], 1).clip(0, 1)
    return interval


def _critical_difference(values: np.ndarray, draws: np.ndarray) -> float:
    """Return the 95 % quantile of the largest studentized difference of any two."""
    largest = np.zeros(len(draws))
    for number in range(len(values) - 1):
        others = slice(number + 1, None)
        differences = draws[:, [number]] - draws[:, others]
        errors = differences.std(0)
        apart = np.abs(differences - (values[number] - values[others])) / np.where(errors > 0, errors, np.inf)
        largest = np.maximum(largest, apart.max(1))
    return float(np.quantile(largest, LEVEL)) if len(values) > 1 else 0.0
