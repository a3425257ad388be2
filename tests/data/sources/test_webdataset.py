"""WebDataset shards: labels in a member of their own or in JSON, several shards, and samples that lack something."""

import json
import subprocess

import pytest

from tests.data.sources.conftest import labels_of, png
from tests.data.sources.test_archive import pack
from tl_dagster import InputError
from tl_dagster.data import files
from tl_dagster.data.sources.webdataset import MEMBER
from tl_dagster.data.tar_files import LINK


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
    pack(tmp_path / "train.tar", samples(0, labels, "json"))
    listed = listing("webdataset", "train.tar", label="json.class", classes=["cat", "dog"])
    assert labels_of(listed) == {"cat": 1, "dog": 2} and set(listed["split"]) == {"train"}


@pytest.mark.parametrize("path", ["data", "data/{train,validation}/000.tar"])
def test_shards_in_folders_of_splits(tmp_path, listing, path):
    for number, part in enumerate(("train", "validation")):
        (tmp_path / "data" / part).mkdir(parents=True)
        pack(tmp_path / "data" / part / "000.tar", samples(10 * number, ["cat", "dog"]))
    assert listing("webdataset", path)["split"].value_counts().to_dict() == {"train": 2, "validation": 2}


def test_a_shard_beside_those_of_splits_is_refused(tmp_path, listing):
    for number, name in enumerate(("imagenet-train-0", "imagenet-val-0", "imagenet-more-0")):
        pack(tmp_path / f"{name}.tar", samples(10 * number, ["cat", "dog"]))
    with pytest.raises(InputError, match=r"names a split and 'imagenet-more-0.tar' does not"):
        listing("webdataset", ".")
    listed = listing("webdataset", ".", split_names={"more": "ignore"})
    assert [(each.reason, each.entries) for each in listed.attrs["skipped"]] == [("left out by source.split_names", 1)]
    assert listed["split"].value_counts().to_dict() == {"train": 2, "validation": 2}


def masks() -> dict:
    tree = samples(0, ["cat", "dog", "cat"])
    return tree | {f"{number:06d}.seg.png": png(100 + number) for number in range(3)}


def test_the_image_of_a_sample_is_declared_where_it_has_several(tmp_path, listing):
    pack(tmp_path / "x.tar", masks() | {"000009.jpg": png(9), "000009.cls": b"dog", "000009.seg.png": png(109)})
    with pytest.raises(
        InputError, match=r"x.tar: sample '000000' holds 2 images \(png, seg.png\); .*source.image: png"
    ):
        listing("webdataset", "x.tar")
    listed = listing("webdataset", "x.tar", image="jpg;PNG")
    assert labels_of(listed) == {"cat": 2, "dog": 2}
    assert [files.read(uri) for uri in listed["uri"]] == [png(0), png(1), png(2), png(9)]
    assert [tuple(each) for each in listed.attrs["skipped"]] == [("", MEMBER, "x.tar: 000000.seg.png", 4)]
    lacking = listing("webdataset", "x.tar", image="png")["problem"].dropna().tolist()
    assert lacking == ["has no png, as source.image names it"]


def test_a_member_that_a_shard_holds_twice_is_refused(tmp_path, listing):
    first, second = pack(tmp_path / "a.tar", samples(0, ["0", "0"])), pack(tmp_path / "b.tar", samples(0, ["1", "1"]))
    subprocess.run(["tar", "-Af", first, second], check=True)
    with pytest.raises(InputError, match=r"a.tar holds '000000.png' twice"):
        listing("webdataset", "a.tar")


def test_members_of_a_sample_need_not_follow_each_other(tmp_path, listing):
    tree = samples(0, ["cat", "dog"])
    pack(tmp_path / "x.tar", {name: tree[name] for name in sorted(tree, key=lambda name: name[-3:])})
    assert labels_of(listing("webdataset", "x.tar")) == {"cat": 1, "dog": 1}


def test_a_number_with_leading_zeros_is_the_same_class(tmp_path, listing):
    pack(tmp_path / "x.tar", samples(0, ["1", "01", "001\n", "00", "0"]))
    assert labels_of(listing("webdataset", "x.tar")) == {"1": 3, "0": 2}
    labels = [json.dumps({"class": value}) for value in (1, 1.0, "1", "01")]
    pack(tmp_path / "y.tar", samples(0, labels, "json"))
    assert labels_of(listing("webdataset", "y.tar", label="json.class")) == {"1": 3, "01": 1}


@pytest.mark.parametrize(("label", "text"), [("cls", "0 1"), ("cls", "[0, 1]"), ("json.class", '{"class": [0, 1]}')])
def test_several_labels_of_a_sample_are_refused(tmp_path, listing, label, text):
    labels = ['{"class": 0}', '{"class": 1}', text] if label != "cls" else ["0", "1", text]
    pack(tmp_path / "x.tar", samples(0, labels, label.partition(".")[0]))
    with pytest.raises(InputError, match=r"x.tar.*, but a classifier gives each image one class"):
        listing("webdataset", "x.tar", label=label)


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
    assert listed["problem"].dropna().tolist() == ["the member's name climbs out of the archive", LINK]


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


def test_names_with_dots_are_refused_with_the_reason(tmp_path, listing):
    tree = {
        f"{number}.img.{end}": png(number) if end == "jpg" else b"1" for number in range(2) for end in ("jpg", "cls")
    }
    pack(tmp_path / "train-0.tar", tree)
    with pytest.raises(
        InputError, match=r"has no cls: names end at their first dot.*'0.img.jpg' is member 'img.jpg' of"
    ):
        listing("webdataset", "train-0.tar")
