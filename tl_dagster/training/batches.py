"""Batches that networks train on: activations from the feature cache, recomputed activations, or images."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tl_dagster.backbones.inference import InferenceRunner, normalize, per_channel
from tl_dagster.data.views import View
from tl_dagster.features.cache import ConcatFeatures, FeatureRows
from tl_dagster.features.loading import Loader
from tl_dagster.models.networks import to_maps

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


__all__ = ["CachedActivations", "DrawnImages", "DrawnViews", "RecomputedActivations"]


@dataclass(frozen=True)
class DrawnViews:
    """The pixels of table rows, drawn when they are asked for.

    Attributes:
        views: of each table row.
        loader: draws them.
        view_in_epoch: the row's own view number, and an epoch → the view drawn in it; None: the row's own.
    """

    views: Sequence[View]
    loader: Loader
    view_in_epoch: Callable[[int, int], int] | None

    def __call__(self, rows: Sequence[int] | np.ndarray, epoch: int = 0) -> Iterator[np.ndarray]:
        """Yield the loader's batches of some rows: uint8 (n, size, size, 3), each valid until the next.

        Args:
            rows: their numbers.
            epoch: from 1, in which they are trained on; 0: the rows' own views.
        """
        wanted = [self.views[row] for row in rows]
        if self.view_in_epoch and epoch:
            wanted = [replace(view, index=self.view_in_epoch(view.index, epoch)) for view in wanted]
        with contextlib.closing(self.loader.batches(wanted)) as batches:
            yield from batches


@dataclass(frozen=True)
class CachedActivations:
    """Training inputs from the feature cache: the boundary's maps and the frozen taps' features, by table row.

    Attributes:
        maps: one flattened map per table row.
        shape: (C, H, W) of a map.
        below: the frozen taps' features; None when there are none.
    """

    maps: FeatureRows
    shape: tuple[int, ...]
    below: ConcatFeatures | None

    def __call__(self, rows: np.ndarray, size: int, epoch: int) -> Batches:
        """See :class:`tl_dagster.training.fine_tuning.BatchSource`."""
        for start in range(0, len(rows), size):
            chosen = rows[start : start + size]
            yield to_maps(self.maps[chosen], self.shape), _as_features(self.below, chosen)


@dataclass(frozen=True)
class RecomputedActivations:
    """Training inputs from the images: drawn, and put through the frozen part, in each epoch.

    Attributes:
        drawn: pixels of table rows.
        lower: the frozen part: pixels → features of the frozen taps, and the boundary's flattened map last.
        dtype: of the feature cache, that the outputs are rounded to as if they came from there.
        shape: (C, H, W) of a map.
    """

    drawn: DrawnViews
    lower: InferenceRunner
    dtype: str
    shape: tuple[int, ...]

    def __call__(self, rows: np.ndarray, size: int, epoch: int) -> Batches:
        """See :class:`tl_dagster.training.fine_tuning.BatchSource`."""
        for *features, maps in _in_batches(self._outputs(rows, epoch), size):
            below = np.concatenate(features, 1) if features else np.zeros((len(maps), 0), self.dtype)
            yield to_maps(maps, self.shape), torch.from_numpy(below).float()

    def _outputs(self, rows: np.ndarray, epoch: int) -> Iterator[list[np.ndarray]]:
        for pixels in self.drawn(rows, epoch):
            yield [output.to(getattr(torch, self.dtype)).cpu().numpy() for output in self.lower(pixels)()]


@dataclass(frozen=True)
class DrawnImages:
    """Training inputs that are the images themselves, where nothing is frozen or the network cannot be cut.

    Attributes:
        drawn: pixels of table rows.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
    """

    drawn: DrawnViews
    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, rows: np.ndarray, size: int, epoch: int) -> Batches:
        """See :class:`tl_dagster.training.fine_tuning.BatchSource`."""
        mean, std = (per_channel(values) for values in (self.mean, self.std))
        batches = ([pixels.copy()] for pixels in self.drawn(rows, epoch))
        for (pixels,) in _in_batches(batches, size):
            images = normalize(torch.from_numpy(pixels), mean, std)
            yield images.contiguous(memory_format=torch.channels_last), torch.zeros(len(images), 0)


def _in_batches(parts: Iterator[list[np.ndarray]], size: int) -> Iterator[list[np.ndarray]]:
    """Arrays of equally many rows, cut again into batches of a size; the last may be smaller."""
    pending: list[list[np.ndarray]] = []
    count = 0
    for part in parts:
        pending.append(part)
        count += len(part[0])
        while count >= size:
            joined = [np.concatenate(each) for each in zip(*pending, strict=True)]
            yield [each[:size] for each in joined]
            pending, count = [[each[size:] for each in joined]], count - size
    if count:
        yield [np.concatenate(each) for each in zip(*pending, strict=True)]


def _as_features(values: ConcatFeatures | None, rows: np.ndarray) -> torch.Tensor:

    return torch.zeros(len(rows), 0) if values is None else torch.from_numpy(values[rows]).float()
