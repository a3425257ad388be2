"""Whether new images come from where a model's training images came from, by their features."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from tl_dagster.evaluation.neighbours import find_nearest, standardize
from tl_dagster.features.cache import ConcatFeatures

__all__ = ["FeatureDrift", "measure_drift"]

MOST = 1_500  # images of each side: the kernel's table has (2 * MOST)² values
PERMUTATIONS = 999
NEIGHBOURS = 5


@dataclass(frozen=True)
class FeatureDrift:
    """The difference between new and known images.

    Attributes:
        p_value: the chance of a difference as large where there is none.
        rows: (m,) row numbers of the new images that were compared.
        distances: (m,) of each of them to the known images nearest to it; 1 is usual among the known ones.
    """

    p_value: float
    rows: np.ndarray
    distances: np.ndarray


def measure_drift(
    known: np.ndarray | ConcatFeatures,
    new: np.ndarray | ConcatFeatures,
    known_groups: np.ndarray,
    new_groups: np.ndarray,
) -> FeatureDrift:
    """Test whether new images come from the distribution of the known ones.

    Maximum mean discrepancy with a Gaussian kernel of median width (Gretton et al. 2012), tested by permutation; whole
    groups are permuted, because images of one group are alike. Its false alarms are as many as the level that the
    p-value is compared with.

    Args:
        known: (n, D) features of the images that a model was trained on; of more than 1,500, as many by chance.
        new: (m, D); the same.
        known_groups: (n,) str.
        new_groups: (m,) str, none of them known.
    """
    random = np.random.default_rng(0)
    kept, rows = (np.sort(random.permutation(len(names))[:MOST]) for names in (known_groups, new_groups))
    # All together: on the scale of the known ones alone, the new would seem farther in many dimensions.
    (features,) = standardize(np.concatenate([known[kept], new[rows]]))
    before, after = features[: len(kept)], features[len(kept) :]
    names = np.concatenate([known_groups[kept], new_groups[rows]])
    return FeatureDrift(_permutation_test(features, names, len(rows), random), rows, _distances(before, after))


def _permutation_test(features: np.ndarray, names: np.ndarray, new: int, random: np.random.Generator) -> float:
    """Return the p-value; the last ``new`` rows are the new images."""
    squared = cdist(features, features, "sqeuclidean")
    kernel = np.exp(-squared / max(float(np.median(squared)), 1e-12)).astype(np.float32)
    groups, numbers = np.unique(names, return_inverse=True)
    is_new = np.zeros(len(groups), bool)
    is_new[numbers[len(names) - new :]] = True
    drawn = np.stack([is_new, *(random.permutation(is_new) for _ in range(PERMUTATIONS))], axis=1)[numbers]
    weights = (drawn / drawn.sum(0) - ~drawn / (~drawn).sum(0)).astype(np.float32)  # (rows, 1 + PERMUTATIONS)
    statistics = (weights * (kernel @ weights)).sum(0)
    return float((statistics >= statistics[0] * (1 - 1e-6)).mean())


def _distances(known: np.ndarray, new: np.ndarray) -> np.ndarray:
    among = find_nearest(known, known, NEIGHBOURS + 1)[1][:, 1:].mean(1)  # each is the nearest to itself
    distances: np.ndarray = find_nearest(known, new, NEIGHBOURS)[1].mean(1) / max(float(np.median(among)), 1e-6)
    return distances
