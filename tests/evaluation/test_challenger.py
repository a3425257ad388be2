"""The judgement of a new model from the predictions of two: by the images of both, in the words that users read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tl_dagster.evaluation.challenger import Challenger
from tl_dagster.evaluation.settings import Promotion
from tl_dagster.models.predictions import write_predictions
from tl_dagster.runtime.errors import InputError

CLASSES = ["cat", "dog"]


def write_model(folder: Path, right: np.ndarray, first: int = 0, flipped: int = 0) -> Path:
    """The predictions of images first, first + 1, …; the labels of the ``flipped`` first ones are corrected."""
    folder.mkdir()
    numbers = np.arange(first, first + len(right))
    truth = (numbers % 2) ^ (numbers < flipped)
    rows = pd.DataFrame(
        {"id": [f"{each:064x}" for each in numbers], "label": np.array(CLASSES)[truth], "split": "test"}
    )
    rows.loc[len(rows)] = {"id": "f" * 64, "label": "cat", "split": "validation"}
    predicted = [*np.where(right, truth, 1 - truth), 0]
    write_predictions(folder, rows, CLASSES, np.eye(2)[predicted] * 4)
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    ids = [f"{each:064x}" for each in range(1000)]
    table = pd.DataFrame({"id": ids, "uri": ids, "label": "cat", "group": None, "problem": None})
    (tmp_path / "dataset").mkdir()
    table.to_parquet(tmp_path / "dataset" / "images.parquet")
    return tmp_path / "dataset"


def share(count: int, right: float) -> np.ndarray:
    """``count`` images, of which the first ``right`` are predicted correctly."""
    return np.arange(count) < right * count


def test_a_surely_better_model_is_promoted(tmp_path: Path, dataset: Path):
    old, new = write_model(tmp_path / "old", share(400, 0.8)), write_model(tmp_path / "new", share(400, 0.9))
    judged = Challenger(new, dataset, Promotion()).against_champion(old, 1)
    assert judged.promoted
    assert judged.reason.startswith("promoted: accuracy 0.900 against 0.800 on the same 400 test images; +10.0 points")
    assert judged.numbers["only_new_right"] == 40


def test_a_little_better_is_not_surely_better(tmp_path: Path, dataset: Path):
    old, new = write_model(tmp_path / "old", share(400, 0.8)), write_model(tmp_path / "new", share(400, 0.805))
    judged = Challenger(new, dataset, Promotion()).against_champion(old, 1)
    assert not judged.promoted
    assert "the champion stays: accuracy 0.805 against 0.800" in judged.reason


def test_the_bar_rises_with_each_comparison(tmp_path: Path, dataset: Path):
    old, new = write_model(tmp_path / "old", share(400, 0.8)), write_model(tmp_path / "new", share(400, 0.8175))
    challenger = Challenger(new, dataset, Promotion())
    assert challenger.against_champion(old, 1).promoted  # seven images, all for the new one: p = 1/128
    assert not challenger.against_champion(old, 3).promoted


def test_only_images_of_both_are_compared_by_their_present_labels(tmp_path: Path, dataset: Path):
    old = write_model(tmp_path / "old", share(400, 1.0))
    new = write_model(tmp_path / "new", np.ones(500, bool), first=100, flipped=140)
    judged = Challenger(new, dataset, Promotion()).against_champion(old, 1)
    assert judged.numbers["compared_images"] == 300
    assert judged.numbers["only_new_right"] == 40  # whose labels were corrected since
    assert "(200 more were no test images when the champion was trained)" in judged.reason


def test_nothing_in_common_is_no_proof(tmp_path: Path, dataset: Path):
    old = write_model(tmp_path / "old", share(100, 0.5))
    new = write_model(tmp_path / "new", share(100, 1), first=500)
    judged = Challenger(new, dataset, Promotion()).against_champion(old, 1)
    assert (judged.promoted, dict(judged.numbers)) == (False, {})
    assert "tl-dagster promote" in judged.reason


@pytest.mark.parametrize(
    ("model", "top_model", "promoted", "words"),
    [
        (0.9, 0.9, True, "the first champion: accuracy 0.900 on 400 test images"),
        (0.5, 0.5, False, "is not surely more than the 0.500 of always answering"),
        (0.7, 0.9, False, "is surely less than the top model's 0.900"),
    ],
)
def test_the_first_champion(tmp_path: Path, dataset: Path, model: float, top_model: float, promoted: bool, words: str):
    new, top = write_model(tmp_path / "new", share(400, model)), write_model(tmp_path / "top", share(400, top_model))
    judged = Challenger(new, dataset, Promotion()).as_first(top, 1)
    assert judged.promoted is promoted
    assert words in judged.reason


def test_a_challenge_is_known_again_by_model_images_labels_and_settings(tmp_path: Path, dataset: Path):
    a, b = write_model(tmp_path / "a", share(50, 1)), write_model(tmp_path / "b", share(50, 1), flipped=1)
    first = Challenger(a, dataset, Promotion()).identify("f")
    assert first == Challenger(a, dataset, Promotion(freshness_days=3)).identify("f")
    others = [
        Challenger(a, dataset, Promotion()).identify("g"),
        Challenger(b, dataset, Promotion()).identify("f"),
        Challenger(a, dataset, Promotion(margin=0.01)).identify("f"),
    ]
    assert first not in others


def test_no_test_image(tmp_path: Path, dataset: Path):
    with pytest.raises(InputError, match=r"larger splits\.test"):
        Challenger(write_model(tmp_path / "m", share(0, 1)), dataset, Promotion())
