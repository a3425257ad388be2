"""``tl-dagster prune``: deletes what no pipeline needs any more; also called ``tl-dagster cache prune``."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tl_dagster.store.housekeeping import FreedSpace

__all__ = ["command", "describe"]


@click.command(short_help="Delete features of images that no pipeline has any more; with --artifacts also models.")
@click.option("--unused", is_flag=True, help="Instead: what the current models of no pipeline use.")
@click.option(
    "--older-than", type=float, metavar="DAYS", help="Instead: what was not used for so long; with --unused: both."
)
@click.option("--artifacts", is_flag=True, help="Also: artifacts and reports (old models) that no pipeline holds.")
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
def command(unused: bool, older_than: float | None, artifacts: bool, dry_run: bool) -> None:
    """Delete the features of images that no pipeline's dataset has any more, and with --artifacts old models too.

    What a pipeline has now stays, and so does the data before it, which the check for drift compares with.
    """
    from tl_dagster.features.housekeeping import prune
    from tl_dagster.store.artifacts import ArtifactStore

    if artifacts and not dry_run:
        _require_no_runs()
    freed = prune(ArtifactStore(), unused=unused, older_than=older_than, artifacts=artifacts, dry_run=dry_run)
    click.echo(describe(freed, artifacts=artifacts, dry_run=dry_run))
    if freed.busy:
        click.echo(f"{freed.busy} feature sets are being computed now, and were skipped")


def describe(freed: "FreedSpace", *, artifacts: bool, dry_run: bool) -> str:
    """Return what was deleted, or would be, in one line."""
    more = f"{freed.artifacts:,} artifacts, {freed.reports:,} reports, " if artifacts else ""
    return f"{freed.rows:,} rows, {more}{freed.size / 1e6:,.1f} MB {'would be ' if dry_run else ''}deleted"


def _require_no_runs() -> None:
    """Refuse while a run works: what it commits is held only when its step ends."""
    from tl_dagster.graph.history import open_instance, require_no_runs

    with open_instance() as instance:
        require_no_runs(instance)
