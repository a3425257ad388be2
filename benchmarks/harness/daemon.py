"""`dagster dev` on a project: the daemon, the UI's server and the code location, as a user starts them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Self

import dagster as dg
from dagster_graphql import DagsterGraphQLClient

from benchmarks.harness.projects import Project

__all__ = ["Daemon", "free_port"]

QUIET_SECONDS = 100.0  # three looks of a sensor
START_SECONDS, RUN_SECONDS = 60.0, 600.0


def free_port() -> int:
    """Return a port of this machine that nobody listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Daemon:
    """A context manager that runs `dagster dev` on a free port of this machine.

    Args:
        project: its folder and environment.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    def __enter__(self) -> Self:
        self.port = free_port()
        command = [str(Path(sys.executable).with_name("dagster")), "dev", "-w", "workspace.yaml"]
        self._running = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(self.port)],
            cwd=self._project.folder,
            env=self._project.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._client = self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._running.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._running.pid, signal.SIGKILL)

    def _connect(self) -> DagsterGraphQLClient:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/server_info", timeout=5).close()
                return DagsterGraphQLClient("127.0.0.1", port_number=self.port)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def launch(self, job: str) -> float:
        """Launch a job as the UI does, and return the seconds until its run ended well."""
        begun = time.monotonic()
        run_id = self._client.submit_job_execution(job)
        with self._project.instance() as instance:
            while time.monotonic() - begun < RUN_SECONDS:
                run = instance.get_run_by_id(run_id)
                if run and run.is_finished:
                    if run.status is not dg.DagsterRunStatus.SUCCESS:
                        raise RuntimeError(f"run {run_id} ended as {run.status}")
                    return time.monotonic() - begun
                time.sleep(0.05)
        raise RuntimeError(f"run {run_id} did not end")

    def wait_until_idle(self) -> None:
        """Wait until no run is at work, and none has been for some looks of the sensors."""
        with self._project.instance() as instance:
            idle_since = time.monotonic()
            while time.monotonic() - idle_since < QUIET_SECONDS:
                runs = instance.get_runs()
                if not runs or any(not run.is_finished for run in runs):
                    idle_since = time.monotonic()
                time.sleep(1.0)
