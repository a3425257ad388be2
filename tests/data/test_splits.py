"""Splits never move; views count."""

import numpy as np
import pandas as pd
import pytest

from tl_dagster import InputError
from tl_dagster.data.splits import assign, unit_hash, views
from tl_dagster.spec import Augmentation, Splits

IMAGES = pd.DataFrame(
    {"id": [f"{n:04d}" for n in range(2000)], "label": ["x", "y"] * 1000, "group": None, "split": None}
)
IMAGES["confidence"] = np.nan
HASH = 0.37150006202396163


def test_fractions_and_stability():
    splits = Splits(test=0.25, validation=0.1)
    assigned = assign(IMAGES, splits)
    shares = assigned.value_counts(normalize=True)
    assert abs(shares["test"] - 0.25) < 0.03 and abs(shares["validation"] - 0.1) < 0.03
    fewer = IMAGES.sample(1200, random_state=0)
    assert (assign(fewer, splits) == assigned[fewer.index]).all()
    assert (assign(IMAGES, Splits(test=0.25, validation=0.1, seed=1)) != assigned).any()


def test_groups_are_never_cut():
    grouped = IMAGES.assign(group=[f"g{n // 10}" for n in range(2000)])
    assert assign(grouped, Splits()).groupby(grouped["group"]).nunique().max() == 1


def test_given_splits_are_kept():
    given = IMAGES.assign(split=["train"] * 1500 + ["test"] * 500)
    assigned = assign(given, Splits())
    assert (assigned[1500:] == "test").all()
    assert set(assigned[:1500]) == {"train", "validation"}


def test_a_partly_given_split_is_filled_up(tmp_path):
    given = IMAGES.assign(split=["train"] * 500 + [None] * 1000 + ["test"] * 500)
    given.to_parquet(tmp_path / "images.parquet")
    assigned = assign(pd.read_parquet(tmp_path / "images.parquet"), Splits())
    assert set(assigned) == {"train", "validation", "test"}
    assert (assigned[1500:] == "test").all()


def test_a_class_too_small_is_named():
    small = pd.concat([IMAGES, IMAGES.head(1).assign(id="z", label="rare")], ignore_index=True)
    with pytest.raises(InputError, match="class 'rare' has 1 usable images and none of them falls in the"):
        assign(small, Splits())


def test_views():
    table = views(IMAGES, assign(IMAGES, Splits()), Augmentation(views=3, test_views=2))
    counts = table.groupby(["split", "id"]).size().groupby("split").max().to_dict()
    assert counts == {"train": 3, "validation": 2, "test": 2}


def test_hash_is_known():
    """Another value would move every image of every user."""
    assert unit_hash(0, "a") == pytest.approx(HASH, abs=1e-12)
