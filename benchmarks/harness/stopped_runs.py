"""The command `tl-dagster run`, stopped in a stage as users, machines and terminals stop it, and run again.

Used by the benchmark `commands` and by the tests of the command line.
"""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass

import dagster as dg
import psutil
from dagster._utils.concurrency import ClaimedSlotInfo

from benchmarks.harness.projects import MARK, Project

__all__ = ["SIGNALS", "Outcome", "find_processes", "list_slots", "stop_and_run_again"]

# How a run is stopped: the signal, and whether every process of its group gets it, as from a terminal.
SIGNALS = {
    "kill": (signal.SIGKILL, False),
    "hang-up": (signal.SIGHUP, True),
    "terminate": (signal.SIGTERM, False),
    "terminate the group": (signal.SIGTERM, True),
    "interrupt": (signal.SIGINT, True),
}
END_SECONDS, RUN_SECONDS = 30.0, 300.0


@dataclass(frozen=True)
class Outcome:
    """What was left of a stopped run, and of the same command run again.

    Attributes:
        status: of the stopped run when its process had ended.
        returncode: of the stopped command.
        output: of the stopped command.
        orphans: processes that went on after the command ended.
        again: return code of the second command; None: it did not end.
        output_again: of the second command.
        unfinished: runs that were neither successful, failed nor canceled after the second command.
        slots: slots of pools held after the second command.
    """

    status: dg.DagsterRunStatus
    returncode: int
    output: str
    orphans: list[str]
    again: int | None
    output_again: str
    unfinished: int
    slots: int

    @property
    def tracebacks(self) -> int:
        """Tracebacks in the terminal."""
        return (self.output + self.output_again).count("Traceback")


def stop_and_run_again(project: Project, how: str, stage: str, *, after: float = 0.2) -> Outcome:
    """Run the pipeline, stop it in a stage, and run it again.

    Args:
        project: whose pipeline; what it computed before is reused up to the stage.
        how: one of :data:`SIGNALS`.
        stage: in which it is stopped.
        after: seconds after the stage began.
    """
    project.forget(stage)
    mark = uuid.uuid4().hex
    with project.instance() as instance:
        running = project.start(mark)
        run_id = _wait_for_stage(instance, project, running, stage)
        time.sleep(after)
        number, group = SIGNALS[how]
        os.killpg(running.pid, number) if group else os.kill(running.pid, number)
        output = _output(running, END_SECONDS) or ""
        orphans = _wait_for_end(mark)
        run = instance.get_run_by_id(run_id)
        again = project.start(uuid.uuid4().hex)
        output_again = _output(again, RUN_SECONDS)
        if output_again is None:
            _end(again)
        unfinished = [run for run in instance.get_runs() if not run.is_finished]
        return Outcome(
            run.status if run else dg.DagsterRunStatus.NOT_STARTED,
            running.returncode,
            output,
            orphans,
            again.returncode if output_again is not None else None,
            output_again or "",
            len(unfinished),
            len(list_slots(instance)),
        )


def _wait_for_stage(instance: dg.DagsterInstance, project: Project, running: subprocess.Popen[str], stage: str) -> str:
    known = {run.run_id for run in instance.get_runs()}
    deadline = time.monotonic() + RUN_SECONDS
    while time.monotonic() < deadline and running.poll() is None:
        for run in instance.get_runs(limit=3):
            if run.run_id not in known and _has_begun(instance, run.run_id, f"{project.pipeline}__{stage}"):
                return run.run_id
        time.sleep(0.05)
    _end(running)
    raise RuntimeError(f"{stage} did not begin: {running.communicate()[0]}")


def _has_begun(instance: dg.DagsterInstance, run_id: str, step: str) -> bool:
    starts = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_START).records
    return any(record.event_log_entry.step_key == step for record in starts)


def _output(running: subprocess.Popen[str], seconds: float) -> str | None:
    """Return what a command printed once it has ended; None when it does not end, or its children keep it open."""
    try:
        return running.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        return None


def _wait_for_end(mark: str, seconds: float = 10.0) -> list[str]:
    """Return the processes of a run that do not end by themselves; they are ended."""
    deadline = time.monotonic() + seconds
    while (left := find_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    found = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            found.append(" ".join(process.cmdline()))
            process.kill()
    return found


def list_slots(instance: dg.DagsterInstance) -> list[ClaimedSlotInfo]:
    """Return the slots of pools that are held."""
    pools = instance.event_log_storage
    return [slot for pool in pools.get_concurrency_keys() for slot in pools.get_concurrency_info(pool).claimed_slots]


def find_processes(mark: str, variable: str = MARK) -> list[psutil.Process]:
    """Return the processes that inherited a mark: the value of an environment variable."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(variable) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _end(running: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
