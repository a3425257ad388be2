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
    path.parent.mkdir(exist_ok=True)
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
    assert listed["problem"].dropna().tolist() == ["has no label"]


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
        (structs(1, 2), ["cat", "dog"], {"split": "label"}, "split 'cat': allowed"),
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
