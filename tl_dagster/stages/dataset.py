"""Ingestion: one row per image of the source, identified by its bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tl_dagster.artifacts import Materialized, Outcome
from tl_dagster.data.manifest import content_digest, identify, ingest, usable
from tl_dagster.data.sources import list_images
from tl_dagster.identity import digest
from tl_dagster.stages.base import Stage, Work

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Dataset", "read_manifest"]

MANIFEST = "images.parquet"
THREADS = 4


class Dataset(Stage):
    """The labelled images that the source holds now.

    Its artifact's address includes where the files lie, so that it is written anew when one moves; its data version
    does not, so that a file that was only renamed or touched changes nothing below.
    """

    name = "dataset"
    recipe = 1
    description = (
        "One row per image of the source: identity (SHA-256 of the bytes), label, group, size, "
        "and what is wrong with it."
    )
    kinds = frozenset({"parquet"})
    columns: ClassVar[Mapping[str, str]] = {
        "id": "string",
        "uri": "string",
        "label": "string",
        "group": "string",
        "split": "string",
        "confidence": "float",
        "width": "int",
        "height": "int",
        "format": "string",
        "problem": "string",
    }

    def settings(self) -> dict[str, Any]:
        """The declared source."""
        return self.declaration.source.model_dump(mode="json")

    def run(self, work: Work) -> Materialized:
        """Look at every file; decode only images that were not known before."""
        listing = list_images(self.declaration.source, self.root)
        work.progress.start("files")
        identified = identify(listing, THREADS, lambda done: work.progress.update(done, len(listing), "hashed"))
        rows = identified.astype(object).where(identified.notna(), None).to_numpy().tolist()
        fingerprint = digest({"stage": self.name, "recipe": self.recipe, "rows": rows})
        return self.find_or_build(work, fingerprint, lambda folder: self._write(work, identified, folder))

    def _write(self, work: Work, identified: "pd.DataFrame", folder: Path) -> Outcome:
        known = read_manifest(work.previous.artifact.path) if work.previous else None
        work.progress.start("images")
        manifest, computed = ingest(
            identified, known, THREADS, lambda done: work.progress.update(done, len(identified), "decoded")
        )
        manifest.to_parquet(folder / MANIFEST)
        classes = usable(manifest)["label"].value_counts().sort_index()
        aside = manifest[manifest["problem"].notna()]
        return Outcome(
            rows=len(manifest),
            computed=computed,
            metrics={"images": int(classes.sum()), "classes": len(classes), "set_aside": len(aside)},
            facts={
                "images_per_class": {str(label): int(count) for label, count in classes.items()},
                "set_aside_files": [f"{row.uri}: {row.problem}" for row in aside.head(20).itertuples()],
            },
            data_version=content_digest(manifest),
        )


def read_manifest(path: Path) -> "pd.DataFrame":
    """The manifest of a dataset artifact: a DataFrame with the columns of :class:`Dataset`."""
    import pandas as pd

    return pd.read_parquet(path / MANIFEST)
