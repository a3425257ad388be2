"""Ingestion: one row per image of the source, identified by its bytes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tl_dagster.data.source_cache import SourceCache, SourceContext
from tl_dagster.graph.stage import CheckResult, Column, Stage, StageContext
from tl_dagster.runtime.hardware import processors
from tl_dagster.store.artifacts import ArtifactStore, ArtifactSummary, Materialization
from tl_dagster.store.digests import digest, digest_columns
from tl_dagster.store.files import write_atomically

if TYPE_CHECKING:
    from tl_dagster.data.datasets import IngestedSource

__all__ = ["Dataset", "source_context"]


class Dataset(Stage):
    """The labelled images that the source holds now.

    Its artifact's address includes where the files lie, so that it is written again when one moves; its data version
    does not, so that a file that was only renamed or touched changes nothing below.
    """

    name = "dataset"
    version = 3
    description = (
        "One row per image of the source: identity (SHA-256 of the bytes), label, group, size, statistics, "
        "and what is wrong with it."
    )
    kinds = frozenset({"parquet"})
    columns: ClassVar[Mapping[str, Column]] = {
        "id": Column("string", "SHA-256 of the file's bytes; empty where they cannot be read."),
        "uri": Column("string", "Where the file is."),
        "label": Column("string", "Its class."),
        "group": Column("string", "Images of one group lie in one split: given by the source, or near copies."),
        "split": Column("string", "The split that the source gives; missing where it gives none."),
        "confidence": Column("float", "Probability of the label; missing where the source gives none."),
        "bytes": Column("int", "Size of the file."),
        "width": Column("int", "In pixels; 0 where it is not known."),
        "height": Column("int", "In pixels; 0 where it is not known."),
        "format": Column("string", "Format of the file, such as JPEG."),
        "brightness": Column("float", "Mean of the luma, from 0 to 255."),
        "contrast": Column("float", "Standard deviation of the luma."),
        "perceptual": Column("string", "Perceptual hash of 256 bits, by which near copies are found."),
        "problem": Column("string", "Why the file is not used; missing where it is."),
    }
    check_descriptions: ClassVar[Mapping[str, str]] = {
        "readable": "Files that were set aside, each with its reason; stops the run above the declared share.",
        "classes": "Classes of which no image can be used, which stops the run, and names that look alike.",
        "contrast": "Images that show almost nothing, as 12 bits in a file of 16 do.",
        "label_conflicts": "Images whose bytes appear under two labels.",
        "per_class": "Usable images of each class against the declared minimum.",
        "class_balance": "Largest class over smallest.",
        "drift": "Class mix and image statistics against the last version of the data.",
    }
    blocking_checks = frozenset({"readable", "classes"})

    def settings(self) -> dict[str, Any]:
        """Return the declared source, and what counts as a near copy."""
        return {
            "source": self.declaration.source.model_dump(mode="json"),
            "duplicates": self.declaration.duplicates.model_dump(mode="json"),
        }

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return the numbers of images, classes and files that are not used."""
        metrics, lost = summary.metrics, int(summary.metrics["set_aside"])
        rest = f"; {lost:,} file{'' if lost == 1 else 's'} not used" if lost else ""
        return f"{metrics['images']:,.0f} images of {metrics['classes']:,.0f} classes{rest}"

    def run(self, context: StageContext) -> Materialization:
        """Look at every name and time; read only files that are new or changed, decode only unknown bytes.

        The weights file of the backbone, which the images shall be used with, is checked before.
        """
        from tl_dagster.backbones.weights_check import check_weights_file
        from tl_dagster.data.datasets import SourceIngestion, index_name
        from tl_dagster.data.sources import list_images

        check_weights_file(self.declaration.backbone)
        source, place = self.declaration.source, source_context(context.store, self.root)
        listing = list_images(source, place)
        layout, index = context.store.layout, index_name(source.where(place))
        distance = self.declaration.duplicates.distance
        registry = layout.group_registry(digest([source.where(place), source.grouping(), distance])[:32])
        skipped = listing.attrs.get("skipped", ())
        seen = layout.listing(index, digest([self.version, registry.name, skipped, digest_columns(listing)]))
        if known := context.store.find(self.name, seen.read_text()) if seen.exists() else None:
            return Materialization(known, reused=True, computed=0, reused_rows=known.summary.rows)
        ingestion = SourceIngestion(source, place, layout.file_index(index), registry, distance)
        workers = self.declaration.compute.workers or processors()
        ingested = ingestion.run(listing, list(self.columns), workers, context.progress)
        fingerprint = digest({"stage": self.name, "recipe": self.version, **ingested.content()})
        found = self.find_or_build(context, fingerprint, lambda folder: _write(folder, ingested))
        if ingested.settled:
            write_atomically(seen, fingerprint.encode())
        decoded = ingested.decoded
        return replace(found, computed=decoded, reused_rows=len(ingested.manifest) - decoded)

    def run_checks(self, context: StageContext, materialization: Materialization) -> dict[str, CheckResult]:
        """See :mod:`tl_dagster.graph.checks`."""
        from tl_dagster.data.manifest import REJECTED_SHEET, read_manifest, usable
        from tl_dagster.data.skipped import read_skipped
        from tl_dagster.graph import checks, dataset_checks

        settings, artifact = self.declaration.checks, materialization.artifact
        manifest = read_manifest(artifact.path)
        before = context.store.get_previous(self.declaration.name, self.name, artifact.data_version)
        counts = usable(manifest)["label"].value_counts()
        return {
            "readable": checks.readable(manifest, artifact.summary, settings, REJECTED_SHEET),
            "classes": dataset_checks.classes(manifest, read_skipped(artifact.path)),
            "contrast": dataset_checks.contrast(usable(manifest), settings),
            "label_conflicts": checks.label_conflicts(manifest),
            "per_class": checks.per_class(counts, settings),
            "class_balance": checks.class_balance(counts, settings),
            "drift": checks.drift(read_manifest(before.path) if before else None, manifest, settings),
        }


def _write(folder: Path, ingested: "IngestedSource") -> ArtifactSummary:
    from tl_dagster.reporting.dataset import write_dataset  # matplotlib, whose font it uses

    return write_dataset(folder, ingested)


def source_context(store: ArtifactStore, root: Path) -> SourceContext:
    """Return what sources read from: the project's root, and the store's local copies."""
    return SourceContext(root, SourceCache(store.layout.source_copies))
