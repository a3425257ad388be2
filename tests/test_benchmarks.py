"""Every benchmark still runs: at its smallest sizes, in this process; what its figures are worth is not tested here."""

import importlib
import json
import re
import sys

import cv2
import pytest

from benchmarks.__main__ import NAMES
from benchmarks.common import FEW, RESULTS, SMALLEST, finish
from tests.conftest import elpv

# Figures that are counts: the same at every size.
COUNTS = {
    "incremental": {"forwarded_over_new": 1},
    "reuse": {
        "squeezenet1_1_three_taps_images_decoded_over_images": 1,
        "squeezenet1_1_three_taps_views_forwarded_over_images": 2,
        "squeezenet1_1_second_pipeline_views_forwarded": 0,
        "squeezenet1_1_one_tap_views_forwarded": 0,
    },
    "crash": {
        "kills": 1,
        "rows_that_differ_from_an_undisturbed_run": 0,
        "rows_stored_twice": 0,
        "damaged_shards": 0,
    },
    "finetune": {"efficientnet_lite0_last_two_stages_losses_relative_difference": 0},
}


@pytest.fixture(scope="session")
def photographs(tmp_path_factory, labels):
    """Solar cells, in the folders that the benchmarks expect photographs of ants and bees in."""
    root = tmp_path_factory.mktemp("photographs")
    images = iter(labels["image"])
    for folder in ("train/ants", "train/bees", "val/ants", "val/bees"):
        place = root / "hymenoptera" / folder
        place.mkdir(parents=True)
        for _ in range(FEW):
            image = elpv() / next(images)
            cv2.imwrite(str(place / f"{image.stem}.jpg"), cv2.imread(str(image)))
    return root


@pytest.fixture
def smallest(monkeypatch, store, photographs):
    """An environment for the smallest form; what is known of backbones is shared with the other tests."""
    monkeypatch.setenv(SMALLEST, "1")
    monkeypatch.setenv("TL_BENCH_PHOTOS", str(photographs))
    monkeypatch.delenv("TL_BENCH_WEIGHTS", raising=False)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_at_its_smallest_sizes(name, smallest, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--smallest"])
    path = RESULTS / f"{name}.json"
    before = path.read_bytes() if path.exists() else None
    importlib.import_module(f"benchmarks.{name}").main()
    lines = capsys.readouterr().out.splitlines()
    figures = dict(line.split() for line in lines if re.fullmatch(r"\w+ +[-+.e\d]+ *", line))
    assert figures
    assert {key: float(figures[key]) for key in COUNTS.get(name, {})} == COUNTS.get(name, {})
    assert (path.read_bytes() if path.exists() else None) == before


@pytest.mark.parametrize("name", NAMES)
def test_its_command_line_is_explained(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(f"benchmarks.{name}").main()
    assert "--smallest" in capsys.readouterr().out


def test_a_missed_target_ends_with_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.common.RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="made_up: missed slow"):
        finish("made_up", {"slow": 2.0, "fast": 1.0, "unknown": None}, {"slow": {"at_most": 1}, "fast": {"at_most": 1}})
    assert json.loads((tmp_path / "made_up.json").read_text())["figures"] == {"slow": 2, "fast": 1, "unknown": None}
