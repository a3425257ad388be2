"""Zip and tar archives: layouts, hostile and damaged members, odd names; nothing is written outside the cache."""

import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.data.sources.conftest import LABELS, TREE, labels_of, png, write_tree
from tests.data.sources.test_folder import ODD_NAMES
from tl_dagster import InputError
from tl_dagster.data import files

KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]
CLIMBING = ["../out.png", "cat/../../out.png", "/out.png", "..\\out.png", "C:/out.png"]


def pack(path: Path, tree: dict, links: tuple = ()) -> Path:
    """An archive of members, in the format of its suffix; links lead to /etc/passwd."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in tree.items():
                archive.writestr(name, content)
            for name in links:
                link = zipfile.ZipInfo(name)
                link.external_attr = 0o120777 << 16
                archive.writestr(link, "/etc/passwd")
        return path
    with tarfile.open(path, f"w:{path.suffix[1:]}" if path.suffix != ".tar" else "w") as archive:
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    return path


def contents(listed) -> list:
    return sorted(files.read(uri) for uri in listed.loc[listed["problem"].isna(), "uri"])


@pytest.mark.parametrize("kind", KINDS)
def test_class_folders(tmp_path, listing, kind):
    pack(tmp_path / f"photos.{kind}", {**TREE, "cat/notes.txt": b"", "__MACOSX/cat/._0.png": b""})
    listed = listing("archive", f"photos.{kind}")
    assert labels_of(listed) == LABELS and contents(listed) == sorted(TREE.values())
    assert {each.first: each.entries for each in listed.attrs["skipped"]} == {
        "cat/notes.txt": 1,
        "__MACOSX/cat/._0.png": 1,
    }


@pytest.mark.parametrize("beside", [{}, {"README": b""}, {"docs/manual.txt": b""}, {"../evil.png": b""}])
def test_one_folder_that_holds_everything(tmp_path, listing, beside):
    pack(tmp_path / "photos.zip", {f"photos-1.0/{name}": content for name, content in TREE.items()} | beside)
    assert labels_of(listing("archive", "photos.zip")) == LABELS


@pytest.mark.parametrize(
    ("parts", "splits"),
    [
        (("train", "test"), {"train", "test"}),
        (("train",), {"train"}),
        (("training_set", "dev", "holdout"), {"train", "validation", "test"}),
    ],
)
@pytest.mark.parametrize("top", ["", "photos/"])
def test_given_splits(tmp_path, listing, parts, splits, top):
    tree = {f"{top}{part}/{name}": content for part in parts for name, content in TREE.items()}
    listed = listing("archive", pack(tmp_path / "photos.tar", tree))
    assert set(listed["split"]) == splits and set(listed["label"]) == set(LABELS)


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_folder_beside_the_splits_is_refused(tmp_path, listing, kind):
    parts = ("train", "test", "extra")
    tree = {f"photos/{part}/{name}": content for part in parts for name, content in TREE.items()}
    pack(tmp_path / f"photos.{kind}", tree)
    with pytest.raises(InputError, match=f"photos.{kind}: .*'train' is named like a split, and 'extra' is not"):
        listing("archive", f"photos.{kind}")


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("name", CLIMBING)
def test_members_that_climb_out(tmp_path, listing, cache_folder, kind, name):
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    path = pack(folder / f"photos.{kind}", {**TREE, name: png(99)})
    before = {*tmp_path.rglob("*")}
    listed = listing("archive", path)
    assert labels_of(listed) == LABELS
    assert listed["problem"].dropna().tolist() == ["the member's name climbs out of the archive"]
    contents(listed)
    assert all(cache_folder in (new, *new.parents) for new in {*tmp_path.rglob("*")} - before)
    assert not list(cache_folder.rglob("*.png")) and not Path("/out.png").exists()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_links_are_not_followed(tmp_path, listing, kind):
    listed = listing("archive", pack(tmp_path / f"photos.{kind}", TREE, links=("cat/passwd.png", "cat/passwd")))
    assert labels_of(listed) == LABELS
    assert listed["problem"].dropna().tolist() == ["a link or device in the archive, not a file"] * 2


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(tmp_path, listing, kind, name):
    if kind == "zip" and b"\xff" in name:
        pytest.skip("names in a zip file are always text")
    tree = {f"{os.fsdecode(name[:-4])}/{os.fsdecode(name)}": png(1), "cat/0.png": png(2)}
    listed = listing("archive", pack(tmp_path / f"ph ::#%41 {os.fsdecode(name[:-4])}.{kind}", tree))
    assert len(labels_of(listed)) == 2 and contents(listed) == sorted([png(1), png(2)])
    assert listed["uri"].str.encode("utf-8").notna().all()


def test_an_encrypted_member_is_set_aside(tmp_path, listing):
    path = pack(tmp_path / "photos.zip", TREE)
    content = bytearray(path.read_bytes())
    content[content.find(b"PK\x01\x02") + 8] |= 1  # the flag of the first member in the directory
    path.write_bytes(content)
    listed = listing("archive", "photos.zip")
    assert labels_of(listed) == {"cat": 2, "dog": 3}
    assert listed["problem"].dropna().str.startswith("encrypted").tolist() == [True]


def test_a_corrupt_member_cannot_be_read_and_the_others_can(tmp_path, listing):
    path = pack(tmp_path / "photos.zip", {**TREE, "cat/9.png": b"0123456789" * 100})
    content = bytearray(path.read_bytes())
    at = content.find(b"cat/9.png") + len(b"cat/9.png")
    content[at : at + 8] = b"\xff" * 8
    path.write_bytes(content)
    uris = listing("archive", "photos.zip")["uri"]
    with pytest.raises(OSError, match="error: Error -3"):
        files.read(next(uri for uri in uris if "9.png" in uri))
    assert len([files.read(uri) for uri in uris if "9.png" not in uri]) == len(TREE)


def test_of_two_members_of_one_name_the_last_one_counts(tmp_path, listing):
    path = pack(tmp_path / "photos.zip", TREE)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/0.png", png(77))
    listed = listing("archive", "photos.zip")
    assert len(listed) == len(TREE) and png(77) in contents(listed)


def test_a_tar_that_ends_with_a_zip_file_is_a_tar(tmp_path, listing):
    inner = pack(tmp_path / "inner.zip", {"x": b""}).read_bytes()
    assert labels_of(listing("archive", pack(tmp_path / "photos.tar", {**TREE, "more/inner.zip": inner}))) == LABELS


def test_sparse_members_are_set_aside(tmp_path, listing):
    write_tree(tmp_path / "in", TREE)
    with (tmp_path / "in" / "cat" / "hole.png").open("wb") as file:
        file.seek(2**20)
        file.write(b"x")
    subprocess.run(["tar", "-S", "-cf", tmp_path / "photos.tar", "-C", tmp_path / "in", "."], check=True)
    listed = listing("archive", "photos.tar")
    assert labels_of(listed) == LABELS and listed["problem"].notna().sum() == 1


def broken_header(content: bytes) -> bytes:
    at = content.find(b"dog/1.png")
    return content[:at] + b"\xff" * 100 + content[at + 100 :]


@pytest.mark.parametrize(
    ("kind", "damage", "words"),
    [
        ("zip", lambda content: content[:-40], "damaged zip file"),
        ("zip", lambda content: content[: len(content) // 2], "damaged zip file"),
        ("tar", lambda content: content[:1100], "damaged tar file.*copy it again"),
        ("tar", broken_header, "damaged tar file: a broken header at byte"),
        ("tar.gz", lambda content: content[: len(content) // 2], "is damaged"),
        ("tar.gz", lambda content: content[:40] + b"\0\xff\0\xff" + content[44:], "is damaged"),
        ("tar.xz", lambda content: content[: len(content) // 2], "is damaged"),
        ("tar.bz2", lambda content: content[: len(content) // 2], "is damaged"),
        ("tar", lambda content: b"", "not a zip or tar archive"),
        ("zip", lambda content: b"a text", "not a zip or tar archive"),
    ],
)
def test_damaged_archives(tmp_path, listing, kind, damage, words):
    path = pack(tmp_path / f"photos.{kind}", TREE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=words):
        listing("archive", path)


def test_an_archive_cut_after_it_was_listed(tmp_path, listing):
    path = pack(tmp_path / "photos.tar", TREE)
    uris = listing("archive", path)["uri"]
    os.truncate(path, 600)
    with pytest.raises(OSError, match="bytes too early"):
        files.read(uris[5])


@pytest.mark.parametrize("path", ["nowhere.zip", "."])
def test_missing_archives(listing, path):
    with pytest.raises(InputError, match="no file"):
        listing("archive", path)


def test_a_changed_compressed_tar_is_unpacked_again(tmp_path, listing):
    pack(tmp_path / "photos.tar.gz", TREE)
    assert labels_of(listing("archive", "photos.tar.gz")) == LABELS
    pack(tmp_path / "photos.tar.gz", {**TREE, "cat/9.png": png(9)})
    assert labels_of(listing("archive", "photos.tar.gz")) == {"cat": 4, "dog": 3}


def test_folders_that_windows_separates_by_backslashes(tmp_path, listing):
    tree = {"train\\": b"", **{f"train\\{name}".replace("/", "\\"): content for name, content in TREE.items()}}
    listed = listing("archive", pack(tmp_path / "photos.zip", tree))
    assert labels_of(listed) == LABELS and set(listed["split"]) == {"train"}
    assert contents(listed) == sorted(TREE.values())


def test_a_name_with_both_slashes_is_set_aside(tmp_path, listing):
    listed = listing("archive", pack(tmp_path / "photos.zip", {**TREE, "dog/cat\\9.png": png(9)}))
    assert labels_of(listed) == LABELS
    assert listed["problem"].dropna().tolist() == [
        "the member's name has both / and \\, either of which may separate folders; pack the archive again"
    ]


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "folder"])
def test_an_archive_in_an_archive_is_named(tmp_path, listing, kind):
    tree = {"in/photos.zip": pack(tmp_path / "x.zip", TREE).read_bytes(), "README": b""}
    path = write_tree(tmp_path / "photos", tree) if kind == "folder" else pack(tmp_path / f"photos.{kind}", tree)
    with pytest.raises(InputError, match=rf"{path} holds no images, but archives, such as in/photos.zip; declare one"):
        listing("folder" if kind == "folder" else "archive", path)
