"""Features of many views, standardized: read block by block from the feature cache, or kept where memory allows."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from tl_dagster.data.labels import class_indices, label_confidence
from tl_dagster.features.blocks import Features, blocks

__all__ = [
    "MEMORY_BYTES",
    "FeatureSubset",
    "LabelledFeatures",
    "StandardizedFeatures",
    "Targets",
    "build_targets",
    "moments",
    "one_hot",
    "standardize",
]

MEMORY_BYTES = 2 * 2**30
LEAST_STD = 1e-3


@dataclass(frozen=True)
class LabelledFeatures:
    """Labelled views.

    Attributes:
        features: (n, D).
        labels: int64 (n,), class numbers.
        images: int64 (n,), number of each view's image, 0 …, each occurring at least once.
        confidence: float32 (n,), probability that the label is right; None: 1.
    """

    features: Features
    labels: np.ndarray
    images: np.ndarray
    confidence: np.ndarray | None = None


@dataclass(frozen=True)
class FeatureSubset:
    """Some rows of features, read when they are indexed.

    Attributes:
        features: (n, D).
        rows: int64 (m,), positions in them.
    """

    features: Features
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        return self.features[self.rows[rows]]


def one_hot(labels: np.ndarray, confidence: np.ndarray | None, classes: int) -> np.ndarray:
    """Return training targets: float32 (n, classes).

    Args:
        labels: int64 (n,).
        confidence: float32 (n,), the share of the target on the label; the rest is spread over the other classes.
        classes: number of classes.
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
        classes: number of classes.
    """

    labels: np.ndarray
    confidence: np.ndarray | None
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: np.ndarray | slice) -> torch.Tensor:
        """Return rows by position: float32 (n, classes)."""
        confidence = None if self.confidence is None else self.confidence[rows]
        return torch.from_numpy(one_hot(self.labels[rows], confidence, self.classes))


def moments(features: Features) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each feature, in one pass over blocks, combined in double precision.

    The combination is that of Chan, Golub & LeVeque 1983 ("Algorithms for computing the sample variance", The American
    Statistician 37). A feature that hardly varies (by less than 0.001) gets 1, so that noise in it is not blown up.

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
        memory: bytes; all rows are kept when they take no more, else read again each time. The values are the same.
    """

    def __init__(self, features: Features, mean: torch.Tensor, std: torch.Tensor, memory: int = MEMORY_BYTES) -> None:

        self.mean, self.std = mean, std
        self._features = features
        self._cached: torch.Tensor | None = None
        if 4 * len(features) * self.width <= memory:
            cached = torch.empty(len(features), self.width)
            for part in blocks(*cached.shape):
                cached[part] = self[part]
            self._cached = cached

    @property
    def width(self) -> int:
        """Features of a view (D)."""
        return len(self.mean)

    def __len__(self) -> int:
        return len(self._features)

    def __getitem__(self, rows: np.ndarray | slice) -> torch.Tensor:
        """Return rows by position: int64 indices of shape (n,) or a slice → float32 (n, D)."""
        if self._cached is not None:
            return self._cached[rows]
        return torch.from_numpy(self._features[rows]).float().sub(self.mean).div_(self.std)


def standardize(features: Features, memory: int = MEMORY_BYTES) -> StandardizedFeatures:
    """Standardize features (n, D) by their own :func:`moments`; see :class:`StandardizedFeatures`."""
    return StandardizedFeatures(features, *moments(features), memory)


def build_targets(table: pd.DataFrame, classes: list[str]) -> Targets:
    """Build the training targets of each view: (views, classes), made when they are indexed.

    One-hot; or where the source gives a label's probability, that on the label and the rest spread over the others.
    """
    return Targets(class_indices(table["label"], classes), label_confidence(table), len(classes))
