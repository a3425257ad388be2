"""The frozen backbone's activations of every view, kept in the feature cache; the artifact is the list of keys."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tl_dagster.data.manifest import image_uris, read_manifest, shown_uris
from tl_dagster.data.splits import read_views
from tl_dagster.features.backbone_features import ALSO, COLUMNS, BackboneFeatures
from tl_dagster.features.cache import ConcatFeatures, FeatureColumn
from tl_dagster.features.extraction import ExtractionResult
from tl_dagster.graph import checks
from tl_dagster.graph.stage import CheckResult, Stage, StageContext
from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
from tl_dagster.reporting.sheets import MOST_TILES
from tl_dagster.store.artifacts import ArtifactSummary, Materialization

if TYPE_CHECKING:
    import pandas as pd

    from tl_dagster.features.backbone_features import SideOutput


__all__ = ["BottleneckFeatures"]

NEAR = "near_identical.parquet"
SHEET, MAP, EXCITED = "Near-identical pairs", "Map of the features", "What excites each stage"
MOST_EXCITED = 10_000  # images that are looked through
SIDES = (("id", "split"), ("other", "other_split"))


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
    columns = AugmentedSplits.columns
    check_descriptions: ClassVar[Mapping[str, str]] = {
        "near_identical": "Images of two splits whose features are nearly the same.",
    }

    def settings(self) -> dict[str, Any]:
        """The declared backbone."""
        return self.declaration.backbone.model_dump(mode="json")

    def run_checks(self, work: StageContext, held: Materialization) -> dict[str, CheckResult]:
        """Whether images of two splits have nearly the same features."""
        import pandas as pd

        pairs = pd.read_parquet(held.artifact.path / NEAR)
        if pairs.empty:
            return {"near_identical": checks.near_identical([], 0, SHEET)}
        manifest = read_manifest(work.inputs["dataset"].path)
        table = checks.table_rows(
            {
                "image": shown_uris(manifest, pairs["id"]),
                "split": pairs["split"],
                "nearly the same as": shown_uris(manifest, pairs["other"]),
                "its split": pairs["other_split"],
                "distance": pairs["distance"].astype("float64"),
            }
        )
        return {"near_identical": checks.near_identical(table, len(pairs), SHEET)}

    def versions(self, work: StageContext) -> dict[str, str]:
        """Only the views count: where the images lie does not."""
        return {"augmented_splits": work.inputs["augmented_splits"].data_version}

    def run(self, work: StageContext) -> Materialization:
        """Forward what the cache lacks, also when the artifact is there but the cache was emptied."""
        frozen = BackboneFeatures(self.declaration, work.store)
        table = read_views(work.inputs["augmented_splits"].path)
        columns = frozen.columns()
        # The columns' digests hold all that matters of the settings, with "auto" resolved on this machine.
        fingerprint = self.fingerprint(work, {"columns": [column.name for column in columns]})
        if work.store.find(self.name, fingerprint) is None:  # then all values will be read
            for column in columns:
                column.verify()
        done = frozen.compute_missing(table, columns, work, _passed(frozen, table))

        def write(folder: Path) -> ArtifactSummary:
            return _described(folder, table, frozen, columns, done, read_manifest(work.inputs["dataset"].path))

        held = self.find_or_build(work, fingerprint, write)
        reused = len(table) - done.views
        return replace(held, reused=held.reused and not done.views, computed=done.views, reused_rows=reused)


def _passed(frozen: BackboneFeatures, table: "pd.DataFrame") -> "list[SideOutput]":
    """What a forward pass goes through anyway: the layer that fine-tuning starts from, and what excites each stage."""
    import numpy as np

    boundary = frozen.expected_boundary(len(table))
    plain = _plain_training(table).to_numpy()
    also = [(column, plain) for column in frozen.maxima().values()]
    return [*also, (boundary, np.ones(len(table), bool))] if boundary else also


def _plain_training(table: "pd.DataFrame") -> "pd.Series":
    return (table["split"] == "train") & (table["view"] == 0)


def _described(
    folder: Path,
    table: "pd.DataFrame",
    frozen: BackboneFeatures,
    columns: list[FeatureColumn],
    done: ExtractionResult,
    manifest: "pd.DataFrame",
) -> ArtifactSummary:
    """Write the artifact: the list of keys, and what is worth seeing of the features."""
    table.to_parquet(folder / "views.parquet")
    taps = frozen.backbone.taps
    kept = [{"tap": tap, "recipe": column.key} for tap, column in zip(taps, columns, strict=True)]
    (folder / COLUMNS).write_text(json.dumps(kept, indent=1))
    (folder / ALSO).write_text(json.dumps([column.name for column, _ in _passed(frozen, table)], indent=1))
    first = table["key"][:1].tolist()
    widths = {tap: column.read(first).width for tap, column in zip(taps, columns, strict=True)}
    near, near_pictures = _near_identical(table, columns, manifest, folder)
    said, figures = _explained(table, columns, frozen, manifest, folder)
    differences = {
        tap: column.read_notes().get("difference_to_fp32") for tap, column in zip(taps, columns, strict=True)
    }
    metrics: dict[str, float] = {"features": sum(widths.values()), "near_identical": near}
    if done.views:
        metrics |= {"views_per_second": round(done.views_per_second, 1), "images_decoded": done.images}
    return ArtifactSummary(
        rows=len(table),
        computed=done.views,
        metrics=metrics,
        figures={**figures, **near_pictures},
        metadata={
            "features_per_tap": widths,
            "precision": frozen.precision,
            "difference_to_fp32": {tap: each for tap, each in differences.items() if each},
            "compiled": done.compiled,
            "seconds_by_step": {name: round(seconds, 2) for name, seconds in done.seconds.items()},
            "weights_sha256": frozen.weights.identity,
            "map_of_the_features": said,
        },
    )


def _explained(
    table: "pd.DataFrame",
    columns: list[FeatureColumn],
    frozen: BackboneFeatures,
    manifest: "pd.DataFrame",
    folder: Path,
) -> tuple[str, dict[str, str]]:
    """A map of the features, and the training images that excite each stage: what is shown, and the pictures."""
    from tl_dagster.reporting.explanations import feature_map, top_activating_images

    plain = table[_plain_training(table)]
    features = ConcatFeatures(columns, plain["key"].tolist())
    said = feature_map(folder / "feature_map.png", features, plain["label"].tolist())
    figures = {MAP: "feature_map.png"}
    maxima = frozen.maxima()
    # Rows that were forwarded before these were kept lack them: an image is not forwarded again for a picture.
    seen = plain.iloc[:MOST_EXCITED]
    for column in maxima.values():
        seen = seen[~column.missing(seen["key"].tolist())]
    if len(seen) and maxima:
        keys = seen["key"].tolist()
        stages = {stage: column.read(keys)[:] for stage, column in maxima.items()}
        places = seen["id"].map(image_uris(manifest)).tolist()
        top_activating_images(folder / "excited.jpg", stages, places, seen["label"].tolist())
        figures[EXCITED] = "excited.jpg"
    return said, figures


def _near_identical(
    table: "pd.DataFrame", columns: list[FeatureColumn], manifest: "pd.DataFrame", folder: Path
) -> tuple[int, dict[str, str]]:
    """Write which images lie near one of another split, and a sheet of them; how many, and the sheet."""
    import pandas as pd

    from tl_dagster.evaluation.near_identical import find_near_identical
    from tl_dagster.reporting.sheets import contact_sheet

    plain = table[table["view"] == 0]
    parts = []
    for others, held_out in (("train", ["validation", "test"]), ("validation", ["test"])):
        left, right = plain[plain["split"] == others], plain[plain["split"].isin(held_out)]
        rows, places, distance = find_near_identical(
            *(ConcatFeatures(columns, part["key"].tolist()) for part in (left, right))
        )
        part = right.iloc[rows][["id", "split"]].reset_index(drop=True)
        parts.append(part.assign(other=left["id"].to_numpy()[places], other_split=others, distance=distance.round(3)))
    pairs = pd.concat(parts, ignore_index=True)
    pairs.to_parquet(folder / NEAR)
    if pairs.empty:
        return 0, {}
    first = pairs.head(MOST_TILES // 2)
    sides = [zip(shown_uris(manifest, first[name]), first[split], strict=True) for name, split in SIDES]
    tiles = [tile for pair in zip(*sides, strict=True) for tile in pair]
    contact_sheet(folder / "near_identical.jpg", tiles)
    return len(pairs), {SHEET: "near_identical.jpg"}
