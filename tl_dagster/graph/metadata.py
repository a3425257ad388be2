"""Metadata of materializations and checks: numbers, tables and pictures for Dagster's UI."""

import base64
import inspect
from functools import cache
from typing import Any

import dagster as dg

from tl_dagster.graph.stage import CheckResult, Stage
from tl_dagster.store.artifacts import Artifact, Materialization, TableRows

__all__ = []


def static_metadata(stage: Stage) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "settings": dg.MetadataValue.json(stage.settings()),
        "dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[_code_reference(type(stage))]),
    }
    if stage.columns:
        metadata["dagster/column_schema"] = dg.TableSchema(
            columns=[dg.TableColumn(name, kind) for name, kind in stage.columns.items()]
        )
    return metadata


@cache
def _code_reference(stage: type[Stage]) -> dg.LocalFileCodeReference:
    """Return the place of a stage's class; finding it takes milliseconds."""
    source, line = inspect.getsourcefile(stage) or "", inspect.findsource(stage)[1] + 1
    return dg.LocalFileCodeReference(file_path=source, line_number=line, label=stage.__name__)


def materialization_metadata(held: Materialization) -> dict[str, Any]:
    """Metadata of a materialization: numbers stay numbers, so that Dagster plots them over time."""
    outcome = held.artifact.summary
    metadata: dict[str, Any] = {
        "reused": held.reused,
        "rows_computed": held.computed,
        "rows_reused": held.reused_rows,
        "seconds": round(held.seconds, 3),
        "dagster/row_count": outcome.rows,
        "path": dg.MetadataValue.path(held.artifact.path),
        **{name: float(value) for name, value in outcome.metrics.items()},
    }
    for name, fact in outcome.metadata.items():
        metadata[name] = dg.MetadataValue.json(fact) if isinstance(fact, dict | list) else fact
    for title, rows in outcome.tables.items():
        metadata[title] = _table(rows)
    for title in outcome.figures:
        metadata[title] = _picture(held.artifact, title)
    return metadata


def check_result(name: str, verdict: CheckResult, held: Materialization) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {name: float(value) for name, value in verdict.metrics.items()}
    if verdict.table:
        metadata["table"] = _table(verdict.table)
    if verdict.picture is not None and verdict.picture in held.artifact.summary.figures:
        metadata[verdict.picture] = _picture(held.artifact, verdict.picture)
    severity = dg.AssetCheckSeverity.ERROR if verdict.blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        check_name=name, passed=verdict.passed, severity=severity, description=verdict.description, metadata=metadata
    )


def _table(rows: TableRows) -> dg.TableMetadataValue:
    kinds = {str: "string", int: "int", float: "float"}
    schema = dg.TableSchema([dg.TableColumn(name, kinds[type(value)]) for name, value in rows[0].items()])
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows], schema)


def _picture(artifact: Artifact, title: str) -> dg.MarkdownMetadataValue:
    file = artifact.path / artifact.summary.figures[title]
    kind = "jpeg" if file.suffix == ".jpg" else "png"
    return dg.MetadataValue.md(f"![{title}](data:image/{kind};base64,{base64.b64encode(file.read_bytes()).decode()})")
