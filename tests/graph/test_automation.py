"""Scheduled retraining: on a cron tick, and when something changed."""

import shutil
import time

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from tests.conftest import QUIET, Pipeline
from tl_dagster.graph.automation import decide
from tl_dagster.graph.runs import DIED_TAG


class Watch:
    """Evaluates a pipeline's sensor, and runs what it asks for."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline, self.cursor = pipeline, None

    def look(self, **changes) -> SensorExecutionData:
        result = self.pipeline.tick(self.cursor, on_change=True, **changes)
        self.cursor = result.cursor or self.cursor
        return result

    def refresh(self, **changes) -> SensorExecutionData:
        """Look; run what is asked for."""
        result = self.look(**changes)
        for request in result.run_requests or []:
            job = self.pipeline.definitions(on_change=True, **changes).resolve_job_def("cells")
            job.execute_in_process(QUIET, instance=self.pipeline.instance, tags=request.tags)
        return result


def reason(result: SensorExecutionData) -> str:
    assert not result.run_requests
    return result.skip_message


@pytest.fixture
def watch(pipeline: Pipeline, monkeypatch) -> Watch:
    monkeypatch.setattr("tl_dagster.data.files.SETTLED_SECONDS", -1.0)
    pipeline.settings["runs"] = {"quiet_seconds": 0.01}
    return Watch(pipeline)


def test_one_run_for_each_change(watch, photos):
    first = watch.refresh()
    assert len(first.run_requests) == 1 and len(first.asset_events) == 1
    assert reason(watch.refresh()) == "nothing to do"

    changed = {"top_model": {"l2": [0.5]}}  # a setting
    assert "waiting" in reason(watch.refresh(**changed))
    assert watch.refresh(**changed).run_requests and reason(watch.refresh(**changed)) == "nothing to do"
    computed = {name for name, held in watch.pipeline.held().items() if not held.reused}
    assert computed == {"top_model", "fine_tuned_model", "evaluation", "champion"}
    watch.refresh()
    assert watch.refresh().run_requests  # and back
    watch.refresh(**changed)
    watch.refresh(**changed)

    shutil.copy(next((photos / "functional").iterdir()), photos / "functional" / "new.png")  # data
    assert "waiting" in reason(watch.look(**changed))
    (photos / "functional" / "new.png").rename(photos / "functional" / "newer.png")
    assert "waiting" in reason(watch.look(**changed))  # it goes on changing: not yet
    result = watch.refresh(**changed)
    assert result.run_requests and len(result.asset_events) == 1
    assert reason(watch.refresh(**changed)) == "nothing to do"


def test_a_run_begins_when_it_was_quiet_for_the_declared_time(watch, monkeypatch):
    watch.refresh()
    now = time.time()
    calm = {"runs": {"quiet_seconds": 100}}

    def look_at(seconds: float, l2: float) -> SensorExecutionData:
        monkeypatch.setattr("tl_dagster.graph.automation.time.time", lambda: now + seconds)
        return watch.look(top_model={"l2": [l2]}, **calm)

    assert "waiting" in reason(look_at(0, 0.2))
    assert "waiting" in reason(look_at(90, 0.3))  # another change
    assert "waiting" in reason(look_at(180, 0.3))
    assert look_at(191, 0.3).run_requests
    for seconds in range(200, 790, 60):  # it never stops changing
        assert "waiting" in reason(look_at(seconds, seconds))
    assert look_at(810, 810).run_requests


def test_no_run_beside_a_run_at_work(watch):
    run = watch.pipeline.instance.create_run_for_job(
        watch.pipeline.definitions(on_change=True).resolve_job_def("cells"), status=dg.DagsterRunStatus.STARTED
    )
    assert run.run_id[:8] in reason(watch.refresh())
    watch.pipeline.instance.report_run_failed(run)
    assert watch.refresh().run_requests


def test_a_failed_state_is_not_tried_again_but_a_run_that_died_is(watch):
    assert "none" in reason(watch.refresh(source={"path": "none"}))
    result = watch.look()
    job = watch.pipeline.definitions(on_change=True).resolve_job_def("cells")
    for attempt in range(3):
        died = {**result.run_requests[0].tags, DIED_TAG: "true"}
        run = watch.pipeline.instance.create_run_for_job(job, tags=died)
        watch.pipeline.instance.report_run_failed(run)
        if attempt < 2:
            assert watch.look().run_requests
    assert reason(watch.look()) == "nothing to do"


def test_a_tick_with_nothing_new_starts_no_run_and_one_that_failed_is_tried_again(watch):
    """Schedule and sensor look at the same state: what one has done is nothing to do for the other."""
    pipeline = watch.pipeline

    def tick() -> dg.RunRequest | str:
        result = decide(pipeline.instance, pipeline.declaration(), pipeline.store.root.parent, pipeline.store)
        return result if isinstance(result, dg.RunRequest) else result.skip_message

    failed = tick()
    run = pipeline.instance.create_run_for_job(pipeline.definitions().resolve_job_def("cells"), tags=failed.tags)
    pipeline.instance.report_run_failed(run)
    again = tick()
    assert again.tags["tl_dagster/trigger"] == "schedule"
    pipeline.definitions().resolve_job_def("cells").execute_in_process(
        QUIET, instance=pipeline.instance, tags=again.tags
    )
    assert tick() == "nothing to do"
    assert reason(watch.look()) == "nothing to do"
    busy = pipeline.instance.create_run_for_job(
        pipeline.definitions().resolve_job_def("cells"), status=dg.DagsterRunStatus.STARTED
    )
    assert busy.run_id[:8] in tick()
    pipeline.instance.report_run_canceled(busy)
    pipeline.photos.rename(pipeline.photos.with_name("elsewhere"))  # a source that vanishes
    assert "photos" in tick()


def test_sensor_and_schedule(pipeline: Pipeline):
    defs = pipeline.definitions(on_change=True, schedule={"cron": "0 3 * * 1", "timezone": "Europe/Berlin"})
    (sensor,) = defs.sensors
    assert sensor.job_name == "cells" and sensor.default_status == dg.DefaultSensorStatus.RUNNING
    schedule = defs.resolve_schedule_def("cells_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * 1", "Europe/Berlin")
    assert schedule.job_name == "cells"
    assert not pipeline.definitions().sensors
