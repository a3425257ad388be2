"""Metadata of materializations and checks: numbers, tables and figures for Dagster's UI."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from tl_dagster.runtime.errors import redact_settings
from tl_dagster.store.artifacts import Artifact, Materialization, TableRows

if TYPE_CHECKING:  # what a stage is made of takes a tenth of a second to import
    from tl_dagster.graph.stage import CheckResult, Column, Stage

__all__ = ["artifact_metadata", "check_result", "materialization_metadata", "round_number", "static_metadata"]

WHOLE_FROM = 1000.0


def static_metadata(stage: "Stage") -> dict[str, Any]:
    """Return the metadata of an asset's definition: settings without secrets, link to the source code, and columns."""
    metadata: dict[str, Any] = {
        "settings": _settings(stage),
        "dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[_code_reference(type(stage))]),
    }
    if stage.columns:
        metadata["dagster/column_schema"] = dg.TableSchema(
            columns=[
                dg.TableColumn(name, column.kind, description=_describe_column(column))
                for name, column in stage.columns.items()
            ]
        )
    return metadata


def _describe_column(column: "Column") -> str:
    """Return what a column says, and where its values come from: the open UI has no picture of column lineage."""
    names: dict[str, list[str]] = {}
    for asset, above in column.origins:
        names.setdefault(asset, []).append(above)
    origins = "; ".join(f"{asset}: {', '.join(each)}" for asset, each in names.items())
    return f"{column.description} From {origins}." if origins else column.description


def _column_lineage(stage: "Stage") -> dg.TableColumnLineage | None:
    """Return which columns of the tables above each column comes from; None where it comes from none."""
    pipeline = stage.declaration.name
    deps = {
        name: [dg.TableColumnDep(dg.AssetKey([pipeline, asset]), above) for asset, above in column.origins]
        for name, column in stage.columns.items()
        if column.origins
    }
    return dg.TableColumnLineage(deps) if deps else None


def _settings(stage: "Stage") -> dg.JsonMetadataValue:
    return dg.MetadataValue.json(redact_settings(stage.settings()))


def _code_reference(stage: "type[Stage]") -> dg.LocalFileCodeReference:
    """Return the place of a stage's `run`, without a look at its source, which takes milliseconds."""
    code = stage.run.__code__
    return dg.LocalFileCodeReference(file_path=code.co_filename, line_number=code.co_firstlineno, label=stage.__name__)


def materialization_metadata(
    stage: "Stage", materialization: Materialization, files: Mapping[str, Path], why: Sequence[str]
) -> dict[str, Any]:
    """Return the metadata of a materialization: the result first, bookkeeping last.

    Numbers stay numbers, so that Dagster plots them over time.

    Args:
        stage: whose asset it is.
        materialization: of the asset.
        files: title → file beside the artifact, such as the report.
        why: lines that say why it was computed; none where it was reused.
    """
    artifact = materialization.artifact
    summary = artifact.summary
    lineage = _column_lineage(stage)
    return {
        "result": stage.describe_result(summary),
        **{title: dg.MetadataValue.path(file) for title, file in files.items()},
        **artifact_metadata(artifact),
        **({"why": dg.MetadataValue.md("\n".join(f"    {line}" for line in why))} if why else {}),
        "reused": materialization.reused,
        "rows_computed": materialization.computed,
        "rows_reused": materialization.reused_rows,
        "seconds": round_number(materialization.seconds),
        "dagster/row_count": summary.rows,
        **({"dagster/column_lineage": lineage} if lineage else {}),
        "settings": _settings(stage),
        "inputs": dg.MetadataValue.json(dict(artifact.inputs)),
        "written by": dg.MetadataValue.json(dict(artifact.origin)),
        "path": dg.MetadataValue.path(artifact.path),
    }


def artifact_metadata(artifact: Artifact) -> dict[str, Any]:
    """Return the metadata of what an artifact holds: numbers, the rest of its summary, tables and figures."""
    summary = artifact.summary
    metadata: dict[str, Any] = {name: round_number(value) for name, value in summary.metrics.items()}
    for name, value in summary.metadata.items():
        metadata[name] = dg.MetadataValue.json(_round(value)) if isinstance(value, dict | list) else _round(value)
    for title, rows in summary.tables.items():
        metadata[title] = _table(rows)
    for title in summary.figures:
        metadata[title] = _figure(artifact, title)
    return metadata


def round_number(value: float) -> float:
    """Return a number as people read it: a whole one from a thousand on, else four digits; an int stays one."""
    if isinstance(value, int):
        return value
    number = float(value)
    return float(round(number)) if abs(number) >= WHOLE_FROM else float(f"{number:.4g}")


def check_result(name: str, result: "CheckResult", materialization: Materialization) -> dg.AssetCheckResult:
    """Return a check's result for Dagster: an error where it blocks what lies below, else a warning."""
    artifact = materialization.artifact
    metadata: dict[str, Any] = {metric: round_number(value) for metric, value in result.metrics.items()}
    if result.table:
        metadata["table"] = _table(result.table)
    if result.picture is not None and result.picture in artifact.summary.figures:
        metadata[result.picture] = _figure(artifact, result.picture)
    severity = dg.AssetCheckSeverity.ERROR if result.blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=name, passed=result.passed, severity=severity, description=result.description, metadata=metadata
    )


def _table(rows: TableRows) -> dg.TableMetadataValue:
    kinds = {str: "string", int: "int", float: "float"}
    schema = dg.TableSchema([dg.TableColumn(name, kinds[type(value)]) for name, value in rows[0].items()])
    return dg.MetadataValue.table([dg.TableRecord(_round(dict(row))) for row in rows], schema)


def _round(value: Any) -> Any:
    """Return a value of JSON with its floats rounded."""
    if isinstance(value, dict):
        return {name: _round(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_round(part) for part in value]
    return round_number(value) if isinstance(value, float) else value


def _figure(artifact: Artifact, title: str) -> dg.MarkdownMetadataValue:
    file = artifact.path / artifact.summary.figures[title]
    kind = "jpeg" if file.suffix == ".jpg" else "png"
    return dg.MetadataValue.md(f"![{title}](data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()})")
