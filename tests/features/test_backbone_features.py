"""Which column a row belongs to, and that there is room for it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tl_dagster import InputError
from tl_dagster.backbones import frozen as module
from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.data import decoding
from tl_dagster.data.splits import read_views
from tl_dagster.features.backbone_features import BackboneFeatures
from tl_dagster.features.engine import LocalEngine
from tl_dagster.runtime.progress import Progress

INGREDIENTS = {
    "size": {"backbone": {"image_size": 96}},
    "geometry": {"backbone": {"image_size": 64, "resize": "squash"}},
    "backbone": {"backbone": {"name": "torchvision/squeezenet1_1", "weights": "random:0", "image_size": 64}},
    "weights": {"backbone": {"weights": "random:1", "image_size": 64}},
    "tap": {"backbone": {"taps": ["stage3"], "image_size": 64}},
    "pooling": {"backbone": {"pooling": "max", "image_size": 64}},
    "precision": {"backbone": {"precision": "fp32", "image_size": 64}},
}
NO_INGREDIENTS = {
    "pipeline": {"name": "other"},
    "work": {"compute": {"workers": 3, "batch_size": 5, "compile": "never", "feature_cache_gb": 9}},
    "splits": {"splits": {"seed": 5}},
    "views": {"augmentation": {"views": 2, "seed": 4, "test_views": "mirrored"}},
    "top model": {"top_model": {"balanced": True}},
    "fine-tuning": {"fine_tuning": {"epochs": 3, "depth": "above stage2"}},
    "another name for the tap": {"backbone": {"taps": ["higher"], "image_size": 64}},
    "precision that auto means": {"backbone": {"precision": "auto", "image_size": 64}},
}


def name_of(pipeline, **changes) -> str:
    features = BackboneFeatures.from_settings(pipeline.declaration(**changes).backbone, pipeline.store.layout.features)
    (column,) = features.columns()
    return column.name


def test_each_ingredient_changes_the_column_and_nothing_else_does(pipeline, monkeypatch):
    monkeypatch.setattr(module, "resolve_precision", lambda declared: "bf16" if declared == "auto" else declared)
    own = name_of(pipeline)
    changed = {case: name_of(pipeline, **change) for case, change in INGREDIENTS.items()}
    with monkeypatch.context() as recipe:
        recipe.setattr(module, "DECODER_VERSION", decoding.DECODER_VERSION + 1)
        changed["decoding"] = name_of(pipeline)
    for part, value in (("mean", [0.1] * 3), ("std", [0.1] * 3), ("crop_fraction", 0.5), ("interpolation", "bilinear")):
        with monkeypatch.context() as preprocess:
            look_up = module.describe_backbone

            def other(backbone, part=part, value=value, look_up=look_up) -> BackboneInfo:
                info = look_up(backbone)
                return type(info)(**{**vars(info), "preprocess": {**info.preprocess, part: value}})

            preprocess.setattr(module, "describe_backbone", other)
            changed[part] = name_of(pipeline)
    assert len({own, *changed.values()}) == 1 + len(changed)
    assert {name_of(pipeline, **change) for change in NO_INGREDIENTS.values()} == {own}


def compute_missing(pipeline, log=lambda line: None, **changes) -> tuple[LocalEngine, int]:
    """Fill the cache of a pipeline whose first two stages ran; how many views were forwarded."""
    engine = pipeline.engine(Progress(log), **changes)
    views = read_views(pipeline.held()["augmented_splits"].artifact.path)
    return engine, engine.compute_missing(views, engine.features.columns()).views


@pytest.fixture
def split(pipeline):
    """A pipeline whose features were refused."""
    result = pipeline.run(raise_on_error=False, compute={"feature_cache_gb": 1e-9})
    assert not result.success
    return pipeline


def test_what_does_not_fit_is_refused_before_anything_is_computed(split, monkeypatch):
    with pytest.raises(InputError, match=r"need 0\.00 GB more, and compute\.feature_cache_gb allows"):
        compute_missing(split, compute={"feature_cache_gb": 1e-9})
    monkeypatch.setattr("tl_dagster.store.files.free_bytes", lambda path: 1000)
    with pytest.raises(InputError, match=r"GB free\. Delete what no pipeline uses \(tl-dagster cache prune --unused\)"):
        compute_missing(split)
    assert not list(split.store.root.glob("features/*/*.arrow"))


def test_where_only_the_features_fit_only_they_are_kept(split):
    assert split.run(compute={"feature_cache_gb": 5e-4}).success
    held = split.held()["bottleneck_features"]  # 0.3 MB; fine-tuning would like 1 MB more
    assert "do not fit" in split.held()["fine_tuned_model"].artifact.summary.metadata["frozen_part"]
    assert held.computed > 0 and "What excites each stage" not in held.artifact.summary.figures


def test_two_runs_at_once_compute_each_row_once(split):
    said: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        views = list(pool.map(lambda _: compute_missing(split, said.append)[1], range(2)))
    engine, again = compute_missing(split)
    assert again == 0 and min(views) == 0 and any("waiting for it" in line for line in said)
    (column,) = engine.features.columns()
    assert sum(len(shard) for shard in column.shards()) == max(views)


def test_no_more_is_asked_for_than_rows_take(split):
    engine, _ = compute_missing(split)
    (column,) = engine.features.columns()
    rows = sum(len(shard) for shard in column.shards())
    taken = sum(shard.values().nbytes for shard in column.shards())
    assert rows * engine.features.row_bytes(column) == taken == rows * 1280 * np.dtype(column.dtype).itemsize
