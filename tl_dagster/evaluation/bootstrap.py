"""The uncertainty of a test split's metrics: bootstrap intervals, and paired comparisons of two models.

Whole groups of images are drawn, because images of one group (of one module, of one patient) are not independent: the
cluster bootstrap (Davison & Hinkley, "Bootstrap methods and their application", 1997, section 3.8). Every model is
measured on the same draws, so the difference of two models on a draw is a paired one.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.sparse import csr_array, hstack
from scipy.stats import binomtest

from tl_dagster.evaluation.metrics import TOP, likelihoods, ranks

__all__ = ["RESAMPLES", "compare", "intervals", "resampled"]

RESAMPLES = 1_000
PERCENT = (2.5, 97.5)
BLOCK = 4_000_000  # drawn counts in memory at once
MOST_SCORES = 100_000  # that are ranked again in each draw


def resampled(truth: np.ndarray, probabilities: np.ndarray, groups: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the headline measures on 1,000 draws of the groups with replacement.

    The expected calibration error is not among them: a draw's noise raises it, so its percentiles would mislead.

    Args:
        truth: (n,) int64 class numbers.
        probabilities: (n, classes).
        groups: (n,) of any type; images of one are drawn together.

    Returns:
        Measure → (1000,) float64: accuracy, balanced_accuracy, macro_f1, log_loss; top5_error with six classes or
        more; auc where every class occurs and the set is small enough: NaN where a draw lacks a class.
    """
    names, numbers = np.unique(groups, return_inverse=True)
    rows = np.arange(len(truth))
    member = csr_array((np.ones(len(truth)), (numbers, rows)), shape=(len(names), len(truth)))
    sums = (member @ _sums(truth, probabilities)).T.tocsr()
    columns = _ranked_columns(truth, probabilities)
    random = np.random.default_rng(0)
    parts = []
    size = max(1, BLOCK // max(len(names), len(truth) if columns else 1))
    for low in range(0, RESAMPLES, size):
        drawn = _drawn(random, min(size, RESAMPLES - low), len(names))
        part = _headlines((sums @ drawn.T).T, probabilities.shape[1])
        if columns:
            part["auc"] = _areas(truth, probabilities, columns, drawn[:, numbers])
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def intervals(accuracy: float, draws: Mapping[str, np.ndarray], groups: int) -> dict[str, tuple[float, float]]:
    """Compute the 95 % percentile interval of each measure.

    Where all draws have one accuracy (every image right, or one group), Wilson's interval for that number of
    groups is returned instead (Wilson, "Probable inference", 1927, J. Am. Stat. Assoc. 22): nothing is ever certain.

    Args:
        accuracy: the measured one.
        draws: see :func:`resampled`.
        groups: their number.
    """
    bounds = {}
    for name, values in draws.items():
        known = values[~np.isnan(values)]
        if groups > 1 and len(known):
            low, high = np.percentile(known, PERCENT)
            bounds[name] = (float(low), float(high))
    if np.ptp(draws["accuracy"]) == 0:
        wilson = binomtest(round(accuracy * groups), groups).proportion_ci(method="wilson")
        bounds["accuracy"] = (float(wilson.low), float(wilson.high))
    return bounds


def compare(
    right: tuple[np.ndarray, np.ndarray], draws: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]
) -> dict[str, Any]:
    """Compare two models on the same test images.

    Args:
        right: of each model, bool (n,): True for the images that it predicts rightly.
        draws: of each model, see :func:`resampled`.

    Returns:
        difference of accuracy, the first's less the second's, with its paired 95 % interval as low and high;
        only_first and only_second: images that one alone predicts rightly; p_value: McNemar's exact test of these
        (McNemar, "Note on the sampling error of the difference between correlated proportions", 1947, Psychometrika
        12), which takes images for independent.
    """
    first, second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    low, high = np.percentile(draws[0]["accuracy"] - draws[1]["accuracy"], PERCENT)
    return {
        "difference": (first - second) / len(right[0]),
        "low": float(low),
        "high": float(high),
        "only_first": first,
        "only_second": second,
        "p_value": float(binomtest(first, first + second).pvalue) if first + second else 1.0,
    }


def _sums(truth: np.ndarray, probabilities: np.ndarray) -> csr_array:
    """Return each image's share of the sums that all measures but the AUC follow from: (n, 4 + 3 · classes)."""
    count, classes = probabilities.shape
    predicted = probabilities.argmax(1)
    right = predicted == truth
    ones = np.ones(count)
    scalars = [ones, right, -np.log(likelihoods(truth, probabilities)), ranks(truth, probabilities) >= TOP]
    indicators = [(truth, right * 1.0), (truth, ones), (predicted, ones)]
    one_hot = [csr_array((values, (np.arange(count), column)), shape=(count, classes)) for column, values in indicators]
    return hstack([csr_array(np.stack(scalars, 1).astype(float)), *one_hot]).tocsr()


def _drawn(random: np.random.Generator, times: int, count: int) -> np.ndarray:
    """Draw from ``count`` groups, and return how often each is drawn: (times, count) float64."""
    places = random.integers(count, size=(times, count)) + np.arange(times)[:, None] * count
    drawn: np.ndarray = np.bincount(places.ravel(), minlength=times * count).reshape(times, count).astype(float)
    return drawn


def _headlines(sums: np.ndarray, classes: int) -> dict[str, np.ndarray]:

    images, right, loss, missed = sums[:, :4].T
    hits, support, predicted = np.split(sums[:, 4:], [classes, 2 * classes], axis=1)
    occur = np.maximum((support > 0).sum(1), 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1) * (support > 0)
    measures = {
        "accuracy": right / images,
        "balanced_accuracy": recall.sum(1) / occur,
        "macro_f1": f1.sum(1) / occur,
        "log_loss": loss / images,
    }
    return {**measures, "top5_error": missed / images} if classes > TOP else measures


def _ranked_columns(truth: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Return the classes whose AUC is computed in each draw: none where one does not occur, or that takes too long."""
    classes = probabilities.shape[1]
    columns = [1] if classes == 2 else list(range(classes))
    if len(np.unique(truth)) < classes or len(truth) * len(columns) > MOST_SCORES:
        return []
    return columns


def _areas(truth: np.ndarray, probabilities: np.ndarray, columns: list[int], counts: np.ndarray) -> np.ndarray:
    """Compute the mean area under the ROC curves, images counted as drawn: (draws,); NaN where a class is lacking."""
    areas = []
    for column in columns:
        order = np.argsort(probabilities[:, column], kind="stable")
        scores = probabilities[order, column]
        starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])  # equal scores count half
        own = truth[order] == column
        inside = np.add.reduceat(counts[:, order] * own, starts, axis=1)
        outside = np.add.reduceat(counts[:, order] * ~own, starts, axis=1)
        below = outside.cumsum(1) - outside / 2
        pairs = inside.sum(1) * outside.sum(1)
        areas.append(np.where(pairs > 0, (inside * below).sum(1) / np.maximum(pairs, 1), np.nan))
    mean: np.ndarray = np.mean(areas, axis=0)
    return mean
