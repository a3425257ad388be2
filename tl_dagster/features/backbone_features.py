"""The declared backbone as stages use it: its columns in the feature cache, and what fills them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tl_dagster.backbones.description import BackboneInfo, describe_backbone
from tl_dagster.backbones.inference import batch_size_for
from tl_dagster.backbones.weights import Weights, locate_weights
from tl_dagster.data.augmentation import Augmenter
from tl_dagster.data.decoding import DECODER_VERSION
from tl_dagster.data.manifest import read_manifest
from tl_dagster.data.splits import read_views
from tl_dagster.data.views import View, views_to_draw
from tl_dagster.declaration import Declaration
from tl_dagster.features.cache import ConcatFeatures, FeatureColumn, locked
from tl_dagster.features.extraction import ExtractionResult, extract
from tl_dagster.features.loading import Loader
from tl_dagster.graph.stage import StageContext
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.hardware import has_gpu, resolve_precision
from tl_dagster.store import files as disk
from tl_dagster.store.artifacts import Artifact, ArtifactStore
from tl_dagster.store.digests import digest

if TYPE_CHECKING:
    import torch


__all__ = ["BackboneFeatures", "columns_used", "open_columns", "open_features", "read_features"]


SideOutput = tuple[FeatureColumn, np.ndarray]  # a column, and which rows are for it: bool


class BackboneFeatures:
    """The declared backbone with its weights: knows its columns in the cache, and computes them.

    Args:
        declaration: the pipeline.
        store: where the feature cache is.
    """

    def __init__(self, declaration: Declaration, store: ArtifactStore) -> None:
        self.declaration = declaration
        self.backbone = declaration.backbone
        self.info: BackboneInfo = describe_backbone(self.backbone)
        self.weights: Weights = locate_weights(self.backbone, self.info)
        self.precision = resolve_precision(self.backbone.precision)
        self.resize = self.info.resize(self.backbone)
        self._cache = store.root / "features"

    def column(self, tap: str, pooling: str) -> FeatureColumn:
        """The cache's column of a tap."""
        return FeatureColumn(
            self._cache,
            {
                "decode": DECODER_VERSION,
                "resize": asdict(self.resize),
                "mean": self.info.preprocess["mean"],
                "std": self.info.preprocess["std"],
                "backbone": self.backbone.name,
                "weights": self.weights.identity,
                "tap": self.info.module(tap),
                "pooling": pooling,
                "precision": self.precision,
            },
        )

    def columns(self) -> list[FeatureColumn]:
        """The columns of the declared taps, in their order."""
        return [self.column(tap, self.backbone.pooling) for tap in self.backbone.taps]

    def boundary(self, rows: int, tap: str | None) -> FeatureColumn | None:
        """The column of activations that fine-tuning starts from; None when there is none, or it exceeds its budget.

        Args:
            rows: views that would be kept.
            tap: the last that stays frozen, see :meth:`.BackboneInfo.frozen_through`; None: nothing is.
        """
        if tap is None or len(self.info.outputs[self.info.module(tap)]) == 2:
            return None  # networks of tokens can hardly ever be cut
        column = self.column(tap, "none")
        return column if rows * self._row_bytes(column) <= self.declaration.compute.activation_cache_gb * 1e9 else None

    def has_room(self, table: pd.DataFrame, column: FeatureColumn) -> bool:
        """Whether the rows that a column lacks of a table of views fit on the disk, and into the cache's budget."""
        return self._lacks_room([(column, column.missing(table["key"].tolist()))]) is None

    def expected_boundary(self, rows: int) -> FeatureColumn | None:
        """What :meth:`boundary` will most likely be asked for, before the transfer strategy has chosen."""
        tuning = self.declaration.fine_tuning
        strategy = self.declaration.transfer_strategy.strategy
        guess = {"auto": "top", "fine-tune-top": "top", "fine-tune-all": "all"}.get(strategy, "none")
        depth = guess if tuning.depth == "auto" else tuning.depth
        if tuning.fresh_augmentation or depth == "none":
            return None
        try:
            return self.boundary(rows, self.info.frozen_through(self.backbone.taps, depth))
        except InputError:  # nothing lies below these taps: the strategy may well stop at their features
            return None

    def load(self) -> "torch.nn.Module":
        """The backbone in torch."""
        from tl_dagster.backbones.building import load_backbone

        return load_backbone(self.info, self.weights, self.backbone.taps)

    def maxima(self) -> dict[str, FeatureColumn]:
        """Stage → the largest value of each channel there, from lower to higher, up to the highest declared tap."""
        reached = [
            stage
            for stage in self.info.stages
            if any(self.info.is_below(self.info.module(stage), tap) for tap in self.backbone.taps)
        ]
        return {stage: self.column(stage, "max") for stage in reached}

    def loader(self, work: int = 0) -> Loader:
        """What draws views for this network; ``work``: about how many."""
        compute = self.declaration.compute
        return Loader(
            self.resize,
            Augmenter(self.declaration.augmentation),
            batch_size=compute.batch_size or batch_size_for(self.resize.size, gpu=has_gpu()),
            workers=compute.workers,
            work=work,
            yielding=not has_gpu(),
        )

    def compute_missing(
        self, table: pd.DataFrame, columns: list[FeatureColumn], work: StageContext, also: Sequence[SideOutput] = ()
    ) -> ExtractionResult:
        """Compute the rows that columns lack, unless another run is doing so: then wait for it.

        Args:
            table: rows of augmented_splits.
            columns: they shall have a row for each.
            work: reads the dataset, and tells of progress.
            also: columns that are given rows of what is forwarded anyway, and for which of the table's rows.

        Raises:
            InputError: there is no room, or an image is gone.
        """

        declared = {column.name for column in columns}
        also = [(column, rows) for column, rows in also if column.name not in declared]
        keys = table["key"].tolist()
        complete = not any(column.missing(keys).any() for column in columns)
        for problem in (problem for column in columns for problem in column.damaged):
            work.progress.log(
                f"a damaged shard of the feature cache is set aside, its rows are computed anew: {problem}"
            )
        if complete:
            return ExtractionResult()
        with locked([*columns, *(column for column, _ in also)], work.progress.log):
            for column in (*columns, *(column for column, _ in also)):
                column.remove_stale_files()
            lacking = [column.missing(keys) for column in columns]
            rows = np.flatnonzero(np.logical_or.reduce(lacking))
            if not len(rows):  # the run that was waited for computed them
                return ExtractionResult()
            part = table.iloc[rows]
            stored = [(column, lacks[rows]) for column, lacks in zip(columns, lacking, strict=True)]
            extra = [(column, column.missing(part["key"].tolist()) & chosen[rows]) for column, chosen in also]
            if self._lacks_room(stored + extra):
                work.progress.log(
                    "no room for what fine-tuning starts from: only the features are kept; fine-tuning will run "
                    "the frozen part in each epoch"
                )
                extra = []
            if reason := self._lacks_room(stored):
                raise InputError(reason)
            stored += extra
            views = views_to_draw(part, read_manifest(work.inputs["dataset"].path))
            done = self._extract(views, stored, work, len(table) - len(part), len(columns))
        for (column, _), difference in zip(stored, done.difference, strict=False):
            column.write_notes({"difference_to_fp32": difference})
        return done

    def _extract(
        self, wanted: list[View], stored: list[SideOutput], work: StageContext, reused: int, required: int
    ) -> ExtractionResult:
        def network() -> "torch.nn.Module":
            from tl_dagster.backbones.taps import build_extractor

            return build_extractor(self.load(), [(column.key["tap"], column.key["pooling"]) for column, _ in stored])

        return extract(
            wanted,
            stored,
            network,
            self.loader(len(wanted)),
            mean=self.info.preprocess["mean"],
            std=self.info.preprocess["std"],
            compiling=self.declaration.compute.compile == "auto",
            progress=work.progress,
            reused=reused,
            required=required,
            compare=not all(column.read_notes() for column, _ in stored),
        )

    def _lacks_room(self, stored: list[SideOutput]) -> str | None:
        """Why these rows cannot be written, and the mend; None when they can."""
        needed = sum(int(lacks.sum()) * self._row_bytes(column) for column, lacks in stored)
        limit = self.declaration.compute.feature_cache_gb
        free = disk.free_bytes(self._cache)
        if needed > free:
            where = f"the disk of {self._cache} has {free / 1e9:,.2f} GB free"
        elif limit is not None and needed + (used := disk.used_bytes(self._cache)) > limit * 1e9:
            where = f"compute.feature_cache_gb allows {limit:g} GB, of which {used / 1e9:,.2f} GB are used"
        else:
            return None
        return (
            f"the features need {needed / 1e9:,.2f} GB more, and {where}. Delete what no pipeline uses "
            "(tl-dagster cache prune --unused), declare fewer views or taps, another pooling or a smaller "
            "compute.activation_cache_gb, or put the store on a larger disk"
        )

    def _row_bytes(self, column: FeatureColumn) -> int:
        width = self.info.width(column.key["tap"], column.key["pooling"], self.resize.size)
        return width * (4 if column.dtype == "float32" else 2)


def open_features(
    features: Artifact, store: ArtifactStore, rows: np.ndarray | None = None, taps: Sequence[str] | None = None
) -> ConcatFeatures:
    """The features of a bottleneck_features artifact's views, taps side by side, read when they are indexed.

    Args:
        features: the artifact.
        store: where the feature cache is.
        rows: (views,) row numbers of the table of views; all when not given.
        taps: declared names, in any order; all when not given.
    """
    table = read_views(features.path)
    keys = (table if rows is None else table.iloc[rows])["key"].tolist()
    columns = open_columns(features.path, store)
    return ConcatFeatures([column for tap, column in columns if taps is None or tap in taps], keys)


def read_features(
    features: Artifact, store: ArtifactStore, rows: np.ndarray | None = None, taps: Sequence[str] | None = None
) -> np.ndarray:
    """The same in memory: (views, D); see :func:`open_features`."""
    return open_features(features, store, rows, taps)[:]


COLUMNS, ALSO = "columns.json", "also.json"


def open_columns(path: Path, store: ArtifactStore) -> list[tuple[str, FeatureColumn]]:
    """(tap, column) of a bottleneck_features artifact."""
    return [
        (each["tap"], FeatureColumn(store.root / "features", each["recipe"]))
        for each in json.loads((path / COLUMNS).read_text())
    ]


def columns_used(path: Path) -> list[str]:
    """The cache's columns that a bottleneck_features artifact's rows and pictures come from, and fine-tuning's."""
    also: list[str] = json.loads((path / ALSO).read_text()) if (path / ALSO).exists() else []
    return [*also, *(digest(each["recipe"]) for each in json.loads((path / COLUMNS).read_text()))]
