"""Metrics of a model's test predictions; by scikit-learn, where it defines them as they are used here."""

from typing import Any

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

__all__ = [
    "BINS",
    "TOP",
    "calibration",
    "calibration_error",
    "calibration_error_by_chance",
    "confusion",
    "likelihoods",
    "measure",
    "ranks",
]

BINS = 15
DRAWS = 200
TOP = 5


def measure(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Measure predicted class probabilities.

    Args:
        truth: (n,) int64 class numbers, n at least 1.
        probabilities: (n, classes), rows summing to one.

    Returns:
        accuracy; top5_error (None with fewer than six classes); balanced_accuracy and macro_f1, means over the classes
        that occur; log_loss in nats; ece and ece_by_chance, see :func:`calibration_error_by_chance`; auc, the area
        under the ROC curve, each class against the rest and then the mean (None where a class does not occur);
        per_class: precision, recall, f1 and support of each class.
    """
    predicted = probabilities.argmax(1)
    every, present = np.arange(probabilities.shape[1]), np.unique(truth)
    scores = precision_recall_fscore_support(truth, predicted, labels=every, zero_division=0)
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "top5_error": float((ranks(truth, probabilities) >= TOP).mean()) if len(every) > TOP else None,
        "balanced_accuracy": float(recall_score(truth, predicted, labels=present, average="macro")),
        "macro_f1": float(f1_score(truth, predicted, labels=present, average="macro", zero_division=0)),
        "log_loss": float(-np.log(likelihoods(truth, probabilities)).mean()),
        "ece": calibration_error(truth, probabilities),
        "ece_by_chance": calibration_error_by_chance(probabilities),
        "auc": _auc(truth, probabilities) if len(present) == len(every) else None,
        "per_class": [
            dict(zip(("precision", "recall", "f1", "support"), row, strict=True))
            for row in zip(*(column.tolist() for column in scores), strict=True)
        ],
    }


def calibration(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, mean confidence and accuracy in each of 15 equally wide bins of confidence: three arrays (15,).

    Their weighted mean absolute difference is the expected calibration error (Guo, Pleiss, Sun & Weinberger, "On
    calibration of modern neural networks", ICML 2017). Confidence is the probability of the predicted class.

    Args:
        truth: (n,) class numbers.
        probabilities: (n, classes).
    """
    confidence = probabilities.max(1)
    bins = _find_bins(confidence)
    counts = np.bincount(bins, minlength=BINS)
    divisor = np.maximum(counts, 1)
    right = probabilities.argmax(1) == truth
    return (
        counts,
        np.bincount(bins, confidence, minlength=BINS) / divisor,
        np.bincount(bins, right, minlength=BINS) / divisor,
    )


def calibration_error(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Compute the expected calibration error; see :func:`calibration`."""
    counts, confidence, accuracy = calibration(truth, probabilities)
    return float((counts * np.abs(confidence - accuracy)).sum() / len(truth))


def calibration_error_by_chance(probabilities: np.ndarray) -> float:
    """Compute what the expected calibration error of a calibrated model stays below in 95 % of all draws of the truth.

    Few images alone make the error larger than 0 (Vaicenavicius et al., "Evaluating model calibration in
    classification", AISTATS 2019): whether a prediction is correct is drawn 200 times by its own confidence.

    Args:
        probabilities: (n, classes).
    """
    random, confidence = np.random.default_rng(0), probabilities.max(1)
    bins = _find_bins(confidence)
    total = np.bincount(bins, confidence, minlength=BINS)
    errors = [
        np.abs(total - np.bincount(bins, random.random(len(confidence)) < confidence, minlength=BINS)).sum()
        for _ in range(DRAWS)
    ]
    return float(np.quantile(errors, 0.95) / len(confidence))


def _find_bins(confidence: np.ndarray) -> np.ndarray:
    bins: np.ndarray = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return bins


def confusion(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Count the images of each true class (rows) by predicted class (columns): (classes, classes) int64."""
    matrix: np.ndarray = confusion_matrix(truth, probabilities.argmax(1), labels=np.arange(probabilities.shape[1]))
    return matrix


def likelihoods(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return the probability of each image's true class, at least 1e-12: (n,).

    Here and in the bootstrap: scikit-learn's log_loss has another bound, so an interval could miss its own value.
    """
    own: np.ndarray = np.clip(probabilities[np.arange(len(truth)), truth], 1e-12, 1)
    return own


def ranks(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Count the classes predicted before the true one, of equal ones those with lower numbers, as argmax does: (n,)."""
    own = probabilities[np.arange(len(truth)), truth][:, None]
    earlier = np.arange(probabilities.shape[1]) < truth[:, None]
    before: np.ndarray = ((probabilities > own) | (earlier & (probabilities == own))).sum(1)
    return before


def _auc(truth: np.ndarray, probabilities: np.ndarray) -> float | None:

    columns = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    if len(np.unique(truth)) < 2:
        return None
    return float(np.mean([roc_auc_score(truth == column, probabilities[:, column]) for column in columns]))
