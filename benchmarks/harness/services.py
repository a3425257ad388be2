"""A webserver and a daemon as an operator runs them: each by itself, and begun again when it has ended."""

import contextlib
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import BinaryIO, Self

import dagster as dg
import psutil
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

from benchmarks.harness.daemon import free_port
from benchmarks.harness.projects import MARK, Project
from benchmarks.harness.stopped_runs import find_processes
from tl_dagster.graph.runs import PROCESS_TAG

__all__ = ["Services", "process_of_run"]

START_SECONDS = 90.0
CODE_SERVER = "grpc"  # in its command line


class Services:
    """A context manager that runs `dagster-webserver` and `dagster-daemon` for a project, under a supervisor.

    Args:
        project: its folder and environment.
    """

    def __init__(self, project: Project) -> None:
        self._project, self._mark = project, uuid.uuid4().hex
        self._port = free_port()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.supervise()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        for left in find_processes(self._mark):
            with contextlib.suppress(psutil.Error):
                left.kill()

    def supervise(self) -> None:
        """Start what has ended."""
        commands = {
            "webserver": ["dagster-webserver", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(self._port)],
            "daemon": ["dagster-daemon", "run", "-w", "workspace.yaml"],
        }
        for name, (program, *arguments) in commands.items():
            if name not in self._running or self._running[name].poll() is not None:
                self._running[name] = subprocess.Popen(
                    [str(Path(sys.executable).with_name(program)), *arguments],
                    cwd=self._project.folder,
                    env={**self._project.environment, MARK: self._mark},
                    stdout=self._log(name),
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

    def _log(self, name: str) -> BinaryIO:
        return (self._project.folder / f"{name}.log").open("ab")

    def launch(self, job: str) -> str:
        """Launch a job as the UI does, and return the id of its run; waits until the code is loaded."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.supervise()
            try:
                client = DagsterGraphQLClient("127.0.0.1", port_number=self._port)
                run_id: str = client.submit_job_execution(job)
                return run_id
            except DagsterGraphQLClientError as error:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{job} could not be launched: {error}") from error
                self._reload()
                time.sleep(1.0)

    def _reload(self) -> None:
        """Load the code locations again, as the button of the UI does: their servers may have been killed."""
        with contextlib.suppress(Exception):
            DagsterGraphQLClient("127.0.0.1", port_number=self._port).reload_repository_location("tl_dagster")

    def find(self, kind: str, run: dg.DagsterRun, instance: dg.DagsterInstance) -> psutil.Process | None:
        """Return a process: "run", "step", "daemon" or "code server"; None: there is none at the moment."""
        with contextlib.suppress(psutil.Error, KeyError, IndexError, ValueError):
            if kind == "daemon":
                return psutil.Process(self._running["daemon"].pid)
            if kind == "code server":
                children = psutil.Process(self._running["daemon"].pid).children(recursive=True)
                return next((each for each in children if CODE_SERVER in each.cmdline()), None)
            if kind == "run":
                return psutil.Process(process_of_run(run))
            return _process_of_step(run, instance)
        return None


def process_of_run(run: dg.DagsterRun) -> int:
    """Return the id of the process that works on a run.

    Raises:
        KeyError: it has not begun.
    """
    return int(run.tags[PROCESS_TAG].split()[-2])


def _process_of_step(run: dg.DagsterRun, instance: dg.DagsterInstance) -> psutil.Process | None:
    """Return the last process that began a step of a run, unless it has ended."""
    kind = dg.DagsterEventType.STEP_WORKER_STARTED
    records = instance.get_records_for_run(run.run_id, of_type=kind).records
    started = [record.event_log_entry.dagster_event for record in records]
    pids = [int(event.event_specific_data.metadata["pid"].text) for event in started if event]  # type: ignore[union-attr]
    return psutil.Process(pids[-1]) if pids else None
