"""The base class of every stage: its fingerprint, its artifact, and how it looks in Dagster."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from tl_dagster.declaration import Declaration
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.progress import Progress
from tl_dagster.store.artifacts import Artifact, ArtifactStore, ArtifactSummary, Materialization, TableRows
from tl_dagster.store.digests import digest

__all__ = ["CheckResult", "Column", "RunInfo", "Stage", "StageContext", "describe_validation", "require_same"]


class Column(NamedTuple):
    """A column of an artifact that is, or has, a table.

    Attributes:
        kind: its type.
        description: what it says.
        origins: (asset, column) of the tables above that its values come from.
    """

    kind: str
    description: str
    origins: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class RunInfo:
    """The Dagster run that materializes an asset.

    Attributes:
        run_id: its id.
        commit: of the project, where it is known.
    """

    run_id: str
    commit: str | None

    def describe(self) -> dict[str, str]:
        """Return the origin of what the run writes: run, commit, version and time."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        known = {"run": self.run_id, "commit": self.commit, "tl_dagster": version("tl-dagster"), "time": now}
        return {name: value for name, value in known.items() if value}


@dataclass(frozen=True)
class StageContext:
    """Everything a stage needs while it runs.

    Attributes:
        store: where artifacts are.
        inputs: the artifacts of the assets it reads.
        progress: informed of each step.
        previous: the asset's last materialization, if there was one.
        run: the run that it works in.
        config: what was entered for this run (see :attr:`Stage.run_config`).
        partitions: dimension → key of each partition that is materialized; none for an asset without partitions.
    """

    store: ArtifactStore
    inputs: Mapping[str, Artifact]
    progress: Progress
    previous: Materialization | None
    run: RunInfo = RunInfo("", None)
    config: Mapping[str, Any] = field(default_factory=dict)
    partitions: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True)
class CheckResult:
    """The result of an asset check.

    Attributes:
        passed: whether all is well.
        description: one sentence: what was found, and the mend.
        blocking: a failure stops the run, instead of a warning.
        table: rows to show with it.
        picture: title of one of the artifact's pictures to show with it.
        metrics: to plot over time.
    """

    passed: bool
    description: str
    blocking: bool = False
    table: TableRows = ()
    picture: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


class Stage(ABC):
    """One asset of a pipeline.

    Attributes:
        name: the asset's name, and its folder in the store.
        version: bumped by hand when the stage's output changes for the same settings and inputs.
        description: for the UI.
        kinds: for the UI.
        inputs: assets it reads.
        gpu: whether it belongs to the GPU pool.
        columns: those of its artifact, when that is a table.
        check_descriptions: name → description of its asset checks.
        blocking_checks: those of them that may stop the run.
        run_config: name → description of the texts that may be entered for a single run; empty by default.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    description: ClassVar[str]
    kinds: ClassVar[frozenset[str]]
    inputs: ClassVar[tuple[str, ...]] = ()
    gpu: ClassVar[bool] = False
    columns: ClassVar[Mapping[str, Column]] = {}
    check_descriptions: ClassVar[Mapping[str, str]] = {}
    blocking_checks: ClassVar[frozenset[str]] = frozenset()
    run_config: ClassVar[Mapping[str, str]] = {}

    def __init__(self, declaration: Declaration, root: Path) -> None:
        self.declaration = declaration
        self.root = root

    @classmethod
    def is_enabled(cls, declaration: Declaration) -> bool:
        """Return whether a pipeline has this asset; most have all."""
        return True

    def partitions(self) -> Mapping[str, Sequence[str]]:
        """Return the keys of each of two dimensions of the asset's partitions; most assets have none."""
        return {}

    def partition_metadata(self, materialization: Materialization, key: Mapping[str, str]) -> Mapping[str, float]:
        """Return the numbers of one partition (dimension → key)."""
        return {}

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the declared settings that determine the stage's output (JSON-serialisable)."""

    @abstractmethod
    def run(self, context: StageContext) -> Materialization:
        """Find the artifact, or compute and commit it.

        Raises:
            InputError: something that the user declared cannot be used.
        """

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return what came out, in one line that people read first."""
        return f"{summary.rows:,} rows"

    def publish(self, context: StageContext, materialization: Materialization) -> Mapping[str, Path]:
        """Write what is shown of the artifact outside of it, and return title → file; most stages have nothing.

        Raises:
            InputError: the store cannot be written.
        """
        return {}

    def run_checks(self, context: StageContext, materialization: Materialization) -> dict[str, CheckResult]:
        """Return check → its result on the current artifact; thresholds are no part of fingerprints."""
        return {}

    def is_gated(self, context: StageContext) -> bool:
        """Return whether failed blocking checks above keep it from running; nearly always."""
        return True

    @property
    def group(self) -> str:
        """The group of the asset in Dagster's UI, whose assets are materialized together."""
        return self.declaration.name

    def freshness_days(self) -> float | None:
        """Return after how many days without a materialization Dagster calls the asset stale; None: never."""
        return None

    def code_version(self) -> str:
        """Return version and settings: Dagster sees a change of either as a change of code."""
        return f"{self.version}-{digest(self.settings())[:12]}"

    def fingerprint(self, context: StageContext, settings: Mapping[str, Any] | None = None) -> str:
        """Return the address of the artifact: a digest of everything that determines it.

        Args:
            context: the data versions of its inputs count, as they were actually loaded.
            settings: what determines the output, when that is not the declared settings themselves.
        """
        used = self.settings() if settings is None else dict(settings)
        return digest({"stage": self.name, "recipe": self.version, "settings": used, "inputs": self.versions(context)})

    def versions(self, context: StageContext) -> dict[str, str]:
        """Return the data version of each input that was actually loaded."""
        return {name: artifact.data_version for name, artifact in context.inputs.items()}

    def find_or_build(
        self, context: StageContext, fingerprint: str, compute: Callable[[Path], ArtifactSummary]
    ) -> Materialization:
        """Return the artifact under a fingerprint; ``compute`` writes its files when it is not there yet."""
        found = context.store.find(self.name, fingerprint)
        if found:
            return Materialization(found, reused=True, computed=0, reused_rows=found.summary.rows)
        built = context.store.build(
            self.name,
            fingerprint,
            compute,
            inputs=self.versions(context),
            settings=self.settings(),
            origin=context.run.describe(),
        )
        computed = built.summary.computed
        return Materialization(built, reused=False, computed=computed, reused_rows=built.summary.rows - computed)


def describe_validation(metrics: Mapping[str, float]) -> str:
    """Return how good a model is on the validation images."""
    accuracy, loss = metrics["validation_accuracy"], metrics["validation_log_loss"]
    return f"validation accuracy {accuracy:.3f}, log-loss {loss:.4f}"


def require_same(artifact: Artifact, read: str, current: Artifact) -> None:
    """Refuse to combine an artifact with another version of what it was computed from.

    Raises:
        InputError: an upstream asset was materialized again, and this one was not.
    """
    if artifact.inputs[read] != current.data_version:
        raise InputError(
            f"{artifact.stage} was computed from another {read} than the present one: materialize it first"
        )
