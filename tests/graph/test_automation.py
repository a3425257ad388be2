"""Scheduled retraining: on a cron tick, and when something changed."""

import shutil

import dagster as dg

from tests.conftest import Pipeline


def requested(pipeline: Pipeline, cursor=None, **changes):
    defs = pipeline.definitions(on_change=True, **changes)
    result = dg.evaluate_automation_conditions(defs=defs, instance=pipeline.instance, cursor=cursor)
    asked = {each.key.path[-1] for each in result.results if each.true_subset.size}
    return asked - {"source"}, result.cursor


MODELS = {"top_model", "fine_tuned_model", "evaluation"}
CHAIN = {"dataset", "augmented_splits", "bottleneck_features", "transfer_strategy", *MODELS}


def observe(pipeline: Pipeline) -> None:
    source = [dg.AssetKey(["cells", "source"])]
    job = pipeline.definitions(on_change=True).resolve_implicit_job_def_def_for_assets(source)
    assert job.execute_in_process(instance=pipeline.instance, asset_selection=source).success


def test_the_whole_chain_in_one_tick(pipeline: Pipeline, photos):
    observe(pipeline)
    asked, cursor = requested(pipeline)
    assert asked == CHAIN  # nothing is there yet
    assert pipeline.run(on_change=True).success
    asked, cursor = requested(pipeline, cursor)
    assert asked == set()

    asked, cursor = requested(pipeline, cursor, top_model={"l2": [0.5]})  # a setting changed
    assert asked == MODELS
    assert pipeline.run(on_change=True, top_model={"l2": [0.5]}).success
    asked, cursor = requested(pipeline, cursor, top_model={"l2": [0.5]})
    assert asked == set()

    shutil.copy(next((photos / "functional").iterdir()), photos / "functional" / "new.png")  # data changed
    observe(pipeline)
    asked, cursor = requested(pipeline, cursor, top_model={"l2": [0.5]})
    assert asked == CHAIN


def test_sensor_and_schedule(pipeline: Pipeline):
    defs = pipeline.definitions(on_change=True, schedule={"cron": "0 3 * * 1", "timezone": "Europe/Berlin"})
    (sensor,) = defs.sensors
    watched = sensor.asset_selection.resolve(defs.resolve_asset_graph())
    assert {key.path[-1] for key in watched} == {*CHAIN, "source"}
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    schedule = defs.resolve_schedule_def("cells_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * 1", "Europe/Berlin")
    assert schedule.job_name == "cells"
    assert not pipeline.definitions().sensors
