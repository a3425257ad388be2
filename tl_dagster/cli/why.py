"""``tl-dagster why``: what made an asset run, or would make it run now."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import click

from tl_dagster.runtime.errors import InputError, suggest

if TYPE_CHECKING:
    from tl_dagster.graph.causes import Explanation

__all__ = ["command"]


@click.command(short_help="Show what made assets run, or would make them run now.")
@click.argument("target", metavar="PIPELINE[/ASSET]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with all values in full.")
def command(target: str, as_json: bool) -> None:
    """Show why each asset of PIPELINE, or one, computed something the last time, and why it would now.

    Nothing is computed: files of the source are listed, not read.
    """
    from tl_dagster.graph.causes import explain_last, explain_now
    from tl_dagster.graph.history import open_instance
    from tl_dagster.graph.project import find_project
    from tl_dagster.store.artifacts import ArtifactStore

    pipeline, _, asset = target.partition("/")
    project = find_project()
    declaration = project.get_declaration(pipeline)
    with open_instance() as instance:
        now = explain_now(instance, ArtifactStore(), declaration, project.root)
        names = [each.asset for each in now]
        if asset and asset not in names:
            raise InputError(f"'{pipeline}' has no asset '{asset}': {suggest(asset, names)}")
        chosen = [asset] if asset else names
        last = [explain_last(instance, pipeline, name) for name in chosen]
    now = [each for each in now if each.asset in chosen]
    if as_json:
        explained = {"last": [asdict(each) for each in last], "now": [asdict(each) for each in now if each.causes]}
        click.echo(json.dumps({"pipeline": pipeline, **explained}, indent=1))
        return
    for line in [*_describe_last(last), *_describe_now(now)]:
        click.echo(line)


def _describe_last(last: "list[Explanation]") -> Iterator[str]:
    from tl_dagster.graph.causes import describe_causes

    for each in last:
        if not each.causes:
            yield f"{each.asset}: never ran"
            continue
        when = f"{datetime.fromtimestamp(each.time).astimezone():%Y-%m-%d %H:%M:%S}"
        run = f"run {each.run_id[:8]}" if each.run_id else "no run"
        yield f"{each.asset} ran on {when} ({run}), because"
        yield from describe_causes(each.causes, 1)


def _describe_now(now: "list[Explanation]") -> Iterator[str]:
    from tl_dagster.graph.causes import describe_causes

    if not any(each.causes for each in now):
        yield "now: nothing to do"
    for each in now:
        if each.causes:
            yield f"{each.asset} would run now, because"
            yield from describe_causes(each.causes, 1)
