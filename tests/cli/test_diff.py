"""`tl-dagster diff`: two runs, two pipelines, and a pipeline now against before."""

import json

import pytest

from tests.conftest import Pipeline
from tl_dagster.cli.main import main


@pytest.fixture
def diff(capsys):
    """The differences by (asset, kind, name), as (a, b)."""

    def diff(*arguments):
        capsys.readouterr()
        main(["diff", *arguments, "--json"])
        found = json.loads(capsys.readouterr().out)
        return {(each["asset"], each["kind"], each["name"]): (each["a"], each["b"]) for each in found["differences"]}

    return diff


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["diff", *arguments])
    return str(ended.value.code)


def test_settings_and_results_now_against_before(pipeline: Pipeline, diff, capsys):
    assert pipeline.run(upto="top_model").success
    assert "has not changed since it was first run" in refused(capsys, "cells")
    assert pipeline.run(upto="top_model", top_model={"l2": [0.5]}).success
    assert pipeline.run(upto="top_model", top_model={"l2": [0.5]}).success  # nothing new: the change lies before it
    found = diff("cells")
    assert found["top_model", "settings", "l2"] == ([0.1], [0.5])
    assert found["top_model", "result", "l2"] == (0.1, 0.5)
    assert ("top_model", "result", "validation_log_loss") in found
    assert {asset for asset, _, _ in found} == {"top_model"}
    first, *_, last = [run.run_id for run in pipeline.instance.get_runs(ascending=True)]
    assert diff(first[:8], last) == found and diff(first, first) == {}
    assert diff(last, first[:8])["top_model", "settings", "l2"] == ([0.5], [0.1])
    main(["diff", "cells"])
    table = capsys.readouterr().out
    assert "cells before" in table and "cells now" in table and "l2" in table


def test_data_that_came_and_went(pipeline: Pipeline, photos, diff):
    assert pipeline.run(upto="augmented_splits").success
    for photo in sorted((photos / "functional").iterdir())[:2]:
        photo.unlink()
    assert pipeline.run(upto="augmented_splits").success
    found = diff("cells")
    assert found["dataset", "data", "images"] == (60, 58)
    assert found["dataset", "data", "images removed"] == (None, 2)
    assert found["dataset", "data", "images_per_class.functional"] == (30, 28)
    assert ("augmented_splits", "data", "data_version") in found


def test_two_pipelines(pipeline: Pipeline, diff, capsys):
    assert pipeline.run(upto="augmented_splits").success
    assert pipeline.run(upto="augmented_splits", name="others", splits={"seed": 3}).success
    found = diff("cells", "others")
    assert found["augmented_splits", "settings", "splits.seed"] == (0, 3)
    assert not [name for asset, _, name in found if asset == "dataset"]
    assert "did you mean 'cells'" in refused(capsys, "cell", "others")
    assert "no pipeline or run 'ffffffff'" in refused(capsys, "ffffffff", "cells")
