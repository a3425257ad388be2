"""``tl-dagster run``: refresh a pipeline as a Dagster run."""

import sys

import click

from tl_dagster.cli.signals import Interrupts
from tl_dagster.runtime.interrupts import SafeInterrupts

__all__ = ["command"]


@click.command(short_help="Refresh a pipeline as a Dagster run.")
@click.argument("pipeline")
def command(pipeline: str) -> None:
    """Refresh PIPELINE as a Dagster run, with progress, and show the outcome."""
    from tl_dagster.cli.show import summarize
    from tl_dagster.cli.tables import print_summary
    from tl_dagster.graph.command import run_pipeline
    from tl_dagster.store.artifacts import ArtifactStore

    with Interrupts() as interrupts, SafeInterrupts():
        succeeded = run_pipeline(pipeline)
    if interrupts.received:
        interrupts.exit("stopped; run again to go on")
    if not succeeded:
        sys.exit(1)
    print_summary(summarize(pipeline, ArtifactStore()))
