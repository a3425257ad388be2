"""Batches that fine-tuning trains on: activations from the feature cache, recomputed activations, or images."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tl_dagster.backbones.inference import InferenceRunner, normalize, per_channel
from tl_dagster.data.views import View
from tl_dagster.features.cache import ConcatFeatures, FeatureRows
from tl_dagster.features.loading import Loader
from tl_dagster.models.networks import to_maps

Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


__all__ = ["CachedActivations", "DrawnImages", "RecomputedActivations", "draw_views"]


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
        views: of each table row.
        fresh: how many views an image has, when each epoch is to draw new ones.
        loader: draws them.
        lower: the frozen part: pixels → features of the frozen taps, and the boundary's flattened map last.
        dtype: of the feature cache, that the outputs are rounded to as if they came from there.
        shape: (C, H, W) of a map.
    """

    views: list[View]
    fresh: int | None
    loader: Loader
    lower: InferenceRunner
    dtype: str
    shape: tuple[int, ...]

    def __call__(self, rows: np.ndarray, size: int, epoch: int) -> Batches:
        """See :class:`tl_dagster.training.fine_tuning.BatchSource`."""
        for *features, maps in _in_batches(self._outputs(rows, epoch), size):
            below = np.concatenate(features, 1) if features else np.zeros((len(maps), 0), self.dtype)
            yield to_maps(maps, self.shape), torch.from_numpy(below).float()

    def _outputs(self, rows: np.ndarray, epoch: int) -> Iterator[list[np.ndarray]]:
        for pixels in draw_views(self.loader, self.views, rows, self.fresh, epoch):
            yield [output.to(getattr(torch, self.dtype)).cpu().numpy() for output in self.lower(pixels)()]


@dataclass(frozen=True)
class DrawnImages:
    """Training inputs that are the images themselves, where nothing is frozen or the network cannot be cut.

    Attributes:
        views: of each table row.
        fresh: how many views an image has, when each epoch is to draw new ones.
        loader: draws them.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
    """

    views: list[View]
    fresh: int | None
    loader: Loader
    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, rows: np.ndarray, size: int, epoch: int) -> Batches:
        """See :class:`tl_dagster.training.fine_tuning.BatchSource`."""
        mean, std = (per_channel(values) for values in (self.mean, self.std))
        batches = ([pixels.copy()] for pixels in draw_views(self.loader, self.views, rows, self.fresh, epoch))
        for (pixels,) in _in_batches(batches, size):
            images = normalize(torch.from_numpy(pixels), mean, std)
            yield images.contiguous(memory_format=torch.channels_last), torch.zeros(len(images), 0)


def draw_views(
    loader: Loader, views: Sequence[View], rows: Sequence[int] | np.ndarray, fresh: int | None, epoch: int
) -> Iterator[np.ndarray]:
    """The pixels of some table rows, in the loader's batches.

    Args:
        loader: draws them.
        views: of each table row.
        rows: numbers of rows.
        fresh: how many views an image has, when each epoch is to draw new ones; None: the table's are drawn.
        epoch: in which they are trained on; 0: the table's are drawn.
    """
    wanted = [views[row] for row in rows]
    if fresh is not None and epoch:
        wanted = [replace(view, index=view.index + epoch * fresh) for view in wanted]
    with contextlib.closing(loader.batches(wanted)) as batches:
        yield from batches


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
