"""``tl-dagster doctor``: what is wrong with this machine, and the mend."""

import json
import sys
from dataclasses import asdict

import click

__all__ = ["command"]

MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@click.command(short_help="Look for what is wrong here, and name the mend.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Look at versions, instance, project, store, disk, GPU, compiler, hubs, pools and daemon.

    Exits with 1 when something has failed; warnings do not count.
    """
    from tl_dagster.graph.diagnosis import diagnose

    findings = []
    for finding in diagnose():
        findings.append(finding)
        if not as_json:
            mend = f": {finding.mend}" if finding.mend else ""
            click.echo(f"{MARKS[finding.state]}  {finding.name:<13} {finding.description}{mend}")
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    if any(finding.state == "failed" for finding in findings):
        sys.exit(1)
