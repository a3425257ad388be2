"""``tl-dagster rollback``: puts a model back in service."""

import click

from tl_dagster.cli.pipelines import require_pipeline

__all__ = ["command"]


@click.command(short_help="Put the model back in service that was there before.")
@click.argument("pipeline")
@click.option("--to", default="previous", metavar="DECISION", help="The model after this decision, not the one before.")
@click.option("--reason", default="", help="Why, in a sentence, for the history.")
def command(pipeline: str, to: str, reason: str) -> None:
    """Put the model of PIPELINE back in service that was there before the present one; nothing is computed.

    The model that leaves does not come back by a later run, only by `tl-dagster promote`.
    """
    from tl_dagster.graph.champion_events import finish_decision, record_decision
    from tl_dagster.graph.champions import roll_back
    from tl_dagster.graph.history import open_instance

    store = require_pipeline(pipeline)
    with open_instance() as instance:
        unfinished = finish_decision(instance, store, pipeline)
        click.echo(unfinished or record_decision(instance, store, pipeline, roll_back(store, pipeline, to, reason)))
