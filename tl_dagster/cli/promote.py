"""``tl-dagster promote``: puts the newly trained model in service by hand."""

import click

from tl_dagster.cli.pipelines import require_pipeline

__all__ = ["command"]


@click.command(short_help="Put the newly trained model in service, unproved.")
@click.argument("pipeline")
@click.option("--reason", required=True, help="Why, in a sentence, for the history.")
def command(pipeline: str, reason: str) -> None:
    """Put the newly trained model of PIPELINE in service, though it was not shown to be better."""
    from tl_dagster.graph.champion_events import finish_decision, record_decision
    from tl_dagster.graph.champions import promote
    from tl_dagster.graph.gates import require_gates
    from tl_dagster.graph.history import open_instance
    from tl_dagster.graph.stages.champion import Champion

    store = require_pipeline(pipeline)
    with open_instance() as instance:
        if unfinished := finish_decision(instance, store, pipeline):
            click.echo(unfinished)
            return
        require_gates(store, pipeline, Champion.name, Champion.inputs)
        click.echo(record_decision(instance, store, pipeline, promote(store, pipeline, reason)))
