"""``tl-dagster run``: refresh a pipeline as a Dagster run."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from tl_dagster.runtime.errors import InputError, suggest

__all__ = ["command"]


@click.command(short_help="Refresh a pipeline as a Dagster run.")
@click.argument("pipeline")
def command(pipeline: str) -> None:
    """Refresh PIPELINE as a Dagster run, with progress, and show the outcome."""
    from tl_dagster.cli.show import summarize
    from tl_dagster.cli.tables import print_summary
    from tl_dagster.store.artifacts import ArtifactStore

    _execute(pipeline)
    print_summary(summarize(pipeline, ArtifactStore()))


def _execute(pipeline: str) -> None:
    """Run the pipeline's job as Dagster's own command line does; the run stays in the instance of DAGSTER_HOME."""
    declared = [name for path in sorted(Path("assets").glob("*/defs.yaml")) for name in _read_names(path)]
    if not declared:
        raise InputError("no assets/<pipeline>/defs.yaml here: run this in the project's folder")
    # A name that is a template is known to Dagster only.
    if pipeline not in declared and not any("{{" in name for name in declared):
        raise InputError(f"no pipeline '{pipeline}' is declared under assets/: {suggest(pipeline, declared)}")
    # One process: the steps follow each other anyway, and each process of its own would load the code again.
    config = {"execution": {"config": {"in_process": {}}}, "loggers": {"progress": {}}}
    # `dg launch` does the same, but belongs to another package.
    quiet = ["-W", "ignore:Function `job_execute_command` is superseded"]
    job = ["job", "execute", "-m", "tl_dagster.definitions", "-d", ".", "-j", pipeline]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(config, file)  # JSON is YAML
        file.flush()
        arguments = [sys.executable, *quiet, "-m", "dagster", *job, "-c", file.name]
        done = subprocess.run(arguments, check=False)  # noqa: S603  (no shell)
    if done.returncode != 0:
        sys.exit(done.returncode)


def _read_names(path: Path) -> list[str]:
    """Return the pipelines that a file declares; Dagster reports what is wrong with one that cannot be read."""
    import yaml

    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if isinstance(document, dict)]
    except yaml.YAMLError:
        return [path.parent.name]
    return [str((document.get("attributes") or {}).get("name", path.parent.name)) for document in documents]
