"""Ingestion of a source as a whole: from its listing to a manifest without copies, and with groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from tl_dagster.data.decoding import DECODER_VERSION
from tl_dagster.data.file_index import FileIndex
from tl_dagster.data.ingestion import identify
from tl_dagster.data.manifest import reject_copies, usable
from tl_dagster.data.near_copies import GroupRegistry, group_near_copies
from tl_dagster.data.skipped import Skipped
from tl_dagster.data.source_cache import SourceContext
from tl_dagster.data.sources.base import ImageSource
from tl_dagster.runtime.errors import InputError, printable
from tl_dagster.runtime.progress import Progress
from tl_dagster.store.digests import digest, digest_columns

__all__ = ["IngestedSource", "SourceIngestion", "index_name"]


@dataclass(frozen=True)
class IngestedSource:
    """The images of a source.

    Attributes:
        manifest: one row per image; see :func:`tl_dagster.data.manifest.read_manifest`.
        pairs: near copies among the usable ones: a, b (image ids), distance (bits).
        skipped: what is not looked at, by class folder and reason.
        decoded: images whose bytes were new.
        settled: whether the same listing will lead to the same manifest.
    """

    manifest: pd.DataFrame
    pairs: pd.DataFrame
    skipped: Sequence[Skipped]
    decoded: int
    settled: bool

    def content(self) -> dict[str, Any]:
        """Return digests of all that the source holds (JSON-serialisable)."""
        rows, pairs = digest_columns(self.manifest), digest_columns(self.pairs)
        return {"rows": rows, "pairs": pairs, "skipped": list(self.skipped)}


@dataclass(frozen=True)
class SourceIngestion:
    """The ingestion of one source.

    Attributes:
        source: the declared source.
        context: what it reads from.
        index: folder of what was learnt of its files.
        registry: folder of the groups of near copies.
        distance: bits in which near copies differ at most.
    """

    source: ImageSource
    context: SourceContext
    index: Path
    registry: Path
    distance: int

    def run(self, listing: pd.DataFrame, columns: Sequence[str], workers: int, progress: Progress) -> IngestedSource:
        """Read new and changed files, reject copies and group near copies.

        Args:
            listing: see :meth:`tl_dagster.data.sources.ImageSource.listing`.
            columns: of the manifest.
            workers: that read and decode.
            progress: informed of each step.

        Raises:
            InputError: the source vanished, a server stopped answering, or fewer than two classes have usable images.
        """
        progress.start("files")
        identified, read, decoded = identify(
            listing,
            FileIndex(self.index),
            workers,
            lambda done, total: progress.update(done, total, "read and decoded"),
        )
        progress.log(f"{read:,} of {len(listing):,} files read, {decoded:,} images decoded")
        unreadable = identified["problem"].str.startswith("cannot be read")
        if unreadable.any() and not self.source.present(self.context):
            raise InputError(
                f"{self.source.where(self.context)} vanished while it was read; what was read until then is kept: "
                "bring it back and run again"
            )
        manifest, pairs = self._grouped(reject_copies(identified))
        _require_two_classes(manifest)
        stamped = (listing["stamp"].notna() | listing["problem"].notna()).all()
        # The stamp of a file that was only touched is no part of the manifest.
        return IngestedSource(
            manifest[list(columns)],
            pairs,
            listing.attrs.get("skipped", ()),
            decoded,
            settled=bool(stamped and not unreadable.any()),
        )

    def _grouped(self, manifest: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        grouped, pairs = group_near_copies(
            manifest[manifest["problem"].isna()], GroupRegistry(self.registry), self.distance
        )
        for column in ("group", "problem"):
            manifest.loc[grouped.index, column] = grouped[column]
        return manifest, pairs


def index_name(where: str) -> str:
    """Return the name of the index of a source's files.

    Another version of the decoder may read what this one cannot, and see other pixels.
    """
    return digest([where, DECODER_VERSION, version("pillow"), version("imagehash")])[:32]


def _require_two_classes(manifest: pd.DataFrame) -> None:
    classes = sorted(usable(manifest)["label"].unique())
    if len(classes) < 2:
        broken = manifest[manifest["problem"].notna()].iloc[0]
        raise InputError(
            f"only {len(classes)} class has usable images ({', '.join(classes) or 'none'}); "
            f"{int(manifest['problem'].notna().sum())} files were set aside, "
            f"the first: {printable(broken['uri'])}: {broken['problem']}"
        )
