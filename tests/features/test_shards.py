"""Shards: whatever bit is flipped, wrong values are never given; old formats are migrated, newer ones refused."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from tl_dagster import InputError
from tl_dagster.features import shards
from tl_dagster.features.cache import FeatureColumn
from tl_dagster.features.shards import DamagedError, OldFormatError, Shard

VIEWS = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(5))
VALUES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float16)
RECIPE = {"backbone": "b", "tap": "t", "precision": "bf16"}


def old(folder, values=VALUES):
    """A shard as the first version wrote it."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            "view": pa.array([VIEWS[at : at + 32] for at in range(0, len(VIEWS), 32)], pa.binary(32)),
            "values": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), 3),
        }
    )
    with pa.OSFile(str(folder / "old.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return folder / "old.arrow"


def test_no_flipped_bit_gives_wrong_values(tmp_path):
    path = shards.write(tmp_path, VIEWS, VALUES)
    content = path.read_bytes()
    noticed = 0
    for bit in range(0, 8 * len(content), 3):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            shard = Shard(path, "float16")
            assert bytes(shard.views) == VIEWS and (shard.values() == VALUES).all()  # padding, names of buffers
        except (DamagedError, InputError):
            noticed += 1
    assert noticed > 8 * (len(VIEWS) + VALUES.nbytes) / 3 - 2  # at least every bit of views and values


def test_old_format_is_migrated(tmp_path):
    column = FeatureColumn(tmp_path, RECIPE)
    path = old(column.folder)
    with pytest.raises(OldFormatError):
        Shard(path, "float16")
    keys = [VIEWS[at : at + 32].hex() for at in range(0, len(VIEWS), 32)]
    assert not column.missing(keys).any()
    assert (column.read(keys)[:] == VALUES).all()
    assert not path.exists() and len(column.shards()) == 1


def test_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "FORMAT", 3)
    path = shards.write(tmp_path, VIEWS, VALUES)
    monkeypatch.undo()
    with pytest.raises(InputError, match="another version of tl-dagster"):
        Shard(path, "float16")


def test_something_else_is_damaged(tmp_path):
    (tmp_path / "a.2.arrow").write_bytes(b"")
    with pytest.raises(DamagedError):
        Shard(tmp_path / "a.2.arrow", "float16")
    path = shards.write(tmp_path, VIEWS, VALUES)
    with pytest.raises(DamagedError, match="values"):
        Shard(path, "float32").values()


def test_the_systems_trouble_is_not_damage(tmp_path, monkeypatch):
    path = shards.write(tmp_path, VIEWS, VALUES)

    def refused(name):
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(pa, "memory_map", refused)
    with pytest.raises(InputError, match="Permission denied"):
        Shard(path, "float16")


def test_a_damaged_shard_of_the_old_format_is_set_aside(tmp_path):
    column = FeatureColumn(tmp_path, RECIPE)
    path = old(column.folder)
    path.write_bytes(path.read_bytes()[:100])
    assert column.missing([VIEWS[:32].hex()]).all()
    assert column.damaged and path.with_name("old.arrow.damaged").exists()
