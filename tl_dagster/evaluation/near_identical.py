"""Near-identical images across splits, by their features.

They find the mirrored, cropped and retouched copies that a perceptual hash does not see.
"""

import numpy as np

from tl_dagster.evaluation.neighbours import find_nearest, standardize
from tl_dagster.features.cache import ConcatFeatures

__all__ = ["find_near_identical"]

# Measured with the default backbone on photographs: copies at quality 90, brighter by a fifth, mirrored, or without
# 2 % of each border lie below this share of the usual distance; of distinct images none does.
NEAR = 0.45
MOST_OTHERS, MOST_HELD_OUT = 100_000, 20_000


def find_near_identical(
    others: np.ndarray | ConcatFeatures, held_out: np.ndarray | ConcatFeatures
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find held-out images that lie much nearer to an image of another split than held-out images usually do.

    Distances are between standardized features scaled to length one, in units of the median distance of a held-out
    image to the tenth nearest of the others.

    Args:
        others: (N, D), features of the other split; of more than 100,000 the first are compared.
        held_out: (M, D); of more than 20,000 the first are compared.

    Returns:
        Row numbers of the held-out images, of the one nearest to each, and the distances, nearest first.
    """
    others, held_out = standardize(others[:MOST_OTHERS], held_out[:MOST_HELD_OUT])
    places, distances = find_nearest(others, held_out)
    relative = distances[:, 0] / max(float(np.median(distances[:, -1])), 1e-6)
    near = np.flatnonzero(relative < NEAR)
    near = near[np.argsort(relative[near], kind="stable")]
    return near, places[near, 0], relative[near]
