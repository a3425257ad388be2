"""Label suspects: images whose held-out prediction contradicts their label strongly.

Confident learning (Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021,
JAIR 70): each image is predicted by a classifier that was fitted without it; a prediction counts as confident when it
reaches the mean confidence that images of that class get for their own label.
"""

import numpy as np

__all__ = ["FOLDS", "contradicted", "most_images"]

FOLDS = 5
MOST_IMAGES = 50_000
MOST_PRODUCTS = 5_000_000_000  # images × features × classes: a fit's time is proportional to it


def most_images(width: int, classes: int) -> int:
    """Return how many images to look at, to bound memory and time.

    Args:
        width: features of an image (D).
        classes: number of classes.
    """
    return min(MOST_IMAGES, MOST_PRODUCTS // (width * classes))


def contradicted(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the rows of images whose prediction contradicts their label, the strongest contradiction first.

    Args:
        probabilities: (n, classes), held out; NaN where nothing is known.
        labels: (n,) class numbers.
    """
    known = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    own, counts = np.zeros(probabilities.shape[1]), np.bincount(labels[known], minlength=probabilities.shape[1])
    np.add.at(own, labels[known], probabilities[known, labels[known]])
    own /= np.maximum(counts, 1)
    confident = np.where(probabilities >= own, probabilities, 0)  # NaN is not confident
    best = confident.argmax(1)
    against = np.flatnonzero((confident.max(1) > 0) & (best != labels) & (probabilities.argmax(1) != labels))
    margin = probabilities[against, labels[against]] - probabilities[against, best[against]]
    return against[np.argsort(margin, kind="stable")]
