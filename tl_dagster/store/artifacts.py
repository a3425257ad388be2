"""The content-addressed artifact store."""

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tl_dagster.runtime.errors import InputError, redact_settings
from tl_dagster.store.files import sync, write_atomically, writing
from tl_dagster.store.layout import StoreLayout, default_root
from tl_dagster.store.registry import ChampionRegistry, get_champion

__all__ = [
    "ABANDONED_SECONDS",
    "CHAMPION",
    "DATASET",
    "FEATURES",
    "LEADERBOARD",
    "MANIFEST",
    "MODEL",
    "SPLITS",
    "VIEWS",
    "Artifact",
    "ArtifactStore",
    "ArtifactSummary",
    "FailedCheck",
    "Materialization",
    "TableRows",
]

# Rows of a small table, each with the same keys: texts, whole numbers and floats.
TableRows = Sequence[Mapping[str, Any]]

# Work in progress that was not touched for this long was abandoned.
ABANDONED_SECONDS = 7 * 24 * 3600
# Stages that others ask for by name: the data, whose former version is kept too; the model that may be in service, and
# what says which one is.
DATASET, SPLITS, FEATURES = "dataset", "augmented_splits", "bottleneck_features"
MODEL, CHAMPION, LEADERBOARD = "fine_tuned_model", "champion", "backbone_leaderboard"
MANIFEST, VIEWS = "images.parquet", "views.parquet"  # tables in the artifacts of the first two
# Fields whose names on the disk differ: artifacts that were written under these stay readable.
STORED_NAMES = {"metadata": "facts", "figures": "pictures"}


@dataclass(frozen=True)
class ArtifactSummary:
    """The work that a stage did for an artifact, and what is worth showing of it.

    Attributes:
        rows: rows that the artifact holds.
        computed: rows that had to be computed for it (the others were reused).
        metrics: numbers to plot over time.
        metadata: anything else worth showing (JSON-serialisable).
        figures: title → PNG or JPEG file in the artifact's folder, small enough for an event log (< 70 kB).
        tables: title → rows of texts and numbers with the same keys, few enough to be looked at.
        data_version: the data version for Dagster, when it is not the fingerprint: a digest of the content.
        feature_columns: names of the feature cache's columns that the artifact was made from.
        parts: (stage, fingerprint) of artifacts that it summarizes, and that are kept as long as it is.
    """

    rows: int
    computed: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, TableRows] = field(default_factory=dict)
    data_version: str | None = None
    feature_columns: Sequence[str] = ()
    parts: Sequence[tuple[str, str]] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the summary as it is stored."""
        return {STORED_NAMES.get(name, name): value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ArtifactSummary":
        """Return the summary of :meth:`to_json`."""
        names = {stored_as: name for name, stored_as in STORED_NAMES.items()}
        return cls(**{names.get(name, name): value for name, value in stored.items()})


@dataclass(frozen=True)
class Artifact:
    """A committed artifact: a folder that is never changed again.

    Attributes:
        stage: name of the stage that wrote it.
        fingerprint: digest of everything that determined it.
        data_version: the data version for Dagster; equal for artifacts that are the same to the stages below.
        path: the folder.
        summary: the work that was done when it was written.
        inputs: asset → data version that it was computed from.
        settings: the stage's settings.
        origin: who wrote it: run, commit, version, time; none where it was written before these were kept.
    """

    stage: str
    fingerprint: str
    data_version: str
    path: Path
    summary: ArtifactSummary
    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    origin: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FailedCheck:
    """An asset check that failed.

    Attributes:
        name: of the check.
        description: what was found, and the mend.
        blocking: whether it stopped the run.
    """

    name: str
    description: str
    blocking: bool


@dataclass(frozen=True)
class Materialization:
    """The current artifact of one asset of a pipeline, with the work that its last materialization had to do."""

    artifact: Artifact
    reused: bool
    computed: int
    reused_rows: int
    seconds: float = 0.0
    failed_checks: Sequence[FailedCheck] = ()


class ArtifactStore:
    """Artifacts on a local or shared disk, addressed by fingerprint.

    Args:
        root: the store's folder; created when first written.

    Attributes:
        layout: where everything lies in it.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.layout = StoreLayout(root or default_root())

    @property
    def root(self) -> Path:
        """The store's folder."""
        return self.layout.root

    def check_writable(self) -> None:
        """Raise :class:`DiskError` when the store cannot be written, before any work is done."""
        with self._writing():
            self.layout.work.mkdir(parents=True, exist_ok=True)
            for left in self.layout.work.iterdir():  # by a run that was killed
                if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)
            probe = self.layout.work / f"probe-{uuid.uuid4().hex}"
            probe.write_bytes(b"")
            probe.unlink()

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return writing(
            self.layout.work, f"the artifact store {self.root}", ", or set TL_DAGSTER_STORE to another folder"
        )

    def find(self, stage: str, fingerprint: str) -> Artifact | None:
        """Return the committed artifact under this fingerprint, or None."""
        path = self.layout.artifact(stage, fingerprint)
        try:
            saved = json.loads((path / "artifact.json").read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise InputError(
                f"{path / 'artifact.json'} is damaged ({error}): delete the folder, and run again"
            ) from error
        summary = ArtifactSummary.from_json(saved["outcome"])
        version = summary.data_version or fingerprint
        return Artifact(
            stage, fingerprint, version, path, summary, saved["inputs"], saved["settings"], saved.get("origin", {})
        )

    def build(
        self,
        stage: str,
        fingerprint: str,
        compute: Callable[[Path], ArtifactSummary],
        *,
        inputs: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        origin: Mapping[str, str] | None = None,
    ) -> Artifact:
        """Compute an artifact in a temporary folder and commit it by one atomic rename.

        When another run commits the same fingerprint first, its artifact is returned and this one dropped.

        Args:
            stage: the stage's name.
            fingerprint: the artifact's address.
            compute: writes the artifact's files into the folder that it gets.
            inputs: asset → data version that it is computed from.
            settings: the stage's settings, for the reader.
            origin: who writes it, for the reader.

        Raises:
            DiskError: the store cannot be written.
        """
        self.check_writable()
        work = self.layout.work / f"{stage}-{uuid.uuid4().hex}"
        with self._writing():
            work.mkdir()
            try:
                summary = compute(work)
                shown = redact_settings(settings or {})
                saved = {
                    "inputs": dict(inputs or {}),
                    "settings": shown,
                    "origin": dict(origin or {}),
                    "outcome": summary.to_json(),
                }
                (work / "artifact.json").write_text(json.dumps(saved, indent=1))
                for path in filter(Path.is_file, work.rglob("*")):
                    sync(path)
                final = self.layout.artifact(stage, fingerprint)
                final.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(OSError):  # another run was first
                    work.rename(final)
            finally:
                shutil.rmtree(work, ignore_errors=True)
        artifact = self.find(stage, fingerprint)
        if artifact is None:
            raise InputError(f"could not commit {stage} to {self.root}: is the disk full or read-only?")
        return artifact

    def set_current(self, pipeline: str, asset: str, materialization: Materialization) -> None:
        """Make an artifact the current one of an asset (atomically)."""
        previous = self.get_previous(pipeline, asset, materialization.artifact.data_version)
        record = {
            "fingerprint": materialization.artifact.fingerprint,
            "before": previous.fingerprint if previous else None,
            "reused": materialization.reused,
            "computed": materialization.computed,
            "reused_rows": materialization.reused_rows,
            "seconds": round(materialization.seconds, 3),
            "failed_checks": [asdict(check) for check in materialization.failed_checks],
        }
        write_atomically(self.layout.current(pipeline, asset), json.dumps(record).encode())

    def get_current(self, pipeline: str, asset: str) -> Materialization | None:
        """Return the current artifact of an asset, or None when it was never materialized."""
        record = self._record(pipeline, asset)
        artifact = self.find(asset, record.pop("fingerprint", ""))
        record.pop("before", None)
        failed = [FailedCheck(**check) for check in record.pop("failed_checks", [])]
        return Materialization(artifact, **record, failed_checks=failed) if artifact else None

    def list_current(self, pipeline: str) -> dict[str, Materialization]:
        """Return asset → its current artifact, of all assets of a pipeline."""
        current = {asset: self.get_current(pipeline, asset) for asset in self.layout.assets(pipeline)}
        return {asset: each for asset, each in current.items() if each}

    def list_held(self, pipeline: str) -> set[tuple[str, str]]:
        """Return (stage, fingerprint) of the artifacts that a pipeline holds.

        These are the current ones; the data before, which a check for drift compares with; the models that were in
        service, to which one may roll back; and the features that the one in service was trained on, which the other
        check for drift compares with. Nothing else reads the former version of an asset.
        """
        registry = ChampionRegistry(self.layout.registry(pipeline))
        held = {(MODEL, fingerprint) for fingerprint in registry.champions()}
        champion = self.find(MODEL, get_champion(registry.decisions()) or "")
        if champion and FEATURES in champion.inputs:
            held.add((FEATURES, champion.inputs[FEATURES]))
        for asset in self.layout.assets(pipeline):
            record = self._record(pipeline, asset)
            names = ("fingerprint", "before") if asset == DATASET else ("fingerprint",)
            held |= {(asset, record[name]) for name in names if record.get(name)}
            if current := self.find(asset, record.get("fingerprint", "")):
                held |= {(stage, fingerprint) for stage, fingerprint in current.summary.parts}
        return held

    def get_previous(self, pipeline: str, asset: str, data_version: str) -> Artifact | None:
        """Return the artifact that an asset had before it had this data version, or None."""
        record = self._record(pipeline, asset)
        for name in ("fingerprint", "before"):
            artifact = self.find(asset, record.get(name) or "")
            if artifact and artifact.data_version != data_version:
                return artifact
        return None

    def _record(self, pipeline: str, asset: str) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self.layout.current(pipeline, asset).read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            file = self.layout.current(pipeline, asset)
            raise InputError(f"{file} is damaged ({error}): delete it, and run again") from error
        return record
