"""The feature cache: rows written once, read back as they were."""

import hashlib
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tl_dagster import InputError
from tl_dagster.features.cache import FeatureColumn, list_columns, locked

RECIPE = {"backbone": "b", "tap": "t", "precision": "fp32"}
HOLD = """
import sys, time
from pathlib import Path
from tl_dagster.features.cache import FeatureColumn, locked
with locked([FeatureColumn(Path(sys.argv[1]), {RECIPE})], print):
    print("held", flush=True)
    time.sleep(60)
"""


def keys(*names):
    return [hashlib.sha256(str(name).encode()).hexdigest() for name in names]


def test_rows_come_back_in_any_order_from_several_shards(tmp_path):
    column = FeatureColumn(tmp_path, RECIPE)
    values = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    column.write(keys(*range(6)), values[:6])
    column.write(keys(*range(6, 10)), values[6:])
    order = [9, 0, 5, 6, 0]
    rows = FeatureColumn(tmp_path, RECIPE).read(keys(*order))
    assert (rows[:] == values[order]).all()
    assert (rows[np.array([2, 0])] == values[[5, 9]]).all()
    assert column.missing(keys(3, "new")).tolist() == [False, True]


def test_each_ingredient_has_its_own_column(tmp_path):
    names = {
        FeatureColumn(tmp_path, {**RECIPE, **change}).name
        for change in ({}, {"tap": "u"}, {"precision": "bf16"}, {"backbone": "c"})
    }
    assert len(names) == 4


def test_half_written_shard_is_ignored(tmp_path):
    column = FeatureColumn(tmp_path, RECIPE)
    column.write(keys(1), np.ones((1, 2)))
    (column.folder / ".killed").write_bytes(b"half")
    assert column.missing(keys(1, 2)).tolist() == [False, True]


def test_refusals(tmp_path):
    column = FeatureColumn(tmp_path, RECIPE)
    with pytest.raises(InputError, match=r"set backbone.precision: fp32"):
        column.write(keys(1), np.array([[np.inf]]))
    column.write(keys(1), np.ones((1, 2)))
    with pytest.raises(InputError, match="materialize `bottleneck_features` again"):
        column.read(keys(2))


def test_a_damaged_shard_is_set_aside_and_never_served(tmp_path):
    column = FeatureColumn(tmp_path, RECIPE)
    for number in range(2):
        column.write(keys(number), np.full((1, 4), number + 0.3))
    path = column.shards()[0].path
    flip(path, np.float32(column.shards()[0].values()[0, 0]).tobytes() * 4)
    fresh = FeatureColumn(tmp_path, RECIPE)
    rows = fresh.read(keys(0, 1))
    with pytest.raises(InputError, match=r"computes its 1 rows again"):
        rows[:]
    assert path.with_name(path.name + ".damaged").exists()
    assert sorted(FeatureColumn(tmp_path, RECIPE).missing(keys(0, 1)).tolist()) == [False, True]


def test_damaged_views_are_noticed_without_reading_values(tmp_path):
    column = FeatureColumn(tmp_path, RECIPE)
    column.write(keys(1), np.ones((1, 4)))
    flip(column.shards()[0].path, bytes.fromhex(keys(1)[0]))
    fresh = FeatureColumn(tmp_path, RECIPE)
    assert fresh.missing(keys(1)).tolist() == [True]
    assert "views' checksum differs" in fresh.damaged[0]


def flip(path, content: bytes) -> None:
    """Flip one bit of some bytes that stand in a file."""
    found = bytearray(path.read_bytes())
    found[found.index(content) + 1] ^= 4
    path.write_bytes(found)


def test_what_a_killed_process_was_writing_is_swept_away(tmp_path):
    column = FeatureColumn(tmp_path, RECIPE)
    column.write(keys(1), np.ones((1, 2)))
    for name, age in ((".fresh", 0), (".stale", 7200)):
        (column.folder / name).write_bytes(b"half")
        os.utime(column.folder / name, (time.time() - age,) * 2)
    column.remove_stale_files()
    assert (column.folder / ".fresh").exists() and not (column.folder / ".stale").exists()
    assert not column.missing(keys(1)).any()


def test_notes_and_columns(tmp_path):
    column = FeatureColumn(tmp_path, RECIPE)
    column.write(keys(1), np.ones((1, 2)))
    assert column.read_notes() == {}
    column.write_notes({"difference": 0.5})
    (found,) = list_columns(tmp_path)
    assert found.name == column.name and found.read_notes() == {"difference": 0.5}


def test_another_process_waits_for_the_one_that_computes(tmp_path):
    script = HOLD.replace("{RECIPE}", repr(RECIPE))
    holder = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    said, entered = [], threading.Event()

    def wait() -> None:
        with locked([FeatureColumn(tmp_path, RECIPE)], said.append):
            entered.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert not entered.wait(1) and said == ["another run computes these features; waiting for it, to use its rows"]
    holder.kill()  # the kernel lets go of a dead process's lock
    holder.wait()
    assert entered.wait(10)
    waiting.join()
