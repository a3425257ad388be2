"""The names that people give to splits, and those that are only like them."""

import pytest

from tl_dagster import InputError
from tl_dagster.data.split_names import find_splits, holds_splits, split_of


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            "train Training TRAIN train_set training-data trainset TrainSet train2017 train_images trainval train_val",
        ),
        ("validation", "val valid validation dev Dev devel development val_images validationset"),
        ("test", "test testing test1 testset eval evaluation holdout hold-out held_out HoldOut"),
        (None, "cat latest training_wheel test_tube train_station invalid devil contest traindog test_train 1"),
    ],
)
def test_what_a_name_means_by_itself(split, names):
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ("train dev test", "train validation test"),
        ("train eval", "train test"),
        ("train eval test", "train validation test"),
        ("train eval holdout", "train validation test"),
        ("train dev eval", "train validation test"),
        ("seg_train seg_test", "train test"),
        ("trainA testA trainB testB", "train test train test"),
        ("Training training val", "train train validation"),
    ],
)
def test_what_names_mean_side_by_side(names, splits):
    assert find_splits(names.split(), None, "x") == dict(zip(names.split(), splits.split(), strict=True))


def test_names_that_differ_in_more_than_the_split_are_not_splits():
    assert not find_splits(["train_station", "test_tube", "test_positive", "test_negative"], None, "x")


@pytest.mark.parametrize("names", ["train val dev", "train test holdout", "train val eval test", "train trainval"])
def test_two_names_of_one_split_are_refused(names):
    with pytest.raises(InputError, match=r"photos: '.*' and '.*' both mean the .* split; declare .*source.split_names"):
        find_splits(names.split(), None, "photos")


def test_declared_meanings_go_first():
    declared = {"Val": "train", "dev": "validation", "test": "none", "extra": "ignore"}
    found = find_splits(["train", "val", "dev", "test", "extra", "cat"], declared, "x")
    assert found == {"train": "train", "val": "train", "dev": "validation", "extra": "ignore"}


@pytest.mark.parametrize(
    ("column", "values", "holds"),
    [
        ("subset", ["train", "test"], True),
        ("x", ["Training", "dev", "test"], True),
        ("is_train", ["0", "1"], True),
        ("is_training_image", ["False", "True"], True),
        ("x", ["train"], False),
        ("x", ["val", "test"], False),
        ("vehicle", ["train", "test", "bus"], False),
        ("test", ["0", "1"], False),
        ("is_cat", ["0", "1"], False),
        ("x", [], False),
    ],
)
def test_columns_of_splits_are_recognised(column, values, holds):
    assert holds_splits(column, values) == holds
