"""The part of a backbone that fine-tuning trains, and what it reads: from the feature cache, or computed anew."""

import contextlib
from collections.abc import Mapping
from typing import Self

import torch

from tl_dagster.backbones.inference import InferenceRunner
from tl_dagster.backbones.splitting import frozen_feature_mask, lower_module, split_backbone
from tl_dagster.data.manifest import read_manifest
from tl_dagster.data.splits import read_views
from tl_dagster.data.views import View, views_to_draw
from tl_dagster.features.backbone_features import BackboneFeatures
from tl_dagster.features.cache import ConcatFeatures, FeatureColumn
from tl_dagster.features.loading import Loader
from tl_dagster.graph.stage import StageContext
from tl_dagster.models.fine_tuned_network import FineTunedNetwork, build_tuned_network
from tl_dagster.training.batches import CachedActivations, DrawnImages, RecomputedActivations, draw_views
from tl_dagster.training.checkpoints import Checkpoint
from tl_dagster.training.fine_tuning import BatchSource
from tl_dagster.training.settings import ResolvedFineTuning

__all__ = ["FineTuningSetup"]

COMPILED = "frozen_part_compiled"


class FineTuningSetup:
    """What one fine-tuning trains, and what it reads; a context manager.

    Args:
        frozen: the backbone.
        work: its bottleneck features and dataset.
        taps: those that the top model reads.
        settings: the declared settings, resolved.
        boundary: the tap up to which is frozen; None: nothing is.

    Attributes:
        column: the feature cache's column of activations, when they come from there.
        said: where the frozen part's output comes from.
    """

    def __init__(
        self,
        frozen: BackboneFeatures,
        work: StageContext,
        taps: list[str],
        settings: ResolvedFineTuning,
        boundary: str | None,
    ) -> None:
        self.frozen, self.taps, self.settings, self.boundary = frozen, taps, settings, boundary
        self.column: FeatureColumn | None = None
        self.said = "nothing is frozen"
        self._work = work
        self._closing = contextlib.ExitStack()
        self._table = read_views(work.inputs["bottleneck_features"].path)
        self._cut = split_backbone(frozen, taps, boundary)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def network(self, head: Mapping[str, torch.Tensor]) -> FineTunedNetwork:
        """The part that is trained, with the top model on it."""

        model = build_tuned_network(self._cut.upper, head, frozen_feature_mask(self.frozen, self._cut))
        return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch's types lack it

    def stage_depths(self, model: torch.nn.Module) -> dict[str, int]:
        """Of each parameter of the upper part, how many stages it lies below the highest."""
        named = [name for name, _ in model.upper.named_parameters()]  # type: ignore[union-attr]
        # The first part of a name is the wrapper's, the last the parameter's.
        numbers = [self.frozen.info.stage_number(name.partition(".")[2].rpartition(".")[0]) for name in named]
        return {name: max(numbers) - number for name, number in zip(named, numbers, strict=True)}

    def inputs(self, checkpoint: Checkpoint) -> BatchSource:
        """What the network reads, by row of the table of views.

        Args:
            checkpoint: what training goes on from; it remembers whether the frozen part ran compiled.
        """
        cut, fresh = self._cut, self.settings.fresh_augmentation
        if cut.reads_images:
            if cut.boundary is not None:
                self.said = "recomputed in each step: the network cannot be cut at its boundary"
                self._work.progress.log(f"the frozen part is {self.said}")
            return DrawnImages(*self._drawing(), self.frozen.info.preprocess)
        column = None if fresh else self.frozen.boundary(len(self._table), self.boundary)
        self.column = column if column and self.frozen.has_room(self._table, column) else None
        if self.column is None:
            self.said = "recomputed in each epoch: " + (
                "each has views of its own"
                if fresh
                else "its activations do not fit compute.activation_cache_gb, compute.feature_cache_gb or the disk"
            )
            self._work.progress.log(f"the frozen part is {self.said}")
            return self._recomputed(checkpoint)
        self.said = "from the feature cache"
        self.frozen.compute_missing(self._table, [self.column], self._work)
        maps = self.column.read(self._table["key"].tolist())
        return CachedActivations(maps, self._shape(maps.width), self._below())

    def _recomputed(self, checkpoint: Checkpoint) -> RecomputedActivations:

        assert self._cut.boundary is not None  # noqa: S101  (for the type checker)
        lower = [*self._cut.frozen_taps, (self._cut.boundary, "none")]
        columns = [self.frozen.column(path, pooling) for path, pooling in lower]
        views, fresh, loader = self._drawing()
        preprocess = self.frozen.info.preprocess
        network = InferenceRunner(
            lambda: lower_module(self.frozen.load(), lower, self.frozen.resize.size),
            [column.key for column in columns],
            self.frozen.precision,
            preprocess["mean"],
            preprocess["std"],
            loader.batch_size,
        )
        before, log = checkpoint.metadata().get(COMPILED), self._work.progress.log
        if self.frozen.declaration.compute.compile == "auto" and before is not False:
            first = next(draw_views(loader, views, range(min(loader.batch_size, len(views))), None, 0))
            network.consider_compiling(first, self._views_drawn(), log, always=bool(before))
        if before and not network.compiled:
            log("the frozen part ran compiled before, and does not now: the model may differ in its last bits")
        checkpoint.circumstances = lambda: {COMPILED: network.compiled}
        width = self.frozen.info.width(*lower[-1], self.frozen.resize.size)
        return RecomputedActivations(views, fresh, loader, network, columns[0].dtype, self._shape(width))

    def _drawing(self) -> tuple[list[View], int | None, Loader]:
        views = views_to_draw(self._table, read_manifest(self._work.inputs["dataset"].path))
        loader = self._closing.enter_context(self.frozen.loader(self._views_drawn()))
        return views, self.frozen.declaration.augmentation.views if self.settings.fresh_augmentation else None, loader

    def _views_drawn(self) -> int:
        plain = self._table["view"] == 0
        train = int(((self._table["split"] == "train") & plain).sum()) * self.settings.views_per_epoch
        return self.settings.epochs * (train + int((self._table["split"] == "validation").sum()))

    def _below(self) -> ConcatFeatures | None:
        columns = [self.frozen.column(path, pooling) for path, pooling in self._cut.frozen_taps]
        return ConcatFeatures(columns, self._table["key"].tolist()) if columns else None

    def _shape(self, values: int) -> tuple[int, ...]:
        assert self.boundary is not None  # noqa: S101  (for the type checker)
        return self.frozen.info.map_shape(self.boundary, values)
