"""Removal of what a store holds and nobody needs any more."""

import contextlib
import shutil
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tl_dagster.store.artifacts import ABANDONED_SECONDS, ArtifactStore
from tl_dagster.store.files import used_bytes
from tl_dagster.store.layout import StoreLayout

__all__ = [
    "FreedSpace",
    "list_held",
    "list_unheld",
    "remove_artifacts",
    "remove_checkpoints",
    "remove_folder",
    "remove_reports",
]


@dataclass
class FreedSpace:
    """The space that was (or would be) freed, and columns that a running extraction kept from it.

    Attributes:
        rows: of the feature cache.
        artifacts: of stages: models, tables, evaluations.
        reports: HTML files.
        size: bytes of all these.
        busy: columns that were passed over.
    """

    rows: int = 0
    artifacts: int = 0
    reports: int = 0
    size: int = 0
    busy: int = 0


def list_held(store: ArtifactStore, *, without: str | None = None) -> set[tuple[str, str]]:
    """Return (stage, fingerprint) of every artifact that a pipeline holds.

    Args:
        store: whose artifacts they are.
        without: a pipeline that does not count.
    """
    pipelines = [name for name in store.layout.pipelines() if name != without]
    return {each for name in pipelines for each in store.list_held(name)}


def list_unheld(store: ArtifactStore) -> set[tuple[str, str]]:
    """Return (stage, fingerprint) of every artifact that no pipeline holds.

    A part that is an asset of no pipeline, such as one network of the baseline, is held while an artifact that is held
    was computed from the same inputs.
    """
    held = list_held(store)
    assets = {stage for stage, _ in held}
    found = {(path.parent.parent.name, path.parent.name) for path in store.layout.all_artifacts()}
    inputs = [artifact.inputs for each in held if (artifact := store.find(*each))]
    unheld = set()
    for stage, fingerprint in found - held:
        artifact = store.find(stage, fingerprint)
        if stage in assets or artifact is None or artifact.inputs not in inputs:
            unheld.add((stage, fingerprint))
    return unheld


def remove_artifacts(
    layout: StoreLayout, artifacts: Collection[tuple[str, str]], freed: FreedSpace, *, dry_run: bool
) -> None:
    """Delete artifacts, each by one atomic step.

    Args:
        layout: of the store.
        artifacts: (stage, fingerprint) of each.
        freed: is added to.
        dry_run: only count.
    """
    for stage, fingerprint in artifacts:
        path = layout.artifact(stage, fingerprint)
        freed.artifacts, freed.size = freed.artifacts + 1, freed.size + used_bytes(path)
        if not dry_run:
            remove_folder(layout, path)


def remove_reports(
    store: ArtifactStore,
    freed: FreedSpace,
    *,
    pipeline: str | None = None,
    evaluations: Collection[str] | None = None,
    dry_run: bool = False,
) -> None:
    """Delete reports: on evaluations that their pipeline does not hold any more, all of a pipeline, or on some.

    Args:
        store: where they are.
        freed: is added to.
        pipeline: whose reports all go.
        evaluations: fingerprints of those whose reports go, held or not.
        dry_run: only count.
    """
    for path in store.layout.reports.glob("*/*.html" if pipeline is None else f"{pipeline}/*.html"):
        if evaluations is not None:
            gone = path.stem in evaluations
        else:
            gone = pipeline is not None or path.stem not in {each for _, each in store.list_held(path.parent.name)}
        if gone:
            freed.reports, freed.size = freed.reports + 1, freed.size + path.stat().st_size
            if not dry_run:
                path.unlink()


def remove_folder(layout: StoreLayout, path: Path) -> None:
    """Move a folder out of the way, so that nobody sees a part of it, and delete it."""
    gone = layout.work / f"deleted-{uuid.uuid4().hex}"
    gone.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):  # another process was first
        path.rename(gone)
        shutil.rmtree(gone)


def remove_checkpoints(layout: StoreLayout, *, dry_run: bool) -> FreedSpace:
    """Delete checkpoints that no run has written to for a week: their training was abandoned.

    Args:
        layout: of the store.
        dry_run: only count.
    """
    freed = FreedSpace()
    for path in layout.checkpoints.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # its training has just ended
            status = path.stat()
            if time.time() - status.st_mtime > ABANDONED_SECONDS:
                freed.size += status.st_size
                if not dry_run:
                    path.unlink()
    return freed
