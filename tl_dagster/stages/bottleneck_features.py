"""The frozen backbone's activations of every view, kept in the feature cache; the artifact is the list of keys."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tl_dagster.artifacts import ArtifactStore, Materialized, Outcome
from tl_dagster.data.augmentation import Views
from tl_dagster.data.decoding import DECODE_RECIPE
from tl_dagster.data.manifest import places_of, uris_of
from tl_dagster.features.cache import Column, side_by_side
from tl_dagster.features.catalogue import BackboneInfo, look_up
from tl_dagster.features.extraction import View, extract
from tl_dagster.features.hardware import resolve_precision
from tl_dagster.features.weights import Weights, locate
from tl_dagster.reporting.sheets import MOST_TILES
from tl_dagster.spec import Declaration
from tl_dagster.stages import checks
from tl_dagster.stages.augmented_splits import AugmentedSplits, read_views
from tl_dagster.stages.base import Stage, Verdict, Work
from tl_dagster.stages.dataset import read_manifest

if TYPE_CHECKING:
    import pandas as pd
    import torch

__all__ = ["BottleneckFeatures", "Frozen", "open_columns", "views_to_draw"]

COLUMNS, NEAR = "columns.json", "near_identical.parquet"
SHEET = "Near-identical pairs"
SIDES = (("id", "split"), ("other", "other_split"))


class Frozen:
    """The declared backbone with its weights: knows its columns in the cache, and computes them.

    Args:
        declaration: the pipeline.
        store: where the feature cache is.
    """

    def __init__(self, declaration: Declaration, store: ArtifactStore) -> None:
        self.declaration = declaration
        self.backbone = declaration.backbone
        self.info: BackboneInfo = look_up(self.backbone)
        self.weights: Weights = locate(self.backbone, self.info)
        self.precision = resolve_precision(self.backbone.precision)
        self.resize = self.info.resize(self.backbone)
        self._cache = store.root / "features"

    def column(self, tap: str, pooling: str) -> Column:
        """The cache's column of a tap."""
        return Column(
            self._cache,
            {
                "decode": DECODE_RECIPE,
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

    def columns(self) -> list[Column]:
        """The columns of the declared taps, in their order."""
        return [self.column(tap, self.backbone.pooling) for tap in self.backbone.taps]

    def boundary(self, rows: int) -> Column | None:
        """The column of activations that fine-tuning starts from; None when they would exceed the declared budget.

        Args:
            rows: views that would be kept.
        """
        tap = self.info.frozen_through(self.backbone, self.declaration.fine_tuning.freeze_through)
        values = self.info.values(tap, self.resize.size)
        size = 4 if self.precision == "fp32" else 2
        if values is None or rows * values * size > self.declaration.compute.activation_cache_gb * 1e9:
            return None
        return self.column(tap, "none")

    def load(self) -> "torch.nn.Module":
        """The backbone in torch."""
        from tl_dagster.features.backbones import load

        return load(self.info, self.weights)

    def compute(self, wanted: list[View], columns: list[Column], work: Work) -> int:
        """Forward the views that lack a row; the number forwarded."""

        def network() -> "torch.nn.Module":
            from tl_dagster.features.backbones import tapped

            return tapped(self.load(), [(column.recipe["tap"], column.recipe["pooling"]) for column in columns])

        return extract(
            wanted,
            columns,
            network,
            resize=self.resize,
            views=Views(self.declaration.augmentation),
            mean=self.info.preprocess["mean"],
            std=self.info.preprocess["std"],
            compute=self.declaration.compute,
            progress=work.progress,
        )


class BottleneckFeatures(Stage):
    """Features are computed once per view, layer and weights, across all pipelines of a store."""

    name = "bottleneck_features"
    recipe = 2
    description = (
        "The frozen backbone's pooled activations of every view, in the feature cache. "
        "Its last fully connected layer is dropped."
    )
    kinds = frozenset({"pytorch", "arrow"})
    reads = ("dataset", "augmented_splits")
    gpu = True
    columns = AugmentedSplits.columns
    checks: ClassVar[Mapping[str, str]] = {
        "near_identical": "Images of two splits whose features are nearly the same.",
    }

    def settings(self) -> dict[str, Any]:
        """The declared backbone."""
        return self.declaration.backbone.model_dump(mode="json")

    def verdicts(self, work: Work, held: Materialized) -> dict[str, Verdict]:
        """Whether images of two splits have nearly the same features."""
        import pandas as pd

        pairs = pd.read_parquet(held.artifact.path / NEAR)
        manifest = read_manifest(work.inputs["dataset"].path)
        table = checks.rows_of(
            {
                "image": places_of(manifest, pairs["id"]),
                "split": pairs["split"],
                "nearly the same as": places_of(manifest, pairs["other"]),
                "its split": pairs["other_split"],
                "distance": pairs["distance"].astype("float64"),
            }
        )
        return {"near_identical": checks.near_identical(table, len(pairs), SHEET)}

    def versions(self, work: Work) -> dict[str, str]:
        """Only the views count: where the images lie does not."""
        return {"augmented_splits": work.inputs["augmented_splits"].data_version}

    def run(self, work: Work) -> Materialized:
        """Forward what the cache lacks, also when the artifact is there but the cache was emptied."""
        frozen = Frozen(self.declaration, work.store)
        table = read_views(work.inputs["augmented_splits"].path)
        columns = frozen.columns()
        keys = table["key"].tolist()
        lacking = [any(lacks) for lacks in zip(*(column.missing(keys) for column in columns), strict=True)]
        computed = 0
        if any(lacking):
            wanted = views_to_draw(table[lacking], read_manifest(work.inputs["dataset"].path))
            # Fine-tuning starts from a layer that this pass goes through anyway: keep its activations too.
            boundary = frozen.boundary(len(table))
            computed = frozen.compute(wanted, [*columns, boundary] if boundary else columns, work)

        def write(folder: Path) -> Outcome:
            table.to_parquet(folder / "views.parquet")
            kept = [
                {"tap": tap, "recipe": column.recipe} for tap, column in zip(frozen.backbone.taps, columns, strict=True)
            ]
            (folder / COLUMNS).write_text(json.dumps(kept, indent=1))
            widths = {
                tap: column.read(keys[:1]).width for tap, column in zip(frozen.backbone.taps, columns, strict=True)
            }
            near, pictures = _near_identical(table, columns, read_manifest(work.inputs["dataset"].path), folder)
            return Outcome(
                rows=len(table),
                computed=computed,
                metrics={"features": sum(widths.values()), "near_identical": near},
                pictures=pictures,
                facts={
                    "features_per_tap": widths,
                    "precision": frozen.precision,
                    "weights_sha256": frozen.weights.identity,
                },
            )

        # The columns' digests hold all that matters of the settings, with "auto" resolved on this machine.
        fingerprint = self.fingerprint(work, {"columns": [column.name for column in columns]})
        held = self.find_or_build(work, fingerprint, write)
        return replace(held, reused=held.reused and not computed, computed=computed, reused_rows=len(table) - computed)


def _near_identical(
    table: "pd.DataFrame", columns: list[Column], manifest: "pd.DataFrame", folder: Path
) -> tuple[int, dict[str, str]]:
    """Write which images lie near one of another split, and a sheet of them; how many, and the sheet."""
    import pandas as pd

    from tl_dagster.features.copies import nearest
    from tl_dagster.reporting.sheets import contact_sheet

    plain = table[table["view"] == 0]
    parts = []
    for others, held_out in (("train", ["validation", "test"]), ("validation", ["test"])):
        left, right = plain[plain["split"] == others], plain[plain["split"].isin(held_out)]
        rows, places, distance = nearest(*(side_by_side(columns, part["key"].tolist()) for part in (left, right)))
        part = right.iloc[rows][["id", "split"]].reset_index(drop=True)
        parts.append(part.assign(other=left["id"].to_numpy()[places], other_split=others, distance=distance.round(3)))
    pairs = pd.concat(parts, ignore_index=True)
    pairs.to_parquet(folder / NEAR)
    if pairs.empty:
        return 0, {}
    first = pairs.head(MOST_TILES // 2)
    sides = [zip(places_of(manifest, first[name]), first[split], strict=True) for name, split in SIDES]
    tiles = [tile for pair in zip(*sides, strict=True) for tile in pair]
    contact_sheet(folder / "near_identical.jpg", tiles)
    return len(pairs), {SHEET: "near_identical.jpg"}


def views_to_draw(table: "pd.DataFrame", manifest: "pd.DataFrame") -> list[View]:
    """Views by where their images lie now.

    Args:
        table: rows of augmented_splits.
        manifest: the dataset's images.
    """
    places = uris_of(manifest).to_dict()
    rows = zip(table["id"], table["view"], table["key"], strict=True)
    return [View(places[identity], identity, int(view), key) for identity, view, key in rows]


def open_columns(path: Path, store: ArtifactStore) -> list[tuple[str, Column]]:
    """(tap, column) of a bottleneck_features artifact."""
    return [
        (each["tap"], Column(store.root / "features", each["recipe"]))
        for each in json.loads((path / COLUMNS).read_text())
    ]
