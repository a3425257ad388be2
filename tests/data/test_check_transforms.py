"""Declared transforms are checked in a process of their own."""

import pytest

from tl_dagster import InputError
from tl_dagster.data import check_transforms as checking
from tl_dagster.data.settings import Augmentation


@pytest.fixture(autouse=True)
def empty_store(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_DAGSTER_STORE", str(tmp_path / "store"))


def test_a_bad_transform_is_named():
    with pytest.raises(InputError, match="did you mean 'HorizontalFlip'"):
        checking.check_transforms(Augmentation(transforms=[{"HorizontalFlop": {}}]), 32)
    checking.check_transforms(Augmentation(transforms=[{"HorizontalFlip": {}}]), 32)


def test_presets_need_no_check(monkeypatch):
    monkeypatch.setattr(checking, "ask_module", lambda *_: pytest.fail("a process was started"))
    checking.check_transforms(Augmentation(preset="dihedral"), 32)
