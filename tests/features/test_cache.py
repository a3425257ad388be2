"""The feature cache: rows written once, read back as they were."""

import hashlib

import numpy as np
import pytest

from tl_dagster import InputError
from tl_dagster.features.cache import Column

RECIPE = {"backbone": "b", "tap": "t", "precision": "fp32"}


def keys(*names):
    return [hashlib.sha256(str(name).encode()).hexdigest() for name in names]


def test_rows_come_back_in_any_order_from_several_shards(tmp_path):
    column = Column(tmp_path, RECIPE)
    values = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    column.write(keys(*range(6)), values[:6])
    column.write(keys(*range(6, 10)), values[6:])
    order = [9, 0, 5, 6, 0]
    rows = Column(tmp_path, RECIPE).read(keys(*order))
    assert (rows[:] == values[order]).all()
    assert (rows[np.array([2, 0])] == values[[5, 9]]).all()
    assert column.missing(keys(3, "new")) == [False, True]


def test_each_ingredient_has_its_own_column(tmp_path):
    names = {
        Column(tmp_path, {**RECIPE, **change}).name
        for change in ({}, {"tap": "u"}, {"precision": "bf16"}, {"backbone": "c"})
    }
    assert len(names) == 4


def test_half_written_shard_is_ignored(tmp_path):
    column = Column(tmp_path, RECIPE)
    column.write(keys(1), np.ones((1, 2)))
    (column.folder / ".killed").write_bytes(b"half")
    assert column.missing(keys(1, 2)) == [False, True]


def test_refusals(tmp_path):
    column = Column(tmp_path, RECIPE)
    with pytest.raises(InputError, match=r"set backbone.precision: fp32"):
        column.write(keys(1), np.array([[np.inf]]))
    column.write(keys(1), np.ones((1, 2)))
    with pytest.raises(InputError, match="materialize `bottleneck_features` again"):
        column.read(keys(2))
