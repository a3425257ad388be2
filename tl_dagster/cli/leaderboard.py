"""``tl-dagster leaderboard``: compare the declared backbones, and print the table."""

import json
from typing import TYPE_CHECKING

import click

from tl_dagster.cli.signals import run_or_exit
from tl_dagster.runtime.errors import InputError

if TYPE_CHECKING:
    from tl_dagster.store.artifacts import Artifact

__all__ = ["command"]

# Column of the asset's table → a head that fits a terminal.
COLUMNS = {
    "accuracy": "accuracy",
    "95 % interval": "95 %",
    "points behind the best": "behind",
    "may be the best": "best?",
    "log-loss": "log-loss",
    "features": "values",
    "GFLOP": "GFLOP",
    "ms per image": "ms",
}


@click.command(short_help="Compare the backbones that are declared, and print the table.")
@click.argument("pipeline")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(pipeline: str, as_json: bool) -> None:
    """Measure each configuration of PIPELINE's backbone_leaderboard that is not measured yet, and print all.

    The pipeline's dataset and augmented_splits must be there; the UI's backfill of the asset does the same.
    """
    from tl_dagster.cli.pipelines import require_pipeline
    from tl_dagster.graph.command import run_leaderboard
    from tl_dagster.store.artifacts import LEADERBOARD

    run_or_exit(lambda: run_leaderboard(pipeline))
    held = require_pipeline(pipeline).get_current(pipeline, LEADERBOARD)
    if held is None:
        raise InputError(f"{pipeline}/{LEADERBOARD} is not in the store: look at the run's log")
    _print(held.artifact, as_json)


def _print(artifact: "Artifact", as_json: bool) -> None:
    from tl_dagster.cli.tables import build_table, get_console
    from tl_dagster.graph.stages.backbone_leaderboard import TABLE

    rows, best = artifact.summary.tables[TABLE], artifact.summary.metadata["best"]
    if as_json:
        click.echo(json.dumps({"best": best, "rows": [dict(row) for row in rows]}, indent=1))
        return
    table = build_table(best, ["backbone", "layer", *COLUMNS.values()], ("backbone", "layer"))
    for row in rows:
        numbers = [str(row[name]).replace(" to ", "–").partition(" (")[0] for name in COLUMNS]
        table.add_row(str(row["backbone"]), f"{row['tap']} {row['pooling']}", *numbers)
    for column in table.columns[1:]:
        column.no_wrap = True
    get_console().print(table)
