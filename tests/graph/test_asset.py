"""What people see of an asset: the result first, rounded numbers, words for each column, settings; and its retries."""

import errno
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import Pipeline
from tl_dagster.data.remote import UnreachableError
from tl_dagster.graph.metadata import round_number
from tl_dagster.graph.stages import STAGES
from tl_dagster.graph.stages.augmented_splits import AugmentedSplits
from tl_dagster.runtime.errors import InputError

BOOKKEEPING = ["reused", "rows_computed", "rows_reused", "seconds", "dagster/row_count"]
BOOKKEEPING += ["settings", "inputs", "written by", "path"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.8823529411764706, 0.8824), (2670240.4, 2670240.0), (17, 17), (0.0, 0.0), (-12.34567, -12.35), (1e-7, 1e-7)],
)
def test_numbers_are_rounded_as_people_read_them(value, shown):
    assert round_number(value) == shown and isinstance(round_number(value), type(shown))


def test_result_first_bookkeeping_last(pipeline: Pipeline):
    result = pipeline.run(upto="top_model")
    events = {event.asset_key.path[1]: event.materialization for event in result.get_asset_materialization_events()}
    for name, materialization in events.items():
        names = [each for each in materialization.metadata if each != "dagster/column_lineage"]  # the UI hides it
        assert names[0] == "result" and names[-len(BOOKKEEPING) :] == BOOKKEEPING, name
        assert isinstance(materialization.metadata["result"], dg.TextMetadataValue)
    assert events["dataset"].metadata["result"].value == "60 images of 2 classes"
    assert "train (hashed)" in events["augmented_splits"].metadata["result"].value
    assert events["top_model"].metadata["settings"].value["l2"] == [0.1]
    accuracy = events["top_model"].metadata["validation_accuracy"].value
    assert accuracy == round(accuracy, 4)


def test_every_column_is_explained(pipeline: Pipeline):
    for stage in STAGES:
        assert all(column.description.endswith(".") and column.kind for column in stage.columns.values()), stage.name
    graph = pipeline.definitions().resolve_asset_graph()
    schema = graph.get(dg.AssetKey(["cells", "dataset"])).metadata["dagster/column_schema"]
    assert all(column.description for column in schema.columns)


def test_a_check_that_stops_a_run_is_remembered(pipeline: Pipeline, photos: Path):
    for photo in sorted((photos / "functional").iterdir())[:9]:
        photo.write_bytes(b"no image")
    assert not pipeline.run(raise_on_error=False, upto="augmented_splits").success
    (check,) = [each for each in pipeline.held()["dataset"].failed_checks if each.blocking]
    assert check.name == "readable" and "9 of 60" in check.description


def test_a_fault_that_may_pass_is_tried_again_and_others_are_not(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tl_dagster.graph.asset.FIRST_WAIT", 0.0)
    faults = [UnreachableError("the bucket does not answer"), OSError(errno.ESTALE, "stale file handle")]
    run = AugmentedSplits.run

    def fail_first(self, context):
        if faults:
            raise faults.pop()
        return run(self, context)

    monkeypatch.setattr(AugmentedSplits, "run", fail_first)
    result = pipeline.run(upto="augmented_splits")
    assert result.success and not faults
    assert len(result.filter_events(lambda event: event.is_step_up_for_retry)) == 2
    for fault in (UnreachableError("for good"), ValueError("a mistake of ours"), InputError("of the user")):
        faults += [fault] * 9
        result = pipeline.run(upto="augmented_splits", raise_on_error=False, runs={"retries": 1})
        assert not result.success
        assert 9 - len(faults) == (2 if isinstance(fault, UnreachableError) else 1)
        faults.clear()


def test_runs_are_queued_and_ended_as_declared(pipeline: Pipeline):
    job = pipeline.definitions(runs={"priority": 5, "max_runtime_minutes": 90}).resolve_job_def("cells")
    assert (job.tags["dagster/priority"], job.tags["dagster/max_runtime"]) == ("5", "5400")
