"""``tl-dagster``: what Dagster's own command line does not do."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.features.housekeeping import prune, stats, title, verify
from tl_dagster.graph.stages import STAGES
from tl_dagster.runtime.errors import InputError, suggest
from tl_dagster.store.artifacts import ArtifactStore, Materialization

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


__all__ = ["main", "summary"]


def summary(pipeline: str, store: ArtifactStore) -> dict[str, Any]:
    """What each asset of a pipeline holds, and what its last materialization had to do.

    Args:
        pipeline: its name.
        store: where its artifacts are.

    Returns:
        ``{"pipeline": str, "assets": {name: {"data_version": str, "reused": bool, "computed": int | None,
        "reused_rows": int | None, "seconds": float, "metrics": {str: float}, "path": str}}}``.

    Raises:
        InputError: nothing of the pipeline was materialized yet.
    """
    held = {asset: store.get_current(pipeline, asset) for asset in (stage.name for stage in STAGES)}
    assets = {asset: _described(each) for asset, each in held.items() if each}
    if not assets:
        known = store.layout.pipelines()
        hint = suggest(pipeline, known) if known else f"run it first: tl-dagster run {pipeline}"
        raise InputError(f"nothing of '{pipeline}' is in the store {store.root}: {hint}")
    return {"pipeline": pipeline, "assets": assets}


def _described(held: Materialization) -> dict[str, Any]:
    return {
        "data_version": held.artifact.data_version,
        "reused": held.reused,
        "computed": held.computed,
        "reused_rows": held.reused_rows,
        "seconds": held.seconds,
        "metrics": {name: float(value) for name, value in held.artifact.summary.metrics.items()},
        "path": str(held.artifact.path),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 1 and one clear line when something cannot be used."""
    parser = argparse.ArgumentParser(prog="tl-dagster", description="Transfer learning on Dagster.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="refresh a pipeline as a Dagster run, with progress, and show the outcome")
    run.add_argument("pipeline")
    show = commands.add_parser("show", help="what each asset of a pipeline holds, and how it came about")
    show.add_argument("pipeline")
    show.add_argument("--json", action="store_true", help="as JSON")
    cache = commands.add_parser("cache", help="the feature cache").add_subparsers(dest="action", required=True)
    cache.add_parser("stats", help="what is cached, how large it is, and which pipelines use it")
    cache.add_parser("verify", help="read everything; damaged shards are set aside, and computed anew by the next run")
    pruning = cache.add_parser("prune", help="delete the features of images that no pipeline's dataset holds any more")
    pruning.add_argument("--unused", action="store_true", help="instead: what no pipeline's present models use")
    pruning.add_argument(
        "--older-than", type=float, metavar="DAYS", help="instead: what was not used for so long; with --unused, both"
    )
    pruning.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    given = parser.parse_args(arguments)
    _default_home()
    try:
        if given.command == "cache":
            _cache(given, ArtifactStore())
            return
        if given.command == "run":
            _run(given.pipeline)
        answer = summary(given.pipeline, ArtifactStore())
    except InputError as error:
        sys.exit(f"tl-dagster: {error}")
    if given.command == "show" and given.json:
        sys.stdout.write(json.dumps(answer, indent=1) + "\n")
    else:
        _print(answer)


def _cache(given: argparse.Namespace, store: ArtifactStore) -> None:
    if given.action == "stats":
        _print_cache(store)
    elif given.action == "verify":
        damaged = verify(store, _log)
        sys.stdout.writelines(f"damaged, set aside: {problem}\n" for problem in damaged)
        sys.stdout.write(
            f"{len(damaged)} damaged shards; their rows are computed anew by the next run\n" * bool(damaged)
        )
        sys.exit(1 if damaged else 0)
    else:
        freed = prune(store, unused=given.unused, older_than=given.older_than, dry_run=given.dry_run)
        would = "would be " if given.dry_run else ""
        sys.stdout.write(f"{freed.rows:,} rows, {freed.size / 1e6:,.1f} MB {would}deleted\n")
        if freed.busy:
            sys.stdout.write(f"{freed.busy} recipes are being computed just now, and were passed over\n")


def _log(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _print_cache(store: ArtifactStore) -> None:
    columns = ("features", "rows", "MB", "shards", "last used", "pipelines")
    table = _table(f"feature cache of {store.root}", columns, words=("features", "pipelines"))
    held = stats(store)
    for each in held:
        numbers = (f"{each.rows:,}", f"{each.size / 1e6:,.1f}", f"{each.shards:,}", f"{each.days:.1f} d ago")
        table.add_row(title(each.column), *numbers, ", ".join(each.pipelines))
    total = (f"{sum(each.rows for each in held):,}", f"{sum(each.size for each in held) / 1e6:,.1f}")
    table.add_row("all", *total, f"{sum(each.shards for each in held):,}")
    _console().print(table)


def _default_home() -> None:
    """Without DAGSTER_HOME, the instance and store are those of `make demo` and `make ui`: .dagster_home here."""
    if "DAGSTER_HOME" not in os.environ:
        home = Path(".dagster_home").absolute()
        home.mkdir(exist_ok=True)
        if Path("dagster.yaml").exists() and not (home / "dagster.yaml").exists():
            shutil.copyfile("dagster.yaml", home / "dagster.yaml")
        os.environ["DAGSTER_HOME"] = str(home)


def _run(pipeline: str) -> None:
    """Run the pipeline's job as Dagster's own command line does; the run stays in the instance of DAGSTER_HOME."""
    declared = [name for path in sorted(Path("assets").glob("*/defs.yaml")) for name in _names(path)]
    if not declared:
        raise InputError("no assets/<pipeline>/defs.yaml here: run this in the project's folder")
    if pipeline not in declared:
        raise InputError(f"no pipeline '{pipeline}' is declared under assets/: {suggest(pipeline, declared)}")
    # One process: the steps follow each other anyway, and each process of its own would load the code again.
    config = {"execution": {"config": {"in_process": {}}}, "loggers": {"progress": {}}}
    # `dg launch` does the same, but belongs to another package.
    quiet = ["-W", "ignore:Function `job_execute_command` is superseded"]
    job = ["job", "execute", "-m", "tl_dagster.definitions", "-d", ".", "-j", pipeline]
    command = [sys.executable, *quiet, "-m", "dagster", *job]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(config, file)  # JSON is YAML
        file.flush()
        done = subprocess.run([*command, "-c", file.name], check=False)  # noqa: S603  (no shell)
    if done.returncode != 0:
        sys.exit(done.returncode)


def _names(path: Path) -> list[str]:
    """The pipelines that a file declares; Dagster tells what is wrong with one that cannot be read."""
    import yaml

    try:
        documents = [each for each in yaml.safe_load_all(path.read_text()) if isinstance(each, dict)]
    except yaml.YAMLError:
        return [path.parent.name]
    return [str((each.get("attributes") or {}).get("name", path.parent.name)) for each in documents]


def _table(title: str, columns: Sequence[str], words: Sequence[str]) -> "Table":
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right")
    return table


def _console() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 110)


def _print(answer: dict[str, Any]) -> None:
    console = _console()
    assets = answer["assets"]
    columns = ("asset", "", "computed", "reused", "seconds")
    table = _table(f"{answer['pipeline']}: assets", columns, words=("asset", ""))
    for name, each in assets.items():
        state = "reused" if each["reused"] else "computed"
        table.add_row(name, state, f"{each['computed']:,}", f"{each['reused_rows']:,}", f"{each['seconds']:.1f}")
    console.print(table)
    if "evaluation" in assets:
        metrics = assets["evaluation"]["metrics"]
        table = _table("test split", ("model", "accuracy", "95 % interval", "macro-F1"), words=("model",))
        for model in ("top_model", "fine_tuned_model"):
            low, high = metrics[f"{model}_accuracy_low"], metrics[f"{model}_accuracy_high"]
            table.add_row(
                model,
                f"{metrics[f'{model}_accuracy']:.4f}",
                f"{low:.4f} – {high:.4f}",
                f"{metrics[f'{model}_macro_f1']:.4f}",
            )
        console.print(table)
        console.print(f"report: {Path(assets['evaluation']['path']) / 'report.html'}", soft_wrap=True)
        console.print(f"UI:     {os.environ.get('TL_DAGSTER_UI', 'dagster dev -w workspace.yaml')}", soft_wrap=True)
