"""``tl-dagster cache``: the feature cache."""

import sys

import click

from tl_dagster.cli.prune import command as prune

__all__ = ["command"]


@click.group(short_help="Look after the feature cache.")
def command() -> None:
    """Look after the feature cache."""


@command.command("stats", short_help="Show the cached features, their size and users.")
def show_stats() -> None:
    """Show the cached features, how large they are, and which pipelines use them."""
    from tl_dagster.cli.tables import build_table, get_console
    from tl_dagster.features.housekeeping import stats
    from tl_dagster.store.artifacts import ArtifactStore

    store = ArtifactStore()
    columns = ("features", "rows", "MB", "shards", "last used", "pipelines")
    table = build_table(f"feature cache of {store.root}", columns, texts=("features", "pipelines"))
    usages = stats(store)
    for usage in usages:
        numbers = (f"{usage.rows:,}", f"{usage.size / 1e6:,.1f}", f"{usage.shards:,}", f"{usage.days:.1f} d ago")
        table.add_row(usage.column.title, *numbers, ", ".join(usage.pipelines))
    total = (f"{sum(usage.rows for usage in usages):,}", f"{sum(usage.size for usage in usages) / 1e6:,.1f}")
    table.add_row("all", *total, f"{sum(usage.shards for usage in usages):,}")
    get_console().print(table)


@command.command("verify", short_help="Read all cached features; exit with 1 when some are damaged.")
def verify_shards() -> None:
    """Read all cached features. Damaged shards are renamed, and the next run computes their rows again."""
    from tl_dagster.features.housekeeping import verify
    from tl_dagster.store.artifacts import ArtifactStore

    damaged = verify(ArtifactStore(), click.echo)
    for problem in damaged:
        click.echo(f"damaged, renamed: {problem}")
    if damaged:
        click.echo(f"{len(damaged)} damaged shards; the next run computes their rows again")
    sys.exit(1 if damaged else 0)


command.add_command(prune, "prune")
