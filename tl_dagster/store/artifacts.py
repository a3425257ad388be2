"""The content-addressed artifact store, and the IO manager that hands its artifacts from asset to asset.

Layout, under one root::

    artifacts/<stage>/<fingerprint>/   written once, committed by one atomic rename; `artifact.json` describes it
    features/                          the feature cache (see `tl_dagster.features.cache`)
    index/                             what was learnt of each source's files (see `tl_dagster.data.file_index`)
    groups/                            which images were compared and grouped (see `tl_dagster.data.near_copies`)
    sources/                           local copies of what cannot be read at random (see `tl_dagster.data.source_cache`)
    refs/<pipeline>/<asset>.json       which artifact each asset of a pipeline holds now, and how it came about
    tmp/                               work in progress; safe to delete when nothing runs
"""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tl_dagster.runtime.errors import InputError
from tl_dagster.store.files import sync, write_atomically

__all__ = ["Artifact", "ArtifactStore", "ArtifactSummary", "Materialization", "TableRows"]

# Rows of a small table, each with the same keys: texts, whole numbers and floats.
TableRows = Sequence[Mapping[str, Any]]

# Work in progress that was not touched for so long belongs to nobody any more.
ABANDONED_SECONDS = 7 * 24 * 3600


def default_root() -> Path:
    """``TL_DAGSTER_STORE``, else ``tl_dagster`` in ``DAGSTER_HOME``, else ``.tl_dagster`` in the working folder."""
    if store := os.environ.get("TL_DAGSTER_STORE"):
        return Path(store).absolute()
    home = os.environ.get("DAGSTER_HOME")
    return Path(home, "tl_dagster").absolute() if home else Path(".tl_dagster").absolute()


@dataclass(frozen=True)
class ArtifactSummary:
    """What a stage says of the work it did.

    Attributes:
        rows: rows that the artifact holds.
        computed: rows that had to be computed for it (the others were reused).
        metrics: numbers to plot over time.
        metadata: anything else worth showing (JSON-serialisable).
        figures: title → PNG or JPEG file in the artifact's folder, small enough for an event log (< 70 kB).
        tables: title → rows of texts and numbers with the same keys, few enough to be looked at.
        data_version: what Dagster is told, when not the fingerprint: a digest of the content.
    """

    rows: int
    computed: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, TableRows] = field(default_factory=dict)
    data_version: str | None = None


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: a folder that is never changed again.

    Attributes:
        stage: name of the stage that wrote it.
        fingerprint: digest of everything that determined it.
        data_version: what Dagster is told; equal for artifacts that are the same to the stages below.
        path: the folder.
        outcome: what was said when it was written.
        inputs: asset → data version that it was computed from.
        settings: the stage's settings.
    """

    stage: str
    fingerprint: str
    data_version: str
    path: Path
    outcome: ArtifactSummary
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Materialization:
    """An artifact as one asset of a pipeline holds it now, with what this materialization had to do."""

    artifact: Artifact
    reused: bool
    computed: int
    reused_rows: int
    seconds: float = 0.0


class ArtifactStore:
    """Artifacts on a local or shared disk, addressed by fingerprint.

    Args:
        root: the store's folder; made when first written.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_root()

    def check_writable(self) -> None:
        """Raise :class:`InputError` when the store cannot be written, before any work is done."""
        try:
            (self.root / "tmp").mkdir(parents=True, exist_ok=True)
            for left in (self.root / "tmp").iterdir():  # by a run that was killed
                if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
            probe = self.root / "tmp" / f"probe-{uuid.uuid4().hex}"
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"cannot write the artifact store {self.root}: {error.strerror or error}; "
                "give it write permission and space, or set TL_DAGSTER_STORE to another folder"
            ) from error

    def find(self, stage: str, fingerprint: str) -> Artifact | None:
        """The committed artifact under this fingerprint, or None."""
        path = self.root / "artifacts" / stage / fingerprint
        try:
            saved = json.loads((path / "artifact.json").read_text())
        except FileNotFoundError:
            return None
        outcome = _summary(saved["outcome"])
        version = outcome.data_version or fingerprint
        return Artifact(stage, fingerprint, version, path, outcome, saved["inputs"], saved["settings"])

    def checkpoint(self, fingerprint: str) -> Path:
        """Where the training of an artifact keeps what it would go on from after a kill."""
        return self.root / "checkpoints" / f"{fingerprint}.safetensors"

    def build(
        self,
        stage: str,
        fingerprint: str,
        compute: Callable[[Path], ArtifactSummary],
        *,
        inputs: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """Compute an artifact in a temporary folder and commit it by one atomic rename.

        When another run commits the same fingerprint first, its artifact is returned and this one dropped.

        Args:
            stage: the stage's name.
            fingerprint: the artifact's address.
            compute: writes the artifact's files into the folder it is given.
            inputs: asset → data version that it is computed from.
            settings: the stage's settings, for the reader.

        Raises:
            InputError: the store cannot be written.
        """
        self.check_writable()
        work = self.root / "tmp" / f"{stage}-{uuid.uuid4().hex}"
        work.mkdir()
        try:
            outcome = compute(work)
            saved = {"inputs": dict(inputs or {}), "settings": dict(settings or {}), "outcome": _stored(outcome)}
            (work / "artifact.json").write_text(json.dumps(saved, indent=1))
            for path in filter(Path.is_file, work.rglob("*")):
                sync(path)
            final = self.root / "artifacts" / stage / fingerprint
            final.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # another run was first
                work.rename(final)
        except OSError as error:
            raise InputError(
                f"cannot write the artifact store {self.root}: {error.strerror or error}; free some space, "
                "or set TL_DAGSTER_STORE to another folder"
            ) from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        artifact = self.find(stage, fingerprint)
        if artifact is None:
            raise InputError(f"could not commit {stage} to {self.root}: is the disk full or read-only?")
        return artifact

    def set_current(self, pipeline: str, asset: str, held: Materialization) -> None:
        """Point an asset at the artifact it now holds (atomically)."""
        before = self.get_previous(pipeline, asset, held.artifact.data_version)
        record = {
            "fingerprint": held.artifact.fingerprint,
            "before": before.fingerprint if before else None,
            "reused": held.reused,
            "computed": held.computed,
            "reused_rows": held.reused_rows,
            "seconds": round(held.seconds, 3),
        }
        write_atomically(self.root / "refs" / pipeline / f"{asset}.json", json.dumps(record).encode())

    def get_current(self, pipeline: str, asset: str) -> Materialization | None:
        """What an asset holds now, or None when it was never materialized."""
        record = self._record(pipeline, asset)
        artifact = self.find(asset, record.pop("fingerprint", ""))
        record.pop("before", None)
        return Materialization(artifact, **record) if artifact else None

    def get_previous(self, pipeline: str, asset: str, data_version: str) -> Artifact | None:
        """What an asset held before it held this data version, or None."""
        record = self._record(pipeline, asset)
        for name in ("fingerprint", "before"):
            artifact = self.find(asset, record.get(name) or "")
            if artifact and artifact.data_version != data_version:
                return artifact
        return None

    def _record(self, pipeline: str, asset: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads((self.root / "refs" / pipeline / f"{asset}.json").read_text())
        except FileNotFoundError:
            return {}
        return record


# Fields whose names on the disk differ: artifacts that were written under these are found for ever.
STORED_NAMES = {"metadata": "facts", "figures": "pictures"}


def _stored(summary: ArtifactSummary) -> dict[str, Any]:
    return {STORED_NAMES.get(name, name): value for name, value in asdict(summary).items()}


def _summary(stored: Mapping[str, Any]) -> ArtifactSummary:
    names = {stored_as: name for name, stored_as in STORED_NAMES.items()}
    return ArtifactSummary(**{names.get(name, name): value for name, value in stored.items()})
