"""LogME: a score of features that trains nothing."""

import math

import numpy as np

__all__ = ["ROUNDS", "TINY", "TOLERANCE", "logme"]

ROUNDS, TOLERANCE = 100, 1e-6  # of LogME's fixed-point iteration


TINY = 1e-12


def logme(features: np.ndarray, labels: np.ndarray) -> float:
    """The log of the maximum evidence of a Bayesian linear model from features to labels, for each image.

    LogME: You, Liu, Wang & Long, "LogME: practical assessment of pre-trained models for transfer learning", ICML 2021.
    One model for each class against the rest, their evidence averaged. The two precisions of each are found by
    MacKay's fixed-point iteration, for all classes at once, on the eigenvectors of the smaller Gram matrix. Features
    are standardised first, so that features of other layers compare.

    Args:
        features: (n, D), of any float type.
        labels: (n,) class numbers.

    Returns:
        Larger is better; comparable between features of the same images. Without any feature that differs between
        images, the evidence of a model that knows none.
    """

    values = features.astype(np.float64)
    values -= values.mean(0)
    values /= np.maximum(values.std(0), 1e-3)
    targets = (labels[:, None] == np.unique(labels)).astype(np.float64)
    targets -= targets.mean(0)
    sigma, projected = _spectrum(values, targets)
    return float(_evidence(sigma, projected**2, (targets**2).sum(0), *values.shape).mean())


def _spectrum(values: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared singular values (k, 1) of the features, and the targets along their left singular vectors (k, K)."""

    count, width = values.shape
    sigma, vectors = np.linalg.eigh(values @ values.T if count < width else values.T @ values)
    kept = sigma > max(sigma[-1], TINY) * 1e-10
    sigma, vectors = sigma[kept], vectors[:, kept]
    left = vectors if count < width else values @ vectors / np.sqrt(sigma)
    return sigma[:, None], left.T @ targets


def _evidence(sigma: np.ndarray, along: np.ndarray, total: np.ndarray, count: int, width: int) -> np.ndarray:
    """The log evidence of each class for each image: (K,).

    Args:
        sigma: (k, 1), squared singular values of the features.
        along: (k, K), squares of the targets along the singular vectors.
        total: (K,), squares of the targets in all.
        count: images.
        width: features.
    """

    beyond = np.maximum(total - along.sum(0), 0)  # what no feature explains
    alpha, beta = np.ones_like(total), np.ones_like(total)  # precisions of the weights, and of the noise
    for _ in range(ROUNDS):
        ratio = alpha / beta
        effective = (sigma / (sigma + ratio)).sum(0)
        weights = (sigma * along / (sigma + ratio) ** 2).sum(0)
        residual = (along * (ratio / (sigma + ratio)) ** 2).sum(0) + beyond
        # Bounded: without anything to explain, or without noise, a precision would grow for ever.
        alpha = np.clip(effective / np.maximum(weights, TINY), 1e-6, 1e9)
        beta = np.clip((count - effective) / np.maximum(residual, TINY), 1e-6, 1e9)
        if (np.abs(alpha / beta - ratio) <= TOLERANCE * ratio).all():
            break
    ratio = alpha / beta
    weights = (sigma * along / (sigma + ratio) ** 2).sum(0)
    residual = (along * (ratio / (sigma + ratio)) ** 2).sum(0) + beyond
    logs = np.log(alpha + beta * sigma).sum(0) + (width - len(sigma)) * np.log(alpha)
    evidence: np.ndarray = (
        width * np.log(alpha) + count * np.log(beta / (2 * math.pi)) - logs - beta * residual - alpha * weights
    ) / (2 * count)
    return evidence
