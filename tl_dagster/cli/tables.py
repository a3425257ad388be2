"""The tables that the commands print."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["build_table", "get_console", "print_summary"]

PIPED_WIDTH = 110


def build_table(title: str, columns: Sequence[str], texts: Sequence[str]) -> Table:
    """Return an empty table.

    Args:
        title: stands above it.
        columns: their heads.
        texts: the columns of texts; the others are numbers, and flush right.
    """
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in texts else "right")
    return table


def get_console() -> Console:
    """Return the console on standard output: as wide as the terminal, else of a fixed width."""
    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def print_summary(summary: Mapping[str, Any]) -> None:
    """Print the summary of a pipeline, and its test metrics when it was evaluated.

    Args:
        summary: see :func:`tl_dagster.cli.show.summarize`.
    """
    console, assets = get_console(), summary["assets"]
    table = build_table(
        f"{summary['pipeline']}: assets", ("asset", "", "computed", "reused", "seconds"), texts=("asset", "")
    )
    for name, asset in assets.items():
        state = "reused" if asset["reused"] else "computed"
        table.add_row(name, state, f"{asset['computed']:,}", f"{asset['reused_rows']:,}", f"{asset['seconds']:.1f}")
    console.print(table)
    if "evaluation" in assets:
        console.print(_build_test_table(assets["evaluation"]["metrics"]))
        console.print(f"report: {Path(assets['evaluation']['path']) / 'report.html'}", soft_wrap=True)
        console.print(f"UI:     {os.environ.get('TL_DAGSTER_UI', 'dagster dev -w workspace.yaml')}", soft_wrap=True)


def _build_test_table(metrics: Mapping[str, float]) -> Table:
    table = build_table("test split", ("model", "accuracy", "95 % interval", "macro-F1"), texts=("model",))
    for model in ("top_model", "fine_tuned_model"):
        low, high = metrics[f"{model}_accuracy_low"], metrics[f"{model}_accuracy_high"]
        accuracy, f1 = metrics[f"{model}_accuracy"], metrics[f"{model}_macro_f1"]
        table.add_row(model, f"{accuracy:.4f}", f"{low:.4f} – {high:.4f}", f"{f1:.4f}")
    return table
