"""Accuracy against the amount of training data: the same classifier on cached features of ever more images."""

from typing import Any

import numpy as np
import torch

from tl_dagster.data.sampling import sample
from tl_dagster.training.top_model import fit_logistic_regression

__all__ = ["FRACTIONS", "learning_curve", "most_images", "most_tested"]

FRACTIONS = {0.05: 5, 0.1: 5, 0.2: 3, 0.5: 3, 1.0: 1}  # of the training images, and how often each is drawn
MOST_PRODUCTS = 1_000_000_000  # images × features × classes in one pass: what a fit's time goes with
MOST_IMAGES = 20_000
MOST_VALUES = 250_000_000  # of test images: what memory goes with
ITERATIONS = 50


def learning_curve(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], classes: int, l2: float
) -> list[dict[str, Any]]:
    """Test accuracy of logistic regressions on 5, 10, 20, 50 and 100 % of each class, at least one image of each.

    Small shares are drawn several times; each draw has a seed of its own.

    Args:
        train: features (N, D) of any float type, and class numbers (N,), of the training images.
        test: the same of the test images.
        classes: how many there are.
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
        found = [_accuracy((train[0][rows], train[1][rows]), test, classes, l2) for rows in draws]
        points.append(
            {
                "fraction": fraction,
                "images": len(draws[0]),
                "accuracy": float(np.mean(found)),
                "lowest": min(found),
                "highest": max(found),
                "repeats": len(found),
            }
        )
    return points


def most_images(width: int, classes: int) -> int:
    """How many training images are looked at, so that the whole curve takes seconds.

    Args:
        width: features of an image (D).
        classes: how many there are; of each, one image is taken in any case.
    """
    return min(MOST_IMAGES, max(classes, MOST_PRODUCTS // (width * classes)))


def most_tested(width: int) -> int:
    """How many test images are predicted, so that wide features fit the memory.

    Args:
        width: features of an image (D).
    """
    return min(MOST_IMAGES, MOST_VALUES // width)


def _draws(labels: np.ndarray, fraction: float) -> list[np.ndarray]:
    """Rows of each repeat; one repeat where they are all rows."""
    draws = [sample(labels, fraction, repeat) for repeat in range(FRACTIONS[fraction])]
    return draws[:1] if len(draws[0]) == len(labels) else draws


def _accuracy(
    train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], classes: int, l2: float
) -> float:

    known, unseen = (torch.tensor(features, dtype=torch.float32) for features in (train[0], test[0]))
    mean, std = known.mean(0), known.std(0, unbiased=False).clamp_min(1e-3)
    targets = torch.nn.functional.one_hot(torch.from_numpy(train[1]), classes).float()
    start = torch.zeros(classes, known.shape[1] + 1)
    parameters = fit_logistic_regression(known.sub_(mean).div_(std), targets, l2, start, None, ITERATIONS)
    logits = unseen.sub_(mean).div_(std) @ parameters[:, :-1].T + parameters[:, -1]
    return float((logits.argmax(1).numpy() == test[1]).mean())
