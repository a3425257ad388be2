"""Features of many views, standardised: read block by block from the feature cache, or kept where memory allows."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from tl_dagster.data.labels import class_indices, label_confidence
from tl_dagster.features.blocks import Features, blocks

__all__ = ["MEMORY_BYTES", "LabelledFeatures", "StandardizedFeatures", "Targets", "build_targets", "moments", "one_hot"]

MEMORY_BYTES = 2 * 2**30
LEAST_STD = 1e-3


@dataclass(frozen=True)
class LabelledFeatures:
    """Labelled views.

    Attributes:
        features: (n, D).
        labels: int64 (n,), class numbers.
        images: int64 (n,), number of each view's image, 0 …, each occurring at least once.
        confidence: float32 (n,), how sure each label is; None: quite.
    """

    features: Features
    labels: np.ndarray
    images: np.ndarray
    confidence: np.ndarray | None = None


def one_hot(labels: np.ndarray, confidence: np.ndarray | None, classes: int) -> np.ndarray:
    """What views are trained towards: float32 (n, classes).

    Args:
        labels: int64 (n,).
        confidence: float32 (n,), the share of the target on the label; the rest is spread over the other classes.
        classes: how many.
    """

    spread = 0 if confidence is None else (1 - confidence) / max(classes - 1, 1)
    targets = np.empty((len(labels), classes), np.float32)
    targets.T[:] = spread
    targets[np.arange(len(labels)), labels] = 1 if confidence is None else confidence
    return targets


@dataclass(frozen=True)
class Targets:
    """Training targets, made when they are indexed: those of a million views and a thousand classes are 4 GB.

    Attributes:
        labels: see :func:`one_hot`.
        confidence: see there.
        classes: how many.
    """

    labels: np.ndarray
    confidence: np.ndarray | None
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray | slice) -> torch.Tensor:
        """Rows by position: float32 (n, classes)."""

        sure = None if self.confidence is None else self.confidence[rows]
        return torch.from_numpy(one_hot(self.labels[rows], sure, self.classes))


def moments(features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each feature, in one pass over blocks, which are combined in double precision.

    The combination is that of Chan, Golub & LeVeque 1983 ("Algorithms for computing the sample variance", The American
    Statistician 37). A feature that hardly varies gets 1, so that noise in it is not blown up.

    Args:
        features: (n, D), n at least 1.

    Returns:
        float32 (D,) each.
    """

    width = features[:1].shape[1]
    count, mean, squares = 0, torch.zeros(width).double(), torch.zeros(width).double()
    for part in blocks(len(features), 2 * width):
        rows = torch.from_numpy(features[part]).double()
        own = rows.mean(0)
        apart, total = own - mean, count + len(rows)
        squares += rows.sub_(own).square_().sum(0) + apart.square() * (count * len(rows) / total)
        mean += apart * (len(rows) / total)
        count = total
    std = (squares / count).sqrt()
    return mean.float(), torch.where(std < LEAST_STD, 1.0, std).float()


class StandardizedFeatures:
    """``(features - mean) / std`` in float32.

    Args:
        features: (n, D).
        mean: (D,).
        std: (D,).
        memory: bytes; all rows are kept when they take no more, else read anew each time. The values are the same.
    """

    def __init__(self, features: Features, mean: torch.Tensor, std: torch.Tensor, memory: int = MEMORY_BYTES) -> None:

        self._features, self._mean, self._std = features, mean, std
        self._kept: torch.Tensor | None = None
        if 4 * len(features) * self.width <= memory:
            kept = torch.empty(len(features), self.width)
            for part in blocks(*kept.shape):
                kept[part] = self[part]
            self._kept = kept

    @property
    def width(self) -> int:
        """Features of a view (D)."""
        return len(self._mean)

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, rows: np.ndarray | slice) -> torch.Tensor:
        """Rows by position: int64 indices of shape (n,) or a slice → float32 (n, D)."""

        if self._kept is not None:
            return self._kept[rows]
        return torch.from_numpy(self._features[rows]).float().sub(self._mean).div_(self._std)


def build_targets(table: pd.DataFrame, classes: list[str]) -> Targets:
    """What each view is trained towards: (views, classes), made when it is indexed.

    One-hot, or where the source says how sure a label is, that on the label and the rest spread over the others.
    """

    return Targets(class_indices(table["label"], classes), label_confidence(table), len(classes))
