"""Hostile and unusual files: each is decoded to the right pixels, or set aside with the reason; none stops a run."""

import re
import time

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from tests.data import corpus
from tl_dagster.data.decoding import Resize, inspect_image, thumbnail
from tl_dagster.data.files import local_uri
from tl_dagster.data.manifest import read_manifest

USED = [name for name, case in corpus.CASES.items() if case.aside is None]
ASIDE = [name for name in corpus.CASES if name not in USED]
SQUASH = Resize(32, "squash", 1.0, "bicubic")
CLASSES = ("functional", "defective")


@pytest.fixture
def silence(capfd, caplog, recwarn):
    """Nothing is warned of, logged or printed."""
    yield
    assert [str(warning.message) for warning in recwarn if "PIL" in warning.filename] == []
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


@pytest.mark.parametrize("name", USED, ids=ascii)
def test_used(name, silence):
    content, reference = corpus.content(name), corpus.pixels(name)
    seen = inspect_image(content)
    assert (seen.problem, seen.width, seen.height) == (None, reference.shape[1], reference.shape[0])
    expected = np.asarray(Image.fromarray(reference).resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(SQUASH(content) - expected).max() <= corpus.CASES[name].tolerance
    assert Resize(32, "crop", 0.875, "bicubic")(content).shape == (32, 32, 3)
    assert thumbnail(content, 32).size == (32, 32)


@pytest.mark.parametrize("name", ASIDE, ids=ascii)
def test_set_aside(name, silence):
    content = corpus.content(name)
    began = time.monotonic()
    problem = inspect_image(content).problem
    assert problem and corpus.CASES[name].aside in problem and problem.isprintable()
    with pytest.raises(OSError, match=re.escape(problem.removeprefix("the file is empty"))):
        thumbnail(content, 32)
    assert time.monotonic() - began < 5


def test_the_pipeline_uses_or_sets_aside_each_file(pipeline, photos):
    paths = corpus.write(photos, CLASSES)
    result = pipeline.run(checks={"set_aside": 1.0})
    assert result.success
    manifest = read_manifest(pipeline.held()["dataset"].artifact.path).set_index("uri")
    assert len(manifest) == len(paths) + 60
    rows = {name: manifest.loc[local_uri(path)] for name, path in paths.items()}
    assert {name for name, row in rows.items() if row["problem"] is None or row["problem"] != row["problem"]} == set(
        USED
    )
    assert all(corpus.CASES[name].aside in rows[name]["problem"] for name in ASIDE)
    assert all((rows[name]["height"], rows[name]["width"]) == corpus.pixels(name).shape[:2] for name in USED)
    (readable,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "readable"]
    assert (readable.passed, readable.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_by_default_so_many_broken_files_stop_the_run(pipeline, photos):
    corpus.write(photos, CLASSES)
    result = pipeline.run(raise_on_error=False)
    assert not result.success
    (readable,) = [check for check in result.get_asset_check_evaluations() if check.check_name == "readable"]
    assert (readable.passed, readable.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert set(pipeline.held()) == {"dataset"}
    assert [event.asset_key.path[-1] for event in result.get_asset_materialization_events()] == ["dataset"]
