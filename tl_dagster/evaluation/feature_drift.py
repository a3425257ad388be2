"""A test of new images against a model's training images, by their features: do they come from the same source?"""

from dataclasses import dataclass

import numpy as np

from tl_dagster.evaluation.neighbours import find_nearest, standardize
from tl_dagster.features.cache import ConcatFeatures

__all__ = ["FeatureDrift", "measure_drift"]

MOST = 1_500  # images of each side: the kernel has (2 * MOST)² values
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

    Maximum mean discrepancy with a Gaussian kernel of median width (Gretton et al. 2012), tested by permutation. Images
    of one group are alike, so one of each group takes part, by chance. False alarms are as many as the level that the
    p-value is compared with, of one look; looks at images that accumulate have more.

    Args:
        known: (n, D) features of the images that a model was trained on; of more than 1,500 groups, as many by chance.
        new: (m, D); the same.
        known_groups: (n,) str.
        new_groups: (m,) str, none of them known.
    """
    random = np.random.default_rng(0)
    kept, rows = (_draw(names, random) for names in (known_groups, new_groups))
    # All together: on the scale of the known ones alone, the new would seem farther in many dimensions.
    (features,) = standardize(np.concatenate([known[kept], new[rows]]))
    before, after = features[: len(kept)], features[len(kept) :]
    return FeatureDrift(_permutation_test(features, len(rows), random), rows, _distances(before, after))


def _draw(groups: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the sorted row numbers of one image of each of some groups."""
    shuffled = random.permutation(len(groups))
    first = np.unique(groups[shuffled], return_index=True)[1]
    rows: np.ndarray = np.sort(random.permutation(shuffled[first])[:MOST])
    return rows


def _permutation_test(features: np.ndarray, new: int, random: np.random.Generator) -> float:
    """Return the p-value; the last ``new`` rows, of length one as all, are the new images."""
    squared = 2 - 2 * (features @ features.T)
    kernel = np.exp(-squared / max(float(np.median(squared)), 1e-12))
    is_new = np.arange(len(features)) >= len(features) - new
    drawn = np.stack([is_new, *(random.permutation(is_new) for _ in range(PERMUTATIONS))], axis=1)
    weights = np.where(drawn, 1 / new, -1 / (len(features) - new)).astype(np.float32)  # (rows, 1 + PERMUTATIONS)
    statistics = (weights * (kernel @ weights)).sum(0)
    return float((statistics >= statistics[0] * (1 - 1e-6)).mean())


def _distances(known: np.ndarray, new: np.ndarray) -> np.ndarray:
    among = find_nearest(known, known, NEIGHBOURS + 1)[1][:, 1:].mean(1)  # each is the nearest to itself
    distances: np.ndarray = find_nearest(known, new, NEIGHBOURS)[1].mean(1) / max(float(np.median(among)), 1e-6)
    return distances
