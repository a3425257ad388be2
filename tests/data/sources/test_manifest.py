"""Tables of images: formats, columns, bins, addresses, and how a bad table is refused."""

import os

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.sources.conftest import labels_of, png, write_tree
from tl_dagster import InputError
from tl_dagster.data import files, image_tables
from tl_dagster.data.sources.manifest import ManifestSource


def test_elpv_as_declared(listing):
    bins = {"edges": [0.5], "names": ["functional", "defective"], "soft_targets": True}
    columns = ["image", "probability", "module"]
    fields = {"package": "elpv_dataset", "separator": "whitespace", "uri": "image", "label": "probability"}
    listed = listing("manifest", "data/labels.csv", columns=columns, bins=bins, **fields)
    assert labels_of(listed) == {"functional": 1803, "defective": 821}
    assert listed["confidence"].round(3).value_counts().to_dict() == {1.0: 2223, 0.667: 401}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "csv.gz"])
def test_formats(tmp_path, listing, suffix):
    rows = [["a.png", "x", "m1", "train"], ["b.png", "y", "m2", "test"]]
    table = pd.DataFrame(rows, columns=["file", "kind", "cell", "part"])
    path = tmp_path / f"images.{suffix}"
    separator = "\t" if suffix == "tsv" else ","
    table.to_parquet(path) if suffix == "parquet" else table.to_csv(path, sep=separator, index=False)
    write_tree(tmp_path, {"a.png": png(1), "b.png": png(2)})
    listed = listing("manifest", path, uri="file", label="kind", group="cell", split="part")
    assert listed["uri"].tolist() == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert listed[["label", "group", "split"]].to_numpy().tolist() == [row[1:] for row in rows]


def test_names_are_not_guessed_to_be_numbers(tmp_path, listing):
    write_tree(tmp_path, {"images.csv": b"uri,label,group\na.png,None,001\nb.png,y,\n", "a.png": b"", "b.png": b""})
    listed = listing("manifest", "images.csv", group="group")
    assert listed["group"].tolist()[0] == "001" and pd.isna(listed["group"].tolist()[1])
    assert listed["label"].tolist() == ["None", "y"]


def test_addresses_relative_absolute_and_of_another_root(tmp_path, listing):
    write_tree(tmp_path / "in", {"a b.png": png(1), "%41.png": png(2), os.fsdecode(b"\xff.png"): png(3)})
    rows = ["a b.png,x", "./../in/%41.png,y", f"{tmp_path}/in/a b.png,x", f"file://{tmp_path}/in/%FF.png,y"]
    (tmp_path / "images.csv").write_text("\n".join(["uri,label", *rows]))
    listed = listing("manifest", "images.csv", root="in")
    assert sorted(files.read(uri) for uri in listed["uri"]) == sorted([png(1), png(1), png(2), png(3)])


def test_blanks_around_values_and_names_of_columns_do_not_count(tmp_path, listing):
    table = b'uri, label ,group,split\na.png, "cat, big",m1,train\nb.png,"cat, big" , m1, val \nc.png,dog , ,\n'
    write_tree(tmp_path, {"images.csv": table, "a.png": b"", "b.png": b"", "c.png": b""})
    listed = listing("manifest", "images.csv", group="group", split="split")
    assert labels_of(listed) == {"cat, big": 2, "dog": 1}
    assert listed["group"].tolist()[:2] == ["m1", "m1"] and pd.isna(listed["group"].tolist()[2])
    assert listed["split"].tolist()[:2] == ["train", "validation"] and pd.isna(listed["split"].tolist()[2])


def test_separators_at_the_ends_of_lines_are_no_values(tmp_path, listing):
    write_tree(tmp_path, {"images.csv": b"uri,label\na.png,x,\nb.png,y,\n", "a.png": b"", "b.png": b""})
    assert labels_of(listing("manifest", "images.csv")) == {"x": 1, "y": 1}


def test_pattern_instead_of_a_label_column(tmp_path, listing):
    write_tree(tmp_path, {"cat.0.png": b"", "dog.0.png": b"", "images.csv": b"uri\ncat.0.png\ndog.0.png\n7.png\n"})
    listed = listing("manifest", "images.csv", pattern=r"(?P<label>[a-z]+)\.\d")
    assert labels_of(listed) == {"cat": 1, "dog": 1}
    assert listed["problem"].dropna().str.contains("does not match").tolist() == [True]


def write_table(folder, folders=("", "", "", ""), values=("a", "b", "c", "d"), column="x", more=()) -> None:
    """Four images and their table, of two classes by turns, with one further column; and further rows."""
    paths = [f"{place}{number}.png" for number, place in enumerate(folders)]
    rows = [f"{path},{label},{value}" for path, label, value in zip(paths, ("cat", "dog") * 2, values, strict=True)]
    (folder / "t.csv").write_text("\n".join([f"uri,label,{column}", *rows, *more]))
    write_tree(folder, dict.fromkeys((*paths, "a.png", "b.png"), b""))


@pytest.mark.parametrize("values", [("train", "train", "dev", "holdout"), ("Training", "train", "Val", "test_set")])
def test_a_column_of_splits_by_the_names_of_the_field(tmp_path, listing, values):
    write_table(tmp_path, values=values)
    frame = listing("manifest", "t.csv", split="x")
    assert frame["split"].tolist() == ["train", "train", "validation", "test"]


def test_declared_meanings_of_a_column_of_splits(tmp_path, listing):
    write_table(tmp_path, values=("0", "0", "1", "-1"))
    with pytest.raises(InputError, match=r"t.csv: split '0' is not known: .*source.split_names: {'0': …}"):
        listing("manifest", "t.csv", split="x")
    frame = listing("manifest", "t.csv", split="x", split_names={"0": "train", "1": "none", "-1": "ignore"})
    assert frame["split"].fillna("").tolist() == ["train", "train", ""] and frame.attrs["skipped"][0].entries == 1
    numbers = listing(
        "manifest", "t.csv", split="x", split_names={0: "train", 1: "test", -1: "none"}
    )  # as YAML has them
    assert numbers["split"].fillna("").tolist() == ["train", "train", "test", ""]


@pytest.mark.parametrize("values", [("train", "train", "val", "test"), ("0", "1", "0", "1")])
def test_a_column_of_splits_that_is_not_declared_is_refused(tmp_path, listing, values):
    name = "subset" if values[0] == "train" else "is_train"
    write_table(tmp_path, values=values, column=name)
    with pytest.raises(InputError, match=f"t.csv: column '{name}' looks like splits .*declare source.split: {name}"):
        listing("manifest", "t.csv")
    drawn = listing("manifest", "t.csv", split=name, split_names=dict.fromkeys(values, "none"))
    assert drawn["split"].isna().all()


def test_splits_in_the_paths_of_a_table_count_or_are_refused(tmp_path, listing):
    write_table(tmp_path, ("train/", "train/", "val/", f"{tmp_path}/test/"))
    assert listing("manifest", "t.csv")["split"].tolist() == ["test", "train", "train", "validation"]
    write_table(tmp_path, ("train/", "train/", "more/", "test/"))
    with pytest.raises(InputError, match=r"t.csv: the folder 'train' is named like a split, and 'more' is not"):
        listing("manifest", "t.csv")
    for folders in (("test/",) * 4, ("",) * 4, (f"{tmp_path}/train/in/",) * 4):
        write_table(tmp_path, folders)
        assert listing("manifest", "t.csv")["split"].isna().all()


@pytest.mark.parametrize(
    "cell", ["[cat dog]", "['cat', 'dog']", "cat|dog", "cat;bird", "dog, cat", "cat dog", "cat/dog"]
)
def test_cells_of_several_labels_are_refused(tmp_path, listing, cell):
    write_table(tmp_path, more=[f'a.png,"{cell}",e', 'b.png,"cow;bird",f'])
    with pytest.raises(InputError, match=r"t.csv: label '.*' is .*, but a classifier gives each image one class"):
        listing("manifest", "t.csv")


@pytest.mark.parametrize("cell", ["great white shark", "cat (big, old)", "A+", "yes/no", "rock & roll", "New York, NY"])
def test_names_of_several_words_are_one_class(tmp_path, listing, cell):
    write_table(tmp_path, more=[f'a.png,"{cell}",e'])
    assert cell in set(listing("manifest", "t.csv")["label"])


def test_a_column_of_lists_is_refused(tmp_path, listing):
    pq.write_table(pa.table({"uri": ["a.png", "b.png"], "label": [["cat"], ["dog"]]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"t.parquet: column 'label' holds lists, but a classifier"):
        listing("manifest", "t.parquet")


def test_what_is_missing_or_no_file_is_set_aside(tmp_path, listing):
    os.mkfifo(tmp_path / "pipe.png")
    rows = b"uri,label\na.png,x\nb.png,y\ngone.png,x\npipe.png,x\n.,x\n"
    write_tree(tmp_path, {"a.png": b"", "b.png": b"", "images.csv": rows})
    problems = listing("manifest", "images.csv").set_index("uri")["problem"].dropna().sort_index()
    reasons = ["not a file", "No such file or directory", "not a file"]
    assert problems.tolist() == [f"cannot be read: {reason}" for reason in reasons]


@pytest.mark.parametrize(
    ("content", "fields", "words"),
    [
        (b"uri,label\na.png,x\n", {}, "single class"),
        (b"uri,label\n", {}, "holds no images"),
        (b"", {}, "cannot be read as a table"),
        (b"uri,class\na.png,x\n", {}, "no column 'label': allowed: uri, class"),
        (b"uri,label\na.png,x\n,y\n", {}, "row 2 has an empty"),
        (b"uri,label\na.png,x\nb.png,2\n", {"bins": {"edges": [1.0], "names": ["a", "b"]}}, "'x' is not a number"),
        (b"uri,label,s\na.png,x,trian\n", {"split": "s"}, "did you mean 'train'"),
        (b"uri,label\n\xff.png,x\n", {}, "cannot be read as a table"),
        (
            b"uri,label\na.png,shark, white\nb.png,ray, manta\n",
            {},
            "more values than the 2 columns uri, label.*quote each",
        ),
        (b"uri,label\na.png,shark, white\nb.png,ray\n", {}, "quote each value that holds the separator"),
        (b"uri,label\na.png,shark\nb.png,ray, manta\n", {}, "Expected 2 fields in line 3, saw 3.*quote each value"),
        (b"uri,label,\na.png,shark,\nb.png,ray, manta\n", {}, "row 2 has a value in a column without a name"),
        (b"uri label\na.png great white\nb.png ray manta\n", {"separator": "whitespace"}, "quote each value"),
        (b"a.png,x,1\nb.png,y,2\n", {"columns": ["uri", "label"]}, "check `separator` and `columns`"),
        (b"uri,label, label\na.png,x,y\nb.png,y,x\n", {}, "two columns are called 'label'"),
        (b'uri,label\na.png,"x\nb.png,y\n', {}, "EOF inside string"),
        (b'uri,label\na.png,"x\nb.png,y\n",z\nc.png,y\n', {}, "quote each value"),
        (b'uri,label\na.png,"x\nb.png,y"\nc.png,y\n', {}, "'label' of row 1 goes on over several lines"),
        (b"uri,label\na.png,x\nb.png,  \n", {}, "row 2 has an empty"),
    ],
)
def test_bad_tables(tmp_path, listing, content, fields, words):
    write_tree(tmp_path, {"images.csv": content, "a.png": b"", "b.png": b""})
    with pytest.raises(InputError, match=words):
        listing("manifest", "images.csv", **fields)


@pytest.mark.parametrize("name", ["t.parquet", "t.csv.gz", "t.csv.zip", "t.csv.xz"])
def test_damaged_tables(tmp_path, listing, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08 neither of them")
    with pytest.raises(InputError, match=f"{name} cannot be read as a table"):
        listing("manifest", name)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.xz", ".parquet"])
def test_tables_that_would_fill_the_memory(tmp_path, listing, suffix, monkeypatch):
    monkeypatch.setattr(image_tables, "MAX_TABLE", 100_000)
    table = pd.DataFrame({"uri": [f"{number}.png" for number in range(20_000)], "label": ["x", "y"] * 10_000})
    name = f"t{suffix}"
    table.to_parquet(tmp_path / name) if suffix == ".parquet" else table.to_csv(tmp_path / name, index=False)
    with pytest.raises(InputError, match=rf"{name} is too large: over 100,000 bytes; cut it"):
        listing("manifest", name)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "no file .*nowhere.csv"),
        ({"package": "not_installed"}, "pip install not-installed"),
        ({"package": "not_installed.part"}, "'not_installed.part' is not installed"),
    ],
)
def test_missing_tables(listing, fields, words):
    with pytest.raises(InputError, match=words):
        listing("manifest", "nowhere.csv", **fields)


def test_an_empty_group_in_parquet_does_not_rename_the_others(tmp_path, listing):
    rows = {"uri": ["a.png", "b.png", "c.png"], "label": ["x", "y", "y"], "group": [1, 2, None]}
    pq.write_table(pa.table(rows), tmp_path / "images.parquet")
    write_tree(tmp_path, {name: png(number) for number, name in enumerate(rows["uri"])})
    listed = listing("manifest", "images.parquet", group="group")
    assert listed["group"].tolist()[:2] == ["1", "2"] and pd.isna(listed["group"].tolist()[2])


PHOTOS = {"cat/0.png": png(0), "dog/1.png": png(1)}


def test_paths_with_backslashes(tmp_path, listing):
    write_tree(tmp_path, {**PHOTOS, "odd\\name.png": png(2)})
    (tmp_path / "t.csv").write_text("uri\ncat\\0.png\ndog\\1.png\nodd\\name.png\n")
    listed = listing("manifest", "t.csv", pattern=r"(?P<label>[^/]+)/")
    assert labels_of(listed) == {"cat": 1, "dog": 1}
    assert sorted(files.read(uri) for uri in listed["uri"]) == sorted([png(0), png(1), png(2)])


def test_paths_of_a_home_folder(tmp_path, listing, monkeypatch):
    monkeypatch.setenv("HOME", str(write_tree(tmp_path / "home", PHOTOS)))
    (tmp_path / "t.csv").write_text("uri,label\n~/cat/0.png,x\n~/dog/1.png,y\n")
    assert labels_of(listing("manifest", "t.csv")) == {"x": 1, "y": 1}


@pytest.mark.parametrize("path", ["C:\\photos\\0.png", "d:/photos/0.png", "\\\\server\\photos\\0.png"])
def test_paths_of_a_windows_machine_are_refused_with_the_mend(tmp_path, listing, path):
    (tmp_path / "t.csv").write_text(f"uri,label\n{path},x\n{path}2,y\n")
    with pytest.raises(
        InputError, match=r"t.csv holds no images, .*: a path of a Windows machine; write it relative to"
    ):
        listing("manifest", "t.csv")


@pytest.mark.parametrize(
    ("encoding", "guess"), [("cp1252", "cp125"), ("utf-16", "utf-16"), ("shift_jis", "(cp932|shift)")]
)
def test_a_table_of_another_encoding(tmp_path, listing, encoding, guess):
    write_tree(tmp_path, PHOTOS)
    labels = ("ねこの写真", "いぬの写真") if encoding == "shift_jis" else ("Käfer und Blüten", "Vögel über Bäumen")
    rows = "".join(f"{path},{label}\n" for path, label in zip(PHOTOS, labels, strict=True))
    (tmp_path / "t.csv").write_text(f"uri,label\n{rows}", encoding=encoding)
    with pytest.raises(InputError, match=rf"t.csv cannot be read as a table: it is not UTF-8; .*perhaps to {guess}"):
        listing("manifest", "t.csv")
    assert set(listing("manifest", "t.csv", encoding=encoding)["label"]) == set(labels)


def test_an_encoding_that_there_is_not(listing):
    with pytest.raises(ValueError, match="'klingon' is not an encoding"):
        listing("manifest", "t.csv", encoding="klingon")


def test_an_encoding_that_is_not_given_changes_no_declaration():
    assert "encoding" not in ManifestSource(kind="manifest", path="t.csv").model_dump(mode="json")
