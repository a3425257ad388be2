"""One rule for names, whatever the source: composed Unicode, no blanks around; bytes that are not UTF-8 encoded."""

import io
import os
import tarfile
import unicodedata
import zipfile

import pytest

from tests.data.sources.conftest import labels_of, png, write_tree
from tests.data.sources.test_archive import pack
from tests.data.sources.test_webdataset import samples
from tl_dagster.data import files

NFD = unicodedata.normalize("NFD", "Käfer")
NAMES = ["Käfer", NFD, " Käfer", "Käfer ", "\u00a0Käfer"]


def written(tmp_path, kind: str) -> dict:
    """The fields of a source of each kind: four spellings of one class, and another class."""
    labels = [*NAMES, "dog"]
    tree = {f"{label}/{number}.png": png(number) for number, label in enumerate(labels)}
    if kind == "folder":
        return {"path": write_tree(tmp_path / "photos", tree)}
    if kind == "archive":
        return {"path": pack(tmp_path / "photos.zip", tree)}
    if kind == "webdataset":
        return {"path": pack(tmp_path / "train-0.tar", samples(0, labels))}
    write_tree(tmp_path, {f"{number}.png": png(number) for number in range(len(labels))})
    rows = [f"{number}.png,{label},g{label}" for number, label in enumerate(labels)]
    (tmp_path / "t.csv").write_text("\n".join(["uri,label,group", *rows]), "utf-8")
    return {"path": tmp_path / "t.csv", "group": "group"}


@pytest.mark.parametrize("kind", ["folder", "archive", "webdataset", "manifest"])
def test_spellings_of_one_class_are_one_class(tmp_path, listing, kind):
    assert labels_of(listing(kind, **written(tmp_path, kind))) == {"Käfer": len(NAMES), "dog": 1}


def test_spellings_of_one_group_are_one_group(tmp_path, listing):
    rows = [f"{number}.png,{'xy'[number % 2]},{name}" for number, name in enumerate(NAMES)]
    write_tree(tmp_path, {f"{number}.png": png(number) for number in range(len(rows))})
    (tmp_path / "t.csv").write_text("\n".join(["uri,label,group", *rows]), "utf-8")
    assert set(listing("manifest", "t.csv", group="group")["group"]) == {"Käfer"}


def test_patterns_and_splits_see_normalized_paths(tmp_path, listing):
    tree = {f"{part}/{label}/{n}.png": png(n) for n, part in enumerate(("train ", "val")) for label in (NFD, "dog")}
    photos = write_tree(tmp_path / "photos", tree)
    assert set(listing("folder", photos)["split"]) == {"train", "validation"}
    labels = labels_of(listing("folder", photos, pattern="/(?P<label>Käfer|dog)/"))
    assert labels == {"Käfer": 2, "dog": 2}


def test_a_class_folder_of_blanks_is_no_class(tmp_path, listing):
    listed = listing(
        "folder", write_tree(tmp_path / "photos", {"cat/1.png": png(1), "dog/1.png": png(2), " /1.png": b""})
    )
    assert labels_of(listed) == {"cat": 1, "dog": 1}
    assert listed["problem"].dropna().tolist() == ["has no label"]


LATIN = {b"K\xc3\xa4fer/\xff 1.png": 1, b"K\xc3\xa4fer/2.png": 2, b"\xe9t\xe9/3.png": 3}
EXPECTED = {"Käfer": 2, "%E9t%E9": 1}


def test_of_a_path_that_is_not_utf8_only_the_bad_bytes_are_encoded(tmp_path, listing):
    photos = write_tree(tmp_path / "photos", {os.fsdecode(name): png(value) for name, value in LATIN.items()})
    listed = listing("folder", photos)
    assert labels_of(listed) == EXPECTED
    assert {files.read(uri) for uri in listed["uri"]} == {png(1), png(2), png(3)}


def test_of_a_tar_members_name_too(tmp_path, listing):
    with tarfile.open(tmp_path / "photos.tar", "w", encoding="utf-8", errors="surrogateescape") as archive:
        for name, value in LATIN.items():
            member = tarfile.TarInfo(os.fsdecode(name))
            member.size = len(png(value))
            archive.addfile(member, io.BytesIO(png(value)))
    listed = listing("archive", "photos.tar")
    assert labels_of(listed) == EXPECTED
    assert {files.read(uri) for uri in listed["uri"]} == {png(1), png(2), png(3)}


class RawName(zipfile.ZipInfo):
    """A member whose name is written as these bytes, without the flag of UTF-8."""

    raw = b""

    def _encodeFilenameFlags(self):
        return self.raw, self.flag_bits


def test_names_in_a_zip_file_that_does_not_say_which_they_are(tmp_path, listing):
    """UTF-8 as macOS writes it, and code page 437, which the format's description asks for."""
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("Käfer/1.png", png(1))
        archive.writestr("dog/1.png", png(2))
        for number, name in enumerate((f"{NFD}/3.png".encode(), b"K\x84fer/4.png"), 3):
            member = RawName(f"{number}.png")
            member.raw = name
            archive.writestr(member, png(number))
    listed = listing("archive", "photos.zip")
    assert labels_of(listed) == {"Käfer": 3, "dog": 1}
    assert {files.read(uri) for uri in listed["uri"]} == {png(1), png(2), png(3), png(4)}


def test_labels_of_webdataset_that_are_not_utf8_stay_apart(tmp_path, listing):
    tree = samples(0, ["a", "b"])
    tree["000000.cls"], tree["000001.cls"] = b"K\xe4fer", b"K\xf6fer"
    assert labels_of(listing("webdataset", pack(tmp_path / "train-0.tar", tree))) == {"K%E4fer": 1, "K%F6fer": 1}


def test_of_a_url_that_is_not_utf8_too(server, listing):
    """The server of the tests has one folder for both addresses."""
    write_tree(server.folder / "photos" / "K\N{REPLACEMENT CHARACTER}fer", {"1.png": png(1)})
    (server.folder / "photos" / "index.html").write_text('<a href="K%E4fer/">a</a> <a href="K%F6fer/">b</a>')
    assert labels_of(listing("folder", f"{server.url}/photos")) == {"K%E4fer": 1, "K%F6fer": 1}
