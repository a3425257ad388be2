"""Ingestion: identity by content, what is read again, and what is rejected."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from PIL import Image

from tl_dagster.data import files
from tl_dagster.data.file_index import FileIndex
from tl_dagster.data.ingestion import identify
from tl_dagster.data.manifest import content_digest, diff_manifests, reject_copies, usable
from tl_dagster.data.source_cache import SourceCache, SourceContext
from tl_dagster.data.sources import list_images
from tl_dagster.data.sources.folder import FolderSource
from tl_dagster.runtime.errors import InputError

NO_PAIRS = pd.DataFrame({"a": [], "b": [], "distance": []})


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Files count as settled at once: else a test would have to wait two seconds."""
    monkeypatch.setattr(files, "SETTLED_SECONDS", -1.0)


def listed(photos):
    context = SourceContext(photos, SourceCache(photos.parent / "kept"))
    return list_images(FolderSource(kind="folder", path=str(photos)), context)


def ingested(photos, workers=2):
    identified, read, decoded = identify(listed(photos), FileIndex(photos.parent / "index"), workers)
    return reject_copies(identified), read, decoded


def test_an_unchanged_file_is_not_read_again(photos, monkeypatch):
    manifest, read, decoded = ingested(photos)
    assert read == decoded == len(manifest) == 60
    assert manifest[["width", "height"]].drop_duplicates().to_numpy().tolist() == [[300, 300]]
    monkeypatch.setattr("tl_dagster.data.ingestion.read", lambda uri, limit=0: pytest.fail(f"{uri} was read again"))
    again, read, decoded = ingested(photos)
    assert (read, decoded) == (0, 0)
    pd.testing.assert_frame_equal(again, manifest)


def test_only_what_changed_is_read_and_only_new_bytes_are_decoded(photos):
    ingested(photos)
    first, second, third = sorted((photos / "functional").iterdir())[:3]
    os.utime(first, (1, 1))
    second.rename(photos / "functional" / "renamed.png")
    Image.open(third).rotate(3).save(third)
    _, read, decoded = ingested(photos)
    assert (read, decoded) == (3, 1)


def test_a_file_that_is_changed_back_is_not_decoded_again(photos, monkeypatch):
    monkeypatch.setattr("tl_dagster.data.file_index.MOST_SHARDS", 0)
    before, _, _ = ingested(photos)
    first = sorted((photos / "functional").iterdir())[0]
    content = first.read_bytes()
    Image.open(first).rotate(3).save(first)
    assert ingested(photos)[1:] == (1, 1)
    first.write_bytes(content)
    back, read, decoded = ingested(photos)
    assert (read, decoded) == (1, 0)
    pd.testing.assert_frame_equal(back.drop(columns="stamp"), before.drop(columns="stamp"))


def test_a_file_that_kept_its_time_and_size_but_not_its_bytes_is_seen(photos):
    ingested(photos)
    path = sorted((photos / "functional").iterdir())[0]
    then, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert ingested(photos)[1] == 1


def test_a_file_written_a_moment_ago_is_not_trusted(photos, monkeypatch):
    monkeypatch.setattr(files, "SETTLED_SECONDS", 60.0)
    ingested(photos)
    assert ingested(photos)[1:] == (60, 0)


def test_set_aside_with_a_reason(photos):
    paths = sorted((photos / "functional").iterdir())
    paths[0].write_bytes(paths[0].read_bytes()[:3000])
    paths[1].write_bytes(b"")
    paths[2].write_text("<html>not found</html>")
    shutil.copy(paths[3], photos / "functional" / "zz.png")
    shutil.copy(paths[4], photos / "defective" / "zz.png")
    manifest, _, _ = ingested(photos)
    reasons = manifest[manifest["problem"].notna()].set_index("uri")["problem"]
    assert "cannot be decoded" in reasons[str(paths[0])]
    assert reasons[str(paths[1])] == "the file is empty"
    assert "not an image" in reasons[str(paths[2])]
    assert reasons[str(photos / "functional" / "zz.png")] == f"a copy of {paths[3]}"
    assert reasons[str(paths[4])] == "the same image is labelled defective and functional"
    assert len(usable(manifest)) == 60 - 4


def test_an_unreadable_file_is_tried_again(photos, monkeypatch):
    path = sorted((photos / "functional").iterdir())[0]
    hidden = path.rename(photos.parent / "hidden.png")
    path.symlink_to(photos / "nowhere.png")
    assert "a link that leads nowhere" in set(ingested(photos)[0]["problem"])
    path.unlink()
    hidden.rename(path)
    manifest, read, _ = ingested(photos)
    assert manifest["problem"].isna().all() and read == 1


def test_a_failed_read_does_not_inherit_what_was_known(photos, monkeypatch):
    path = sorted((photos / "functional").iterdir())[0]
    content = path.read_bytes()
    path.write_bytes(b"no image")
    assert "not an image" in ingested(photos)[0]["problem"].dropna().iloc[0]
    path.write_bytes(content)

    def denied(uri, limit=0):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("tl_dagster.data.ingestion.read", denied)
        (said,) = ingested(photos)[0]["problem"].dropna()
    assert said == "cannot be read: Permission denied"
    assert ingested(photos)[0]["problem"].isna().all()


def test_two_runs_share_an_index(photos, monkeypatch):
    """One joins the shards while the other reads them."""
    monkeypatch.setattr("tl_dagster.data.file_index.MOST_SHARDS", 1)
    monkeypatch.setattr("tl_dagster.data.ingestion.FLUSH_SECONDS", 0.0)
    monkeypatch.setattr("tl_dagster.data.ingestion.PART", 2)
    listing, index = listed(photos), FileIndex(photos.parent / "index")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda number: identify(listing, index, 1)[0], range(9)))
    assert all(len(each) == 60 and each["problem"].isna().all() for each in found)


def test_order_and_workers_change_nothing(photos, monkeypatch):
    shutil.copy(sorted((photos / "functional").iterdir())[3], photos / "functional" / "zz.png")
    listing, found = listed(photos), set()
    for seed, workers, processes_from in ((0, 1, 1000), (1, 4, 1000), (2, 2, 1)):  # the last in processes
        monkeypatch.setattr("tl_dagster.data.ingestion.PROCESSES_FROM", processes_from)
        shuffled = listing.sample(frac=1, random_state=seed, ignore_index=True)
        identified, _, _ = identify(shuffled, FileIndex(photos.parent / str(seed)), workers)
        found.add(content_digest(reject_copies(identified), NO_PAIRS))
    assert len(found) == 1


def end_at_once(files):
    os._exit(1)


def test_a_worker_that_is_killed_is_one_clear_error(photos, monkeypatch):
    monkeypatch.setattr("tl_dagster.data.ingestion.PROCESSES_FROM", 0)
    monkeypatch.setattr("tl_dagster.data.ingestion._read_part_here", end_at_once)
    with pytest.raises(InputError, match=r"set compute\.workers to a smaller number"):
        ingested(photos)


def test_many_flushes_are_joined(photos, monkeypatch):
    monkeypatch.setattr("tl_dagster.data.ingestion.FLUSH_SECONDS", 0.0)
    monkeypatch.setattr("tl_dagster.data.ingestion.PART", 3)
    manifest, _, _ = ingested(photos)
    assert len(list((photos.parent / "index").glob("*.parquet"))) == 1
    pd.testing.assert_frame_equal(ingested(photos)[0], manifest)


def test_difference_and_data_version(photos):
    before, _, _ = ingested(photos)
    first, second, third = sorted((photos / "functional").iterdir())[:3]
    first.rename(photos / "functional" / "renamed.png")
    renamed, _, _ = ingested(photos)
    assert diff_manifests(before, renamed) == {"added": 0, "removed": 0, "relabelled": 0, "renamed": 1}
    assert content_digest(before, NO_PAIRS) == content_digest(renamed, NO_PAIRS)
    second.rename(photos / "defective" / "moved.png")
    third.unlink()
    Image.new("RGB", (9, 9), "red").save(photos / "functional" / "new.png")
    after, _, _ = ingested(photos)
    assert diff_manifests(renamed, after) == {"added": 1, "removed": 1, "relabelled": 1, "renamed": 1}
    assert content_digest(after, NO_PAIRS) != content_digest(renamed, NO_PAIRS)
