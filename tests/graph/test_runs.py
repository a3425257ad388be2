"""Runs whose process is gone are ended, and what they held is freed; a run that works is left alone."""

import subprocess
import sys

import dagster as dg
import pytest

from tl_dagster.graph.runs import PROCESS_TAG, describe_wait, end_dead_runs, find_earlier_run, process_tags

STARTED, FAILURE = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE


@dg.op(pool="gpu")
def train():
    pass


@dg.job
def flowers():
    train()


@pytest.fixture
def instance():
    pools = {"concurrency": {"pools": {"default_limit": 1, "granularity": "op"}}}
    with dg.instance_for_test(overrides=pools) as instance:
        instance.event_log_storage.initialize_concurrency_limit_to_default("gpu")
        yield instance


def start(instance, process: str | None = None, *, claim: bool = True) -> dg.DagsterRun:
    tags = process_tags() | ({PROCESS_TAG: process} if process else {})
    run = instance.create_run_for_job(flowers, status=STARTED, tags=tags)
    if claim:
        instance.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "train")
    return run


def dead_process() -> str:
    code = "from tl_dagster.runtime.processes import identify_process; print(identify_process())"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def held(instance) -> int:
    return len(instance.event_log_storage.get_concurrency_info("gpu").claimed_slots)


def test_a_dead_run_fails_and_frees_its_slot(instance):
    run = start(instance, dead_process())
    assert held(instance) == 1
    end_dead_runs(instance)
    assert instance.get_run_by_id(run.run_id).status is FAILURE
    assert held(instance) == 0
    (ended,) = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records
    assert "ended unexpectedly" in ended.event_log_entry.message


def test_a_run_that_repeats_a_dead_one_is_not_taken_for_dead(instance):
    died = start(instance, dead_process(), claim=False)
    end_dead_runs(instance)
    tags = instance.get_run_by_id(died.run_id).tags  # Dagster copies them all
    again = instance.create_run_for_job(
        flowers, status=STARTED, tags=tags, parent_run_id=died.run_id, root_run_id=died.run_id
    )
    end_dead_runs(instance)
    assert instance.get_run_by_id(again.run_id).status is STARTED
    instance.add_run_tags(again.run_id, {PROCESS_TAG: dead_process()})  # it began, and died too
    end_dead_runs(instance)
    assert instance.get_run_by_id(again.run_id).status is FAILURE


@pytest.mark.parametrize("process", [None, "another-machine 1 1"])
def test_a_run_that_may_be_at_work_is_left_alone(instance, process):
    run = start(instance, process)
    end_dead_runs(instance)
    assert instance.get_run_by_id(run.run_id).status is STARTED
    assert held(instance) == 1


def test_a_run_canceled_by_force_keeps_its_slot_while_its_process_works(instance):
    instance.report_run_canceled(start(instance))
    end_dead_runs(instance)
    assert held(instance) == 1


def test_runs_of_a_pipeline_follow_each_other(instance):
    first, second = start(instance, claim=False), start(instance, claim=False)
    assert find_earlier_run(instance, second).run_id == first.run_id
    assert find_earlier_run(instance, first) is None
    dead = start(instance, dead_process(), claim=False)
    instance.report_run_failed(first)
    assert find_earlier_run(instance, second) is None
    assert find_earlier_run(instance, dead).run_id == second.run_id


def test_what_a_run_waits_for(instance):
    first, second = start(instance), start(instance)
    (line,) = describe_wait(instance, second.run_id)
    assert line == f"waiting for run {first.run_id[:8]} (train), which uses the GPU"
    assert not list(describe_wait(instance, first.run_id))
