"""Averaging over the views of an image, and temperature scaling of what is averaged."""

import math
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

__all__ = ["Score", "averaged_probabilities", "averaged_softmax", "calibrated_score", "temperature", "validate"]

LOWEST, HIGHEST = 0.05, 20.0
BLOCK_VALUES = 2**23
TINY = 1e-12


class Score(NamedTuple):
    """The quality of a model on the validation split, calibrated: models are only compared so.

    Attributes:
        log_loss: mean over the images, with the temperature.
        accuracy: share of the images that are predicted rightly, with it.
        temperature: divisor of the logits; 1 where it is folded in already.
    """

    log_loss: float
    accuracy: float
    temperature: float = 1.0


def averaged_probabilities(probabilities: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Average class probabilities over the views of each image.

    Args:
        probabilities: (M, classes), one row per view.
        images: (M,) image number of each view, 0 … n-1, each occurring at least once.

    Returns:
        (n, classes).
    """
    total = np.zeros((int(images.max()) + 1, probabilities.shape[1]))
    np.add.at(total, images, probabilities)
    averaged: np.ndarray = total / np.bincount(images)[:, None]
    return averaged


def averaged_softmax(logits: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Average the softmax of logits (M, classes) over the views of each image, in blocks: float64 (n, classes)."""
    total = np.zeros((int(images.max()) + 1, logits.shape[1]))
    for part in _blocks(logits):
        np.add.at(total, images[part], softmax(logits[part].astype(np.float64), axis=1))
    averaged: np.ndarray = total / np.bincount(images)[:, None]
    return averaged


def validate(probabilities: np.ndarray, labels: np.ndarray, images: np.ndarray) -> tuple[float, float]:
    """Return log-loss and accuracy of the averaged views.

    Args:
        probabilities: (M, classes), one row per view.
        labels: (M,) class number of each view.
        images: (M,) image number of each view, 0 … n-1.
    """
    averaged = averaged_probabilities(probabilities, images)
    truth = np.zeros(len(averaged), dtype=np.int64)
    truth[images] = labels
    right = averaged[np.arange(len(averaged)), truth]
    return float(-np.log(np.clip(right, TINY, 1)).mean()), float((averaged.argmax(1) == truth).mean())


def temperature(logits: np.ndarray, labels: np.ndarray, images: np.ndarray) -> float:
    """Return the divisor of logits that makes averaged probabilities calibrated.

    Temperature scaling (Guo, Pleiss, Sun & Weinberger 2017, "On calibration of modern neural networks") by the log-loss
    of each image's own class. Its target is not 1 but (n + 1) / (n + 2) of n images, as if one more had been wrong and
    one right (Platt 1999, "Probabilistic outputs for support vector machines"): images that are all predicted rightly
    would drive the temperature to 0.

    Args:
        logits: (M, classes), one row per view.
        labels: (M,) class number of each view.
        images: (M,) image number of each view, 0 … n-1, each occurring at least once.

    Returns:
        Between 0.05 and 20; 1 when nothing is better. Of few images the log-loss itself may rise a little.
    """
    views = np.bincount(images)
    target = (len(views) + 1) / (len(views) + 2)

    def loss(log_temperature: float) -> float:
        own = _own_probabilities(logits, labels, math.exp(log_temperature))
        right = np.clip(np.bincount(images, own) / views, TINY, 1 - TINY)
        return float(-(target * np.log(right) + (1 - target) * np.log1p(-right)).mean())

    bounds = (math.log(LOWEST), math.log(HIGHEST))
    result = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return math.exp(result.x) if result.fun < loss(0.0) else 1.0


def calibrated_score(logits: np.ndarray, labels: np.ndarray, images: np.ndarray) -> Score:
    """Return the score of a model on the validation split; see :func:`temperature`.

    Args:
        logits: float32 (M, classes), one row per view.
        labels: (M,) class number of each view.
        images: (M,) image number of each view, 0 … n-1, each occurring at least once.
    """
    divisor = temperature(logits, labels, images)
    return Score(*validate(softmax(logits / divisor, axis=1), labels, images), divisor)


def _own_probabilities(logits: np.ndarray, labels: np.ndarray, divisor: float) -> np.ndarray:

    own = np.empty(len(logits))
    for part in _blocks(logits):
        scaled = logits[part].astype(np.float64) / divisor
        own[part] = np.exp(scaled[np.arange(len(scaled)), labels[part]] - logsumexp(scaled, axis=1))
    return own


def _blocks(logits: np.ndarray) -> list[slice]:
    rows = max(1, BLOCK_VALUES // logits.shape[1])
    return [slice(first, first + rows) for first in range(0, len(logits), rows)]
