"""Splits never move; views count."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tl_dagster import InputError
from tl_dagster.data.settings import Augmentation, Splits
from tl_dagster.data.split_memory import SplitMemory
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
@given(chosen=SUBSETS, grown=SUBSETS, seed=st.integers(0, 5), folds=st.sampled_from([None, 3]))
def test_adding_removing_renaming_and_reordering_never_moves_an_image(chosen, grown, seed, folds):
    declared = Splits(validation=0.3, seed=seed, folds=folds) if folds else Splits(test=0.3, validation=0.3, seed=seed)
    memory = SplitMemory()
    parts = []
    try:
        for rows in (chosen, grown, [*{*chosen, *grown}]):
            parts.append(assign_splits(POOL.iloc[rows].assign(uri="renamed"), declared, memory))
    except InputError:
        assume(False)
    first, second, both = parts
    assert (first == both[first.index]).all() and (second == both[second.index]).all()
    assert both.groupby(POOL["group"]).nunique().max() == 1


CLASSES = st.lists(st.integers(3, 60), min_size=1, max_size=8)
FRACTIONS = st.sampled_from([(0.15, 0.15), (0.3, 0.3), (0.05, 0.1), (0.01, 0.4)])


def classes_of(sizes: list[int], start: int = 0) -> pd.DataFrame:
    rows = [(f"{label}-{number}", str(label)) for label, size in enumerate(sizes) for number in range(start, size)]
    return pd.DataFrame(rows, columns=["id", "label"]).assign(group=None, split=None).astype("str")


@settings(deadline=None, max_examples=100)
@given(
    sizes=CLASSES, growth=st.lists(st.integers(0, 30), min_size=8, max_size=8), seed=st.integers(0, 9), shares=FRACTIONS
)
def test_each_class_has_its_share_of_every_split_also_when_it_grows(sizes, growth, seed, shares):
    declared = Splits(test=shares[0], validation=shares[1], seed=seed)
    memory, before = SplitMemory(), pd.Series(dtype="str")
    for images in (classes_of(sizes), classes_of([size + more for size, more in zip(sizes, growth, strict=False)])):
        assigned = assign_splits(images, declared, memory).set_axis(images["id"])
        assert (assigned[before.index] == before).all()
        counts = pd.crosstab(assigned.index.str.partition("-").get_level_values(0), assigned.to_numpy())
        total = counts.sum(axis=1)
        for name, share in zip(("test", "validation"), shares, strict=True):
            assert ((counts[name] - total * share).abs() < 1).all()
        assert (counts["train"] >= 1).all()
        before = assigned


@pytest.mark.parametrize("folds", [None, 5])
@pytest.mark.parametrize("sizes", [[15] * 60, [20] * 10, [40, 300], [3, 3, 900]])
def test_small_classes_are_in_every_split_whatever_the_seed(sizes, folds):
    sizes = [max(size, folds or 0) for size in sizes]
    for seed in range(20):
        assigned = assign_splits(classes_of(sizes), Splits(seed=seed, folds=folds))
        assert set(assigned) == {"train", "validation", "test"}


def test_images_in_the_same_order_are_divided_the_same():
    first, second = SplitMemory(), SplitMemory()
    for memory in (first, second):
        for sizes in ([10, 12], [11, 30], [40, 31]):
            last = assign_splits(classes_of(sizes).sample(frac=1), Splits(), memory).sort_index()
    pd.testing.assert_series_equal(last, assign_splits(classes_of([40, 31]), Splits(), first))


def test_groups_of_many_images_are_shared_out_whole():
    """One of fifty images and nine of two: the large one trains, and every class is in every split."""
    images = classes_of([68]).assign(
        group=lambda rows: [f"g{max(int(i.partition('-')[2]) - 48, 0) // 2}" for i in rows["id"]]
    )
    for seed in range(20):
        assigned = assign_splits(images, Splits(seed=seed))
        assert assigned.groupby(images["group"]).nunique().max() == 1
        counts = assigned.value_counts()
        assert counts["test"] in (10, 12) and counts["validation"] in (8, 10)


def test_images_that_were_divided_stay_when_their_labels_and_groups_change():
    memory = SplitMemory()
    images = classes_of([30, 30])
    before = assign_splits(images, Splits(), memory)
    relabelled = images.assign(label=["x", "y"] * 30)
    assert (assign_splits(relabelled, Splits(), memory) == before).all()
    rows = [before[before == split].index[0] for split in ("train", "validation", "test")]
    joined = images.assign(group=images["id"].where(~images.index.isin(rows), "joined"))
    after = assign_splits(joined, Splits(), memory)
    assert set(after[rows]) == {"test"} and (after.drop(rows) == before.drop(rows)).all()


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
    with pytest.raises(
        InputError, match=r"class 'rare' has 1 usable images and none .* the test split; each split needs"
    ):
        assign_splits(small, Splits())
    memory = SplitMemory()
    assign_splits(IMAGES, Splits(), memory)
    finer = IMAGES.assign(label=IMAGES["label"].where(assign_splits(IMAGES, Splits(), memory) == "train", "held out"))
    with pytest.raises(
        InputError, match=r"class 'held out' .* none of them falls in the train split.*another splits.seed"
    ):
        assign_splits(finer, Splits(), memory)
    given = IMAGES.assign(split=["test"] * 500 + [None] * 1500, label=["x"] * 1000 + ["y"] * 1000)
    with pytest.raises(InputError, match=r"class 'y' .* the test split; the source gives the test split"):
        assign_splits(given, Splits())


def test_views():
    table = list_views(IMAGES, assign_splits(IMAGES, Splits()), Augmentation(views=3, test_views=2))
    counts = table.groupby(["split", "id"]).size().groupby("split").max().to_dict()
    assert counts == {"train": 3, "validation": 2, "test": 2}
    assert (table["view"] == table.groupby("id").cumcount()).all()


def test_hash_is_known():
    """Another value would move images of every user's new store."""
    assert unit_hash(0, "a") == pytest.approx(HASH, abs=1e-12)
    assigned = assign_splits(IMAGES, Splits(test=0.25, validation=0.1))
    for _, ids in IMAGES.groupby("label")["id"]:
        ranked = sorted(ids, key=lambda each: unit_hash(0, each))
        assert set(ranked[:250]) == set(ids[assigned[ids.index] == "test"])
