"""``tl-dagster show``: the artifacts of a pipeline."""

import json
from typing import TYPE_CHECKING, Any

import click

from tl_dagster.runtime.errors import InputError, suggest

if TYPE_CHECKING:
    from tl_dagster.store.artifacts import ArtifactStore, Materialization

__all__ = ["command", "summarize"]


@click.command(short_help="Show the artifacts of a pipeline.")
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(pipeline: str, as_json: bool) -> None:
    """Show the current artifact of each asset of PIPELINE, and how it came about."""
    from tl_dagster.cli.tables import print_summary
    from tl_dagster.store.artifacts import ArtifactStore

    summary = summarize(pipeline, ArtifactStore())
    if as_json:
        click.echo(json.dumps(summary, indent=1))
    else:
        print_summary(summary)


def summarize(pipeline: str, store: "ArtifactStore") -> dict[str, Any]:
    """Return the current artifact of each asset of a pipeline, and the work of its last materialization.

    Args:
        pipeline: its name.
        store: the store of its artifacts.

    Returns:
        ``{"pipeline": str, "assets": {name: {"data_version": str, "reused": bool, "computed": int | None,
        "reused_rows": int | None, "seconds": float, "metrics": {str: float}, "path": str}}}``.

    Raises:
        InputError: nothing of the pipeline was materialized yet.
    """
    from tl_dagster.graph.stages import STAGES

    current = {stage.name: store.get_current(pipeline, stage.name) for stage in STAGES}
    assets = {name: _describe(asset) for name, asset in current.items() if asset}
    if not assets:
        known = store.layout.pipelines()
        hint = suggest(pipeline, known) if known else f"run it first: tl-dagster run {pipeline}"
        raise InputError(f"nothing of '{pipeline}' is in the store {store.root}: {hint}")
    return {"pipeline": pipeline, "assets": assets}


def _describe(asset: "Materialization") -> dict[str, Any]:
    return {
        "data_version": asset.artifact.data_version,
        "reused": asset.reused,
        "computed": asset.computed,
        "reused_rows": asset.reused_rows,
        "seconds": asset.seconds,
        "metrics": {name: float(value) for name, value in asset.artifact.summary.metrics.items()},
        "path": str(asset.artifact.path),
    }
