"""The command, the daemon and the UI: runs that are stopped, images that arrive while a run works, nothing new.

Each signal that stops a command, in each stage, on SQLite and on PostgreSQL, and the same command again; a daemon that
follows a folder into which images drip; hostile input; and what the UI adds to a run with nothing new.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import dagster as dg

from benchmarks.common import FEW, finish, is_smallest, parse
from benchmarks.harness.daemon import Daemon
from benchmarks.harness.postgresql import postgresql
from benchmarks.harness.projects import STAGES, Project, add_image, make_project, solar_cells
from benchmarks.harness.stopped_runs import SIGNALS, stop_and_run_again
from benchmarks.hostile import hostile_peak_mb

TARGETS = {
    "held_slots": {"at_most": 0},
    "unfinished_runs": {"at_most": 0},
    "orphans": {"at_most": 0},
    "tracebacks": {"at_most": 0},
    "failed_runs_while_dripping": {"at_most": 0},
    "assets_computed_twice": {"at_most": 0},
    "hostile_peak_mb": {"at_most": 1500.0},
    "ui_over_cli_nothing_new": {"at_most": 2.0},
}
IMAGES = 60
DRIP_SECONDS = 6.0
COUNTED = ("signals_tried", "held_slots", "unfinished_runs", "orphans", "tracebacks")


def stopped(project: Project, cases: list[tuple[str, str]]) -> Counter[str]:
    """Stop a run in each of some ways and stages, and count what is left."""
    counted: Counter[str] = Counter()
    for how, stage in cases:
        outcome = stop_and_run_again(project, how, stage)
        counted["signals_tried"] += 1
        counted["held_slots"] += outcome.slots
        counted["unfinished_runs"] += outcome.unfinished + (outcome.again != 0)
        counted["orphans"] += len(outcome.orphans)
        counted["tracebacks"] += outcome.tracebacks
        if outcome.slots or outcome.unfinished or outcome.again or outcome.orphans or outcome.tracebacks:
            print(f"{how} in {stage}: {outcome}", file=sys.stderr)
    return counted


def dripping(images: int) -> dict[str, float]:
    """Follow a folder into which images drip, until the daemon has nothing to do; count failures and double work."""
    with tempfile.TemporaryDirectory() as temporary:
        project = make_project(Path(temporary), IMAGES, on_change=True)
        with Daemon(project) as daemon, project.instance() as instance:
            daemon.wait_until_idle()
            for number, (label, file) in enumerate(itertools.islice(solar_cells(), IMAGES, IMAGES + images), IMAGES):
                add_image(project.folder, number, label, file)
                time.sleep(DRIP_SECONDS)
            daemon.wait_until_idle()
            failed = [run for run in instance.get_runs() if run.status is not dg.DagsterRunStatus.SUCCESS]
            return {
                "failed_runs_while_dripping": len(failed),
                "assets_computed_twice": sum(map(_computed_twice, _materializations(instance))),
            }


def _materializations(instance: dg.DagsterInstance) -> list[list[dg.AssetMaterialization]]:
    """Return the materializations of each asset."""
    keys = [dg.AssetKey(["cells", stage]) for stage in STAGES]
    return [
        [record.asset_materialization for record in instance.fetch_materializations(key, limit=500).records]
        for key in keys
    ]


def _computed_twice(materializations: list[dg.AssetMaterialization]) -> int:
    """Count computations of one data version, and rows beyond one for each that there is at the end."""
    computed = [each for each in materializations if not each.metadata["reused"].value]
    versions = Counter(each.tags["dagster/data_version"] for each in computed)
    return sum(count - 1 for count in versions.values())


def nothing_new(project: Project, pairs: int) -> float:
    """Return the time of a run with nothing new through the UI over that of the command."""
    project.run()
    ratios = []
    with Daemon(project) as daemon:
        for _ in range(pairs):
            begun = time.monotonic()
            project.run()
            alone = time.monotonic() - begun
            ratios.append(daemon.launch(project.pipeline) / alone)
    return statistics.median(ratios)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=30, help="that drip")
    parser.add_argument("--pairs", type=int, default=3)
    options = parse(parser, images=1, pairs=1)
    with tempfile.TemporaryDirectory() as temporary:
        project = make_project(Path(temporary), FEW if is_smallest() else IMAGES)
        if is_smallest():  # dripping and hostile input take minutes at any size
            counted, rest = stopped(project, [("kill", "top_model")]), {}
        else:
            cases = list(itertools.product(SIGNALS, STAGES))
            with postgresql() as server:
                counted = stopped(project, cases) + stopped(project.on_postgresql(server), cases)
            rest = {**dripping(options.images), "hostile_peak_mb": hostile_peak_mb()}
        ratio = nothing_new(project, options.pairs)
    figures = {name: float(counted[name]) for name in COUNTED}
    finish("commands", {**figures, **rest, "ui_over_cli_nothing_new": ratio}, TARGETS)


if __name__ == "__main__":
    main()
