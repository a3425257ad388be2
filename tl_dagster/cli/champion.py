"""``tl-dagster champion``: which model of a pipeline is, or was, in service, and why."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from tl_dagster.cli.pipelines import require_pipeline
from tl_dagster.runtime.errors import InputError

__all__ = ["command", "summarize_champion"]


@click.command(short_help="Show which model is in service, and why.")
@click.argument("pipeline")
@click.option("--at", metavar="TIME", help="When: ISO 8601, such as 2026-05-01T12:00 (UTC where no offset is given).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all numbers.")
def command(pipeline: str, at: str | None, as_json: bool) -> None:
    """Show which model of PIPELINE is in service, now or at a time, and every decision on it, the last one first."""
    time = _parse(at) if at else datetime.now(UTC)
    summary = summarize_champion(pipeline, time)
    if as_json:
        click.echo(json.dumps(summary, indent=1))
        return
    _print(summary, f"at {time.isoformat(timespec='seconds')}" if at else "now")


def summarize_champion(pipeline: str, time: datetime) -> dict[str, Any]:
    """Return the model in service at a time, and the decisions until then.

    Returns:
        ``pipeline`` (str), ``in_service`` (``model``: its folder, ``since``: a time, ``decision``: a number; or None)
        and ``decisions`` (of each the fields of :class:`.Decision`, the first one first).

    Raises:
        InputError: no model of the pipeline was judged.
    """
    from tl_dagster.store.artifacts import MODEL
    from tl_dagster.store.registry import ChampionRegistry, find_at

    store = require_pipeline(pipeline)
    decisions = ChampionRegistry(store.layout.registry(pipeline)).decisions()
    if not decisions:
        raise InputError(f"no model of '{pipeline}' was judged yet: run it with tl-dagster run {pipeline}")
    moved = find_at(decisions, time)
    place = moved and moved.champion and store.layout.artifact(MODEL, moved.champion)
    return {
        "pipeline": pipeline,
        "in_service": {"model": str(place), "since": moved.time, "decision": moved.number} if moved and place else None,
        "decisions": [asdict(each) for each in decisions if datetime.fromisoformat(each.time) <= time],
    }


def _parse(time: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(time)
    except ValueError as error:
        raise InputError(
            f"--at '{time}' is no time: give one such as 2026-05-01T12:00 or 2026-05-01T12:00+02:00"
        ) from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _print(summary: dict[str, Any], when: str) -> None:
    from rich.markup import escape

    from tl_dagster.cli.tables import build_table, get_console

    console, columns = get_console(), ("decision", "time", "kind", "in service", "reason")
    table = build_table(f"{summary['pipeline']}: decisions", columns, columns[1:])
    for each in reversed(summary["decisions"]):
        time = f"{datetime.fromisoformat(each['time']):%Y-%m-%d %H:%M:%S}"
        model = (each["champion"] or "none")[:12]
        table.add_row(str(each["number"]), time, each["kind"], model, escape(each["reason"]))
    if summary["decisions"]:
        console.print(table)
    model = summary["in_service"]
    text = f"{model['model']} (since {model['since']}, decision {model['decision']})" if model else "no model"
    console.print(f"in service {when}: {text}", markup=False, highlight=False, soft_wrap=True)
