"""``tl-dagster delete``: deletes what was computed for a pipeline."""

import click

from tl_dagster.cli.pipelines import require_pipeline

__all__ = ["command"]


@click.command(short_help="Delete what was computed for a pipeline.")
@click.argument("pipeline")
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
def command(pipeline: str, dry_run: bool) -> None:
    """Delete what was computed for PIPELINE and no other pipeline uses: models, tables, reports, features.

    Its records in Dagster go too; the list of runs stays, and so does the declaration: delete that yourself.
    """
    from tl_dagster.cli.prune import describe
    from tl_dagster.features.housekeeping import delete_pipeline
    from tl_dagster.graph.history import forget_assets, open_instance, require_no_runs

    store = require_pipeline(pipeline, otherwise="it has no pipeline")
    with open_instance() as instance:
        require_no_runs(instance, pipeline)
        freed = delete_pipeline(store, pipeline, dry_run=dry_run)
        forgotten = forget_assets(instance, pipeline, dry_run=dry_run)
    click.echo(f"{pipeline}: {describe(freed, artifacts=True, dry_run=dry_run)}")
    click.echo(f"{forgotten} assets {'would be ' if dry_run else ''}forgotten by Dagster; its list of runs stays")
