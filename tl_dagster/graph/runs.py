"""Runs of pipelines: the processes that work on them, runs that died, and what a run waits for."""

import time
from collections.abc import Iterator, Sequence

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from tl_dagster.graph.tags import LEADERBOARD_JOB, leaderboard_job
from tl_dagster.runtime.processes import has_ended, identify_process
from tl_dagster.store.artifacts import LEADERBOARD

__all__ = [
    "DIED_TAG",
    "PROCESS_TAG",
    "cancel_runs_of_process",
    "describe_wait",
    "end_dead_runs",
    "find_dead_runs",
    "find_earlier_run",
    "find_runs",
    "find_stray_slots",
    "find_unfinished_run",
    "is_to_retry",
    "pipelines_of_run",
    "process_tags",
]

PROCESS_TAG = "tl_dagster/process"  # see identify_process
DIED_TAG = "tl_dagster/died"  # of a run whose process ended unexpectedly
TURN_TAG = "tl_dagster/turn"  # seconds since 1970: runs of a pipeline work in this order
UNFINISHED = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
DIED = "the process that worked on it ended unexpectedly: it was killed, or the machine's memory was used up"
ATTEMPTS = 3  # of a run that dies
SETTLED_SECONDS = 60.0  # after which an ended run of unknown process cannot still be at work


def process_tags() -> dict[str, str]:
    """Return the tags of a run that this process works on, from now."""
    return {PROCESS_TAG: identify_process(), TURN_TAG: f"{time.time():.3f}"}


def end_dead_runs(instance: dg.DagsterInstance) -> None:
    """Mark the runs whose process is gone as failed, and free the slots of pools that ended runs hold.

    Dagster's default launcher has no health check: a killed run would stay "started" for ever, keep its slot, and
    every later run would wait for it. Only a process of this machine is known to be gone.
    """
    for run in find_dead_runs(instance):
        instance.add_run_tags(run.run_id, {DIED_TAG: "true"})
        canceled = run.status is DagsterRunStatus.CANCELING
        (instance.report_run_canceled if canceled else instance.report_run_failed)(run, DIED)
    for run_id in find_stray_slots(instance):
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def find_dead_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return the unfinished runs whose process, of this machine, is gone."""
    unfinished = instance.get_runs(RunsFilter(statuses=UNFINISHED))
    return [run for run in unfinished if not _is_copied(instance, run) and _is_dead(run)]


def find_stray_slots(instance: dg.DagsterInstance) -> list[str]:
    """Return the ids of the runs that hold slots of pools, though nothing works on them any more."""
    return [run_id for run_id in instance.event_log_storage.get_concurrency_run_ids() if _has_left(instance, run_id)]


def cancel_runs_of_process(instance: dg.DagsterInstance) -> None:
    """Mark what this process leaves unfinished as canceled: it was stopped before or after the steps of a run."""
    for run in instance.get_runs(RunsFilter(statuses=UNFINISHED, tags={PROCESS_TAG: identify_process()})):
        instance.report_run_canceled(run, "stopped by its user")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _is_copied(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether a run has the process of the run that it repeats: Dagster copies tags, until its own begins."""
    parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return parent is not None and parent.tags.get(PROCESS_TAG) == run.tags.get(PROCESS_TAG)


def _is_dead(run: dg.DagsterRun) -> bool:
    return PROCESS_TAG in run.tags and has_ended(run.tags[PROCESS_TAG])


def _has_left(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Return whether nothing works on a run any more: it ended, and so did its process."""
    record = instance.get_run_record_by_id(run_id)
    if record is None:
        return True
    run = record.dagster_run
    if not run.is_finished:
        return False
    if PROCESS_TAG in run.tags:
        return _is_dead(run)
    return record.end_time is None or time.time() - record.end_time > SETTLED_SECONDS


def find_earlier_run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRun | None:
    """Return a run that works on the same pipeline (or on the same leaderboard) and began before, or None.

    Args:
        instance: where runs are.
        run: with the tags of :func:`process_tags`, as they are in the instance.
    """
    mine = _turn(run)
    for other in instance.get_runs(RunsFilter(statuses=UNFINISHED)):
        same = other.run_id != run.run_id and _work_of_run(other) & _work_of_run(run)
        if same and TURN_TAG in other.tags and _turn(other) < mine and not _is_dead(other):
            return other
    return None


def find_unfinished_run(
    instance: dg.DagsterInstance, pipeline: str | None, *, beside: bool = True
) -> dg.DagsterRun | None:
    """Return a run that is at work on a pipeline, or (None) on any, or is going to be; None when there is none.

    Args:
        instance: where runs are.
        pipeline: its name.
        beside: runs of the pipeline's leaderboard count too.
    """
    runs = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED, *UNFINISHED]))
    works = pipelines_of_run if beside else _work_of_run
    return next((run for run in runs if pipeline is None or pipeline in works(run)), None)


def find_runs(instance: dg.DagsterInstance, pipeline: str, limit: int = 100) -> list[dg.DagsterRun]:
    """Return the last runs that materialized assets of a pipeline's job, the last one first.

    Args:
        instance: where runs are.
        pipeline: its name.
        limit: runs of all pipelines that are looked at.
    """
    return [run for run in instance.get_runs(limit=limit) if pipeline in _work_of_run(run)]


def is_to_retry(runs: Sequence[dg.DagsterRun]) -> bool:
    """Return whether the last of some runs for the same reason died, and not each of the last few did.

    Args:
        runs: the last one first.
    """
    # A run that repeats one that died has its tags, too.
    last = [DIED_TAG in run.tags and run.status is not DagsterRunStatus.SUCCESS for run in runs[:ATTEMPTS]]
    return last[0] and not (len(last) == ATTEMPTS and all(last))


def _turn(run: dg.DagsterRun) -> tuple[float, str]:
    return float(run.tags[TURN_TAG]), run.run_id


def pipelines_of_run(run: dg.DagsterRun) -> set[str]:
    """Return the pipelines whose assets a run materializes: the job's, or those that were selected."""
    return {name.removesuffix(LEADERBOARD_JOB) for name in _work_of_run(run)}


def _work_of_run(run: dg.DagsterRun) -> set[str]:
    """Return the names of the jobs whose assets a run materializes: of pipelines, and of leaderboards beside them."""
    if not run.asset_selection:
        return {run.job_name}
    return {leaderboard_job(key.path[0]) if key.path[-1] == LEADERBOARD else key.path[0] for key in run.asset_selection}


def describe_wait(instance: dg.DagsterInstance, run_id: str) -> Iterator[str]:
    """Yield a sentence for each run that holds what a run waits for."""
    storage = instance.event_log_storage
    for pool in storage.get_concurrency_keys():
        info = storage.get_concurrency_info(pool)
        if run_id in info.pending_run_ids:
            for slot in info.claimed_slots:
                if slot.run_id != run_id:
                    step = slot.step_key.replace("__", "/")
                    used = "the GPU" if pool == "gpu" else f"the pool {pool}"
                    since = _since(instance, slot.run_id, slot.step_key)
                    yield f"waiting for run {slot.run_id[:8]} ({step}), which uses {used}{since}"


def _since(instance: dg.DagsterInstance, run_id: str, step: str) -> str:
    started = [stats.start_time for stats in instance.get_run_step_stats(run_id, [step]) if stats.start_time]
    return time.strftime(" since %H:%M:%S", time.localtime(started[0])) if started else ""
