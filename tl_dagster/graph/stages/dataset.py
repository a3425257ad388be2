"""Ingestion: one row per image of the source, identified by its bytes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tl_dagster.data.source_cache import SourceCache, SourceContext
from tl_dagster.data.sources import list_images
from tl_dagster.graph.stage import CheckResult, Stage, StageContext
from tl_dagster.runtime.errors import InputError, printable
from tl_dagster.runtime.hardware import processors
from tl_dagster.store.artifacts import Artifact, ArtifactStore, ArtifactSummary, Materialization
from tl_dagster.store.digests import digest, digest_columns
from tl_dagster.store.files import write_atomically

if TYPE_CHECKING:
    import pandas as pd

    from tl_dagster.data.near_copies import GroupRegistry


__all__ = ["Dataset", "place_of"]

SHEET = "Set aside"


class Dataset(Stage):
    """The labelled images that the source holds now.

    Its artifact's address includes where the files lie, so that it is written anew when one moves; its data version
    does not, so that a file that was only renamed or touched changes nothing below.
    """

    name = "dataset"
    version = 2
    description = (
        "One row per image of the source: identity (SHA-256 of the bytes), label, group, size, statistics, "
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
        "bytes": "int",
        "width": "int",
        "height": "int",
        "format": "string",
        "brightness": "float",
        "contrast": "float",
        "perceptual": "string",
        "problem": "string",
    }
    check_descriptions: ClassVar[Mapping[str, str]] = {
        "readable": "Files that were set aside, each with its reason; stops the run above the declared share.",
        "label_conflicts": "Images whose bytes appear under two labels.",
        "per_class": "Usable images of each class against the declared minimum.",
        "class_balance": "Largest class over smallest.",
        "drift": "Class mix and image statistics against the last version of the data.",
    }
    blocking_checks = frozenset({"readable"})

    def settings(self) -> dict[str, Any]:
        """The declared source, and what counts as a near copy."""
        return {
            "source": self.declaration.source.model_dump(mode="json"),
            "duplicates": self.declaration.duplicates.model_dump(mode="json"),
        }

    def run(self, work: StageContext) -> Materialization:
        """Look at every name and time; read only files that are new or changed, decode only unknown bytes."""
        from tl_dagster.data.file_index import FileIndex
        from tl_dagster.data.manifest import identify, reject_copies
        from tl_dagster.data.near_copies import GroupRegistry

        source, place = self.declaration.source, place_of(work.store, self.root)
        listing = list_images(source, place)
        others = int(listing.attrs.get("other_files", 0))
        layout, index = work.store.layout, _index_name(source.where(place))
        distance = self.declaration.duplicates.distance
        registry = layout.group_registry(digest([source.where(place), source.grouping(), distance])[:32])
        asked = layout.listing(index, digest([self.version, registry.name, others, digest_columns(listing)]))
        if found := self._as_before(work, asked):
            return Materialization(found, reused=True, computed=0, reused_rows=found.summary.rows)
        work.progress.start("files")
        workers = self.declaration.compute.workers or processors()
        identified, read, decoded = identify(
            listing,
            FileIndex(layout.file_index(index)),
            workers,
            lambda done, total: work.progress.update(done, total, "read and decoded"),
        )
        work.progress.log(f"{read:,} of {len(listing):,} files read, {decoded:,} images decoded")
        unreadable = identified["problem"].str.startswith("cannot be read")
        if unreadable.any() and not source.present(place):
            raise InputError(
                f"{source.where(place)} vanished while it was read; what was read until then is kept: "
                "bring it back and run again"
            )
        manifest, pairs = _with_groups(reject_copies(identified), GroupRegistry(registry), distance)
        _require_two_classes(manifest)
        # The stamp of a file that was only touched is no part of the artifact.
        manifest = manifest[list(self.columns)]
        content = {"rows": digest_columns(manifest), "pairs": digest_columns(pairs), "other_files": others}
        fingerprint = digest({"stage": self.name, "recipe": self.version, **content})
        held = self.find_or_build(work, fingerprint, lambda folder: _write(manifest, pairs, others, decoded, folder))
        if not unreadable.any() and (listing["stamp"].notna() | listing["problem"].notna()).all():
            write_atomically(asked, fingerprint.encode())
        return replace(held, computed=decoded, reused_rows=len(manifest) - decoded)

    def _as_before(self, work: StageContext, asked: Path) -> Artifact | None:
        """What an earlier look at the source led to, when every name and stamp was as it is now."""
        return work.store.find(self.name, asked.read_text()) if asked.exists() else None

    def run_checks(self, work: StageContext, held: Materialization) -> dict[str, CheckResult]:
        """See :mod:`tl_dagster.graph.checks`."""
        from tl_dagster.data.manifest import read_manifest, usable
        from tl_dagster.graph import checks

        settings = self.declaration.checks
        manifest = read_manifest(held.artifact.path)
        before = work.store.get_previous(self.declaration.name, self.name, held.artifact.data_version)
        earlier = read_manifest(before.path) if before else None
        counts = usable(manifest)["label"].value_counts()
        return {
            "readable": checks.readable(manifest, held.artifact.summary, settings, SHEET),
            "label_conflicts": checks.label_conflicts(manifest),
            "per_class": checks.per_class(counts, settings),
            "class_balance": checks.class_balance(counts, settings),
            "drift": checks.drift(earlier, manifest, settings),
        }


def _with_groups(
    manifest: "pd.DataFrame", memory: "GroupRegistry", distance: int
) -> "tuple[pd.DataFrame, pd.DataFrame]":
    from tl_dagster.data.near_copies import group_near_copies

    grouped, pairs = group_near_copies(manifest[manifest["problem"].isna()], memory, distance)
    for column in ("group", "problem"):
        manifest.loc[grouped.index, column] = grouped[column]
    return manifest, pairs


def place_of(store: ArtifactStore, root: Path) -> SourceContext:
    """What sources read from: the project's root, and the store's local copies."""
    return SourceContext(root, SourceCache(store.layout.source_copies))


def _index_name(where: str) -> str:
    from importlib.metadata import version

    from tl_dagster.data.decoding import DECODER_VERSION

    # Another version of the decoder may read what this one cannot, and see other pixels.
    return digest([where, DECODER_VERSION, version("pillow"), version("imagehash")])[:32]


def _require_two_classes(manifest: "pd.DataFrame") -> None:
    from tl_dagster.data.manifest import usable

    classes = sorted(usable(manifest)["label"].unique())
    if len(classes) < 2:
        broken = manifest[manifest["problem"].notna()].iloc[0]
        raise InputError(
            f"only {len(classes)} class has usable images ({', '.join(classes) or 'none'}); "
            f"{int(manifest['problem'].notna().sum())} files were set aside, "
            f"the first: {printable(broken['uri'])}: {broken['problem']}"
        )


def _write(manifest: "pd.DataFrame", pairs: "pd.DataFrame", others: int, decoded: int, folder: Path) -> ArtifactSummary:
    from tl_dagster.data.manifest import MANIFEST, PAIRS, content_digest, usable
    from tl_dagster.graph import checks
    from tl_dagster.reporting.sheets import contact_sheet

    manifest.to_parquet(folder / MANIFEST)
    pairs.to_parquet(folder / PAIRS)
    classes = usable(manifest)["label"].value_counts().sort_index()
    aside = manifest[manifest["problem"].notna()]
    tables = {}
    figures = {}
    if len(aside):
        tables["set_aside_files"] = checks.table_rows({name: aside[column] for name, column in checks.ASIDE.items()})
        # What was not decoded is not opened: it may lie outside the folder, or be a pipe.
        tiles = zip(aside["uri"].where(aside["width"] > 0, ""), aside["problem"], strict=True)
        contact_sheet(folder / "set_aside.jpg", list(tiles))
        figures[SHEET] = "set_aside.jpg"
    groups = usable(manifest)["group"].dropna().nunique()
    return ArtifactSummary(
        rows=len(manifest),
        computed=decoded,
        metrics={
            "images": int(classes.sum()),
            "classes": len(classes),
            "set_aside": len(aside),
            "groups": groups,
            "near_copies": len(pairs),
            "other_files": others,
        },
        metadata={"images_per_class": {str(label): int(count) for label, count in classes.items()}},
        figures=figures,
        tables=tables,
        data_version=content_digest(manifest, pairs),
    )
