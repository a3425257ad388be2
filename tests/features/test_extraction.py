"""Extraction gives the same rows on any worker count and whatever else is missing, with or without a compiler."""

import numpy as np
import pytest
import torch

from tests.conftest import Pipeline
from tl_dagster.features import extraction
from tl_dagster.spec import Compute
from tl_dagster.stages.top_model import read_features


def features(pipeline: Pipeline, store, **changes) -> np.ndarray:
    pipeline.store = store
    assert pipeline.run(**changes).success
    return read_features(pipeline.held()["bottleneck_features"].artifact, store)


def test_workers_and_missing_rows_change_nothing(pipeline, tmp_path):
    Store = type(pipeline.store)
    one = features(pipeline, Store(tmp_path / "one"), compute={"workers": 1})
    four = features(pipeline, Store(tmp_path / "four"), compute={"workers": 4})
    assert (one == four).all()
    features(pipeline, Store(tmp_path / "part"), augmentation={"views": 2})  # some rows are there before
    rest = features(pipeline, Store(tmp_path / "part"))
    assert (rest == one).all()


def test_bf16_is_close_to_fp32(pipeline, tmp_path):
    Store = type(pipeline.store)
    exact = features(pipeline, Store(tmp_path / "fp32"), backbone={"precision": "fp32"})
    half = features(pipeline, Store(tmp_path / "bf16"), backbone={"precision": "bf16"}).astype(np.float32)
    assert exact.dtype == np.float32
    cosine = (exact * half).sum(1) / (np.linalg.norm(exact, axis=1) * np.linalg.norm(half, axis=1))
    assert cosine.min() > 0.98 and cosine.mean() > 0.99  # fifty layers, eight significant bits


def test_compiles_only_what_repays_it(monkeypatch):
    assert not extraction._worth_compiling(Compute(), 100, "cpu")
    assert not extraction._worth_compiling(Compute(compile="never"), 10**6, "cpu")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert not extraction._worth_compiling(Compute(), 10**6, "cpu")


def test_a_compiler_that_does_not_work_falls_back_to_eager(monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "/bin/false"))
    monkeypatch.setenv("CXX", "/bin/false")
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU()).eval()
    images = torch.rand(2, 3, 8, 8)
    with torch.inference_mode():
        assert torch.allclose(extraction._compiled(network)(images), network(images))


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    torch._dynamo.reset()
