"""Ingestion: identity by content, and what is set aside."""

import shutil

import pandas as pd
import pytest

from tl_dagster import InputError
from tl_dagster.data.manifest import content_digest, identify, ingest, usable
from tl_dagster.data.sources import list_images
from tl_dagster.spec import FolderSource


def ingested(photos, known=None):
    return ingest(identify(list_images(FolderSource(kind="folder", path=str(photos)), photos)), known)


def test_only_new_images_are_decoded(photos):
    manifest, decoded = ingested(photos)
    assert decoded == len(manifest) == 60
    assert manifest[["width", "height"]].drop_duplicates().to_numpy().tolist() == [[300, 300]]
    again, decoded = ingested(photos, manifest)
    assert decoded == 0
    assert content_digest(again) == content_digest(manifest)


def test_set_aside_with_a_reason(photos):
    files = sorted((photos / "functional").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:3000])
    files[1].write_bytes(b"")
    files[2].write_text("<html>not found</html>")
    shutil.copy(files[3], photos / "functional" / "zz.png")
    shutil.copy(files[4], photos / "defective" / "zz.png")
    manifest, _ = ingested(photos)
    reasons = manifest[manifest["problem"].notna()].set_index("uri")["problem"]
    assert "cannot be decoded" in reasons[str(files[0])]
    assert reasons[str(files[1])] == "the file is empty"
    assert "cannot be decoded" in reasons[str(files[2])]
    assert reasons[str(photos / "functional" / "zz.png")] == f"a copy of {files[3]}"
    assert reasons[str(files[4])] == "the same image is labelled defective and functional"
    assert len(usable(manifest)) == 60 - 4


def test_nothing_usable(photos):
    for path in (photos / "functional").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(InputError, match=r"only 1 class has usable images \(defective\)"):
        ingested(photos)


def test_data_version_ignores_names_and_order():
    columns = ["id", "uri", "label", "group", "split", "confidence", "problem"]
    rows = pd.DataFrame(
        [["1", "a", "x", None, None, None, None], ["2", "b", "y", None, None, None, None]], columns=columns
    )
    renamed = rows.assign(uri=["c", "d"]).iloc[::-1]
    assert content_digest(rows) == content_digest(renamed)
    assert content_digest(rows) != content_digest(rows.assign(label=["x", "x"]))
