"""Extraction gives the same rows on any worker count, batch size and order, and whatever else is missing."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Pipeline
from tl_dagster import InputError
from tl_dagster.data.views import View
from tl_dagster.features import extraction, loading
from tl_dagster.features.cache import FeatureColumn
from tl_dagster.features.engine import LocalEngine
from tl_dagster.features.extraction import extract
from tl_dagster.runtime.progress import Progress


def features(pipeline: Pipeline, store, **changes) -> np.ndarray:
    pipeline.store = store
    assert pipeline.run(**changes).success
    return pipeline.features().features()[:]


def test_workers_batches_and_missing_rows_change_nothing(pipeline, tmp_path, monkeypatch):
    Store = type(pipeline.store)
    one = features(pipeline, Store(tmp_path / "one"), compute={"workers": 1})
    features(pipeline, Store(tmp_path / "part"), augmentation={"views": 2})  # some rows are there before
    rest = features(pipeline, Store(tmp_path / "part"))
    assert (rest == one).all()
    monkeypatch.setattr(loading, "PROCESSES_FROM", 0)
    four = features(pipeline, Store(tmp_path / "four"), compute={"workers": 4, "batch_size": 5})
    assert (one == four).all()


@pytest.fixture
def engine(pipeline):
    return pipeline.engine()


def wanted(photos: Path, views: int = 1) -> list[View]:
    files = sorted(photos.glob("*/*"))
    ids = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return [
        View(str(file), image, index, hashlib.sha256(f"{image} {index}".encode()).hexdigest())
        for file, image in zip(files, ids, strict=True)
        for index in range(views)
    ]


def rows(engine: LocalEngine, views: list[View], root: Path, log=lambda line: None, reused=0):
    from tl_dagster.backbones.taps import build_extractor

    column = FeatureColumn(root, engine.features.columns()[0].key)
    done = extract(
        views,
        [(column, np.ones(len(views), bool))],
        lambda: build_extractor(engine.features.load(), [(column.key["tap"], "avg")]),
        engine.loader(),
        mean=engine.features.backbone.mean,
        std=engine.features.backbone.std,
        progress=Progress(log),
        reused=reused,
    )
    keys = [view.key for view in views]
    return dict(zip(keys, column.read(keys)[:], strict=True)), done


def test_cached_and_live_features_are_equal_in_any_order(engine, photos, tmp_path):
    import torch

    from tl_dagster.backbones.taps import build_extractor
    from tl_dagster.data.augmentation import Augmenter

    views = wanted(photos, views=2)
    cached, done = rows(engine, views, tmp_path / "a")
    assert (done.views, done.images) == (120, 60)  # decoded once for both views
    backwards, _ = rows(engine, views[::-1], tmp_path / "b")
    assert all((backwards[key] == row).all() for key, row in cached.items())

    dtype = torch.bfloat16 if engine.features.backbone.precision == "bf16" else torch.float32
    model = build_extractor(engine.features.load(), [(engine.features.backbone.info.module("penultimate"), "avg")])
    model.to(dtype=dtype, memory_format=torch.channels_last)
    draw = Augmenter(engine.augmentation)
    for view in views[:6]:
        drawn = draw.draw(engine.features.backbone.resize(Path(view.uri).read_bytes()), view.image_id, view.index)
        images = torch.from_numpy(drawn.copy()).permute(2, 0, 1)[None].float().sub(127.5).div(127.5)
        with torch.inference_mode():
            (live,) = model(images.to(dtype).contiguous(memory_format=torch.channels_last))
        assert (live[0].float().numpy().astype(cached[view.key].dtype) == cached[view.key]).all()


def test_progress_says_what_is_done_reused_and_where_the_time_goes(engine, photos, tmp_path):
    lines = []
    rows(engine, wanted(photos), tmp_path, lines.append, reused=7)
    assert lines[0] == "60 views to forward, 7 reused"
    assert re.search(r"60/60 views · .*/s · done · 7 reused · decode \d+%, augment \d+%, forward \d+%", lines[-1])


def test_rows_are_written_while_the_network_runs(engine, photos, tmp_path, monkeypatch):
    """What was computed before an error is kept, but for the batches on their way."""
    monkeypatch.setattr(extraction, "FLUSH_SECONDS", 0.0)
    views = wanted(photos)
    Path(views[50].uri).write_bytes(b"changed")
    with pytest.raises(InputError, match="changed since it was ingested"):
        rows(engine, views, tmp_path)
    kept = ~FeatureColumn(tmp_path, engine.features.columns()[0].key).missing([view.key for view in views])
    assert kept[:32].all() and not kept[50:].any()


def test_precision_is_compared(engine, photos, tmp_path):
    done = rows(engine, wanted(photos), tmp_path)[1]
    if engine.features.backbone.precision == "bf16":
        assert 0.001 < done.difference[0]["median"] <= done.difference[0]["largest"] < 0.5


def test_what_is_kept_beside_the_features_cannot_stop_them(engine, photos, tmp_path):
    import torch

    class Large(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [images.mean((2, 3)), images.amax((2, 3)) * 0 + 1e6]  # more than a float16 holds

    views, said = wanted(photos), []
    recipe = {**engine.features.columns()[0].key, "precision": "bf16"}
    columns = [FeatureColumn(tmp_path, {**recipe, "tap": tap}) for tap in ("features", "maxima")]
    given = [(column, np.ones(len(views), bool)) for column in columns]
    options = {"mean": [0.5] * 3, "std": [0.5] * 3, "progress": Progress(said.append)}
    with pytest.raises(InputError, match="infinite or undefined"):
        extract(views, given, Large, engine.loader(), **options)
    extract(views, given, Large, engine.loader(), **options, required=1)
    assert not columns[0].missing([view.key for view in views]).any() and not columns[1].shards()
    assert any("left out, as no feature depends on it" in line for line in said)
