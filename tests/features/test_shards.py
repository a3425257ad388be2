"""Shards: whatever bit is flipped, wrong values are never given; other formats are refused."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from tl_dagster import InputError
from tl_dagster.features import shards
from tl_dagster.features.shards import DamagedError, Shard

VIEWS = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(5))
VALUES = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float16)


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


@pytest.mark.parametrize("name", ["0123abcd.arrow", "0123abcd.1.arrow", "0123abcd.3.arrow"])
def test_other_formats_are_refused(tmp_path, name):
    path = shards.write(tmp_path, VIEWS, VALUES).rename(tmp_path / name)
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
