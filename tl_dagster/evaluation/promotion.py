"""The test by which a challenger takes the place of a champion: one-sided and paired, on the same test images.

Every comparison with one champion spends a part of one budget, so that however often it is challenged, the chance that
it is ever replaced by a model that is no better stays below the budget: the k-th comparison is made at the level
``budget / (k (k + 1))``, and these sum to the budget (alpha spending, Lan & DeMets, "Discrete sequential boundaries for
clinical trials", 1983, Biometrika 70; the union bound needs no independence). A champion that was replaced was the
same model in all comparisons before, so test images that are used again and again do not weaken the bound.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy.signal import convolve
from scipy.stats import binom, t

__all__ = ["PairedGain", "level_of_comparison", "measure_gain"]


@dataclass(frozen=True)
class PairedGain:
    """The accuracy of one model less that of another, on the same images.

    Attributes:
        images: that both predicted.
        groups: of these images; images of one are not independent.
        first_accuracy: the first model's.
        second_accuracy: the other's.
        gain: first_accuracy - second_accuracy.
        low: one-sided lower bound of the gain at this level; -1 with a single group.
        only_first: images that only the first predicts correctly.
        only_second: images that only the other predicts correctly.
        p_value: of the exact test that neither is better; see :func:`measure_gain`.
        level: the chance of an error that is allowed, of ``low`` and of the test.
    """

    images: int
    groups: int
    first_accuracy: float
    second_accuracy: float
    gain: float
    low: float
    only_first: int
    only_second: int
    p_value: float
    level: float

    def exceeds(self, margin: float) -> bool:
        """Return whether the first model is better by more than a margin: by the bound, and by the exact test.

        The bound rests on the central limit theorem, which promises little for a few images that differ; the exact
        test knows no margin. Both have to hold.
        """
        return self.low > margin and self.p_value <= self.level


def level_of_comparison(confidence: float, number: int) -> float:
    """Return the level at which a champion is compared for the ``number``-th time (from 1 on)."""
    return (1 - confidence) / (number * (number + 1))


def measure_gain(first: np.ndarray, second: np.ndarray, groups: np.ndarray, level: float) -> PairedGain:
    """Compare two models on the same images.

    The bound is that of a ratio of sums over groups, with Student's t (Cochran, "Sampling techniques", 1977, chapter
    9). The exact test is the sign-flip test of the groups' differences, whose distribution is computed, not drawn: were
    neither model better, each difference would have either sign with the same chance (Fisher, "The design of
    experiments", 1935). Where each image is a group it is McNemar's exact test, one-sided.

    Args:
        first: bool (n,): the images that the first model predicts correctly; n ≥ 1.
        second: the same of the other model.
        groups: (n,) group of each image, of any type.
        level: the chance of an error that is allowed.
    """
    numbers = np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(numbers)
    difference = first.astype(np.int64) - second.astype(np.int64)
    sums = np.bincount(numbers, weights=difference).astype(np.int64)
    images, count = len(first), len(sizes)
    gain = float(sums.sum()) / images
    low = -1.0
    if count > 1:
        spread = count / (count - 1) * float(((sums - gain * sizes) ** 2).sum())
        low = gain - float(t.isf(level, count - 1)) * spread**0.5 / images
    return PairedGain(
        images=images,
        groups=count,
        first_accuracy=float(first.mean()),
        second_accuracy=float(second.mean()),
        gain=gain,
        low=low,
        only_first=int((first & ~second).sum()),
        only_second=int((second & ~first).sum()),
        p_value=_sign_flip_p_value(sums),
        level=level,
    )


def _sign_flip_p_value(sums: np.ndarray) -> float:
    """Return the chance that the sum of ``sums``, each with a random sign, is at least what it is: (groups,) int64."""
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    parts = [_spread_signs(int(size), int(count)) for size, count in zip(sizes, counts, strict=True)]
    distribution = reduce(convolve, parts)
    middle = len(distribution) // 2
    return float(min(1.0, max(0.0, distribution[middle + int(sums.sum()) :].sum())))


def _spread_signs(size: int, count: int) -> np.ndarray:
    """Return the distribution of the sum of ``count`` numbers ±size: of each total from -size·count to size·count."""
    chances = np.zeros(2 * size * count + 1)
    chances[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
    return chances
