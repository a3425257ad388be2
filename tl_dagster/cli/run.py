"""``tl-dagster run``: refresh a pipeline as a Dagster run."""

import click

from tl_dagster.cli.signals import run_or_exit

__all__ = ["command"]


@click.command(short_help="Refresh a pipeline as a Dagster run.")
@click.argument("pipeline")
def command(pipeline: str) -> None:
    """Refresh PIPELINE as a Dagster run, with progress, and show the outcome."""
    from tl_dagster.cli.show import summarize
    from tl_dagster.cli.tables import print_summary
    from tl_dagster.graph.command import run_pipeline
    from tl_dagster.store.artifacts import ArtifactStore

    run_or_exit(lambda: run_pipeline(pipeline))
    print_summary(summarize(pipeline, ArtifactStore()))
