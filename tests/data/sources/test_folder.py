"""A folder on this machine: classes, given splits, patterns, links, odd names, and many files."""

import os
import time

import pytest

from tests.data.sources.conftest import LABELS, TREE, labels_of, png, write_tree
from tl_dagster import InputError
from tl_dagster.data import files

ODD_NAMES = [
    b"a b.png",
    b"new\nline.png",
    b"a|b.png",
    b"<script>.png",
    b"#1.png",
    b"%41.png",
    b"a::b.png",
    b"a@1+2.png",
    "\N{SNOWMAN}\N{GRINNING FACE}.png".encode(),
    b"\xff\xfe.png",
]


def test_sub_folders_are_classes(photos, listing):
    listed = listing("folder", "photos")
    assert labels_of(listed) == {"functional": 30, "defective": 30}
    assert listed["uri"].is_monotonic_increasing


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "validation"), ("train_set", "dev")])
def test_given_splits(tmp_path, listing, names):
    for name in names:
        write_tree(tmp_path / "given" / name)
    listed = listing("folder", "given")
    assert listed["split"].value_counts().to_dict() == {"train": 6, "validation": 6}
    assert labels_of(listed) == {"cat": 6, "dog": 6}


def test_a_class_may_be_called_test_when_that_is_declared(tmp_path, listing):
    write_tree(tmp_path / "photos").joinpath("cat").rename(tmp_path / "photos" / "test")
    with pytest.raises(InputError, match=r"'test' is named like a split, and 'dog' is not; declare source.split_names"):
        listing("folder", "photos")
    listed = listing("folder", "photos", split_names={"test": "none"})
    assert labels_of(listed) == {"test": 3, "dog": 3} and listed["split"].isna().all()


def test_a_folder_beside_the_splits_is_refused_or_left_out_as_declared(tmp_path, listing):
    for name in ("train", "test", "unlabeled"):
        write_tree(tmp_path / "given" / name)
    with pytest.raises(InputError, match="given: the folder 'test' is named like a split, and 'unlabeled' is not"):
        listing("folder", "given")
    listed = listing("folder", "given", split_names={"unlabeled": "ignore"})
    assert labels_of(listed) == {"cat": 6, "dog": 6} and set(listed["split"]) == {"train", "test"}
    assert listed.attrs["skipped"][0][:2] == ("", "left out by source.split_names")
    assert listed.attrs["skipped"][0].entries == 6


def test_splits_below_the_classes_count(tmp_path, listing):
    tree = {name.replace("/", f"/{part}/"): content for part in ("train", "test") for name, content in TREE.items()}
    write_tree(tmp_path / "photos", tree)
    listed = listing("folder", "photos")
    assert labels_of(listed) == {"cat": 6, "dog": 6}
    assert listed["split"].value_counts().to_dict() == {"train": 6, "test": 6}


def test_splits_without_training_images_are_refused(tmp_path, listing):
    for name in ("val", "test"):
        write_tree(tmp_path / "given" / name)
    with pytest.raises(InputError, match="given gives images of the test and validation split and none to train on"):
        listing("folder", "given")


@pytest.mark.parametrize("names", ["train_{}.png test_{}.png", "{}-Train.png {}-val.jpg", "train{}.png dev{}.png"])
def test_splits_in_the_names_of_all_images_are_refused(tmp_path, listing, names):
    tree = {f"{label}/{name.format(7)}": b"" for label in ("cat", "dog") for name in names.split()}
    write_tree(tmp_path / "photos", tree)
    with pytest.raises(
        InputError, match=r"photos: the names of all images hold splits \(.*\); declare a source.pattern"
    ):
        listing("folder", "photos")
    pattern = r"(?P<label>cat|dog)/.*(?P<split>[Tt]rain|test|val|dev)"
    assert "train" in set(listing("folder", "photos", pattern=pattern)["split"])
    write_tree(tmp_path / "photos", {"cat/other.png": b""})
    assert listing("folder", "photos")["split"].isna().all()


def test_a_pattern_without_a_split_leaves_it_to_the_folders(tmp_path, listing):
    names = {f"{part}/{name.replace('/', '.')}": b"" for part in ("train", "test") for name in TREE}
    write_tree(tmp_path / "flat", names)
    pattern = r"(?P<label>cat|dog)\.\d"
    assert listing("folder", "flat", pattern=pattern)["split"].value_counts().to_dict() == {"train": 6, "test": 6}
    drawn = listing("folder", "flat", pattern=pattern, split_names={"train": "none", "test": "none"})
    assert drawn["split"].isna().all() and labels_of(drawn) == {"cat": 6, "dog": 6}
    assert listing("folder", "flat/test", pattern=pattern)["split"].isna().all()
    write_tree(tmp_path / "flat", {"more/cat.7.png": b""})
    with pytest.raises(InputError, match="'test' is named like a split, and 'more' is not"):
        listing("folder", "flat", pattern=pattern)


def test_what_is_not_looked_at_is_counted_with_its_reason(tmp_path, listing):
    write_tree(
        tmp_path / "photos", {**TREE, "cat/notes.txt": b"", "cat/.DS_Store": b"", ".git/x.png": b"", "x.png": b""}
    )
    listed = listing("folder", "photos")
    assert listed.attrs["skipped"] == [
        ("", "hidden, or a system's own", ".git", 1),
        ("cat", "hidden, or a system's own", "cat/.DS_Store", 1),
        ("cat", "not an image by its name", "cat/notes.txt", 1),
    ]
    assert listed.loc[listed["problem"].notna(), "problem"].tolist() == ["lies in no class's folder"]


def test_pattern_for_a_flat_folder(tmp_path, listing):
    write_tree(
        tmp_path / "flat", {name.replace("/", "."): content for name, content in TREE.items()} | {"odd.png": b""}
    )
    listed = listing("folder", "flat", pattern=r"^(?P<label>\w+)\.(?P<group>\d)\.png$")
    assert labels_of(listed) == LABELS
    assert set(listed["group"].dropna()) == {"0", "1", "2"}
    assert listed["problem"].dropna().str.contains("does not match the path").tolist() == [True]


def test_a_pattern_that_finds_an_empty_label_is_no_label(tmp_path, listing):
    write_tree(tmp_path / "flat", {"cat.0.png": b"", "dog.0.png": b"", ".0.png": b"", "x/.png": b"", "1.0.png": b""})
    assert labels_of(listing("folder", "flat", pattern=r"(?P<label>[a-z]*)\.0")) == {"cat": 1, "dog": 1}


def test_links_out_of_the_folder(tmp_path, listing):
    write_tree(tmp_path / "photos")
    (write_tree(tmp_path / "elsewhere") / "cat").rename(tmp_path / "elsewhere" / "bird")
    (tmp_path / "photos" / "bird").symlink_to(tmp_path / "elsewhere" / "bird")
    (tmp_path / "photos" / "cat" / "9.png").symlink_to(tmp_path / "elsewhere" / "dog" / "0.png")
    listed = listing("folder", "photos")
    assert labels_of(listed) == LABELS
    assert listed["problem"].dropna().str.startswith("a link out of the folder").tolist() == [True, True]
    assert labels_of(listing("folder", "photos", follow_links=True)) == {"bird": 3, "cat": 4, "dog": 3}


def test_two_links_to_one_folder_are_two_folders(tmp_path, listing):
    for name in ("train", "val"):
        (tmp_path / "given").mkdir(exist_ok=True)
        (tmp_path / "given" / name).symlink_to(write_tree(tmp_path / "photos"))
    listed = listing("folder", "given", follow_links=True)
    assert listed["split"].value_counts().to_dict() == {"train": 6, "validation": 6}


def test_link_loops_and_links_to_nowhere(tmp_path, listing):
    folder = write_tree(tmp_path / "photos")
    (folder / "cat" / "up").symlink_to(folder)
    (folder / "cat" / "self.png").symlink_to(folder / "cat" / "self.png")
    (folder / "cat" / "gone.png").symlink_to(folder / "nothing.png")
    listed = listing("folder", "photos", follow_links=True)
    assert labels_of(listed) == LABELS
    assert listed["problem"].dropna().tolist() == ["a link that leads nowhere"] * 2


def test_a_pipe_is_not_opened(tmp_path, listing):
    folder = write_tree(tmp_path / "photos")
    os.mkfifo(folder / "cat" / "pipe.png")
    assert len(listing("folder", "photos")) == len(TREE)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(tmp_path, listing, name):
    for number, label in enumerate((b"cat", name.removesuffix(b".png"))):
        write_tree(tmp_path / "photos", {os.fsdecode(label + b"/" + name): png(number)})
    listed = listing("folder", "photos")
    assert labels_of(listed).get("cat") == 1 and len(listed) == 2
    assert {files.read(uri) for uri in listed["uri"]} == {png(0), png(1)}


def test_ten_thousand_files_in_one_folder(tmp_path, listing):
    write_tree(tmp_path / "photos")
    for number in range(10_000):
        (tmp_path / "photos" / "dog" / f"n{number}.png").touch()
    began = time.monotonic()
    assert labels_of(listing("folder", "photos"))["dog"] == 10_003
    assert time.monotonic() - began < 10


def test_stamps_change_with_files_and_are_missing_while_they_are_fresh(tmp_path, listing, monkeypatch):
    folder = write_tree(tmp_path / "photos")
    assert listing("folder", "photos")["stamp"].isna().all()
    monkeypatch.setattr(files, "SETTLED_SECONDS", -1.0)
    before = listing("folder", "photos").set_index("uri")["stamp"]
    (folder / "cat" / "0.png").write_bytes(b"changed")
    now = listing("folder", "photos").set_index("uri")["stamp"]
    assert before.notna().all() and before[before != now].index.tolist() == [str(folder / "cat" / "0.png")]


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (None, "no folder"),
        ({}, "holds no images"),
        ({"cat/a.png": b""}, "single class, 'cat'"),
        ({"a.png": b""}, "holds no images, the first of 1 files: lies in no class's folder"),
    ],
)
def test_bad_folders(tmp_path, listing, tree, words):
    if tree is not None:
        (tmp_path / "photos").mkdir()
        write_tree(tmp_path / "photos", tree)
    with pytest.raises(InputError, match=words):
        listing("folder", "photos")


def test_a_folder_by_its_file_address(tmp_path, listing):
    write_tree(tmp_path / "photos")
    assert labels_of(listing("folder", f"file://{tmp_path}/photos")) == LABELS


def test_an_image_that_is_too_large_is_not_read(tmp_path):
    path = write_tree(tmp_path, {"a.png": png(1)}) / "a.png"
    with pytest.raises(OSError, match="too large"):
        files.read(str(path), 10)
