"""All models on one test split: their metrics with intervals, and the differences of each pair."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from tl_dagster.evaluation.bootstrap import compare, intervals, resampled
from tl_dagster.evaluation.metrics import measure

__all__ = ["assess", "best_model"]


def assess(
    truth: np.ndarray, models: Mapping[str, np.ndarray], groups: np.ndarray
) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Measure and compare models.

    Args:
        truth: (n,) int64 class numbers of the test images.
        models: name → (n, classes) probabilities, from the simplest model to the selected one.
        groups: (n,) group of each image, of any type.

    Returns:
        Of each model :func:`.measure`'s metrics with their intervals (name → (low, high)); and of each pair, the later
        one first, :func:`.compare`'s result with the names as first and second.
    """
    count = len(np.unique(groups))
    draws = {name: resampled(truth, probabilities, groups) for name, probabilities in models.items()}
    right = {name: probabilities.argmax(1) == truth for name, probabilities in models.items()}
    measured = {}
    for name, probabilities in models.items():
        metrics = measure(truth, probabilities)
        measured[name] = {**metrics, "intervals": intervals(metrics["accuracy"], draws[name], count)}
    compared = [
        {"first": first, "second": second, **compare((right[first], right[second]), (draws[first], draws[second]))}
        for first, second in combinations([*models][::-1], 2)
    ]
    return measured, compared


def best_model(losses: Mapping[str, float | None]) -> str:
    """Return the model of least validation log-loss, of equal ones the first; the last without a validation split.

    Args:
        losses: name → log-loss, from the simplest model to the selected one; None: not known.
    """
    known = {name: loss for name, loss in losses.items() if loss is not None}
    return min(known, key=known.__getitem__) if known else list(losses)[-1]
