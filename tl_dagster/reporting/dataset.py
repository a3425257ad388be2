"""The artifact of a dataset: manifest, near copies, and what is worth seeing of them."""

from pathlib import Path

from tl_dagster.data.datasets import IngestedSource
from tl_dagster.data.manifest import REJECTED_SHEET, content_digest, usable, write_manifest
from tl_dagster.data.skipped import HIDDEN, write_skipped
from tl_dagster.reporting.sheets import contact_sheet
from tl_dagster.reporting.tables import MOST_ROWS, REJECTED, table_rows
from tl_dagster.store.artifacts import ArtifactSummary

__all__ = ["write_dataset"]


def write_dataset(folder: Path, ingested: IngestedSource) -> ArtifactSummary:
    """Write the artifact of a dataset.

    Args:
        folder: to write into.
        ingested: the source's images.
    """
    manifest, pairs, skipped = ingested.manifest, ingested.pairs, ingested.skipped
    write_manifest(folder, manifest, pairs)
    write_skipped(folder, skipped)
    classes = usable(manifest)["label"].value_counts().sort_index()
    rejected = manifest[manifest["problem"].notna()]
    tables, figures = {}, {}
    if len(rejected):
        tables["set_aside_files"] = table_rows({name: rejected[column] for name, column in REJECTED.items()})
        # What was not decoded is not opened: it may lie outside the folder, or be a pipe.
        tiles = zip(rejected["uri"].where(rejected["width"] > 0, ""), rejected["problem"], strict=True)
        contact_sheet(folder / "set_aside.jpg", list(tiles))
        figures[REJECTED_SHEET] = "set_aside.jpg"
    if skipped:
        columns = ("class folder", "reason", "first", "entries")
        tables["not_looked_at"] = [dict(zip(columns, row, strict=True)) for row in skipped[:MOST_ROWS]]
    return ArtifactSummary(
        rows=len(manifest),
        computed=ingested.decoded,
        metrics={
            "images": int(classes.sum()),
            "classes": len(classes),
            "set_aside": len(rejected),
            "groups": usable(manifest)["group"].dropna().nunique(),
            "near_copies": len(pairs),
            "other_files": sum(each.entries for each in skipped if each.reason != HIDDEN),
        },
        metadata={"images_per_class": {str(label): int(count) for label, count in classes.items()}},
        figures=figures,
        tables=tables,
        data_version=content_digest(manifest, pairs),
    )
