"""What is measured of a model's test predictions."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["measure"]


def measure(truth: "np.ndarray", probabilities: "np.ndarray") -> dict[str, Any]:
    """Metrics of predicted class probabilities.

    Args:
        truth: (n,) int64 class numbers.
        probabilities: (n, classes), rows summing to one.

    Returns:
        accuracy, its 95 % interval as accuracy_low and accuracy_high (Wilson 1927, J. Am. Stat. Assoc. 22),
        balanced_accuracy, macro_f1, log_loss, and the confusion matrix (rows: truth) as nested lists.
    """
    import numpy as np
    from scipy.stats import binomtest
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score

    predicted = probabilities.argmax(1)
    right = int((predicted == truth).sum())
    interval = binomtest(right, len(truth)).proportion_ci(method="wilson")
    classes = np.arange(probabilities.shape[1])
    likelihood = probabilities[np.arange(len(truth)), truth]
    return {
        "accuracy": right / len(truth),
        "accuracy_low": float(interval.low),
        "accuracy_high": float(interval.high),
        "balanced_accuracy": float(balanced_accuracy_score(truth, predicted)),
        "macro_f1": float(f1_score(truth, predicted, labels=classes, average="macro", zero_division=0)),
        "log_loss": float(-np.log(np.clip(likelihood, 1e-12, 1)).mean()),
        "confusion": confusion_matrix(truth, predicted, labels=classes).tolist(),
    }
