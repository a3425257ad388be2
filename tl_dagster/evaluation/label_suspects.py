"""Label suspects: images whose held-out prediction contradicts their label strongly.

Confident learning (Northcutt, Jiang & Chuang, "Confident learning: estimating uncertainty in dataset labels", 2021,
JAIR 70): each image is predicted by a classifier that was fitted without it; a prediction counts as confident when it
reaches the mean confidence that images of that class get for their own label.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FOLDS", "contradicted", "held_out_probabilities", "most_images"]

FOLDS = 5
MOST_IMAGES = 50_000
MOST_PRODUCTS = 5_000_000_000  # images × features × classes: what a fit's time goes with


def most_images(width: int, classes: int) -> int:
    """How many images are looked at, to bound memory and time.

    Args:
        width: features of an image (D).
        classes: how many there are.
    """
    return min(MOST_IMAGES, MOST_PRODUCTS // (width * classes))


def held_out_probabilities(
    features: "np.ndarray", targets: "np.ndarray", folds: "np.ndarray", l2: float, iterations: int
) -> "np.ndarray":
    """Class probabilities of each image from a top model that was fitted on the other folds.

    Args:
        features: (n, D), one row per image.
        targets: float32 (n, classes).
        folds: (n,) number of each image's fold; copies of one image belong to one fold.
        l2: strength of L2.
        iterations: L-BFGS iterations at most.

    Returns:
        (n, classes); not a number for images whose class is in no other fold: nothing can be said of them.
    """
    import numpy as np
    import torch

    from tl_dagster.training.top_model import fit_logistic_regression

    probabilities = np.full(targets.shape, np.nan)
    labels = targets.argmax(1)
    for fold in np.unique(folds):
        rest = folds != fold
        held_out = ~rest & np.isin(labels, labels[rest])
        if not held_out.any():
            continue
        known = torch.tensor(features[rest], dtype=torch.float32)
        mean, std = known.mean(0), known.std(0, unbiased=False).clamp_min(1e-3)
        start = torch.zeros(targets.shape[1], features.shape[1] + 1)
        parameters = fit_logistic_regression(
            known.sub_(mean).div_(std), torch.from_numpy(targets[rest]), l2, start, None, iterations
        )
        unseen = (torch.tensor(features[held_out], dtype=torch.float32) - mean) / std
        logits = unseen @ parameters[:, :-1].T + parameters[:, -1]
        probabilities[held_out] = logits.softmax(1).numpy()
    return probabilities


def contradicted(probabilities: "np.ndarray", labels: "np.ndarray") -> "np.ndarray":
    """Row numbers of the images whose prediction contradicts their label, the strongest contradiction first.

    Args:
        probabilities: (n, classes), held out; not a number where nothing is known.
        labels: (n,) class numbers.
    """
    import numpy as np

    known = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    own, counts = np.zeros(probabilities.shape[1]), np.bincount(labels[known], minlength=probabilities.shape[1])
    np.add.at(own, labels[known], probabilities[known, labels[known]])
    own /= np.maximum(counts, 1)
    confident = np.where(probabilities >= own, probabilities, 0)  # what is not a number is not confident
    best = confident.argmax(1)
    against = np.flatnonzero((confident.max(1) > 0) & (best != labels) & (probabilities.argmax(1) != labels))
    margin = probabilities[against, labels[against]] - probabilities[against, best[against]]
    return against[np.argsort(margin, kind="stable")]
