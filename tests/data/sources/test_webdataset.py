"""WebDataset shards: labels in a member of their own or in JSON, several shards, and samples that lack something."""

import json

import pytest

from tests.data.sources.conftest import labels_of, png
from tests.data.sources.test_archive import pack
from tl_dagster import InputError
from tl_dagster.data import files


def samples(start, labels, suffix="cls"):
    tree = {}
    for number, label in enumerate(labels, start):
        tree[f"{number:06d}.png"] = png(number)
        tree[f"{number:06d}.{suffix}"] = str(label).encode()
    return tree


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz"])
def test_labels_in_cls_members(tmp_path, listing, suffix):
    (tmp_path / "shards").mkdir()
    tar = pack(tmp_path / "shards" / f"train-000.{suffix}".replace("tgz", "gz"), samples(0, ["cat", "dog\n"]))
    tar.rename(tmp_path / "shards" / f"train-000.{suffix}")
    listed = listing("webdataset", "shards")
    assert labels_of(listed) == {"cat": 1, "dog": 1} and set(listed["split"]) == {"train"}
    assert [files.read(uri) for uri in listed["uri"]] == [png(0), png(1)]


@pytest.mark.parametrize("path", ["part-{000..001}.tar", "part-*.tar", "."])
def test_several_shards(tmp_path, listing, path):
    for number in range(2):
        pack(tmp_path / f"part-00{number}.tar", samples(10 * number, ["cat", "dog"]))
    listed = listing("webdataset", path)
    assert labels_of(listed) == {"cat": 2, "dog": 2} and listed["split"].isna().all()


def test_a_field_of_json_and_names_of_classes(tmp_path, listing):
    labels = [json.dumps({"class": number}) for number in (0, 1, 1)]
    pack(tmp_path / "test.tar", samples(0, labels, "json"))
    listed = listing("webdataset", "test.tar", label="json.class", classes=["cat", "dog"])
    assert labels_of(listed) == {"cat": 1, "dog": 2} and set(listed["split"]) == {"test"}


def test_samples_are_told_apart_by_folder_and_first_dot(tmp_path, listing):
    tree = {
        "a/0.png": png(0),
        "a/0.cls": b"cat",
        "b/0.png": png(1),
        "b/0.cls": b"dog",
        "a/0.txt": b"",
        "a/._0.png": b"",
    }
    listed = listing("webdataset", pack(tmp_path / "x.tar", {f"./{name}": content for name, content in tree.items()}))
    assert labels_of(listed) == {"cat": 1, "dog": 1} and len(listed) == 2


def test_samples_without_a_label(tmp_path, listing):
    tree = samples(0, ["cat", "dog"]) | {"7.png": png(7), "8.png": png(8), "8.cls": b" \n", "9.cls": b"cat"}
    listed = listing("webdataset", pack(tmp_path / "x.tar", tree))
    assert labels_of(listed) == {"cat": 1, "dog": 1}
    assert listed["problem"].dropna().tolist() == ["has no cls"] * 2


def test_null_in_json_is_no_label(tmp_path, listing):
    tree = samples(0, ['{"class": "cat"}', '{"class": "dog"}', '{"class": null}'], "json")
    listed = listing("webdataset", pack(tmp_path / "x.tar", tree), label="json.class")
    assert listed["problem"].dropna().tolist() == ["has no json.class"]


def test_members_that_climb_out_or_are_links(tmp_path, listing):
    tree = samples(0, ["cat", "dog"]) | {"../3.png": png(3), "../3.cls": b"cat"}
    listed = listing("webdataset", pack(tmp_path / "x.tar", tree, links=("4.png",)))
    assert labels_of(listed) == {"cat": 1, "dog": 1}
    assert listed["problem"].notna().sum() == 3


@pytest.mark.parametrize(
    ("labels", "fields", "words"),
    [
        (["{}"], {"label": "json.class"}, r"source.label: .*000000.json is not a JSON object with 'class'"),
        (["[1"], {"label": "json.class"}, "is not a JSON object"),
        (['{"class": "2"}'], {"label": "json.class", "classes": ["a", "b"]}, "holds '2', not a number below 2"),
        (['{"class": "²"}'], {"label": "json.class", "classes": ["a", "b"]}, "not a number below 2"),
        (["{}"], {}, "holds no images, the first of 1 files: has no cls"),
    ],
)
def test_bad_labels(tmp_path, listing, labels, fields, words):
    pack(tmp_path / "x.tar", samples(0, labels, "json"))
    with pytest.raises(InputError, match=words):
        listing("webdataset", "x.tar", **fields)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("nowhere.tar", "no file or folder"),
        ("part-{000..001}.tar", "no file or folder .*part-001.tar"),
        ("*.tgz", "holds no .tar or .tar.gz or .tgz files"),
        ("text.tar", "not a zip or tar archive"),
    ],
)
def test_missing_shards(tmp_path, listing, path, words):
    pack(tmp_path / "part-000.tar", samples(0, ["cat", "dog"]))
    (tmp_path / "text.tar").write_text("text")
    with pytest.raises(InputError, match=words):
        listing("webdataset", path)


def test_a_folder_whose_name_has_braces(tmp_path, listing):
    (tmp_path / "a{b,c}").mkdir()
    pack(tmp_path / "a{b,c}" / "x.tar", samples(0, ["cat", "dog"]))
    assert len(listing("webdataset", "a{b,c}/x.tar")) == 2
