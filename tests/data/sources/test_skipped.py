"""What no class may vanish by: empty class folders, unknown suffixes, thumbnails and bins of systems."""

import io
import shutil

import pytest
from PIL import Image

from tests.data.sources.conftest import LABELS, TREE, labels_of, png, write_tree
from tests.data.sources.test_archive import pack
from tl_dagster import InputError


def skipped(listed) -> dict:
    return {each.first: (each.label, each.reason.partition(",")[0], each.entries) for each in listed.attrs["skipped"]}


def other(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


CONTENTS = {f"fox/{kind}.jpg_large": other(kind) for kind in ("JPEG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")}


def placed(tmp_path, where: str, tree: dict, server) -> tuple[str, str]:
    """The kind and path of a source with the files."""
    if where == "folder":
        write_tree(tmp_path / "photos", tree)
        return "folder", "photos"
    if where == "server":
        write_tree(server.folder / "photos", tree)
        return "folder", f"{server.url}/photos"
    return "archive", pack(tmp_path / f"photos.{where}", tree).name


@pytest.mark.parametrize("where", ["folder", "server", "zip", "tar", "tar.gz"])
def test_images_of_an_unknown_suffix_are_recognised_by_their_content(tmp_path, listing, server, where):
    strange = {"fox/a.b": b"BM", "fox/c.xyz": b"", "cat/d.xyz": b"a text", "fox/raw.nef": other("TIFF")}
    listed = listing(*placed(tmp_path, where, {**TREE, **CONTENTS, **strange}, server))
    assert labels_of(listed) == {**LABELS, "fox": len(CONTENTS) + 1}
    assert skipped(listed) == {
        "cat/d.xyz": ("cat", "not an image by its content", 1),
        "fox/c.xyz": ("fox", "not an image by its content", 1),
        "fox/raw.nef": ("fox", "a camera's raw file; develop it to JPEG", 1),
    }


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_empty_folder_of_an_archive_is_seen(tmp_path, listing, kind):
    folder = write_tree(tmp_path / "in" / "photos")
    (folder / "bird").mkdir()
    shutil.make_archive(str(tmp_path / "photos"), kind, tmp_path / "in")
    assert skipped(listing("archive", f"photos.{kind}")) == {"bird/": ("bird", "an empty folder", 0)}


def test_an_empty_folder_of_a_web_server_is_seen(tmp_path, listing, server):
    (write_tree(server.folder / "photos") / "bird").mkdir()
    assert skipped(listing("folder", f"{server.url}/photos")) == {"bird/": ("bird", "an empty folder", 0)}


def test_empty_class_folders_of_given_splits(tmp_path, listing):
    for part in ("train", "val"):
        write_tree(tmp_path / "photos" / part)
    (tmp_path / "photos" / "train" / "bird" / "deep").mkdir(parents=True)
    (tmp_path / "photos" / "docs").mkdir()
    (tmp_path / "photos" / "docs" / "a.txt").touch()
    listed = listing("folder", "photos")
    assert skipped(listed) == {
        "train/bird/deep/": ("bird", "an empty folder", 0),
        "docs/a.txt": ("", "not an image by its name", 1),
    }


def test_a_class_folder_that_is_a_link_out_of_the_source_is_seen(tmp_path, listing):
    write_tree(tmp_path / "photos")
    (tmp_path / "photos" / "bird").symlink_to(write_tree(tmp_path / "elsewhere"))
    assert skipped(listing("folder", "photos"))["bird/"][:2] == ("bird", "a link out of the folder; copy the file")


SYSTEMS = ["@eaDir", ".@__thumb", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"]


@pytest.mark.parametrize("where", ["folder", "zip"])
def test_thumbnails_and_bins_are_neither_images_nor_classes(tmp_path, listing, server, where):
    tops = {f"{name}/{number}.png": png(90 + number) for number, name in enumerate(SYSTEMS)}
    inner = {f"cat/@eaDir/{number}.png/SYNOFILE_THUMB_M.png": png(70 + number) for number in range(3)}
    listed = listing(*placed(tmp_path, where, {**TREE, **tops, **inner, "dog/Thumbs.db": b""}, server))
    assert labels_of(listed) == LABELS and listed["problem"].isna().all()
    counted = {each.label: each.entries for each in listed.attrs["skipped"]}
    assert counted == {"": len(SYSTEMS), "cat": 1 if where == "folder" else 3, "dog": 1}


def test_a_source_of_raw_files_alone_is_refused_with_the_reason(tmp_path, listing):
    write_tree(tmp_path / "photos", {"cat/1.cr2": b"", "dog/1.cr2": b""})
    with pytest.raises(
        InputError, match=r"holds no images; not looked at: cat/1.cr2 \(a camera's raw file; develop it"
    ):
        listing("folder", "photos")
    write_tree(tmp_path / "photos", {"cat/1.png": png(1)})
    with pytest.raises(InputError, match=r"a single class, 'cat'; not looked at: dog/1.cr2 \(a camera's raw file"):
        listing("folder", "photos")
