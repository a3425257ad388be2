"""The comparison of backbones, layers and poolings: a table that a backfill of its partitions fills."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tl_dagster.backbones.settings import Backbone
from tl_dagster.evaluation.settings import BackboneLeaderboard as Declared
from tl_dagster.graph.stage import Stage, StageContext, require_same
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import LEADERBOARD, Artifact, ArtifactSummary, Materialization
from tl_dagster.store.digests import digest

if TYPE_CHECKING:
    from tl_dagster.evaluation.leaderboard import Configuration, Entry, LeaderboardImages
    from tl_dagster.features.cache import FeatureColumn
    from tl_dagster.features.engine import LocalEngine

__all__ = ["TABLE", "BackboneLeaderboard"]

BACKBONE, TAP = "backbone", "tap"  # dimensions of its partitions
ENTRY = "leaderboard_entry"  # an artifact of its own for each configuration
PICTURE, FILE, TABLE = "Leaderboard", "leaderboard.png", "Leaderboard table"
SETTLED_BATCHES = 10
BESIDE = "+"  # joins a tap and a pooling, where there are several of these


class BackboneLeaderboard(Stage):
    """Beside the pipeline: it changes no model. Each image is forwarded once for each backbone, for all its taps."""

    name = LEADERBOARD
    version = 1
    description = (
        "Backbones, layers and poolings on equal terms: cross-validated logistic regressions on features of the same "
        "training and validation images, with intervals that hold for all at once. Backfill its partitions to fill it."
    )
    kinds = frozenset({"pytorch", "matplotlib"})
    inputs = ("dataset", "augmented_splits")
    gpu = True

    @classmethod
    def is_enabled(cls, declaration: Any) -> bool:
        """Only where it is declared."""
        return declaration.backbone_leaderboard is not None

    @property
    def group(self) -> str:
        """A group of its own: to materialize all of the pipeline's, one need not choose partitions."""
        return f"{self.declaration.name}_leaderboard"

    @property
    def _declared(self) -> Declared:
        return self.declaration.backbone_leaderboard or Declared()

    @cached_property
    def _backbones(self) -> dict[str, Backbone]:
        return {describe_choice(each): each for each in self._declared.backbones}

    @cached_property
    def _taps(self) -> dict[str, tuple[str, str]]:
        """Partition key → tap and pooling."""
        poolings = self._declared.poolings
        return {
            tap + (BESIDE + pooling if len(poolings) > 1 else ""): (tap, pooling)
            for tap in self._declared.taps
            for pooling in poolings
        }

    def partitions(self) -> Mapping[str, Sequence[str]]:
        """Return the backbones, and the taps (with poolings, where there are several)."""
        return {BACKBONE: [*self._backbones], TAP: [*self._taps]}

    def settings(self) -> dict[str, Any]:
        """Return the declared leaderboard."""
        return self._declared.model_dump(mode="json")

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return the best configuration, and how many may be the best."""
        return str(summary.metadata["best"])

    def versions(self, context: StageContext) -> dict[str, str]:
        """Only the views count: where the images lie does not."""
        return {"augmented_splits": context.inputs["augmented_splits"].data_version}

    def run(self, context: StageContext) -> Materialization:
        """Measure the chosen configurations that are not measured yet, and compare all that are."""
        require_same(context.inputs["augmented_splits"], "dataset", context.inputs["dataset"])
        every = [{BACKBONE: title, TAP: tap} for title in self._backbones for tap in self._taps]
        chosen: dict[str, list[str]] = {}
        for each in context.partitions or every:
            chosen.setdefault(each[BACKBONE], []).append(each[TAP])
        engines = {title: self._engine(context, title) for title in chosen}
        for title, taps in chosen.items():  # refused before any work
            for tap in taps:
                engines[title].features.column(*self._taps[tap])
        images = self._images(context)
        computed = sum(self._measure(context, images, title, engines[title], taps) for title, taps in chosen.items())
        found = dict(self._find(context, images, engines))
        metrics = {each: entry.summary.metrics for each, entry in found.items()}
        ranked = sorted(found, key=lambda each: (-metrics[each]["accuracy"], metrics[each]["log_loss"], each))
        return self._compare(context, images, {each: found[each] for each in ranked}, computed)

    def partition_metadata(self, materialization: Materialization, key: Mapping[str, str]) -> Mapping[str, float]:
        """Return the measures of a configuration, which Dagster plots by partition."""
        tap, pooling = self._taps[key[TAP]]
        rows = materialization.artifact.summary.tables[TABLE]
        own = [row for row in rows if (row["backbone"], row["tap"], row["pooling"]) == (key[BACKBONE], tap, pooling)]
        names = {"accuracy": "accuracy", "log-loss": "log_loss", "features": "features"}
        return {name: float(row[column]) for row in own for column, name in names.items()}

    def _engine(self, context: StageContext, title: str) -> "LocalEngine":
        from tl_dagster.graph.engine import build_engine

        taps = {"taps": self._declared.taps, "pooling": self._declared.poolings[0]}
        backbone = self._backbones[title].model_copy(update=taps)
        return build_engine(self.declaration.model_copy(update={"backbone": backbone}), context)

    def _images(self, context: StageContext) -> "LeaderboardImages":
        from tl_dagster.data.manifest import read_groups
        from tl_dagster.data.splits import read_views
        from tl_dagster.evaluation.leaderboard import select_images

        views, dataset = read_views(context.inputs["augmented_splits"].path), context.inputs["dataset"].path
        images = select_images(views, lambda ids: read_groups(dataset, ids), self._declared.images)
        if not images.are_comparable():
            raise InputError(
                "backbone_leaderboard: no class has images of two groups among the training and validation images, so "
                "none can be predicted from others: add images, or declare finer groups"
            )
        return images

    def _measure(
        self,
        context: StageContext,
        images: "LeaderboardImages",
        title: str,
        engine: "LocalEngine",
        taps: Sequence[str],
    ) -> int:
        """Measure a backbone's taps that are not measured yet, and return how many."""
        lacking = [tap for tap in self._taps if tap in taps and not self._find_entry(context, images, engine, tap)]
        if not lacking:
            return 0
        columns = [*self._columns(engine)]
        done = engine.compute_missing(images.views, columns)
        if done.views >= SETTLED_BATCHES * engine.batch_size:  # fewer are paid for mostly by the first batch
            for column in columns:
                column.write_notes({**column.read_notes(), "milliseconds": 1000 / max(done.views_per_second, 1e-9)})
        for tap in lacking:
            entry = self._build_entry(context, images, engine, tap)
            metrics = entry.summary.metrics
            context.progress.log(
                f"{title} {tap}: accuracy {metrics['accuracy']:.4f}, log-loss {metrics['log_loss']:.4f}"
            )
        return len(lacking)

    def _columns(self, engine: "LocalEngine") -> "Iterator[FeatureColumn]":
        """Yield the columns of the declared layers that the backbone has."""
        for tap, pooling in self._taps.values():
            with contextlib.suppress(InputError):  # said where it is chosen
                yield engine.features.column(tap, pooling)

    def _find_entry(
        self, context: StageContext, images: "LeaderboardImages", engine: "LocalEngine", tap: str
    ) -> Artifact | None:
        return context.store.find(ENTRY, self._address(images, engine, tap))

    def _address(self, images: "LeaderboardImages", engine: "LocalEngine", tap: str) -> str:
        column = engine.features.column(*self._taps[tap])
        return digest({"stage": ENTRY, "recipe": self.version, "images": images.identity, "features": column.name})

    def _build_entry(
        self, context: StageContext, images: "LeaderboardImages", engine: "LocalEngine", tap: str
    ) -> Artifact:
        from tl_dagster.evaluation.leaderboard import measure

        column, info = engine.features.column(*self._taps[tap]), engine.features.backbone.info
        costs = {
            "gflop": info.costs.get(column.output[0]),
            "megabytes": info.parameters * 4 / 1e6,
            "milliseconds": column.read_notes().get("milliseconds"),
        }

        def write(folder: Path) -> ArtifactSummary:
            entry = measure(images, column, costs, folder)
            metrics = {"accuracy": entry.accuracy, "log_loss": entry.log_loss}
            count = len(images.labels)
            return ArtifactSummary(rows=count, computed=count, metrics=metrics, feature_columns=[column.name])

        return context.store.build(
            ENTRY,
            self._address(images, engine, tap),
            write,
            inputs=self.versions(context),
            origin=context.run.describe(),
        )

    def _find(
        self, context: StageContext, images: "LeaderboardImages", engines: "Mapping[str, LocalEngine]"
    ) -> "Iterator[tuple[Configuration, Artifact]]":
        """Yield every declared configuration that was measured on these images."""
        from tl_dagster.evaluation.leaderboard import Configuration

        for title in self._backbones:
            try:
                engine = engines.get(title) or self._engine(context, title)
            except InputError:  # a backbone that is not there, as a layer below: said where it is chosen
                continue
            for tap, (name, pooling) in self._taps.items():
                with contextlib.suppress(InputError):
                    if entry := self._find_entry(context, images, engine, tap):
                        yield Configuration(title, name, pooling), entry

    def _compare(
        self,
        context: StageContext,
        images: "LeaderboardImages",
        found: "Mapping[Configuration, Artifact]",
        computed: int,
    ) -> Materialization:
        from tl_dagster.evaluation.leaderboard import compare_entries, read_entry
        from tl_dagster.reporting.leaderboard import draw_leaderboard, leaderboard_rows

        addresses = [entry.fingerprint for entry in found.values()]
        names = [[each.backbone, each.tap, each.pooling] for each in found]
        fingerprint = digest({"stage": self.name, "recipe": self.version, "entries": addresses, "names": names})

        def write(folder: Path) -> ArtifactSummary:
            entries = [(configuration, read_entry(artifact.path)) for configuration, artifact in found.items()]
            compared = compare_entries([artifact.path for artifact in found.values()])
            draw_leaderboard(folder / FILE, entries, compared)
            return ArtifactSummary(
                rows=len(entries),
                computed=computed,
                metrics={"configurations": len(entries), "images": len(images.labels)},
                metadata={"best": _describe_best(entries, compared.interval, int(compared.may_be_best.sum()))},
                figures={PICTURE: FILE},
                tables={TABLE: leaderboard_rows(entries, compared)},
                feature_columns=[name for entry in found.values() for name in entry.summary.feature_columns],
                parts=[(ENTRY, address) for address in addresses],
            )

        return self.find_or_build(context, fingerprint, write)


def _describe_best(entries: "Sequence[tuple[Configuration, Entry]]", interval: Any, rivals: int) -> str:
    (configuration, entry), (low, high) = entries[0], interval[0]
    return (
        f"best: {configuration.backbone} {configuration.tap} {configuration.pooling}, accuracy {entry.accuracy:.3f} "
        f"({low:.3f} – {high:.3f}); {rivals} of {len(entries)} may be the best"
    )


def describe_choice(backbone: Backbone) -> str:
    """Return a backbone's title: its name, and what of its settings is not the default.

    Weights that are a file or a URL are named by the end of their path and a digest: the rest may be secret, or have
    characters that Dagster allows in no partition.
    """
    declared = backbone.model_dump(mode="json", exclude_defaults=True, exclude={"name", "taps", "pooling", "sha256"})
    if backbone.weights and backbone.tag is None and not backbone.weights.startswith("random:"):
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(urlsplit(backbone.weights).path).name)
        declared["weights"] = f"{name}-{digest(backbone.weights)[:8]}"
    return " ".join([backbone.name, *(f"{name}={value}" for name, value in declared.items())])
