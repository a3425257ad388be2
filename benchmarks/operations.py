"""Operations: processes that are killed at random, events in any order, ticks with nothing new, a GPU that many want.

- Kills: two pipelines on solar cells, one whose steps share a process and one with a process for each, launched through
  a webserver and a daemon on SQLite, both under a supervisor. In each run one of the run's process, a step's process,
  the daemon or its code server is killed (kill -9) at a random moment, after a random stage was forgotten: there is
  work. Afterwards both pipelines are run to their end, and compared with an undisturbed project.
  ``kills``; ``seconds_to_marked_failed``: the most from the end of a run's process to the failed run; ``held_slots``:
  of runs that had ended, a minute later; ``orphans``: processes that outlived their run's by ten seconds;
  ``rows_differing``: rows of splits, features and predictions that are not the same to the last bit.
- ``interleavings``: orders of events (:mod:`benchmarks.harness.interleavings`) without a violation; and
  ``assets_below_failed_gate``: orders that had one.
- ``tick_seconds``: of a schedule that finds nothing new, as the daemon records it: the longest of three.
- ``stages_over_trivial_assets``: a run of ten of our stages that find everything done, over one of ten of Dagster's
  assets that return nothing, in one process, with the same executor; medians of some runs in turn.
- ``overlapping_gpu_steps``: pairs of GPU steps at work at the same time, in 20 runs launched at once on PostgreSQL; and
  ``lost_runs``: those that did not succeed.
"""

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from unittest import mock

import dagster as dg
import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from benchmarks.common import finish, is_smallest, parse
from benchmarks.harness.configuration import QUIET
from benchmarks.harness.interleavings import Interleaving, Tiny
from benchmarks.harness.killed_processes import STEPS, VICTIMS, Kills, finish_run, held_slots, kill_one, wait_for_end
from benchmarks.harness.postgresql import postgresql
from benchmarks.harness.projects import Project, declare_again, make_project
from benchmarks.harness.services import Services
from tl_dagster import ArtifactIOManager, ArtifactStore, Declaration
from tl_dagster.features.feature_table import FeatureTable
from tl_dagster.graph.asset import build_asset
from tl_dagster.graph.executor import EXECUTORS

TARGETS = {
    "kills": {"at_least": 100},
    "seconds_to_marked_failed": {"at_most": 60.0},
    "held_slots": {"at_most": 0},
    "orphans": {"at_most": 0},
    "rows_differing": {"at_most": 0},
    "interleavings": {"at_least": 1000},
    "assets_below_failed_gate": {"at_most": 0},
    "tick_seconds": {"at_most": 10.0},
    "stages_over_trivial_assets": {"at_most": 1.3},
    "overlapping_gpu_steps": {"at_most": 0},
    "lost_runs": {"at_most": 0},
}
IMAGES, SETTLE_SECONDS, RUN_SECONDS = 40, 60.0, 1200.0
EVERY_MINUTE, TICKS = "* * * * *", 3
RUNS, TEN = 20, 10
GPU_STAGES = ("bottleneck_features", "fine_tuned_model")


def kill_at_random(project: Project, times: int, seed: int) -> Kills:
    """Kill processes at random moments, then run both pipelines to their ends."""
    chance, found = random.Random(seed), Kills()  # noqa: S311
    with Services(project) as services, project.instance() as instance:
        while found.kills < times:
            kill_one(project, services, instance, chance, found, chance.choice(VICTIMS))
        for pipeline in (project.pipeline, STEPS):
            finish_run(services, instance, pipeline)
        time.sleep(SETTLE_SECONDS)
        found.slots += held_slots(instance)
    return found


def rows_differing(disturbed: Project, undisturbed: Project) -> int:
    """Count the rows of splits, features and predictions that two projects do not have alike."""
    stores = [ArtifactStore(project.store) for project in (disturbed, undisturbed)]
    return sum(
        _differing(*(_read(store, pipeline, table) for store in stores))
        for pipeline in (disturbed.pipeline, STEPS)
        for table in ("views", "features", "top_model", "fine_tuned_model")
    )


def _read(store: ArtifactStore, pipeline: str, table: str) -> pd.DataFrame:
    held = {stage: each.artifact for stage, each in store.list_current(pipeline).items()}
    if table in held:
        return pd.read_parquet(held[table].path / "predictions.parquet")
    features = FeatureTable.open(held["bottleneck_features"].path, store.layout.features)
    if table == "views":
        return features.views
    values = features.features()[:]
    return pd.DataFrame({"key": features.views["key"], "bits": [row.tobytes() for row in np.ascontiguousarray(values)]})


def _differing(first: pd.DataFrame, second: pd.DataFrame) -> int:
    if list(first.columns) != list(second.columns) or len(first) != len(second):
        return max(len(first), len(second))
    same = (first == second) | (first.isna() & second.isna())
    return int((~same.all(axis=1)).sum())


def explore(orders: int) -> tuple[int, int]:
    """Return how many orders of events were tried, and how many had a violation."""
    tried = 0

    class Counted(Interleaving):
        def teardown(self) -> None:
            nonlocal tried
            tried += 1
            super().teardown()

    limits = settings(
        max_examples=orders,
        stateful_step_count=8,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
        database=None,
        derandomize=True,
    )
    try:
        run_state_machine_as_test(Counted, settings=limits)
    except AssertionError:
        traceback.print_exc()  # its notes are the order
        return tried, 1
    return tried, 0


def tick_seconds(folder: Path, ticks: int) -> float:
    """Return the longest of some ticks of a schedule that find nothing new."""
    project = make_project(folder, IMAGES, schedule={"cron": EVERY_MINUTE})
    project.run()
    with Services(project), project.instance() as instance:
        deadline = time.monotonic() + 60.0 * (ticks + 3)
        while time.monotonic() < deadline:
            states = instance.all_instigator_state()
            done = [
                tick for state in states for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
            ]
            skipped = [
                tick for tick in done if tick.status.value == "SKIPPED" and "nothing to do" in (tick.skip_reason or "")
            ]
            if len(skipped) >= ticks:
                return max((tick.end_timestamp or np.inf) - tick.timestamp for tick in skipped)
            time.sleep(2.0)
    raise RuntimeError("the schedule's ticks do not find that nothing is to do")


def stages_over_trivial_assets(folder: Path, pairs: int) -> float:
    """Return what a run of ten of our stages takes, over one of ten trivial assets."""
    names = [f"stage{number}" for number in range(TEN)]
    declaration = Declaration.model_validate({"name": "ten", "source": {"kind": "folder", "path": str(folder)}})
    store = ArtifactStore(folder / "store")

    def derive(number: int) -> type[Tiny]:
        inputs = (names[number - 1],) if number else ()
        return type(names[number].title(), (Tiny,), {"name": names[number], "inputs": inputs})

    kinds = tuple(derive(number) for number in range(TEN))
    ours = [build_asset(kind(declaration, folder), []) for kind in kinds]

    def trivial(number: int) -> dg.AssetsDefinition:
        @dg.asset(name=f"trivial{number}", deps=[f"trivial{number - 1}"] if number else [])
        def nothing() -> None:
            pass

        return nothing

    others = [trivial(number) for number in range(TEN)]
    jobs = {
        name: dg.define_asset_job(name, dg.AssetSelection.assets(*each), executor_def=EXECUTORS["in_process"])
        for name, each in (("ours", ours), ("trivial", others))
    }
    definitions = dg.Definitions(
        assets=[*ours, *others],
        jobs=[*jobs.values()],
        resources={"artifacts": ArtifactIOManager(root=str(store.root))},
    )
    (folder / "home").mkdir()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    with mock.patch("tl_dagster.graph.gates.STAGES", kinds), dg.DagsterInstance.from_config(_home(folder)) as instance:
        for _ in range(pairs + 1):
            for name in jobs:
                begun = time.perf_counter()
                done = definitions.resolve_job_def(name).execute_in_process(instance=instance, run_config=QUIET)
                seconds[name].append(time.perf_counter() - begun)
                if not done.success:
                    raise RuntimeError(f"{name} failed")
    ours_median, theirs = (statistics.median(seconds[name][1:]) for name in jobs)  # the first computes
    return ours_median / theirs


def _home(folder: Path) -> str:
    (folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return str(folder / "home")


def many_runs(folder: Path, runs: int) -> tuple[int, int]:
    """Return pairs of GPU steps at the same time, and runs lost, of as many runs at once on PostgreSQL."""
    project = make_project(folder, IMAGES)
    names = [project.pipeline, *(f"other{number}" for number in range(1, runs))]
    for number, name in enumerate(names[1:], 1):
        declare_again(project, name, augmentation={"views": 2, "seed": number})  # each has views of its own
    with postgresql() as server:
        project = project.on_postgresql(server)
        with Services(project) as services, project.instance() as instance:
            launched = [services.launch(name) for name in names]
            ended = [wait_for_end(services, instance, run_id, RUN_SECONDS) for run_id in launched]
            lost = sum(run.status is not dg.DagsterRunStatus.SUCCESS for run in ended)
            steps = [interval for run_id in launched for interval in _gpu_steps(instance, run_id)]
    print(f"{len(steps)} GPU steps of {runs} runs", flush=True)
    overlaps = sum(first[0] < second[1] and second[0] < first[1] for first, second in combinations(steps, 2))
    return overlaps, lost


def _gpu_steps(instance: dg.DagsterInstance, run_id: str) -> Iterator[tuple[float, float]]:
    """Yield start and end of each GPU step of a run."""
    for stats in instance.get_run_step_stats(run_id):
        if stats.step_key.partition("__")[2] in GPU_STAGES and stats.start_time and stats.end_time:
            yield stats.start_time, stats.end_time


def measure_kills(times: int, seed: int) -> dict[str, float | None]:
    """Kill, and compare with an undisturbed project."""
    with tempfile.TemporaryDirectory() as temporary:
        projects = []
        for name in ("disturbed", "undisturbed"):
            folder = Path(temporary, name)
            folder.mkdir()
            projects.append(make_project(folder, IMAGES))
            declare_again(projects[-1], STEPS, compute={"executor": "multiprocess"})
        for pipeline in (projects[1].pipeline, STEPS):
            projects[1].call("run", pipeline)
        # The networks that one compiled are the other's too: compiled anew, they would give other last bits.
        shutil.copytree(projects[1].store / "backbones", projects[0].store / "backbones", dirs_exist_ok=True)
        found = kill_at_random(projects[0], times, seed)
        differing = rows_differing(*projects)
    for line in found.orphans:
        print(f"orphan: {line}", file=sys.stderr)
    return {
        "kills": found.kills,
        "seconds_to_marked_failed": max(found.seconds, default=0.0),
        "held_slots": found.slots,
        "orphans": len(found.orphans),
        "rows_differing": differing,
    }


def main() -> None:
    """Run the benchmark, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--orders", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=RUNS, help="at once on PostgreSQL")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", choices=["kills", "orders", "ticks", "stages", "runs"], help="only this one")
    options = parse(parser, kills=1, orders=2, runs=2)
    parts = [options.part] if options.part else ["kills", "orders", "ticks", "stages", "runs"]
    if is_smallest() and not options.part:
        parts = ["orders", "stages"]  # the others take minutes at any size
    figures: dict[str, float | None] = {}
    if "orders" in parts:
        tried, violations = explore(options.orders)
        figures |= {"interleavings": tried, "assets_below_failed_gate": violations}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary, name) for name in ("ticks", "stages", "runs")}
        for folder in folders.values():
            folder.mkdir()
        if "stages" in parts:
            pairs = 1 if is_smallest() else 15
            figures["stages_over_trivial_assets"] = stages_over_trivial_assets(folders["stages"], pairs)
        if "ticks" in parts:
            figures["tick_seconds"] = tick_seconds(folders["ticks"], TICKS)
        if "runs" in parts:
            overlaps, lost = many_runs(folders["runs"], options.runs)
            figures |= {"overlapping_gpu_steps": overlaps, "lost_runs": lost}
    if "kills" in parts:
        figures |= measure_kills(options.kills, options.seed)
    finish("operations", figures, TARGETS, part=bool(options.part))


if __name__ == "__main__":
    main()
