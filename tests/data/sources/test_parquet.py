"""Parquet files of image bytes: Hugging Face's layout and plain columns, splits, and what is missing in them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.sources.conftest import labels_of, png
from tl_dagster import InputError
from tl_dagster.data import files

NAMES = {"label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}


def write(path, images, labels, features=NAMES, **columns):
    table = pa.table({"image": images, "label": labels, **columns})
    if features is not None:
        described = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({b"huggingface": described.encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def structs(*values):
    return [{"bytes": png(value), "path": f"{value}.png"} for value in values]


def test_layout_of_hugging_face(tmp_path, listing):
    write(tmp_path / "photos.parquet", structs(1, 2, 3), [0, 1, 1])
    listed = listing("parquet", "photos.parquet")
    assert labels_of(listed) == {"cat": 1, "dog": 2}
    assert [files.read(uri) for uri in listed["uri"]] == [png(1), png(2), png(3)]


def test_given_splits_from_file_names(tmp_path, listing):
    for part, values in (("train", (1, 2)), ("validation", (3, 4)), ("test", (5, 6))):
        write(tmp_path / "data" / f"{part}-00000-of-00001.parquet", structs(*values), [0, 1])
    listed = listing("parquet", "data")
    assert listed["split"].value_counts().to_dict() == {"train": 2, "validation": 2, "test": 2}
    for path, count in (("data/t*.parquet", 4), ("data/{train,test}-00000-of-00001.parquet", 4)):
        assert len(listing("parquet", path)) == count


@pytest.mark.parametrize(
    "names",
    [
        ("default/train/0000", "default/validation/0000", "default/test/0000"),
        ("train/0", "val/0", "test/0"),
        ("mnist-train.0", "mnist_dev_0", "mnist-eval"),
        ("partial-train/0000", "valid/0000", "holdout/0000"),
        ("train/train-000", "val/val-000", "test/test-000"),
    ],
)
def test_given_splits_from_folders_and_words_of_names(tmp_path, listing, names):
    for number, name in enumerate(names):
        write(tmp_path / "my-test-set" / f"{name}.parquet", structs(2 * number, 2 * number + 1), [0, 1])
    listed = listing("parquet", "my-test-set")
    assert listed["split"].value_counts().to_dict() == {"train": 2, "validation": 2, "test": 2}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("train-0", "extra-0"), "'train-0.parquet' names a split and 'extra-0.parquet' does not; .*{'extra': …}"),
        (("train/0", "unsup/0"), "'train/0.parquet' names a split and 'unsup/0.parquet' does not; .*{'unsup': …}"),
        (("train/test-0", "test/train-0"), "names two splits"),
        (("train-test-0", "train-0"), "'train-test-0.parquet' names two splits"),
        (("train-0", "val-0", "dev-0"), "both mean the validation split"),
        (("test-0", "val-0"), "none to train on"),
    ],
)
def test_files_whose_splits_are_unclear_are_refused(tmp_path, cache_folder, listing, names, words):
    for number, name in enumerate(names):
        write(tmp_path / "data" / f"{name}.parquet", structs(2 * number, 2 * number + 1), [0, 1])
    with pytest.raises(InputError, match=f"data:? .*{words}"):
        listing("parquet", "data")


def test_declared_meanings_of_files(tmp_path, listing):
    for number, name in enumerate(("train-00000-of-00001", "train_small-00000-of-00001", "unsup-0", "more-0")):
        write(tmp_path / "data" / f"{name}.parquet", structs(2 * number, 2 * number + 1), [0, 1])
    names = {"train_small": "ignore", "unsup": "ignore", "more": "validation"}
    listed = listing("parquet", "data", split_names=names)
    assert listed["split"].value_counts().to_dict() == {"train": 2, "validation": 2}
    assert [each.entries for each in listed.attrs["skipped"]] == [2]


def test_a_column_of_splits_that_is_not_declared_is_refused(tmp_path, listing):
    for part, values in (("train", (1, 2)), ("test", (3, 4))):
        write(tmp_path / "data" / f"{values[0]}.parquet", structs(*values), [0, 1], split=[part, part])
    with pytest.raises(InputError, match=r"data: column 'split' looks like splits \('test', 'train'\)"):
        listing("parquet", "data")
    assert set(listing("parquet", "data", split="split")["split"]) == {"train", "test"}


def test_splits_of_all_files_are_read_together(tmp_path, listing):
    for part, values in (("train", (1, 2)), ("eval", (3, 4)), ("test", (5, 6))):
        write(tmp_path / "data" / f"{values[0]}.parquet", structs(*values), [0, 1], part=[part, part])
    listed = listing("parquet", "data", split="part")
    assert listed["split"].value_counts().to_dict() == {"train": 2, "validation": 2, "test": 2}


def test_lists_of_labels_are_refused(tmp_path, cache_folder, listing):
    features = {"label": {"feature": NAMES["label"], "_type": "Sequence"}}
    write(tmp_path / "photos.parquet", structs(1, 2), [[0, 1], [1]], features)
    with pytest.raises(InputError, match=r"photos.parquet: column 'label' holds lists, but a classifier"):
        listing("parquet", "photos.parquet")
    write(tmp_path / "texts.parquet", structs(1, 2, 3), ["cat", "dog", "cat|dog"], None)
    with pytest.raises(InputError, match=r"texts.parquet: label 'cat\|dog' is several in one cell"):
        listing("parquet", "texts.parquet")
    assert not cache_folder.exists()  # nothing was copied before


def test_plain_bytes_numbers_without_names_groups_and_splits(tmp_path, listing):
    columns = {"who": ["a", None, "b"], "part": ["train", "val", "test"]}
    write(tmp_path / "photos.parquet", [png(1), png(2), png(3)], [7, 8, None], None, **columns)
    listed = listing("parquet", "photos.parquet", group="who", split="part")
    assert listed["label"].tolist() == ["7", "8", ""]
    assert listed["problem"].dropna().tolist() == ["has no label"]
    assert listed["group"].fillna("-").tolist() == ["a", "-", "b"]
    assert listed["split"].tolist() == ["train", "validation", "test"]


def test_null_bytes_and_labels_without_a_name(tmp_path, listing):
    images = [*structs(1, 2), None, {"bytes": None, "path": "x.png"}, *structs(5)]
    listed = listing("parquet", write(tmp_path / "photos.parquet", images, [0, 1, 1, 1, -1]))
    assert [files.read(uri) for uri in listed["uri"]] == [png(1), png(2), b"", b"", png(5)]
    problems = listed["problem"].fillna("").str.partition(" (")[0].tolist()
    lacking = "holds no image, but perhaps its path; write the bytes into the files, or declare kind: manifest"
    assert problems == ["", "", lacking, lacking, "has no label"]


def test_paths_without_bytes_are_refused_with_the_file_and_the_mend(tmp_path, listing):
    images = [{"bytes": None, "path": f"cat/{number}.png"} for number in range(4)]
    write(tmp_path / "photos.parquet", images, [0, 1, 0, 1])
    with pytest.raises(InputError, match=r"photos.parquet holds no images.*but perhaps its path; write the bytes"):
        listing("parquet", "photos.parquet")


@pytest.mark.parametrize("path", ["../../out.png", "/out.png", "..", ".", "", "a/\n<script>.png", "x" * 500])
def test_no_name_in_a_row_leads_anywhere(tmp_path, cache_folder, listing, path):
    images = [{"bytes": png(1), "path": path}, {"bytes": png(2), "path": None}]
    listed = listing("parquet", write(tmp_path / "photos.parquet", images, [0, 1]))
    assert [files.read(uri) for uri in listed["uri"]] == [png(1), png(2)]
    assert [file.name for file in cache_folder.rglob("*") if file.is_file()] == ["photos.tar"]


def test_a_changed_file_is_copied_again(tmp_path, listing):
    write(tmp_path / "photos.parquet", structs(1, 2), [0, 1])
    before = listing("parquet", "photos.parquet")["uri"].tolist()
    write(tmp_path / "photos.parquet", structs(3, 4), [0, 1])
    now = listing("parquet", "photos.parquet")["uri"].tolist()
    assert before != now and [files.read(uri) for uri in now] == [png(3), png(4)]


@pytest.mark.parametrize(
    ("images", "labels", "fields", "words"),
    [
        (structs(1, 2), [0, 1], {"image": "imge"}, "source.image: .*did you mean 'image'"),
        (structs(1, 2), [0, 1], {"group": "who"}, "source.group: .* no column 'who'"),
        (["a", "b"], [0, 1], {}, "holds str, not bytes"),
        (structs(1, 2), [0, 0], {}, "single class, 'cat'"),
        (structs(1, 2), ["cat", "dog"], {"split": "label"}, "split 'cat' is not known: allowed"),
    ],
)
def test_bad_files(tmp_path, listing, images, labels, fields, words):
    write(tmp_path / "photos.parquet", images, labels, NAMES if labels[0] == 0 else None)
    with pytest.raises(InputError, match=words):
        listing("parquet", "photos.parquet", **fields)


def corrupt(path):
    content = bytearray(path.read_bytes())
    content[100:300] = b"\xff" * 200
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [corrupt, lambda path: path.write_bytes(b"PAR1"), lambda path: path.write_bytes(b"")]
)
def test_damaged_files(tmp_path, cache_folder, listing, damage):
    damage(write(tmp_path / "photos.parquet", structs(*range(40)), [0, 1] * 20))
    with pytest.raises(InputError, match=r"photos.parquet is a damaged Parquet file"):
        listing("parquet", "photos.parquet")
    assert not [file for file in cache_folder.rglob("*") if file.is_file()]


def test_metadata_that_is_no_json(tmp_path, listing):
    table = pa.table({"image": structs(1, 2), "label": [0, 1]}).replace_schema_metadata({b"huggingface": b"{"})
    pq.write_table(table, tmp_path / "photos.parquet")
    with pytest.raises(InputError, match="damaged Parquet file"):
        listing("parquet", "photos.parquet")


@pytest.mark.parametrize("path", ["nowhere.parquet", "empty", "empty/*.parquet", "a{b"])
def test_missing_files(tmp_path, listing, path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"source.path: .*(no file or folder|holds no .parquet files|[Uu]nbalanced)"):
        listing("parquet", path)
