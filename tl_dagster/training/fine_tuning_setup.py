"""The part of a backbone that fine-tuning trains, and its training data: from the feature cache, or recomputed."""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Self

import pandas as pd
import torch

from tl_dagster.backbones.inference import InferenceRunner
from tl_dagster.backbones.splitting import BackboneSplit, lower_module, split_backbone
from tl_dagster.data.views import views_to_draw
from tl_dagster.features.budget import fits_activations, has_room
from tl_dagster.features.cache import ConcatFeatures, FeatureColumn
from tl_dagster.features.engine import LocalEngine
from tl_dagster.models.networks import TunedNetwork, build_tuned_network
from tl_dagster.training.batches import CachedActivations, DrawnImages, DrawnViews, RecomputedActivations
from tl_dagster.training.checkpoints import Checkpoint
from tl_dagster.training.fine_tuning import BatchSource
from tl_dagster.training.settings import ResolvedFineTuning

__all__ = ["FineTuningSetup"]

COMPILED = "frozen_part_compiled"


class FineTuningSetup:
    """The network of one fine-tuning and the source of its batches; a context manager.

    Args:
        engine: of the backbone's features.
        table: rows of augmented_splits.
        taps: declared names of those that the top model reads.
        settings: the declared settings, resolved.
        boundary: the tap up to which is frozen; None: nothing is.

    Attributes:
        split: the backbone, cut at the boundary.
        column: the feature cache's column of activations, when they come from there.
        source: a sentence that says where the frozen part's output comes from.
    """

    def __init__(
        self,
        engine: LocalEngine,
        table: pd.DataFrame,
        taps: Sequence[str],
        settings: ResolvedFineTuning,
        boundary: str | None,
    ) -> None:
        self.engine, self.taps, self.settings, self.boundary = engine, list(taps), settings, boundary
        self.column: FeatureColumn | None = None
        self.source = "nothing is frozen"
        self._table = table
        self._closing = contextlib.ExitStack()
        features = engine.features
        pooled = [(tap, features.pooling) for tap in taps]
        self.split: BackboneSplit = split_backbone(features.backbone, features.load(), pooled, boundary)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def network(self, head: Mapping[str, torch.Tensor]) -> TunedNetwork:
        """Return the part that is trained, with the top model on it."""
        return build_tuned_network(self.split.upper, head, self.split.frozen_features)

    def stage_depths(self, network: TunedNetwork) -> dict[str, int]:
        """Return how many stages each parameter of the upper part lies below the highest."""
        named = [name for name, _ in network.upper.named_parameters()]
        # The first part of a name is the wrapper's, the last the parameter's.
        info = self.engine.features.backbone.info
        numbers = [info.stage_number(name.partition(".")[2].rpartition(".")[0]) for name in named]
        return {name: max(numbers) - number for name, number in zip(named, numbers, strict=True)}

    def batches(self, checkpoint: Checkpoint) -> BatchSource:
        """Return what the network reads, by row of the table of views.

        Args:
            checkpoint: that training resumes from; it remembers whether the frozen part ran compiled.
        """
        backbone = self.engine.features.backbone
        if self.split.reads_images:
            if self.split.boundary is not None:
                self._say("recomputed in each step: the network cannot be cut at its boundary")
            return DrawnImages(self._drawn(), backbone.mean, backbone.std)
        self.column = self._affordable_column()
        if self.column is None:
            self._say(
                "recomputed in each epoch: "
                + (
                    "each has views of its own"
                    if self.settings.fresh_augmentation
                    else "its activations do not fit compute.activation_cache_gb, compute.feature_cache_gb or the disk"
                )
            )
            return self._recomputed(checkpoint)
        self.source = "from the feature cache"
        self.engine.compute_missing(self._table, [self.column])
        maps = self.column.read(self._table["key"].tolist())
        return CachedActivations(maps, self._map_shape(maps.width), self._frozen_features())

    def _say(self, source: str) -> None:
        self.source = source
        self.engine.progress.log(f"the frozen part is {source}")

    def _affordable_column(self) -> FeatureColumn | None:
        features, compute = self.engine.features, self.engine.compute
        column = None if self.settings.fresh_augmentation else features.activations(self.boundary)
        if column is None or not fits_activations(features, compute, column, len(self._table)):
            return None
        return column if has_room(features, compute, self._table, column) else None

    def _recomputed(self, checkpoint: Checkpoint) -> RecomputedActivations:
        assert self.split.boundary is not None  # noqa: S101  (for the type checker)
        features, backbone = self.engine.features, self.engine.features.backbone
        lower = [*self.split.frozen_taps, (self.split.boundary, "none")]
        columns = [features.column(path, pooling) for path, pooling in lower]
        drawn = self._drawn()
        network = InferenceRunner(
            lambda: lower_module(features.load(), lower, backbone.size),
            [column.key for column in columns],
            backbone.precision,
            backbone.mean,
            backbone.std,
            drawn.loader.batch_size,
        )
        before, log = checkpoint.metadata().get(COMPILED), self.engine.progress.log
        if self.engine.compute.compile == "auto" and before is not False:
            first = next(drawn(range(min(drawn.loader.batch_size, len(drawn.views)))))
            network.consider_compiling(first, self._count_drawn(), log, always=bool(before))
        if before and not network.compiled:
            log("the frozen part ran compiled before, and does not now: the model may differ in its last bits")
        checkpoint.circumstances = lambda: {COMPILED: network.compiled}
        shape = self._map_shape(backbone.width(*lower[-1]))
        return RecomputedActivations(drawn, network, columns[0].dtype, shape)

    def _drawn(self) -> DrawnViews:
        views = views_to_draw(self._table, self.engine.manifest())
        loader = self._closing.enter_context(self.engine.loader(self._count_drawn()))
        fresh = partial(_fresh_view, self.engine.augmentation.views) if self.settings.fresh_augmentation else None
        return DrawnViews(views, loader, fresh)

    def _count_drawn(self) -> int:
        plain = self._table["view"] == 0
        train = int(((self._table["split"] == "train") & plain).sum()) * self.settings.views_per_epoch
        return self.settings.epochs * (train + int((self._table["split"] == "validation").sum()))

    def _frozen_features(self) -> ConcatFeatures | None:
        columns = [self.engine.features.column(path, pooling) for path, pooling in self.split.frozen_taps]
        return ConcatFeatures(columns, self._table["key"].tolist()) if columns else None

    def _map_shape(self, values: int) -> tuple[int, ...]:
        assert self.boundary is not None  # noqa: S101  (for the type checker)
        return self.engine.features.backbone.info.map_shape(self.boundary, values)


def _fresh_view(views: int, view: int, epoch: int) -> int:
    """Return a view that is in no table and no other epoch: an image has ``views`` of them in each."""
    return view + epoch * views
