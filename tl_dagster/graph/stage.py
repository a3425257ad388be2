"""What every stage shares: its fingerprint, its artifact, and how it looks in Dagster."""

import base64
import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg

from tl_dagster.declaration import Declaration
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.progress import Progress
from tl_dagster.store.artifacts import Artifact, ArtifactStore, ArtifactSummary, Materialization, TableRows
from tl_dagster.store.digests import digest

__all__ = ["CheckResult", "Stage", "StageContext", "build_asset", "require_same"]

GPU_TAG = {"tl_dagster/device": "gpu"}


@dataclass(frozen=True)
class StageContext:
    """What a stage has in hand when it runs.

    Attributes:
        store: where artifacts are.
        inputs: the artifacts of the assets it reads.
        progress: tells how far it is.
        previous: what the asset holds from before, if anything.
    """

    store: ArtifactStore
    inputs: Mapping[str, Artifact]
    progress: Progress
    previous: Materialization | None


@dataclass(frozen=True)
class CheckResult:
    """What an asset check found.

    Attributes:
        passed: whether all is well.
        said: one sentence: what was found, and the mend.
        stops: a failure stops the run, instead of a warning.
        table: rows to show with it.
        picture: title of one of the artifact's pictures to show with it.
        numbers: to plot over time.
    """

    passed: bool
    said: str
    stops: bool = False
    table: TableRows = ()
    picture: str | None = None
    numbers: Mapping[str, float] = field(default_factory=dict)


class Stage(ABC):
    """One asset of a pipeline.

    Attributes:
        name: the asset's name, and its folder in the store.
        recipe: bumped by hand when the stage's output changes for the same settings and inputs.
        description: for the UI.
        kinds: for the UI.
        reads: assets it reads.
        gpu: whether it belongs to the GPU pool.
        columns: column → type, when its artifact is a table.
        checks: name → description of its asset checks.
        stops: those of them that may stop the run.
    """

    name: ClassVar[str]
    recipe: ClassVar[int]
    description: ClassVar[str]
    kinds: ClassVar[frozenset[str]]
    reads: ClassVar[tuple[str, ...]] = ()
    gpu: ClassVar[bool] = False
    columns: ClassVar[Mapping[str, str]] = {}
    checks: ClassVar[Mapping[str, str]] = {}
    stops: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, declaration: Declaration, root: Path) -> None:
        self.declaration = declaration
        self.root = root

    @classmethod
    def declared(cls, declaration: Declaration) -> bool:
        """Whether a pipeline has this asset; most have all."""
        return True

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """The declared settings that determine the stage's output (JSON-serialisable)."""

    @abstractmethod
    def run(self, work: StageContext) -> Materialization:
        """Find the artifact, or compute and commit it.

        Raises:
            InputError: something the user gave cannot be used.
        """

    def verdicts(self, work: StageContext, held: Materialization) -> dict[str, CheckResult]:
        """What each of the stage's checks finds in what the asset now holds; thresholds are no part of fingerprints."""
        return {}

    def code_version(self) -> str:
        """Recipe and settings: Dagster sees a change of either as a change of code."""
        return f"{self.recipe}-{digest(self.settings())[:12]}"

    def fingerprint(self, work: StageContext, settings: Mapping[str, Any] | None = None) -> str:
        """The address of the artifact: a digest of everything that determines it.

        Args:
            work: the data versions of its inputs count, as they were actually loaded.
            settings: what determines the output, when that is not the declared settings themselves.
        """
        used = self.settings() if settings is None else dict(settings)
        return digest({"stage": self.name, "recipe": self.recipe, "settings": used, "inputs": self.versions(work)})

    def versions(self, work: StageContext) -> dict[str, str]:
        """Data version of each input that was actually loaded."""
        return {name: artifact.data_version for name, artifact in work.inputs.items()}

    def find_or_build(
        self, work: StageContext, fingerprint: str, compute: Callable[[Path], ArtifactSummary]
    ) -> Materialization:
        """The artifact under a fingerprint; ``compute`` writes its files when it is not there yet."""
        found = work.store.find(self.name, fingerprint)
        if found:
            return Materialization(found, reused=True, computed=0, reused_rows=found.outcome.rows)
        built = work.store.build(self.name, fingerprint, compute, inputs=self.versions(work), settings=self.settings())
        computed = built.outcome.computed
        return Materialization(built, reused=False, computed=computed, reused_rows=built.outcome.rows - computed)


def require_same(artifact: Artifact, read: str, current: Artifact) -> None:
    """Refuse to combine an artifact with another version of what it was computed from.

    Raises:
        InputError: an upstream asset was materialized anew, and this one was not.
    """
    if artifact.inputs[read] != current.data_version:
        raise InputError(
            f"{artifact.stage} was computed from another {read} than the present one: materialize it first"
        )


def build_asset(
    stage: Stage, condition: dg.AutomationCondition[Any] | None, upstream: list[dg.AssetKey]
) -> dg.AssetsDefinition:
    """The Dagster asset of a stage.

    Args:
        stage: what runs.
        condition: when Dagster materializes it by itself.
        upstream: assets it follows without reading them.
    """
    pipeline = stage.declaration.name

    @dg.asset(
        key=[pipeline, stage.name],
        ins={name: dg.AssetIn(key=[pipeline, name]) for name in stage.reads},
        deps=upstream,
        io_manager_key="artifacts",
        group_name=pipeline,
        description=stage.description,
        kinds=set(stage.kinds),
        code_version=stage.code_version(),
        pool="gpu" if stage.gpu else None,
        tags=GPU_TAG if stage.gpu else None,
        op_tags=GPU_TAG if stage.gpu else None,
        metadata=_static_metadata(stage),
        automation_condition=condition,
        check_specs=[
            dg.AssetCheckSpec(name, asset=[pipeline, stage.name], description=description, blocking=name in stage.stops)
            for name, description in stage.checks.items()
        ],
        output_required=True,
    )
    # Without a return type: beside checks, Dagster reads any as the type of several outputs.
    def materialize(context: dg.AssetExecutionContext, **inputs: Artifact):  # type: ignore[no-untyped-def]  # noqa: ANN202
        store: ArtifactStore = context.resources.original_resource_dict["artifacts"].store
        progress = Progress(lambda line: context.log.info(f"{stage.name}: {line}"))
        try:
            store.check_writable()
            work = StageContext(store, inputs, progress, store.read_ref(pipeline, stage.name))
            begun = time.monotonic()
            held = replace(stage.run(work), seconds=time.monotonic() - begun)
            verdicts = stage.verdicts(work, held)
        except InputError as error:
            context.log.error(f"{stage.name}: {error}")
            raise dg.Failure(
                description=str(error), allow_retries=False
            ) from None  # the user's matter, not a traceback's
        context.log.info(
            f"{stage.name}: {'reused' if held.reused else 'computed'} · {held.computed:,} rows computed, "
            f"{held.reused_rows:,} reused · {held.seconds:.1f} s"
        )
        for name, verdict in verdicts.items():
            if not verdict.passed:
                say = context.log.error if verdict.stops else context.log.warning
                say(f"{stage.name}: {name}: {verdict.said}")
        return dg.MaterializeResult(
            value=held,
            metadata=_metadata(held),
            data_version=dg.DataVersion(held.artifact.data_version),
            check_results=[_check_result(name, verdict, held) for name, verdict in verdicts.items()],
        )

    return materialize


def _static_metadata(stage: Stage) -> dict[str, Any]:
    source = inspect.getsourcefile(type(stage)) or ""
    line = inspect.getsourcelines(type(stage))[1]
    reference = dg.LocalFileCodeReference(file_path=source, line_number=line, label=type(stage).__name__)
    metadata: dict[str, Any] = {
        "settings": dg.MetadataValue.json(stage.settings()),
        "dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference]),
    }
    if stage.columns:
        metadata["dagster/column_schema"] = dg.TableSchema(
            columns=[dg.TableColumn(name, kind) for name, kind in stage.columns.items()]
        )
    return metadata


def _metadata(held: Materialization) -> dict[str, Any]:
    """Metadata of a materialization: numbers stay numbers, so that Dagster plots them over time."""
    outcome = held.artifact.outcome
    metadata: dict[str, Any] = {
        "reused": held.reused,
        "rows_computed": held.computed,
        "rows_reused": held.reused_rows,
        "seconds": round(held.seconds, 3),
        "dagster/row_count": outcome.rows,
        "path": dg.MetadataValue.path(held.artifact.path),
        **{name: float(value) for name, value in outcome.metrics.items()},
    }
    for name, fact in outcome.facts.items():
        metadata[name] = dg.MetadataValue.json(fact) if isinstance(fact, dict | list) else fact
    for title, rows in outcome.tables.items():
        metadata[title] = _table(rows)
    for title in outcome.pictures:
        metadata[title] = _picture(held.artifact, title)
    return metadata


def _check_result(name: str, verdict: CheckResult, held: Materialization) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {name: float(value) for name, value in verdict.numbers.items()}
    if verdict.table:
        metadata["table"] = _table(verdict.table)
    if verdict.picture is not None and verdict.picture in held.artifact.outcome.pictures:
        metadata[verdict.picture] = _picture(held.artifact, verdict.picture)
    severity = dg.AssetCheckSeverity.ERROR if verdict.stops else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=name, passed=verdict.passed, severity=severity, description=verdict.said, metadata=metadata
    )


def _table(rows: TableRows) -> dg.TableMetadataValue:
    kinds = {str: "string", int: "int", float: "float"}
    schema = dg.TableSchema([dg.TableColumn(name, kinds[type(value)]) for name, value in rows[0].items()])
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows], schema)


def _picture(artifact: Artifact, title: str) -> dg.MarkdownMetadataValue:
    file = artifact.path / artifact.outcome.pictures[title]
    kind = "jpeg" if file.suffix == ".jpg" else "png"
    return dg.MetadataValue.md(f"![{title}](data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()})")
