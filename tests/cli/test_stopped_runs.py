"""`tl-dagster run` that is killed or stopped: it says one line, leaves nothing behind, and the next one finishes."""

import socket
import subprocess
import sys
from dataclasses import replace

import dagster as dg
import psutil
import pytest
from dagster import DagsterRunStatus

from benchmarks.harness.projects import make_project
from benchmarks.harness.stopped_runs import SIGNALS, stop_and_run_again
from tests.conftest import share_backbones
from tl_dagster.graph.runs import PROCESS_TAG


@pytest.fixture(scope="module")
def small(tmp_path_factory, shared):
    """A project that keeps what earlier runs computed, up to the stage in which the next one is stopped."""
    project = make_project(tmp_path_factory.mktemp("project"), 20)
    return replace(project, environment={**project.environment, **share_backbones(project.store, shared)})


@pytest.fixture(scope="module")
def on_postgresql(small, postgresql):
    """The same project, whose instance lies in a PostgreSQL server."""
    return small.on_postgresql(postgresql)


def check(project, how, stage):
    outcome = stop_and_run_again(project, how, stage)
    assert outcome.again == 0, outcome.output_again
    assert (outcome.slots, outcome.unfinished, outcome.orphans, outcome.tracebacks) == (0, 0, [], 0), outcome
    if how == "kill":
        return
    number, _ = SIGNALS[how]
    assert outcome.status is DagsterRunStatus.CANCELED
    assert outcome.returncode == 128 + number
    assert outcome.output.count("stopped; run again to go on") == 1


@pytest.mark.parametrize(
    ("how", "stage"),
    [
        ("kill", "fine_tuned_model"),
        ("hang-up", "top_model"),
        ("terminate", "bottleneck_features"),
        ("terminate the group", "evaluation"),
        ("interrupt", "dataset"),
    ],
)
def test_a_stopped_run(small, how, stage):
    check(small, how, stage)


@pytest.mark.parametrize(("how", "stage"), [("kill", "bottleneck_features"), ("terminate", "fine_tuned_model")])
def test_a_stopped_run_on_postgresql(on_postgresql, how, stage):
    check(on_postgresql, how, stage)


def test_waiting_is_said_and_ends_when_the_other_run_dies(small):
    working = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    with small.instance() as instance:
        process = psutil.Process(working.pid)
        tags = {PROCESS_TAG: f"{socket.gethostname()} {working.pid} {process.create_time():.0f}"}
        other = instance.create_run_for_job(other_job, status=DagsterRunStatus.STARTED, tags=tags)
        instance.event_log_storage.initialize_concurrency_limit_to_default("gpu")
        instance.event_log_storage.claim_concurrency_slot("gpu", other.run_id, "other__top_model")
        running = small.start("waits")
        for line in running.stdout:
            if f"waiting for run {other.run_id[:8]} (other/top_model), which uses the GPU" in line:
                break
        else:
            pytest.fail("it did not say that it waits")
        working.kill()
        working.wait()
        assert running.communicate(timeout=200)[0].count("waiting for run") == 0 and running.returncode == 0
        assert instance.get_run_by_id(other.run_id).status is DagsterRunStatus.FAILURE


@dg.job
def other_job():
    pass
