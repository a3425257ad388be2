"""Housekeeping of a store's feature cache: its contents, their integrity, and what of them may be deleted."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from filelock import Timeout

from tl_dagster.data.manifest import read_manifest
from tl_dagster.data.splits import read_views
from tl_dagster.features.cache import FeatureColumn, list_columns
from tl_dagster.features.feature_table import column_names
from tl_dagster.store.artifacts import DATASET, SPLITS, ArtifactStore
from tl_dagster.store.files import used_bytes
from tl_dagster.store.housekeeping import (
    FreedSpace,
    list_held,
    list_unheld,
    remove_artifacts,
    remove_checkpoints,
    remove_folder,
    remove_reports,
)

__all__ = ["ColumnUsage", "delete_pipeline", "prune", "stats", "verify"]

DAY = 86_400.0
IN_USE_DAYS = 1 / 24


@dataclass(frozen=True)
class ColumnUsage:
    """One column of the cache: backbone, layer, pooling, precision.

    Attributes:
        column: its rows.
        rows: how many.
        size: bytes on disk.
        shards: files.
        days: since its rows were last read or written.
        pipelines: whose present features or models use it.
    """

    column: FeatureColumn
    rows: int
    size: int
    shards: int
    days: float
    pipelines: tuple[str, ...]


def stats(store: ArtifactStore) -> list[ColumnUsage]:
    """Return every column of the feature cache, the largest first."""
    users = _users(store)
    usages = []
    for column in list_columns(store.layout.features):
        shards = column.shards()
        days = (time.time() - column.last_used()) / DAY
        pipelines = tuple(sorted(users.get(column.name, ())))
        usages.append(
            ColumnUsage(column, sum(map(len, shards)), used_bytes(column.folder), len(shards), days, pipelines)
        )
    return sorted(usages, key=lambda usage: -usage.size)


def verify(store: ArtifactStore, log: Callable[[str], None] = lambda line: None) -> list[str]:
    """Read the whole feature cache; damaged shards are quarantined, and their rows recomputed by the next run.

    Args:
        store: whose cache is read.
        log: receives the title of each column.

    Returns:
        What is wrong with each damaged shard.
    """
    damaged = []
    for column in list_columns(store.layout.features):
        log(column.title)
        damaged += [f"{column.folder.name}/{problem}" for problem in column.verify()]
    return damaged


def prune(
    store: ArtifactStore,
    *,
    unused: bool = False,
    older_than: float | None = None,
    artifacts: bool = False,
    dry_run: bool = False,
) -> FreedSpace:
    """Delete cached features: of images that no pipeline's dataset holds any more, or whole columns.

    What comes back is computed again. Columns that a running extraction adds to are passed over.

    Args:
        store: whose feature cache is pruned.
        unused: delete columns that no pipeline's present features or models use, and nobody used for an hour.
        older_than: delete columns whose rows were not read or written for so many days; with ``unused``,
            both must hold.
        artifacts: also delete the artifacts and reports that no pipeline holds.
        dry_run: only count.
    """
    freed = remove_checkpoints(store.layout, dry_run=dry_run)
    _prune_features(store, freed, unused=unused, older_than=older_than, dry_run=dry_run)
    if artifacts:  # last: the tables of views among them tell which features belong to which images
        remove_artifacts(store.layout, list_unheld(store), freed, dry_run=dry_run)
        remove_reports(store, freed, dry_run=dry_run)
    return freed


def delete_pipeline(store: ArtifactStore, pipeline: str, *, dry_run: bool = False) -> FreedSpace:
    """Delete all that one pipeline alone holds: records, artifacts, reports, and the features of its images.

    Args:
        store: where it is.
        pipeline: its name.
        dry_run: only count.
    """
    freed, held, others = FreedSpace(), store.list_held(pipeline), list_held(store, without=pipeline)
    splits = [store.layout.artifact(*each) for each in held if each[0] == SPLITS]
    gone = _views_of_gone_images(store, splits, without=pipeline)
    if not dry_run:  # first: where this is killed, `prune` with `artifacts` finds the rest
        remove_folder(store.layout, store.layout.registry(pipeline))
        remove_folder(store.layout, store.layout.records(pipeline))
    _drop(store, gone, freed, dry_run=dry_run)
    remove_artifacts(store.layout, held - others, freed, dry_run=dry_run)
    remove_reports(store, freed, pipeline=pipeline, dry_run=dry_run)
    return freed


def _prune_features(
    store: ArtifactStore, freed: FreedSpace, *, unused: bool, older_than: float | None, dry_run: bool
) -> None:
    if unused or older_than is not None:
        for usage in stats(store):
            at_work = usage.days < IN_USE_DAYS  # its run may not have recorded yet that it uses it
            if (unused and (usage.pipelines or at_work)) or usage.days < (older_than or 0):
                continue
            _locked(usage.column, freed, partial(_delete, usage.column, dry_run))
        return
    splits = [path.parent for path in store.layout.artifacts(SPLITS).glob("*/artifact.json")]
    _drop(store, _views_of_gone_images(store, splits), freed, dry_run=dry_run)


def _drop(store: ArtifactStore, views: set[bytes], freed: FreedSpace, *, dry_run: bool) -> None:
    """Delete the rows of views in all columns."""
    for column in list_columns(store.layout.features) if views else []:
        _locked(column, freed, partial(column.drop, views, dry_run=dry_run))


def _locked(column: FeatureColumn, freed: FreedSpace, delete: Callable[[], tuple[int, int]]) -> None:
    try:
        with column.lock.acquire(timeout=0):
            rows, size = delete()
    except Timeout:
        freed.busy += 1
        return
    freed.rows, freed.size = freed.rows + rows, freed.size + size


def _delete(column: FeatureColumn, dry_run: bool) -> tuple[int, int]:
    rows, size = sum(map(len, column.shards())), used_bytes(column.folder)
    if not dry_run:
        shutil.rmtree(column.folder)
    return rows, size


def _users(store: ArtifactStore) -> dict[str, set[str]]:
    """Return column → pipelines whose current features or models use it."""
    users: dict[str, set[str]] = {}
    for pipeline in store.layout.pipelines():
        for materialization in store.list_current(pipeline).values():
            artifact = materialization.artifact
            for name in artifact.summary.feature_columns or column_names(artifact.path):
                users.setdefault(name, set()).add(pipeline)
    return users


def _views_of_gone_images(store: ArtifactStore, splits: Sequence[Path], without: str | None = None) -> set[bytes]:
    """Return the views in tables of views (augmented_splits artifacts) of images that no pipeline's dataset has.

    Args:
        store: of the pipelines.
        splits: folders of the tables.
        without: a pipeline that does not count.
    """
    current = (store.get_current(name, DATASET) for name in store.layout.pipelines() if name != without)
    present = {identity for each in current if each for identity in read_manifest(each.artifact.path)["id"]}
    views: list[pd.DataFrame] = [read_views(path)[["id", "key"]].drop_duplicates("key") for path in splits]
    if not views:
        return set()
    known = pd.concat(views).drop_duplicates("key")
    return {bytes.fromhex(key) for key in known.loc[~known["id"].isin(present), "key"]}
