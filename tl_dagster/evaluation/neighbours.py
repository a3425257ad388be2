"""Images that look alike to a backbone: distances between standardized features of length one."""

import numpy as np
from sklearn.neighbors import NearestNeighbors

from tl_dagster.features.cache import ConcatFeatures

__all__ = ["find_nearest", "standardize"]

USUAL = 10  # the distance to the tenth nearest is usual, also where most images have a copy


def standardize(reference: np.ndarray | ConcatFeatures, *others: np.ndarray | ConcatFeatures) -> list[np.ndarray]:
    """Return features on the scale of a reference, each row of length one.

    Args:
        reference: (N, D), whose mean and standard deviation are used.
        others: (M, D) each.

    Returns:
        The reference and the others, float32.
    """
    tables = [rows[:].astype(np.float32) for rows in (reference, *others)]
    mean, std = tables[0].mean(0), tables[0].std(0) + 1e-3
    for rows in tables:
        rows -= mean
        rows /= std
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return tables


def find_nearest(reference: np.ndarray, rows: np.ndarray, count: int = USUAL) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest rows of a reference to each of some rows, nearest first.

    Args:
        reference: (N, D), see :func:`standardize`.
        rows: (M, D).
        count: how many; all where there are fewer.

    Returns:
        Their places in the reference, and their distances: (M, count) int64 and float32.
    """
    search = NearestNeighbors(n_neighbors=min(count, len(reference)), algorithm="brute").fit(reference)
    distances, places = search.kneighbors(rows)
    return places, distances.astype(np.float32)
