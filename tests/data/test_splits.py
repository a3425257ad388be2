"""Splits never move; views count."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tl_dagster import InputError
from tl_dagster.data.settings import Augmentation, Splits
from tl_dagster.data.splits import assign_splits, list_views, unit_hash

IMAGES = pd.DataFrame(
    {"id": [f"{n:04d}" for n in range(2000)], "label": ["x", "y"] * 1000, "group": None, "split": None}
).astype("str")
IMAGES["confidence"] = np.nan
HASH = 0.37150006202396163

# Two hundred images, some in groups of their own; any subset in any order.
POOL = IMAGES.head(200).assign(
    label="x", group=pd.Series([f"g{n // 7}" if n % 3 else None for n in range(200)], dtype="str")
)
SUBSETS = st.lists(st.integers(0, 199), min_size=60, max_size=200, unique=True)
HALVES = Splits(test=0.3, validation=0.3)


def test_fractions():
    assigned = assign_splits(IMAGES, Splits(test=0.25, validation=0.1))
    shares = assigned.value_counts(normalize=True)
    assert abs(shares["test"] - 0.25) < 0.03 and abs(shares["validation"] - 0.1) < 0.03
    assert (assign_splits(IMAGES, Splits(test=0.25, validation=0.1, seed=1)) != assigned).any()


@settings(deadline=None, max_examples=60)
@given(chosen=SUBSETS, seed=st.integers(0, 5), folds=st.sampled_from([None, 3]))
def test_adding_removing_renaming_and_reordering_never_moves_an_image(chosen, seed, folds):
    declared = Splits(validation=0.3, seed=seed, folds=folds) if folds else Splits(test=0.3, validation=0.3, seed=seed)
    some = POOL.iloc[chosen].assign(uri="renamed")
    try:
        everything, part = assign_splits(POOL, declared), assign_splits(some, declared)
    except InputError:
        assume(False)
    assert (part == everything[some.index]).all()
    assert part.groupby(some["group"]).nunique().max() == 1


def test_folds_divide_the_images():
    parts = [assign_splits(IMAGES, Splits(folds=4, fold=fold, validation=0.2)) for fold in range(4)]
    tested = pd.concat([part == "test" for part in parts], axis=1)
    assert (tested.sum(axis=1) == 1).all()
    assert tested.mean().between(0.2, 0.3).all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"folds": 5, "fold": 5}, "numbered from 0 to 4"),
        ({"fold": 1}, "give `folds` too"),
        ({"folds": 5, "test": 0.2}, "both say what the test split is"),
        ({"test": 0.5, "validation": 0.5}, "leaves nothing to train on"),
    ],
)
def test_bad_declarations(fields, words):
    with pytest.raises(ValueError, match=words):
        Splits(**fields)


def test_given_splits_are_kept():
    images = IMAGES.assign(split=["train"] * 1500 + ["test"] * 500)
    assigned = assign_splits(images, Splits())
    assert (assigned[1500:] == "test").all()
    assert set(assigned[:1500]) == {"train", "validation"}
    with pytest.raises(InputError, match="gives a test split already"):
        assign_splits(images, Splits(folds=3))


def test_a_partly_given_split_is_filled_up(tmp_path):
    images = IMAGES.assign(split=["train"] * 500 + [None] * 1000 + ["test"] * 500)
    images.to_parquet(tmp_path / "images.parquet")
    assigned = assign_splits(pd.read_parquet(tmp_path / "images.parquet"), Splits())
    assert set(assigned) == {"train", "validation", "test"}
    assert (assigned[1500:] == "test").all()


def test_a_class_too_small_is_named():
    small = pd.concat([IMAGES, IMAGES.head(1).assign(id="z", label="rare")], ignore_index=True)
    with pytest.raises(InputError, match="class 'rare' has 1 usable images and none of them falls in the"):
        assign_splits(small, Splits())


def test_views():
    table = list_views(IMAGES, assign_splits(IMAGES, Splits()), Augmentation(views=3, test_views=2))
    counts = table.groupby(["split", "id"]).size().groupby("split").max().to_dict()
    assert counts == {"train": 3, "validation": 2, "test": 2}
    assert (table["view"] == table.groupby("id").cumcount()).all()


def test_hash_is_known():
    """Another value would move every image of every user."""
    assert unit_hash(0, "a") == pytest.approx(HASH, abs=1e-12)
    assigned = assign_splits(IMAGES, Splits(test=0.25, validation=0.1))
    tested = [unit_hash(0, each) < 0.25 for each in IMAGES["id"]]
    assert (assigned == "test").tolist() == tested
