"""``tl-dagster diff``: what differs between two runs or pipelines."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tl_dagster.graph.differences import Difference, PipelineState

__all__ = ["command"]

MOST_LETTERS = 40  # of a value in the table


@click.command(short_help="Show what differs between two runs or pipelines.")
@click.argument("a")
@click.argument("b", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all values in full.")
def command(a: str, b: str | None, as_json: bool) -> None:
    """Show the settings, data, versions and results that differ between A and B.

    Each is a pipeline, as it is now, or the id of a run, as its pipeline was after it. A pipeline alone is compared
    with what it was before the last run that changed something.
    """
    from tl_dagster.graph.differences import find_differences
    from tl_dagster.graph.history import find_state, find_states, open_instance

    with open_instance() as instance:
        states = find_states(instance, a) if b is None else (find_state(instance, a), find_state(instance, b))
    differences = find_differences(*states)
    if as_json:
        click.echo(json.dumps(_to_json(states, differences), indent=1))
    else:
        _print(states, differences)


def _to_json(states: "tuple[PipelineState, PipelineState]", differences: "list[Difference]") -> dict[str, Any]:
    described = [{"title": state.title, "run": state.run_id, "commit": state.commit} for state in states]
    return {"a": described[0], "b": described[1], "differences": [asdict(each) for each in differences]}


def _print(states: "tuple[PipelineState, PipelineState]", differences: "list[Difference]") -> None:
    from rich.markup import escape

    from tl_dagster.cli.tables import build_table, get_console

    console, (a, b) = get_console(), states
    if not differences:
        console.print(f"{a.title} and {b.title}: nothing differs", markup=False, highlight=False, soft_wrap=True)
        return
    columns = ("asset", "kind", "name", a.title, b.title)
    table = build_table(f"{a.title} → {b.title}", columns, texts=columns)
    before = None
    for each in differences:
        place = "" if (each.asset, each.kind) == before else each.asset
        before = (each.asset, each.kind)
        cells = (place, each.kind, each.name, _show(each.a), _show(each.b))
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)


def _show(value: Any) -> str:
    if value is None:
        return "–"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict | bool) else str(value)
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
