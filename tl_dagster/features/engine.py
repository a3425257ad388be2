"""The engine that computes features: on this machine, with worker processes that decode."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from tl_dagster.data.augmentation import Augmenter
from tl_dagster.data.settings import Augmentation
from tl_dagster.data.views import views_to_draw
from tl_dagster.features.backbone_features import BackboneFeatures
from tl_dagster.features.budget import ColumnRows, explain_shortage
from tl_dagster.features.cache import FeatureColumn, locked
from tl_dagster.features.loading import Loader
from tl_dagster.features.results import ExtractionResult
from tl_dagster.features.settings import Compute
from tl_dagster.runtime.devices import uses_gpu
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.hardware import batch_size_for
from tl_dagster.runtime.progress import Progress

if TYPE_CHECKING:
    import torch

__all__ = ["Engine", "LocalEngine"]


class Engine(Protocol):
    """Whatever computes the rows that columns lack."""

    def compute_missing(
        self, table: pd.DataFrame, columns: Sequence[FeatureColumn], side_outputs: Sequence[ColumnRows] = ()
    ) -> ExtractionResult:
        """Compute the rows that columns lack; see :meth:`LocalEngine.compute_missing`."""


@dataclass(frozen=True)
class LocalEngine:
    """The engine of one machine.

    Attributes:
        features: the backbone and its columns.
        augmentation: draws the views.
        compute: how the work is done.
        manifest: gives the dataset's images, where files are read.
        progress: informed of each step.
    """

    features: BackboneFeatures
    augmentation: Augmentation
    compute: Compute
    manifest: Callable[[], pd.DataFrame]
    progress: Progress

    @property
    def batch_size(self) -> int:
        """Views in one forward pass."""
        return self.compute.batch_size or batch_size_for(self.features.backbone.size, gpu=uses_gpu())

    def loader(self, work: int = 0) -> Loader:
        """Return what draws views for the network; ``work``: about how many."""
        return Loader(
            self.features.backbone.resize,
            Augmenter(self.augmentation),
            batch_size=self.batch_size,
            workers=self.compute.workers,
            work=work,
            yielding=not uses_gpu(),
        )

    def compute_missing(
        self, table: pd.DataFrame, columns: Sequence[FeatureColumn], side_outputs: Sequence[ColumnRows] = ()
    ) -> ExtractionResult:
        """Compute the rows that columns lack, unless another run is doing so: then wait for it.

        Args:
            table: rows of augmented_splits.
            columns: they shall have a row for each.
            side_outputs: columns that get rows of what is forwarded anyway, and for which of the table's rows.

        Raises:
            InputError: there is no room, or an image is gone.
        """
        required = {column.name for column in columns}
        side_outputs = [(column, rows) for column, rows in side_outputs if column.name not in required]
        keys = table["key"].tolist()
        complete = not any(column.missing(keys).any() for column in columns)
        for problem in (problem for column in columns for problem in column.damaged):
            self.progress.log(
                f"a damaged shard of the feature cache is quarantined, its rows are recomputed: {problem}"
            )
        if complete:
            return ExtractionResult()
        every = [*columns, *(column for column, _ in side_outputs)]
        with locked(every, self.progress.log):
            for column in every:
                column.remove_stale_files()
            return self._extract_missing(table, keys, columns, side_outputs)

    def _extract_missing(
        self,
        table: pd.DataFrame,
        keys: list[str],
        columns: Sequence[FeatureColumn],
        side_outputs: Sequence[ColumnRows],
    ) -> ExtractionResult:
        lacking = [column.missing(keys) for column in columns]
        rows = np.flatnonzero(np.logical_or.reduce(lacking))
        if not len(rows):  # the run that was waited for computed them
            return ExtractionResult()
        part = table.iloc[rows]
        wanted = [(column, lacks[rows]) for column, lacks in zip(columns, lacking, strict=True)]
        extra = [(column, column.missing(part["key"].tolist()) & chosen[rows]) for column, chosen in side_outputs]
        if explain_shortage(self.features, self.compute, wanted + extra):
            self.progress.log(
                "no room for what fine-tuning starts from: only the features are kept; fine-tuning will run "
                "the frozen part in each epoch"
            )
            extra = []
        if reason := explain_shortage(self.features, self.compute, wanted):
            raise InputError(reason)
        return self._extract(part, wanted + extra, len(table) - len(part), len(columns))

    def _extract(self, part: pd.DataFrame, wanted: list[ColumnRows], reused: int, required: int) -> ExtractionResult:
        from tl_dagster.features.extraction import extract

        backbone, views = self.features.backbone, views_to_draw(part, self.manifest())
        done = extract(
            views,
            wanted,
            lambda: self._network([column for column, _ in wanted]),
            self.loader(len(views)),
            mean=backbone.mean,
            std=backbone.std,
            compiling=self.compute.compile == "auto",
            progress=self.progress,
            reused=reused,
            required=required,
            compare=not all("difference_to_fp32" in column.read_notes() for column, _ in wanted),
        )
        outputs = [column.output for column, _ in wanted]
        for number, (column, _) in enumerate(wanted):
            notes = {**column.read_notes(), "outputs": outputs, "compiled": done.compiled}
            if number < len(done.difference):
                notes["difference_to_fp32"] = done.difference[number]
            column.write_notes(notes)
        return done

    def _network(self, columns: Sequence[FeatureColumn]) -> "torch.nn.Module":
        from tl_dagster.backbones.taps import build_extractor

        return build_extractor(self.features.load(), [column.output for column in columns])
