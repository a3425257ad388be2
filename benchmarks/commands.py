"""The command, the daemon and the UI: runs that are stopped, images that arrive while a run works, nothing new.

Each signal that stops a command, in each stage, on SQLite and on PostgreSQL, and the same command again; a daemon that
follows a folder into which images drip; hostile input; and what the UI adds to a run with nothing new.
"""

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import yaml

from benchmarks.common import finish, is_smallest, parse
from benchmarks.harness.configuration import ROOT, copy_configuration
from benchmarks.harness.daemon import Daemon
from benchmarks.harness.postgresql import postgresql
from benchmarks.harness.stopped_runs import SIGNALS, STAGES, Project, stop_and_run_again
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
DRIP_SECONDS = 6.0
COUNTED = ("signals_tried", "held_slots", "unfinished_runs", "orphans", "tracebacks")


def make_project(folder: Path, images: int, **declared: object) -> Project:
    """Return a project with one small pipeline on solar cells."""
    copy_configuration(folder)
    (folder / "assets" / "cells").mkdir()
    for number, (label, file) in enumerate(itertools.islice(solar_cells(), images)):
        add_image(folder, number, label, file)
    attributes = {
        "name": "cells",
        "source": {"kind": "folder", "path": str(folder / "photos")},
        "splits": {"test": 0.3, "validation": 0.3},
        "augmentation": {"views": 2},
        "backbone": {"image_size": 64, "taps": ["penultimate"]},
        "fine_tuning": {"depth": "top", "epochs": 2, "learning_rate": 1e-4},
        **declared,
    }
    definition = {"type": "tl_dagster.TransferLearning", "attributes": attributes}
    (folder / "assets" / "cells" / "defs.yaml").write_text(yaml.safe_dump(definition))
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(folder / "home"),
        "TL_DAGSTER_STORE": str(folder / "store"),
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
    return Project(folder, "cells", environment)


def solar_cells() -> Iterator[tuple[str, Path]]:
    """Yield label and file of functional and defective cells in turn."""
    import importlib.util

    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("elpv_dataset")
    data = Path(package.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    by_label = [[(name, data / row[0]) for row in rows if float(row[1]) == value] for name, value in LABELS.items()]
    yield from itertools.chain.from_iterable(zip(*by_label, strict=False))


LABELS = {"functional": 0.0, "defective": 1.0}


def add_image(folder: Path, number: int, label: str, file: Path) -> None:
    """Put an image into the project's folder, whole at once."""
    target = folder / "photos" / label / f"{number:04d}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, target.with_suffix(".part"))
    target.with_suffix(".part").rename(target)


def stopped(server: str | None, cases: list[tuple[str, str]]) -> Counter[str]:
    """Stop a run in each of some ways and stages, and count what is left."""
    counted: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        project = make_project(Path(temporary), 60)
        if server:
            with (project.folder / "home" / "dagster.yaml").open("a") as file:
                yaml.safe_dump({"storage": {"postgres": {"postgres_url": server}}}, file)
        subprocess.run(project_command(), cwd=project.folder, env=project.environment, check=True, capture_output=True)
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


def project_command() -> list[str]:
    """Return the command of a whole run."""
    return [str(Path(sys.executable).with_name("tl-dagster")), "run", "cells"]


def dripping(images: int) -> dict[str, float]:
    """Follow a folder into which images drip, until the daemon has nothing to do; count failures and double work."""
    with tempfile.TemporaryDirectory() as temporary:
        project = make_project(Path(temporary), 60, on_change=True)
        with Daemon(project) as daemon, project.instance() as instance:
            daemon.wait_until_idle()
            for number, (label, file) in enumerate(itertools.islice(solar_cells(), 60, 60 + images), 60):
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


def nothing_new(pairs: int) -> float:
    """Return the time of a run with nothing new through the UI over that of the command."""
    with tempfile.TemporaryDirectory() as temporary:
        project = make_project(Path(temporary), 60)
        command = project_command()
        subprocess.run(command, cwd=project.folder, env=project.environment, check=True, capture_output=True)
        ratios = []
        with Daemon(project) as daemon:
            for _ in range(pairs):
                begun = time.monotonic()
                subprocess.run(command, cwd=project.folder, env=project.environment, check=True, capture_output=True)
                alone = time.monotonic() - begun
                ratios.append(daemon.launch("cells") / alone)
        return statistics.median(ratios)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=30, help="that drip")
    parser.add_argument("--pairs", type=int, default=3)
    options = parse(parser, images=1, pairs=1)
    if is_smallest():  # dripping and hostile input take minutes at any size
        counted = stopped(None, [("kill", "top_model")])
        figures = {name: float(counted[name]) for name in COUNTED}
    else:
        cases = list(itertools.product(SIGNALS, STAGES))
        with postgresql() as server:
            counted = stopped(None, cases) + stopped(server, cases)
        figures = {name: float(counted[name]) for name in COUNTED}
        figures |= {**dripping(options.images), "hostile_peak_mb": hostile_peak_mb()}
    figures["ui_over_cli_nothing_new"] = nothing_new(options.pairs)
    finish("commands", figures, TARGETS)


if __name__ == "__main__":
    main()
