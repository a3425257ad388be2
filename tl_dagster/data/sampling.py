"""Stratified samples of rows."""

import numpy as np

__all__ = ["sample"]


def sample(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the sorted row numbers (int64) of a share of each class, rounded, at least one of each that occurs.

    Args:
        labels: (n,) class numbers.
        fraction: the share, 0 to 1.
        seed: of the random choice.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.unique(labels, return_counts=True)[1]
    rank = np.arange(len(labels)) - np.repeat(sizes.cumsum() - sizes, sizes)  # within the class
    chosen: np.ndarray = np.sort(ordered[rank < np.repeat(np.maximum(1, np.round(sizes * fraction)), sizes)])
    return chosen
