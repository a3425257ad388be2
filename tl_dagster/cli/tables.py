"""The tables that the commands print."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tl_dagster.graph.root import WORKSPACES, find_root, read_settings

__all__ = ["build_table", "get_console", "print_summary"]

PIPED_WIDTH = 110


def build_table(title: str, columns: Iterable[str], texts: Sequence[str]) -> Table:
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
    """Print the summary of a pipeline: assets, models, the best one and why, what failed, and commands to go on with.

    Args:
        summary: see :func:`tl_dagster.cli.show.summarize`.
    """
    console = get_console()
    console.print(_build_asset_table(summary))
    if summary["models"]:
        console.print(_build_model_table(summary))
    if summary["verified_strategies"]:
        console.print(_build_cell_table(summary["verified_strategies"]))
    for name, text in _describe(summary):
        console.print(f"{name:<10}{text}", markup=False, highlight=False, soft_wrap=True)
    for name, text in _describe_next_steps(summary["pipeline"]):
        console.print(f"{name:<10}{text}", markup=False, highlight=False, soft_wrap=True)


def _build_asset_table(summary: Mapping[str, Any]) -> Table:
    columns, texts = ("asset", "result", "computed", "reused", "seconds"), ("asset", "result")
    table = build_table(f"{summary['pipeline']}: assets", columns, texts)
    for name, asset in summary["assets"].items():
        numbers = (f"{asset['computed']:,}", f"{asset['reused_rows']:,}", f"{asset['seconds']:.1f}")
        table.add_row(name, escape(asset["result"]), *numbers)
    return table


def _build_model_table(summary: Mapping[str, Any]) -> Table:
    columns = ("model", "test accuracy", "95 % interval", "macro-F1", "validation log-loss", "training, s")
    table = build_table("models", columns, texts=("model",))
    for name, model in summary["models"].items():
        best = name == summary["best"]
        table.add_row(
            f"{name} (best)" if best else name,
            f"{model['accuracy']:.4f}",
            f"{model['accuracy_low']:.4f} – {model['accuracy_high']:.4f}",
            f"{model['macro_f1']:.4f}",
            *_show_known(model["validation_log_loss"], ".4f"),
            *_show_known(model["training_seconds"], ",.1f"),
            style="bold" if best else None,
        )
    return table


def _build_cell_table(cells: Sequence[Mapping[str, Any]]) -> Table:
    table = build_table(
        "strategies, all trained", ("strategy", "test accuracy", "validation log-loss", "training, s"), ("strategy",)
    )
    for row in cells:
        numbers = (f"{row['test_accuracy']:.4f}", f"{row['validation_log_loss']:.4f}", f"{row['seconds']:,.1f}")
        table.add_row(row["cell"], *numbers)
    return table


def _show_known(value: float | None, form: str) -> list[str]:
    return ["–" if value is None else format(value, form)]


def _describe(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what the tables do not say: (name, sentence)."""
    if summary["best"]:
        yield "best", f"{summary['best']}, by the log-loss on the validation images"
    for reason in summary["reasons"]:
        yield "", reason
    if summary["strategy"]:
        yield "strategy", summary["strategy"]
    if summary["splits"]:
        yield "splits", ", ".join(_describe_split(name, split) for name, split in summary["splits"].items())
    for asset, inputs in summary["outdated"].items():
        yield "outdated", f"{asset} was computed from another {' and '.join(inputs)} than is there now"
    for check in summary["failed_checks"]:
        stop = ", which stops runs" if check["blocking"] else ""
        yield "failed", f"{check['asset']}: {check['name']}{stop}: {check['description']}"
    if summary["report"]:
        yield "report", summary["report"]


def _describe_split(name: str, split: Mapping[str, Any]) -> str:
    origins = {"given": "given by the source", "hashed": "by a hash", "given and hashed": "given, the rest by a hash"}
    origin = origins.get(split["origin"] or "")
    return f"{split['images']:,} {name}" + (f" ({origin})" if origin else "")


def _describe_next_steps(pipeline: str) -> Iterator[tuple[str, str]]:
    """Yield (name, command) of what to do next; the commands work in any folder and any shell."""
    root = find_root() or Path.cwd()
    here = f"cd {shlex.quote(str(root))} &&"
    places = {
        name: str(Path(os.environ[name]).absolute())
        for name in ("DAGSTER_HOME", "TL_DAGSTER_STORE")
        if name in os.environ
    }
    with_places = " ".join(f"{name}={shlex.quote(place)}" for name, place in places.items())
    yield "JSON", f"{here} {with_places} {_find_program('tl-dagster')} show {pipeline} --json"
    needs = "" if find_spec("dagster_webserver") else "    (first: pip install dagster-webserver)"
    yield "UI", f"{here} {with_places} {_find_program('dagster')} dev{_describe_location(root)}{needs}"


def _describe_location(root: Path) -> str:
    """Return how Dagster is told where a project's definitions are; "" where a file of the project says it."""
    workspace = next((name for name in WORKSPACES if (root / name).is_file()), None)
    if workspace:
        return f" -w {workspace}"
    return "" if read_settings(root) else " -m tl_dagster.definitions"


def _find_program(name: str) -> str:
    """Return how to call a program of this Python: by its name where the shell finds the same one."""
    own = Path(sys.executable).parent / name
    found = shutil.which(name)
    same = found is not None and Path(found).resolve() == own.resolve()
    return name if same or not own.exists() else shlex.quote(str(own))
