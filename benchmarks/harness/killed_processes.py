"""Processes that are killed (kill -9) while a run is at work under a webserver and a daemon.

Used by the benchmark `operations` and by the tests of services.
"""

import random
import time
from dataclasses import dataclass, field

import dagster as dg
import psutil

from benchmarks.harness.projects import STAGES, Project
from benchmarks.harness.services import Services, process_of_run
from benchmarks.harness.stopped_runs import find_processes, list_slots
from tl_dagster.graph.executor import RUN_PROCESS
from tl_dagster.graph.runs import PROCESS_TAG
from tl_dagster.runtime.processes import has_ended

__all__ = ["STEPS", "VICTIMS", "Kills", "finish_run", "held_slots", "kill_one", "wait_for_end"]

STEPS = "steps"  # the pipeline with a process for each step
VICTIMS = ("run", "step", "daemon", "code server")
WORK_SECONDS, END_SECONDS, ORPHAN_SECONDS = 15.0, 300.0, 10.0
FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@dataclass
class Kills:
    """What was left of killed processes.

    Attributes:
        kills: how many.
        seconds: from the end of each run's process to its failed run.
        slots: held by ended runs, a minute later.
        orphans: command lines of processes that outlived a run's.
    """

    kills: int = 0
    seconds: list[float] = field(default_factory=list)
    slots: int = 0
    orphans: list[str] = field(default_factory=list)


def finish_run(services: Services, instance: dg.DagsterInstance, pipeline: str) -> None:
    """Run a pipeline to its end."""
    run = wait_for_end(services, instance, services.launch(pipeline), END_SECONDS)
    if run.status is not dg.DagsterRunStatus.SUCCESS:
        raise RuntimeError(f"{pipeline} ended as {run.status} after the last kill")


def kill_one(
    project: Project,
    services: Services,
    instance: dg.DagsterInstance,
    chance: random.Random,
    found: Kills,
    victim: str,
) -> None:
    """Launch a run, kill one of :data:`VICTIMS` at a random moment of it, and wait until the run has ended."""
    pipeline = STEPS if victim == "step" else chance.choice((project.pipeline, STEPS))
    project.forget(chance.choice(STAGES))
    run_id = services.launch(pipeline)
    run = _wait_until_begun(services, instance, run_id)
    until = time.monotonic() + chance.uniform(0, WORK_SECONDS)
    process: psutil.Process | None = None
    while time.monotonic() < until or process is None:
        time.sleep(0.02)
        process = services.find(victim, run, instance)
        if (run := _get(instance, run_id)).is_finished:  # it was quicker
            return
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return
    found.kills += 1
    identity, killed = run.tags[PROCESS_TAG], time.monotonic()
    gone: float | None = None
    while not (run := _get(instance, run_id)).is_finished:
        services.supervise()
        if gone is None and has_ended(identity):
            gone = time.monotonic()
        if time.monotonic() > killed + END_SECONDS:
            raise RuntimeError(f"run {run_id} does not end after its {victim} was killed")
        time.sleep(0.1)
    if run.status in FAILED:
        found.seconds.append(time.monotonic() - (gone or killed))
    found.orphans += _wait_for_orphans(process_of_run(run))
    print(f"{found.kills}: {victim} of {pipeline}: {run.status.value}, {time.monotonic() - killed:.0f} s", flush=True)


def _wait_for_orphans(run_process: int) -> list[str]:
    """Return the command lines of processes that a run's process began and that outlive it by ten seconds."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while (left := find_processes(str(run_process), RUN_PROCESS)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [" ".join(each.cmdline()) for each in left if each.pid != run_process]


def _get(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    if run is None:
        raise RuntimeError(f"run {run_id} is not in the instance any more")
    return run


def _wait_until_begun(services: Services, instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    """Return a run whose process has begun, or that has ended."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        services.supervise()
        run = _get(instance, run_id)
        if run.is_finished or PROCESS_TAG in run.tags:
            return run
        time.sleep(0.1)
    raise RuntimeError(f"run {run_id} does not begin")


def wait_for_end(services: Services, instance: dg.DagsterInstance, run_id: str, seconds: float) -> dg.DagsterRun:
    """Return a run that has ended, or that has not within some seconds."""
    deadline = time.monotonic() + seconds
    while not (run := _get(instance, run_id)).is_finished and time.monotonic() < deadline:
        services.supervise()
        time.sleep(0.2)
    return run


def held_slots(instance: dg.DagsterInstance) -> int:
    """Return how many slots of pools ended runs hold."""
    return sum(_get(instance, slot.run_id).is_finished for slot in list_slots(instance))
