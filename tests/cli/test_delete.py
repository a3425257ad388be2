"""`tl-dagster delete` and `prune --artifacts`: what is in use stays, a dry run deletes nothing, and tells the truth."""

import subprocess
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import Pipeline
from tl_dagster.cli.main import main

ROOT = Path(__file__).parent.parent.parent


def files(pipeline: Pipeline) -> set[Path]:
    return {path for path in pipeline.store.root.rglob("*") if path.is_file() and "tmp" not in path.parts}


def artifacts(pipeline: Pipeline, stage: str) -> set[str]:
    return {path.name for path in pipeline.store.layout.artifacts(stage).glob("*")}


def printed(capsys, *arguments) -> str:
    capsys.readouterr()
    main([*arguments])
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [["prune"], ["cache", "prune"]])
def test_artifacts_and_reports_that_nothing_holds_are_pruned(pipeline: Pipeline, capsys, command):
    depth = {"depth": "none"}
    assert pipeline.run(fine_tuning=depth).success
    first = pipeline.held()
    assert pipeline.run(fine_tuning=depth, top_model={"l2": [0.5]}).success
    now, before = pipeline.held(), files(pipeline)
    counted = printed(capsys, *command, "--artifacts", "--dry-run")
    assert "3 artifacts, 1 reports" in counted and files(pipeline) == before
    assert printed(capsys, *command, "--artifacts") == counted.replace("would be ", "")
    served = {first["champion"].artifact.data_version, now["champion"].artifact.data_version} - {"none"}
    assert artifacts(pipeline, "fine_tuned_model") == served | {now["fine_tuned_model"].artifact.fingerprint}
    for stage in ("top_model", "evaluation"):
        assert artifacts(pipeline, stage) == {now[stage].artifact.fingerprint} != {first[stage].artifact.fingerprint}
    assert [path.stem for path in pipeline.store.layout.reports.rglob("*.html")] == list(
        artifacts(pipeline, "evaluation")
    )
    assert pipeline.run(fine_tuning=depth, top_model={"l2": [0.5]}).success
    assert all(each.reused for each in pipeline.held().values())
    assert "0 artifacts, 0 reports" in printed(capsys, *command, "--artifacts")


def test_the_data_before_and_parts_of_the_baseline_stay(pipeline: Pipeline, photos, capsys):
    baseline = {"scratch_baseline": {"epochs": 1, "image_size": 32}}
    assert pipeline.run(**baseline, upto="scratch_baseline").success
    (photos / "functional" / sorted(path.name for path in (photos / "functional").iterdir())[0]).unlink()
    assert pipeline.run(**baseline, upto="scratch_baseline").success
    printed(capsys, "prune", "--artifacts")
    assert len(artifacts(pipeline, "dataset")) == 2 and len(artifacts(pipeline, "augmented_splits")) == 1
    assert len(artifacts(pipeline, "scratch_network")) == len(artifacts(pipeline, "scratch_baseline")) == 1


def test_a_deleted_pipeline_leaves_what_others_use(pipeline: Pipeline, photos, capsys):
    depth = {"depth": "none"}
    assert pipeline.run(fine_tuning=depth).success
    extra = photos.parent / "others"
    for photo in photos.rglob("*.png"):
        (extra / photo.parent.name).mkdir(parents=True, exist_ok=True)
        (extra / photo.parent.name / photo.name).write_bytes(photo.read_bytes())
    (extra / "defective" / "new.png").write_bytes(next(photos.rglob("*.png")).read_bytes() + b"other bytes")
    others = {"name": "others", "fine_tuning": depth, "source": {"kind": "folder", "path": str(extra)}}
    assert pipeline.run(**others).success
    before = files(pipeline)
    counted = printed(capsys, "delete", "others", "--dry-run")
    assert "8 assets would be forgotten" in counted and files(pipeline) == before
    deleted = printed(capsys, "delete", "others")
    assert deleted == counted.replace("would be ", "")
    assert not pipeline.held("others") and not list(pipeline.store.layout.reports.glob("others/*"))
    known = {key.path[0] for key in pipeline.instance.get_asset_keys()}
    assert known == {"cells"}
    assert pipeline.run(fine_tuning=depth).success
    assert all(each.reused for each in pipeline.held().values())
    assert pipeline.run(**others).success
    assert 0 < pipeline.held("others")["bottleneck_features"].computed <= 3  # of the one image that was its own
    with pytest.raises(SystemExit, match="did you mean 'others'"):
        main(["delete", "other"])


def test_nothing_is_deleted_under_a_run_at_work(pipeline: Pipeline):
    assert pipeline.run(upto="dataset").success
    job = pipeline.definitions().resolve_job_def("cells")
    pipeline.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    for command in (["delete", "cells"], ["prune", "--artifacts"]):
        with pytest.raises(SystemExit, match="is at work"):
            main(command)
    assert pipeline.held()


def test_make_clean_and_clean_data_are_apart():
    clean, data = (
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for target in ("clean", "clean-data")
    )
    assert ".venv" in clean and ".dagster_home" not in clean and ".tl_dagster" not in clean
    assert ".dagster_home" in data and ".venv" not in data
