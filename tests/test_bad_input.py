"""Bad input: one clear error, before long work starts, and nothing computed is lost."""

import shutil
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import Pipeline
from tl_dagster.data.decoding import inspect_image


def failure(pipeline: Pipeline, **changes) -> tuple[str, str]:
    """The step that failed, and what it said; nothing after it ran."""
    result = pipeline.run(raise_on_error=False, **changes)
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    error = event.step_failure_data.error
    words = event.step_failure_data.user_failure_data
    return event.step_key, words.description if words else str(error)


def keep(photos: Path, name: str, count: int) -> None:
    for path in sorted((photos / name).iterdir())[count:]:
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "stage", "words"),
    [
        (lambda photos: shutil.rmtree(photos), "dataset", "no folder"),
        (lambda photos: [shutil.rmtree(child) for child in photos.iterdir()], "dataset", "holds no images"),
        (lambda photos: shutil.rmtree(photos / "functional"), "dataset", "a single class, 'defective'"),
        (lambda photos: (photos / "functional").rename(photos / "test"), "dataset", "'test' is named like a split"),
        (lambda photos: keep(photos, "functional", 1), "augmented_splits", "class 'functional' has 1 usable images"),
        (lambda photos: [p.write_bytes(b"x") for p in (photos / "functional").iterdir()], "dataset", "were set aside"),
    ],
)
def test_bad_sources(pipeline, photos, spoil, stage, words):
    spoil(photos)
    step, said = failure(pipeline)
    assert step == f"cells__{stage}"
    assert words in said


def test_unwritable_store(pipeline, tmp_path):
    (tmp_path / "file").write_text("in the way")
    pipeline.store = type(pipeline.store)(tmp_path / "file" / "store")
    step, said = failure(pipeline)
    assert step == "cells__dataset"
    assert "cannot write the artifact store" in said and "TL_DAGSTER_STORE" in said


def test_a_broken_image_is_reported_and_not_fatal(pipeline, photos):
    broken = sorted((photos / "functional").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:3000])
    result = pipeline.run()
    assert result.success
    (dataset,) = result.asset_materializations_for_node("cells__dataset")
    assert dataset.metadata["set_aside"].value == 1.0
    assert dataset.metadata["set_aside_files"].records[0].data["file"] == str(broken)


def test_an_image_that_vanishes_midway_keeps_what_was_computed(pipeline, photos):
    job = pipeline.definitions().resolve_job_def("cells")
    keys = [dg.AssetKey(["cells", name]) for name in ("dataset", "augmented_splits")]
    assert job.execute_in_process(instance=pipeline.instance, asset_selection=keys).success
    last = sorted(photos.rglob("*.png"))[-1]
    content = last.read_bytes()
    last.unlink()
    rest = [dg.AssetKey(["cells", "bottleneck_features"])]
    result = job.execute_in_process(instance=pipeline.instance, asset_selection=rest, raise_on_error=False)
    assert not result.success
    last.write_bytes(content)
    assert pipeline.run().success
    features = pipeline.held()["bottleneck_features"]
    assert features.reused_rows > 0


def test_a_folder_that_vanishes_midway_keeps_what_was_read(pipeline, photos, monkeypatch):
    away, looked = photos.parent / "away", []

    def look_once(content):
        looked.append(content)
        if len(looked) == 20:
            photos.rename(away)
        return inspect_image(content)

    monkeypatch.setattr("tl_dagster.data.ingestion.inspect_image", look_once)
    monkeypatch.setattr("tl_dagster.data.files.SETTLED_SECONDS", -1.0)
    pipeline.settings["compute"] = {"workers": 1}
    step, said = failure(pipeline)
    assert step == "cells__dataset" and f"{photos} vanished while it was read" in said
    away.rename(photos)
    assert pipeline.run().success
    assert len(looked) == 60  # the twenty were not read again


def test_models_of_different_splits_are_not_mixed(pipeline):
    assert pipeline.run().success
    job = pipeline.definitions(splits={"seed": 1}).resolve_job_def("cells")
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    for assets in (["dataset", "augmented_splits", "bottleneck_features"], ["fine_tuned_model"]):
        keys = [dg.AssetKey(["cells", name]) for name in assets]
        result = job.execute_in_process(
            instance=pipeline.instance, asset_selection=keys, raise_on_error=False, run_config=quiet
        )
    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert "computed from another bottleneck_features" in event.step_failure_data.user_failure_data.description


def test_a_bad_transform_is_refused_before_features(pipeline):
    step, said = failure(pipeline, augmentation={"transforms": [{"HorizontalFlop": {}}]})
    assert step == "cells__augmented_splits" and "did you mean 'HorizontalFlip'" in said


def test_a_source_that_is_not_there_does_not_break_the_code_location(pipeline):
    pipeline.settings["source"] = {"kind": "manifest", "path": "nowhere.csv"}
    pipeline.definitions().resolve_asset_graph()
    assert "no file" in failure(pipeline)[1]
