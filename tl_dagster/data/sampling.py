"""Stratified samples of rows."""

import numpy as np

__all__ = ["sample"]


def sample(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Sorted row numbers of a share of each class, rounded, at least one of each that occurs.

    Args:
        labels: (n,) class numbers.
        fraction: the share.
        seed: another gives other rows.
    """

    shuffled = np.random.default_rng(seed).permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.unique(labels, return_counts=True)[1]
    place = np.arange(len(labels)) - np.repeat(sizes.cumsum() - sizes, sizes)  # within the class
    chosen: np.ndarray = np.sort(ordered[place < np.repeat(np.maximum(1, np.round(sizes * fraction)), sizes)])
    return chosen
