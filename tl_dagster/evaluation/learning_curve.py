"""Accuracy against the amount of training data: the same classifier on cached features of ever more images."""

from typing import Any

import numpy as np

from tl_dagster.data.sampling import sample
from tl_dagster.features.blocks import Features
from tl_dagster.training.feature_batches import FeatureSubset, Targets
from tl_dagster.training.logistic_regression import LogisticRegression

__all__ = ["FRACTIONS", "learning_curve", "most_images", "most_tested"]

FRACTIONS = {0.05: 5, 0.1: 5, 0.2: 3, 0.5: 3, 1.0: 1}  # of the training images, and how often each is drawn
MOST_PRODUCTS = 1_000_000_000  # images × features × classes in one pass: a fit's time is proportional to it
MOST_IMAGES = 20_000
MOST_VALUES = 250_000_000  # of test images: memory is proportional to it
ITERATIONS = 50


def learning_curve(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], classes: int, l2: float
) -> list[dict[str, Any]]:
    """Measure the test accuracy of logistic regressions on 5, 10, 20, 50 and 100 % of each class.

    Of each class at least one image is taken. Small shares are drawn several times; each draw has a seed of its own.

    Args:
        train: features (N, D) of any float type, and class numbers (N,), of the training images.
        test: the same of the test images.
        classes: number of classes.
        l2: strength of L2.

    Returns:
        For each fraction: fraction, images, accuracy (mean), lowest and highest (over the repeats), repeats.
        Fractions that come to the same images are one.
    """
    points: list[dict[str, Any]] = []
    for fraction in FRACTIONS:
        draws = _draws(train[1], fraction)
        if points and len(draws[0]) == points[-1]["images"]:
            continue
        accuracies = [
            _accuracy(FeatureSubset(train[0], rows), Targets(train[1][rows], None, classes), test, l2) for rows in draws
        ]
        points.append(
            {
                "fraction": fraction,
                "images": len(draws[0]),
                "accuracy": float(np.mean(accuracies)),
                "lowest": min(accuracies),
                "highest": max(accuracies),
                "repeats": len(accuracies),
            }
        )
    return points


def most_images(width: int, classes: int) -> int:
    """Return how many training images to use, so that the whole curve takes seconds.

    Args:
        width: features of an image (D).
        classes: number of classes; of each, one image is taken in any case.
    """
    return min(MOST_IMAGES, max(classes, MOST_PRODUCTS // (width * classes)))


def most_tested(width: int) -> int:
    """Return how many test images to predict, so that wide features fit the memory.

    Args:
        width: features of an image (D).
    """
    return min(MOST_IMAGES, MOST_VALUES // width)


def _draws(labels: np.ndarray, fraction: float) -> list[np.ndarray]:
    """Return the rows of each repeat; one repeat where they are all rows."""
    draws = [sample(labels, fraction, repeat) for repeat in range(FRACTIONS[fraction])]
    return draws[:1] if len(draws[0]) == len(labels) else draws


def _accuracy(features: Features, targets: Targets, test: tuple[np.ndarray, np.ndarray], l2: float) -> float:

    model = LogisticRegression(l2, ITERATIONS).fit(features, targets)
    return float((model.predict_logits(test[0]).argmax(1) == test[1]).mean())
