"""The frozen backbone's activations of every view, kept in the feature cache; the artifact is the list of keys."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from tl_dagster.graph.engine import build_engine
from tl_dagster.graph.stage import CheckResult, Column, Stage, StageContext
from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
from tl_dagster.store.artifacts import ArtifactSummary, Materialization

if TYPE_CHECKING:
    import pandas as pd

    from tl_dagster.features.budget import ColumnRows
    from tl_dagster.features.engine import LocalEngine

__all__ = ["BottleneckFeatures"]


class BottleneckFeatures(Stage):
    """Features are computed once per view, layer and weights, across all pipelines of a store."""

    name = "bottleneck_features"
    version = 3
    description = (
        "The frozen backbone's pooled activations of every view, in the feature cache. "
        "Its last fully connected layer is dropped."
    )
    kinds = frozenset({"pytorch", "arrow"})
    inputs = ("dataset", "augmented_splits")
    gpu = True
    columns: ClassVar[Mapping[str, Column]] = {
        name: column._replace(origins=[("augmented_splits", name)]) for name, column in AugmentedSplits.columns.items()
    }
    check_descriptions: ClassVar[Mapping[str, str]] = {
        "near_identical": "Images of two splits whose features are nearly the same.",
        "feature_drift": "Images that are new since the champion was trained, against its training images.",
    }

    def settings(self) -> dict[str, Any]:
        """Return the declared backbone."""
        return self.declaration.backbone.model_dump(mode="json")

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return the numbers of features, views and nearly identical images."""
        features, near = summary.metrics["features"], summary.metrics["near_identical"]
        return f"{features:,.0f} features of {summary.rows:,} views" + (f"; {near:,.0f} near-identical" if near else "")

    def versions(self, context: StageContext) -> dict[str, str]:
        """Only the views count: where the images lie does not."""
        return {"augmented_splits": context.inputs["augmented_splits"].data_version}

    def run(self, context: StageContext) -> Materialization:
        """Forward what the cache lacks, also when the artifact is there but the cache was emptied."""
        from tl_dagster.data.splits import read_views

        engine = build_engine(self.declaration, context)
        views = read_views(context.inputs["augmented_splits"].path)
        columns = engine.features.columns()
        # The columns' digests hold all that matters of the settings, with "auto" resolved on this machine.
        fingerprint = self.fingerprint(context, {"columns": [column.name for column in columns]})
        if context.store.find(self.name, fingerprint) is None:  # then all values will be read
            for column in columns:
                column.verify()
        side_outputs = self._side_outputs(engine, views)
        done = engine.compute_missing(views, columns, side_outputs)

        def write(folder: Any) -> ArtifactSummary:
            from tl_dagster.backbones.weights import remember_weights
            from tl_dagster.reporting.features import write_features

            remember_weights(context.store.layout, engine.features.backbone.weights)
            return write_features(folder, views, engine, done, [column.name for column, _ in side_outputs])

        found = self.find_or_build(context, fingerprint, write)
        reused = len(views) - done.views
        return replace(found, reused=found.reused and not done.views, computed=done.views, reused_rows=reused)

    def _side_outputs(self, engine: "LocalEngine", views: "pd.DataFrame") -> "list[ColumnRows]":
        """Return what a forward pass computes anyway: channel maxima, and the layer that fine-tuning starts from."""
        from tl_dagster.features.side_outputs import channel_maxima_of_training, expected_activations

        strategy, tuning = self.declaration.transfer_strategy.strategy, self.declaration.fine_tuning
        guess = {"auto": "top", "fine-tune-top": "top", "fine-tune-all": "all"}.get(strategy, "none")
        depth = guess if tuning.depth == "auto" else tuning.depth
        maxima = channel_maxima_of_training(engine.features, views)
        if tuning.fresh_augmentation or depth == "none":
            return maxima
        return [*maxima, *expected_activations(engine, views, depth)]

    def run_checks(self, context: StageContext, materialization: Materialization) -> dict[str, CheckResult]:
        """Check whether images of two splits have nearly the same features, and whether new ones differ."""
        from tl_dagster.data.manifest import read_manifest, shown_uris
        from tl_dagster.evaluation.near_pairs import SHEET, read_near_pairs
        from tl_dagster.graph import checks
        from tl_dagster.graph.feature_drift import check_feature_drift
        from tl_dagster.reporting.tables import table_rows

        pairs, settings = read_near_pairs(materialization.artifact.path), self.declaration.checks
        manifest = read_manifest(context.inputs["dataset"].path)
        pairs = pairs[~checks.are_acknowledged(pairs["id"], shown_uris(manifest, pairs["id"]), settings.acknowledged)]
        sizes = context.inputs["augmented_splits"].summary.metrics
        held_out = int(sizes["validation_images"] + sizes["test_images"])
        table = table_rows(
            {
                "image": shown_uris(manifest, pairs["id"]),
                "split": pairs["split"],
                "nearly the same as": shown_uris(manifest, pairs["other"]),
                "its split": pairs["other_split"],
                "distance": pairs["distance"].astype("float64"),
            }
        )
        return {
            "near_identical": checks.near_identical(table, len(pairs), held_out, settings, SHEET),
            "feature_drift": check_feature_drift(
                context.store, self.declaration.name, materialization.artifact, manifest, settings
            ),
        }
