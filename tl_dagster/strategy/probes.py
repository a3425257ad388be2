"""Cross-validated probes: logistic regressions that measure how well features of some layers suit a task.

The higher a layer, the more it belongs to the task that the backbone was trained on (Yosinski, Clune, Bengio & Lipson,
"How transferable are features in deep neural networks?", NIPS 2014). So lower layers that separate the classes better
than the highest show that the task is a different one.

A probe is the top model's own logistic regression. It tries two strengths of L2, a factor of ten apart in the middle of
the top model's default ones: probes compare features under equal terms and need not find the best strength of each, and
each further one costs five fits for each candidate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tl_dagster.data.sampling import sample
from tl_dagster.training.cross_validation import cross_validate, spread_folds

__all__ = ["Probe", "candidates", "fit_probes", "stratified"]

FOLDS, ITERATIONS, STRENGTHS = 5, 50, (0.1, 0.01)
MOST_IMAGES, MOST_CLASSES = 3000, 50
MOST_PRODUCTS = 100_000_000  # images × features × classes in one pass: a probe's time is proportional to it


@dataclass(frozen=True)
class Probe:
    """A cross-validated logistic regression on a candidate's features.

    Attributes:
        taps: the candidate.
        l2: the strength with the lowest log-loss.
        log_loss: mean over the images, each predicted from the other folds.
        accuracy: of the same predictions.
        gain: share of the highest tap's log-loss that this one saves; 0 for the highest itself.
        standard_error: of the gain, from the differences of the images.
    """

    taps: tuple[str, ...]
    l2: float
    log_loss: float
    accuracy: float
    gain: float
    standard_error: float


def candidates(taps: Sequence[str], highest: str) -> list[tuple[str, ...]]:
    """Return the tap sets that the top model may read: the highest tap, first; each lower one; all concatenated.

    Args:
        taps: as declared.
        highest: the one of them that finishes last.
    """
    lower = [(tap,) for tap in taps if tap != highest]
    return [(highest,), *lower, *([tuple(taps)] if lower else [])]


def stratified(labels: np.ndarray, width: int) -> np.ndarray:
    """Select the images to probe: sorted row numbers, the same share of each class, of at most 50 classes.

    Args:
        labels: (n,) class numbers.
        width: features of an image, all taps together: of wide ones fewer images are probed, to bound the time.
    """
    classes = np.unique(labels)
    if len(classes) > MOST_CLASSES:
        classes = np.random.default_rng(0).permutation(classes)[:MOST_CLASSES]
    rows = np.flatnonzero(np.isin(labels, classes))
    most = min(MOST_IMAGES, max(2 * len(classes), MOST_PRODUCTS // (width * len(classes))))
    chosen: np.ndarray = rows if len(rows) <= most else rows[sample(labels[rows], most / len(rows), 0)]
    return chosen


def fit_probes(features: Mapping[str, np.ndarray], labels: np.ndarray, groups: np.ndarray, highest: str) -> list[Probe]:
    """Probe each candidate.

    Args:
        features: declared tap → (n, D), in declared order.
        labels: (n,) class numbers.
        groups: (n,) group of each image, of any type: near copies of an image must not help to predict it.
        highest: the tap that the others are compared with.

    Returns:
        A probe for each of :func:`candidates`, in their order; none where no image can be predicted from other folds.
    """
    numbers = np.unique(labels, return_inverse=True)[1]
    folds = spread_folds(numbers, groups, FOLDS)
    probes: list[Probe] = []
    losses: np.ndarray | None = None
    for taps in candidates(list(features), highest):
        rows = np.concatenate([features[tap] for tap in taps], axis=1).astype(np.float32)
        l2, own, accuracy = _cross_validated(rows, numbers, folds)
        if not len(own):
            return []
        losses = own if losses is None else losses
        saved, scale = losses - own, max(float(losses.mean()), 1e-12)
        error = float(saved.std() / np.sqrt(len(saved)) / scale)
        probes.append(Probe(taps, l2, float(own.mean()), accuracy, float(saved.mean()) / scale, error))
    return probes


def _cross_validated(rows: np.ndarray, numbers: np.ndarray, folds: np.ndarray) -> tuple[float, np.ndarray, float]:
    """Return the best strength, the log-loss of each image that can be predicted, and the accuracy."""
    best = cross_validate(rows, numbers, folds, STRENGTHS, ITERATIONS)
    right = best.probabilities[best.known].argmax(1) == numbers[best.known]
    return best.l2, best.losses, float(right.mean()) if len(right) else 0.0
