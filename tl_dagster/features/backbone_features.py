"""The columns of the feature cache that belong to a declared backbone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tl_dagster.backbones.frozen import FrozenBackbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.features.cache import FeatureColumn

if TYPE_CHECKING:
    import torch

__all__ = ["BackboneFeatures"]


@dataclass(frozen=True)
class BackboneFeatures:
    """The features of a frozen backbone: its taps, and their columns in the feature cache.

    Attributes:
        backbone: the network.
        taps: declared names.
        pooling: as declared.
        cache: folder of the feature cache.
    """

    backbone: FrozenBackbone
    taps: Sequence[str]
    pooling: str
    cache: Path

    @classmethod
    def from_settings(cls, settings: Backbone, cache: Path) -> Self:
        """Return the declared features.

        Raises:
            InputError: the library has no such backbone, or its weights cannot be found.
        """
        return cls(FrozenBackbone.from_settings(settings), settings.taps, settings.pooling, cache)

    def load(self) -> "torch.nn.Module":
        """Return the network in evaluation mode; see :func:`tl_dagster.backbones.building.load_backbone`."""
        return self.backbone.load(self.taps)

    def column(self, tap: str, pooling: str) -> FeatureColumn:
        """Return the column of a tap (as declared, or a module path)."""
        return FeatureColumn(self.cache, self.backbone.feature_key(tap, pooling))

    def columns(self) -> list[FeatureColumn]:
        """Return the columns of the declared taps, in their order."""
        return [self.column(tap, self.pooling) for tap in self.taps]

    def channel_maxima(self) -> dict[str, FeatureColumn]:
        """Return stage → the largest value of each channel there, from lower to higher, up to the highest tap."""
        info = self.backbone.info
        reached = [stage for stage in info.stages if any(info.is_below(info.module(stage), tap) for tap in self.taps)]
        return {stage: self.column(stage, "max") for stage in reached}

    def activations(self, boundary: str | None) -> FeatureColumn | None:
        """Return the column of activations that fine-tuning starts from; None where there is none.

        Args:
            boundary: the last tap that stays frozen, see :meth:`.BackboneInfo.frozen_through`; None: nothing is frozen.
        """
        info = self.backbone.info
        if boundary is None or len(info.outputs[info.module(boundary)]) == 2:
            return None  # networks of tokens can hardly ever be cut
        return self.column(boundary, "none")

    def row_bytes(self, column: FeatureColumn) -> int:
        """Return the bytes of one row of a column."""
        width = self.backbone.width(*column.output)
        return width * (4 if column.dtype == "float32" else 2)
