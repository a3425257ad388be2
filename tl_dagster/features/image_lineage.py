"""What a store has of one image: its places, views and features, every artifact that saw it; and how to forget it."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from tl_dagster.features.cache import FeatureColumn, list_columns
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import DATASET, MANIFEST, SPLITS, VIEWS, Artifact, ArtifactStore
from tl_dagster.store.digests import digest_file
from tl_dagster.store.housekeeping import FreedSpace, remove_artifacts, remove_reports
from tl_dagster.store.lineage import find_below, list_artifacts

__all__ = ["ImageLineage", "ImageRow", "ViewRows", "find_image", "forget_image", "trace_image"]

EVALUATION = "evaluation"
ID, WHOLE_ID = re.compile(r"[0-9a-f]{8,63}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageRow:
    """An image in a dataset artifact.

    Attributes:
        dataset: the artifact.
        uri: where it was.
        label: its class.
        problem: why it is not used; None: it is.
    """

    dataset: Artifact
    uri: str
    label: str
    problem: str | None


@dataclass(frozen=True)
class ViewRows:
    """An image's views in an augmented_splits artifact.

    Attributes:
        splits: the artifact.
        split: of the image.
        keys: hex identity of each view.
    """

    splits: Artifact
    split: str
    keys: Sequence[str]


@dataclass(frozen=True)
class ImageLineage:
    """Everything in a store that an image is in.

    Attributes:
        id: SHA-256 of the file.
        rows: in the datasets.
        views: in the tables of views.
        columns: of the feature cache, with the number of its rows in each.
        artifacts: all that were computed from these datasets, directly or not, and they themselves.
    """

    id: str
    rows: Sequence[ImageRow]
    views: Sequence[ViewRows]
    columns: Sequence[tuple[FeatureColumn, int]]
    artifacts: Sequence[Artifact]


def find_image(store: ArtifactStore, reference: str) -> str:
    """Return the id of an image.

    Args:
        store: with datasets that have it.
        reference: a file, an id (its first eight digits at least), or the end of an address in the datasets.

    Raises:
        InputError: no dataset has such an image, or several have different ones. Whole ids are not looked for.
    """
    if Path(reference).is_file():
        return digest_file(Path(reference))
    if WHOLE_ID.fullmatch(reference):
        return reference
    found: set[str] = set()
    by_id = ID.fullmatch(reference)
    for path in store.layout.artifacts(DATASET).glob(f"*/{MANIFEST}"):
        if by_id:
            ids = pq.read_table(path, columns=["id"])["id"]
            found |= set(ids.filter(pc.starts_with(ids, reference)).to_pylist())
            continue
        table = pq.read_table(path, columns=["id", "uri"])
        ends = pc.or_(pc.ends_with(table["uri"], f"/{reference}"), pc.equal(table["uri"], reference))
        found |= set(table.filter(ends)["id"].to_pylist())
    found.discard("")
    if len(found) != 1:
        what = f"{len(found)} images" if found else "no image"
        raise InputError(f"{what} '{reference}' in the datasets of {store.root}: give a file, its id or its address")
    return found.pop()


def trace_image(store: ArtifactStore, identity: str) -> ImageLineage:
    """Return everything that a store has of an image.

    Args:
        store: where to look.
        identity: the image's id.
    """
    every = list_artifacts(store)
    rows = [row for artifact in every if artifact.stage == DATASET for row in _read_rows(artifact, identity)]
    views = [row for artifact in every if artifact.stage == SPLITS for row in _read_views(artifact, identity)]
    keys = sorted({key for row in views for key in row.keys})
    counted = [(each, len(keys) - int(each.missing(keys).sum())) for each in list_columns(store.layout.features)]
    origins = [*(row.dataset for row in rows), *(row.splits for row in views)]
    return ImageLineage(
        identity, rows, views, [(column, count) for column, count in counted if count], find_below(every, origins)
    )


def _read_rows(dataset: Artifact, identity: str) -> list[ImageRow]:
    table = pq.read_table(dataset.path / MANIFEST, columns=["uri", "label", "problem"], filters=[("id", "=", identity)])
    return [ImageRow(dataset, row["uri"], row["label"], row["problem"]) for row in table.to_pylist()]


def _read_views(splits: Artifact, identity: str) -> list[ViewRows]:
    table = pq.read_table(splits.path / VIEWS, columns=["split", "key"], filters=[("id", "=", identity)])
    return [ViewRows(splits, table["split"][0].as_py(), table["key"].to_pylist())] if len(table) else []


def forget_image(store: ArtifactStore, lineage: ImageLineage, *, dry_run: bool) -> FreedSpace:
    """Delete every artifact and every row of the cache that an image is in, and all work in progress.

    The next run computes what is needed anew. No run may be at work.

    Args:
        store: where they are.
        lineage: of the image.
        dry_run: only count.
    """
    freed = FreedSpace()
    keys = {bytes.fromhex(key) for row in lineage.views for key in row.keys}
    for column, _ in lineage.columns:
        with column.lock:
            rows, size = column.drop(keys, dry_run=dry_run)
        freed.rows, freed.size = freed.rows + rows, freed.size + size
    # What was made from the image goes first: where this is killed, the next try finds the rest by the datasets.
    artifacts = [(artifact.stage, artifact.fingerprint) for artifact in reversed(lineage.artifacts)]
    remove_artifacts(store.layout, artifacts, freed, dry_run=dry_run)
    evaluations = [fingerprint for stage, fingerprint in artifacts if stage == EVALUATION]
    remove_reports(store, freed, evaluations=evaluations, dry_run=dry_run)
    if not dry_run:
        for folder in (store.layout.checkpoints, store.layout.work):
            shutil.rmtree(folder, ignore_errors=True)
    return freed
