"""Writes on a full disk, through each library: one clear error that names the place, and nothing half-written."""

import contextlib
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tl_dagster import ArtifactStore, InputError
from tl_dagster.data.file_index import FileIndex
from tl_dagster.data.near_copies import GroupRegistry
from tl_dagster.data.source_cache import SourceCache
from tl_dagster.features.cache import FeatureColumn
from tl_dagster.store.artifacts import ArtifactSummary
from tl_dagster.store.files import DiskError, write_atomically, writing
from tl_dagster.training.checkpoints import Checkpoint

NOISE = np.random.default_rng(0).integers(0, 256, 2**18, dtype=np.uint8)
KEY = {"backbone": "b", "tap": "t", "pooling": "avg", "precision": "fp32"}


@contextlib.contextmanager
def full_disk(size: int = 2**14):
    """No file of this process may grow beyond a few kilobytes: the system refuses it as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_png(path: Path) -> None:
    Image.fromarray(NOISE.reshape(512, 512)).save(path, "PNG")


WRITERS = {
    "bytes": lambda path: path.write_bytes(NOISE.tobytes()),
    "text": lambda path: path.write_text("x" * 2**18),
    "parquet": lambda path: pd.DataFrame({"x": NOISE}).to_parquet(path),
    "safetensors": lambda path: save_file({"x": torch.from_numpy(NOISE)}, path),
    "png": write_png,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_an_artifact_on_a_full_disk(tmp_path, writer):
    store = ArtifactStore(tmp_path / "store")

    def compute(folder: Path) -> ArtifactSummary:
        WRITERS[writer](folder / "file")
        return ArtifactSummary(1, 1)

    with full_disk(), pytest.raises(DiskError) as caught:
        store.build("stage", "0" * 64, compute)
    assert str(caught.value) == (
        f"cannot write the artifact store {store.root}: File too large; free some space, "
        "or set TL_DAGSTER_STORE to another folder"
    )
    assert not list(store.layout.work.iterdir()) and store.find("stage", "0" * 64) is None


ROWS = pd.DataFrame({"id": [f"{number:064x}" for number in range(2000)], "perceptual": "0" * 64, "group": None})
PLACES = {
    "file": lambda folder: write_atomically(folder / "file", NOISE.tobytes()),
    "index": lambda folder: FileIndex(folder)._write(pd.DataFrame({"uri": ROWS["id"]})),
    "groups": lambda folder: GroupRegistry(folder).write(ROWS, ROWS),
    "source": lambda folder: SourceCache(folder).file(folder / "x", lambda file: file.write(NOISE.tobytes())),
    "features": lambda folder: FeatureColumn(folder, KEY).write(["0" * 64], NOISE[None].astype("float32")),
}


@pytest.mark.parametrize("place", PLACES)
def test_other_files_on_a_full_disk(tmp_path, place):
    with full_disk(), pytest.raises(DiskError, match=rf"cannot write .*{tmp_path}.*: File too large; free some space"):
        PLACES[place](tmp_path / "in")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 1000]


def test_a_checkpoint_on_a_full_disk_leaves_the_one_before(tmp_path):
    lines: list[str] = []
    checkpoint = Checkpoint(tmp_path / "c.safetensors", lines.append)
    checkpoint.save({"x": torch.zeros(3)}, {"epoch": 1})
    with full_disk():
        checkpoint.save({"x": torch.from_numpy(NOISE)}, {"epoch": 2})
    assert checkpoint.metadata()["epoch"] == 1
    assert len(lines) == 1 and "free some space" in lines[0]


@pytest.mark.parametrize("error", [ValueError("wrong"), FileNotFoundError(2, "No such file", "/elsewhere/photo.png")])
def test_errors_of_another_cause_pass_as_they_are(tmp_path, error):
    with pytest.raises(type(error)) as caught, writing(tmp_path / "x"):
        raise error
    assert caught.value is error


def test_a_file_in_the_way_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*/file/in/x: Not a directory; make it writable"):
        write_atomically(tmp_path / "file" / "in" / "x", b"")


@pytest.mark.parametrize("file", ["artifact.json", "current"])
def test_a_damaged_record_is_named(tmp_path, file):
    store = ArtifactStore(tmp_path)
    paths = {"artifact.json": store.layout.artifact("s", "f") / file, "current": store.layout.current("p", "a")}
    write_atomically(paths[file], b'{"outcome": ')
    with pytest.raises(InputError, match=rf"{paths[file]} is damaged .*: delete"):
        store.find("s", "f") if file == "artifact.json" else store.get_current("p", "a")
