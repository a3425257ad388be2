"""The artifact of bottleneck_features: the list of keys, and what is worth seeing of the features."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tl_dagster.data.manifest import image_uris, shown_uris
from tl_dagster.data.splits import write_views
from tl_dagster.evaluation.near_identical import find_near_identical
from tl_dagster.evaluation.near_pairs import SHEET, write_near_pairs
from tl_dagster.features.cache import ConcatFeatures, FeatureColumn
from tl_dagster.features.engine import LocalEngine
from tl_dagster.features.feature_table import FeatureTable, write_columns
from tl_dagster.features.results import ExtractionResult
from tl_dagster.features.side_outputs import plain_training
from tl_dagster.reporting.explanations import feature_map, top_activating_images
from tl_dagster.reporting.sheets import MOST_TILES, contact_sheet
from tl_dagster.store.artifacts import ArtifactSummary

__all__ = ["write_features"]

MAP, ACTIVATING = "Map of the features", "What excites each stage"
MOST_ACTIVATING = 10_000  # images that are looked through
SIDES = (("id", "split"), ("other", "other_split"))


def write_features(
    folder: Path, views: pd.DataFrame, engine: LocalEngine, done: ExtractionResult, side_columns: Sequence[str]
) -> ArtifactSummary:
    """Write the artifact of bottleneck_features.

    Args:
        folder: to write into.
        views: rows of augmented_splits; each has a row in the feature cache.
        engine: that computed the features.
        done: the work of the extraction.
        side_columns: names of further columns that the forward passes filled.
    """
    columns = dict(zip(engine.features.taps, engine.features.columns(), strict=True))
    write_views(folder, views)
    write_columns(folder, columns)
    first = views["key"][:1].tolist()
    widths = {tap: column.read(first).width for tap, column in columns.items()}
    manifest = engine.manifest()
    table = FeatureTable(views, columns)
    near, near_figures = _near_identical(folder, table, manifest)
    sentence, figures = _explanations(folder, table, engine, manifest)
    differences = {tap: column.read_notes().get("difference_to_fp32") for tap, column in columns.items()}
    metrics: dict[str, float] = {"features": sum(widths.values()), "near_identical": near}
    if done.views:
        metrics |= {"views_per_second": round(done.views_per_second, 1), "images_decoded": done.images}
    return ArtifactSummary(
        rows=len(views),
        computed=done.views,
        metrics=metrics,
        figures={**figures, **near_figures},
        metadata={
            "features_per_tap": widths,
            "precision": engine.features.backbone.precision,
            "difference_to_fp32": {tap: each for tap, each in differences.items() if each},
            "compiled": done.compiled,
            "seconds_by_step": {name: round(seconds, 2) for name, seconds in done.seconds.items()},
            "weights_sha256": engine.features.backbone.weights.identity,
            "map_of_the_features": sentence,
        },
        feature_columns=[*(column.name for column in columns.values()), *side_columns],
    )


def _explanations(
    folder: Path, table: FeatureTable, engine: LocalEngine, manifest: pd.DataFrame
) -> tuple[str, dict[str, str]]:
    """Draw a map of the features, and the images that activate each stage most; return a sentence and the figures."""
    plain = np.flatnonzero(plain_training(table.views))
    sentence = feature_map(folder / "feature_map.png", table.features(plain), table.views["label"].iloc[plain].tolist())
    figures = {MAP: "feature_map.png"}
    maxima = engine.features.channel_maxima()
    # Rows that were forwarded before these were kept lack them: an image is not forwarded again for a picture.
    rows = table.views.iloc[plain[:MOST_ACTIVATING]]
    for column in maxima.values():
        rows = rows[~column.missing(rows["key"].tolist())]
    if len(rows) and maxima:
        _draw_activating(folder / "excited.jpg", rows, maxima, manifest)
        figures[ACTIVATING] = "excited.jpg"
    return sentence, figures


def _draw_activating(path: Path, rows: pd.DataFrame, maxima: dict[str, FeatureColumn], manifest: pd.DataFrame) -> None:
    keys = rows["key"].tolist()
    stages = {stage: column.read(keys)[:] for stage, column in maxima.items()}
    places = rows["id"].map(image_uris(manifest)).tolist()
    top_activating_images(path, stages, places, rows["label"].tolist())


def _near_identical(folder: Path, table: FeatureTable, manifest: pd.DataFrame) -> tuple[int, dict[str, str]]:
    """Write which images lie near one of another split, and a sheet of them; return how many, and the figures."""
    plain = table.views[table.views["view"] == 0]
    columns = list(table.columns.values())
    parts = []
    for others, held_out in (("train", ["validation", "test"]), ("validation", ["test"])):
        left, right = plain[plain["split"] == others], plain[plain["split"].isin(held_out)]
        features = (ConcatFeatures(columns, part["key"].tolist()) for part in (left, right))
        rows, places, distance = find_near_identical(*features)
        part = right.iloc[rows][["id", "split"]].reset_index(drop=True)
        parts.append(part.assign(other=left["id"].to_numpy()[places], other_split=others, distance=distance.round(3)))
    pairs = pd.concat(parts, ignore_index=True)
    write_near_pairs(folder, pairs)
    if pairs.empty:
        return 0, {}
    first = pairs.head(MOST_TILES // 2)
    sides = [zip(shown_uris(manifest, first[name]), first[split], strict=True) for name, split in SIDES]
    contact_sheet(folder / "near_identical.jpg", [tile for pair in zip(*sides, strict=True) for tile in pair])
    return len(pairs), {SHEET: "near_identical.jpg"}
