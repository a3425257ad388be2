"""Sources: what they list, and how a bad one is refused."""

import pandas as pd
import pytest

from tests.conftest import elpv
from tl_dagster import InputError
from tl_dagster.data.sources import list_images
from tl_dagster.spec import FolderSource, ManifestSource


def folder(path):
    return FolderSource(kind="folder", path=str(path))


def manifest(path, **fields):
    return ManifestSource(kind="manifest", path=str(path), **fields)


def test_folder(photos, tmp_path):
    listed = list_images(folder("photos"), tmp_path)
    assert listed["label"].value_counts().to_dict() == {"functional": 30, "defective": 30}
    assert listed["uri"].is_monotonic_increasing


def test_folder_with_given_splits(photos, tmp_path):
    for split in ("train", "val"):
        (tmp_path / "given").mkdir(exist_ok=True)
        (tmp_path / "given" / split).symlink_to(photos)
    listed = list_images(folder("given"), tmp_path)
    assert set(listed["split"]) == {"train", "validation"}
    assert set(listed["label"]) == {"functional", "defective"}


def test_a_class_may_be_called_test(photos, tmp_path):
    (photos / "functional").rename(photos / "test")
    assert set(list_images(folder("photos"), tmp_path)["label"]) == {"defective", "test"}


def test_elpv_as_declared(tmp_path):
    bins = {"edges": [0.5], "names": ["functional", "defective"], "soft_targets": True}
    source = manifest(
        "data/labels.csv",
        package="elpv_dataset",
        separator="whitespace",
        columns=["image", "probability", "module"],
        uri="image",
        label="probability",
        bins=bins,
    )
    listed = list_images(source, tmp_path)
    assert listed["label"].value_counts().to_dict() == {"functional": 1803, "defective": 821}
    assert listed["confidence"].round(3).value_counts().to_dict() == {1.0: 2223, 0.667: 401}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_manifest_formats(tmp_path, suffix):
    table = pd.DataFrame(
        {"file": ["a.png", "b.png"], "kind": ["x", "y"], "cell": ["m1", "m2"], "part": ["train", "test"]}
    )
    path = tmp_path / f"images.{suffix}"
    separator = "\t" if suffix == "tsv" else ","
    table.to_parquet(path) if suffix == "parquet" else table.to_csv(path, sep=separator, index=False)
    fields = {"uri": "file", "label": "kind", "group": "cell", "split": "part"}
    listed = list_images(manifest(path, separator=separator, **fields), tmp_path)
    assert listed["uri"].tolist() == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert listed[["label", "group", "split"]].to_numpy().tolist() == [["x", "m1", "train"], ["y", "m2", "test"]]


def test_group_names_are_not_guessed_to_be_numbers(tmp_path):
    (tmp_path / "images.csv").write_text("uri,label,group\na.png,None,001\nb.png,y,\n")
    listed = list_images(manifest("images.csv", group="group"), tmp_path)
    assert listed["group"].tolist()[0] == "001" and pd.isna(listed["group"].tolist()[1])
    assert listed["label"].tolist() == ["None", "y"]


@pytest.mark.parametrize(
    ("content", "fields", "words"),
    [
        ("uri,label\na.png,x\n", {}, "single class"),
        ("uri,label\n", {}, "holds no images"),
        ("uri,class\na.png,x\n", {}, "no column 'label': allowed: uri, class"),
        ("uri,label\na.png,x\n,y\n", {}, "row 2 has an empty"),
        ("uri,label\na.png,x\nb.png,2\n", {"bins": {"edges": [1.0], "names": ["a", "b"]}}, "'x' is not a number"),
        ("uri,label,s\na.png,x,trian\n", {"split": "s"}, "did you mean 'train'"),
    ],
)
def test_bad_manifest(tmp_path, content, fields, words):
    (tmp_path / "images.csv").write_text(content)
    with pytest.raises(InputError, match=words):
        list_images(manifest("images.csv", **fields), tmp_path)


def test_missing_sources(tmp_path):
    for source, words in (
        (folder("nowhere"), "no folder"),
        (manifest("nowhere.csv"), "no file"),
        (manifest("labels.csv", package="not_installed"), "pip install not-installed"),
    ):
        with pytest.raises(InputError, match=words):
            list_images(source, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        list_images(folder("empty"), tmp_path)
    assert (elpv() / "labels.csv").exists()
