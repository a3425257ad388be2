"""Which folders are splits and which are classes; where that is unclear, it is refused."""

import pytest

from tl_dagster import InputError
from tl_dagster.data.layouts import class_folder, find_split_levels, read_layout


def read(folders, names=None):
    """Each folder's split:label."""
    roles = read_layout(folders.split(), names, "photos", labelled=False)
    return " ".join(f"{role.split}:{role.label}" for role in roles)


@pytest.mark.parametrize(
    ("folders", "roles"),
    [
        ("cat dog", "None:cat None:dog"),
        ("cat/old dog/new", "None:cat None:dog"),
        ("train/cat dev/cat test/dog/old", "train:cat validation:cat test:dog"),
        ("Training_Set/cat holdout/dog", "train:cat test:dog"),
        ("seg_train/cat seg_test/dog", "train:cat test:dog"),
        ("train/train/cat test/test/dog", "train:cat test:dog"),
        ("training_set/training_set/cat test_set/test_set/dog", "train:cat test:dog"),
        ("cat/train cat/test dog/train dog/test", "train:cat test:cat train:dog test:dog"),
        ("train/bus train/train test/bus test/train", "train:bus train:train test:bus test:train"),
        ("train train/cat test/cat", "train:None train:cat test:cat"),
        ("train/cat", "train:cat"),
        ("train test", "train:None test:None"),
    ],
)
def test_known_layouts(folders, roles):
    assert read(folders) == roles


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ("train/cat test/cat unlabeled/cat", "'train' is named like a split, and 'unlabeled' is not"),
        ("train/cat test/cat unlabeled", r"declare source.split_names: {'t\w+': none} .* {'unlabeled': ignore}"),
        ("bus car train", "'train' is named like a split, and 'bus' is not"),
        ("seg_train/cat seg_test/cat seg_pred", "'seg_train' is named like a split, and 'seg_pred' is not"),
        ("cat/train cat/test dog", "'cat/train' is named like a split, and 'dog' is not"),
        ("train/cat train/val/cat test/cat", "'train/val' is named like a split, and 'train/cat' is not"),
        ("train/cat train/dog test/test", "'test/test' is named like a split, and 'train/cat' is not"),
        ("train/test/cat test/train/cat", "'train/test/cat' names the splits test and train"),
        (
            "a/train/cat a/test/cat b/train/cat b/test/cat",
            "'a/train/cat' a folder is named like a split, and the class",
        ),
        ("photos/train/cat photos/test/cat", "give the folder above the splits as source.path"),
        ("cat/old/train dog/old/test", "the class may be another one"),
        ("train/cat val/cat dev/cat", "both mean the validation split"),
    ],
)
def test_unclear_layouts_are_refused_with_the_choices(folders, words):
    with pytest.raises(InputError, match=f"^photos: .*{words}"):
        read(folders)


@pytest.mark.parametrize(
    ("folders", "names", "roles"),
    [
        ("bus train", {"train": "none"}, "None:bus None:train"),
        ("train/cat test/cat extra/cat", {"extra": "ignore"}, "train:cat test:cat ignore:None"),
        ("train/cat test/cat Extra/cat", {"extra": "train"}, "train:cat test:cat train:cat"),
        ("a/cat b/cat", {"a": "train", "b": "validation"}, "train:cat validation:cat"),
        ("train/cat val/cat dev/cat", {"dev": "test"}, "train:cat validation:cat test:cat"),
    ],
)
def test_declared_meanings_of_folders(folders, names, roles):
    assert read(folders, names) == roles


def test_folders_of_images_that_are_labelled_elsewhere():
    assert [role.split for role in read_layout(["a/train", "b/test"], None, "x", labelled=True)] == ["train", "test"]
    with pytest.raises(InputError, match=r"'train' is named like a split, and '.' is not"):
        read_layout(["train", "test", ""], None, "photos", labelled=True)


@pytest.mark.parametrize(
    ("images", "folder", "label"),
    [
        ("cat dog", "bird/old", "bird"),
        ("cat dog", "", None),
        ("train/cat test/cat", "train/bird", "bird"),
        ("train/cat test/cat", "train", None),
        ("train/cat test/cat", "docs/more", None),
        ("cat/train cat/test", "bird", "bird"),
        ("train/train/cat test/test/cat", "test/test/bird", "bird"),
        ("train/cat test/cat", "extra/bird", None),
    ],
)
def test_the_class_folder_of_what_is_not_an_image(images, folder, label):
    names = {"extra": "ignore"}
    assert class_folder(folder, find_split_levels(images.split(), names, "x"), names) == label
