"""The change matrix: for each kind of change, exactly what computes, and that changing back computes nothing."""

import os
import shutil
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from tests.conftest import Pipeline, copy_photos, share_backbones
from tl_dagster import ArtifactStore
from tl_dagster.data.splits import read_views
from tl_dagster.training.settings import MlpTopModel

STAGES = (
    "dataset",
    "augmented_splits",
    "bottleneck_features",
    "transfer_strategy",
    "top_model",
    "fine_tuned_model",
    "evaluation",
)
BELOW_SPLITS, BELOW_FEATURES, MODELS, TUNED = STAGES[1:], STAGES[2:], STAGES[4:], STAGES[5:]


def first(photos: Path) -> Path:
    return sorted((photos / "functional").glob("*.png"))[0]


def add_image(photos: Path) -> None:
    Image.open(first(photos)).rotate(7).save(photos / "functional" / "new.png")


def rename(photos: Path) -> None:
    first(photos).rename(photos / "functional" / "renamed.png")


def touch(photos: Path) -> None:
    os.utime(first(photos), (1, 1))


def resave(photos: Path) -> None:
    Image.open(first(photos)).save(first(photos), compress_level=1)


def relabel(photos: Path) -> None:
    shutil.move(first(photos), photos / "defective" / "relabelled.png")


def remove(photos: Path) -> None:
    first(photos).unlink()


def break_one(photos: Path) -> None:
    last = sorted((photos / "functional").glob("*.png"))[-1]  # not the one that `remove` removes: it comes to the same
    last.write_bytes(last.read_bytes()[:2000])


def copy_one(photos: Path) -> None:
    shutil.copy(first(photos), photos / "functional" / "zz_copy.png")


def move_all(photos: Path) -> None:
    (photos / "functional" / "deeper").mkdir()
    for path in (photos / "functional").glob("*.png"):
        path.rename(photos / "functional" / "deeper" / path.name)


def add_near_copy(photos: Path) -> None:
    Image.open(first(photos)).convert("RGB").save(photos / "functional" / "near.jpg", quality=90)


def add_other_file(photos: Path) -> None:
    (photos / "functional" / "notes.txt").write_text("not an image")


MLP = MlpTopModel(kind="mlp", epochs=2)
# The change (declared fields, or a function on the files); stages that compute; views forwarded ("new": unknown ones).
MATRIX = {
    "nothing": ({}, (), 0),
    "top model: L2": ({"top_model": {"l2": [0.3]}}, MODELS, 0),
    "top model: class weights": ({"top_model": {"balanced": True}}, MODELS, 0),
    "top model: mlp": ({"top_model": MLP}, MODELS, 0),
    "strategy: named": (
        {"transfer_strategy": {"strategy": "fine-tune-top"}, "fine_tuning": {"depth": "auto"}},
        ("transfer_strategy", "evaluation"),  # it names what is declared anyway: the models stay
        0,
    ),
    "strategy: verified": ({"transfer_strategy": {"verify": True}}, (), 0),
    "fine-tuning: learning rate": ({"fine_tuning": {"learning_rate": 5e-5}}, TUNED, 0),
    "fine-tuning: epochs": ({"fine_tuning": {"epochs": 2}}, TUNED, 0),
    "fine-tuning: depth": ({"fine_tuning": {"depth": "last 2 stages"}}, TUNED, 0),
    "fine-tuning: depth by another name": ({"fine_tuning": {"depth": "above stage4"}}, (), 0),
    "fine-tuning: mixup": ({"fine_tuning": {"mixup": 0.2}}, TUNED, 0),
    "fine-tuning: fresh augmentation": ({"fine_tuning": {"fresh_augmentation": True}}, TUNED, 0),
    "scratch baseline": ({"scratch_baseline": {"epochs": 1, "image_size": 32}}, ("evaluation",), 0),
    "compute: activations": ({"compute": {"activation_cache_gb": 0}}, (), 0),
    "splits: seed": ({"splits": {"seed": 1}}, BELOW_SPLITS, "new"),
    "splits: fraction": ({"splits": {"test": 0.45}}, BELOW_SPLITS, 0),
    "augmentation: views": ({"augmentation": {"views": 4}}, BELOW_SPLITS, "new"),
    "augmentation: test views": ({"augmentation": {"test_views": 2}}, BELOW_SPLITS, "new"),
    "augmentation: mirrored test views": ({"augmentation": {"test_views": "mirrored"}}, BELOW_SPLITS, "new"),
    "augmentation: seed": ({"augmentation": {"seed": 5}}, BELOW_SPLITS, "new"),
    "augmentation: transforms": ({"augmentation": {"transforms": [{"VerticalFlip": {"p": 0.5}}]}}, BELOW_SPLITS, "new"),
    "augmentation: preset": ({"augmentation": {"preset": "dihedral"}}, BELOW_SPLITS, "new"),
    "backbone: another": (
        {"backbone": {"name": "torchvision/squeezenet1_1", "weights": "random:0"}},
        BELOW_FEATURES,
        "all",
    ),
    "backbone: weights": ({"backbone": {"weights": "random:1"}}, BELOW_FEATURES, "all"),
    "backbone: precision": ({"backbone": {"precision": "fp32"}}, BELOW_FEATURES, "all"),
    "backbone: tap": ({"backbone": {"taps": ["stage5"]}}, BELOW_FEATURES, "all"),
    "backbone: one more tap": (
        {"backbone": {"taps": ["stage3", "stage4", "penultimate"], "pooling": "avg"}},
        BELOW_FEATURES,
        "all",
    ),
    "backbone: pooling": ({"backbone": {"taps": ["stage4", "penultimate"], "pooling": "max"}}, BELOW_FEATURES, "all"),
    "backbone: image size": ({"backbone": {"image_size": 96}}, BELOW_FEATURES, "all"),
    "backbone: resize": ({"backbone": {"resize": "squash"}}, BELOW_FEATURES, "all"),
    "compute: workers": ({"compute": {"workers": 1}}, (), 0),
    "compute: batch size": ({"compute": {"batch_size": 7}}, (), 0),
    "description": ({"description": "another line"}, (), 0),
    "schedule": ({"schedule": {"cron": "0 3 * * 1"}}, (), 0),
    "pipeline renamed": ({"name": "renamed"}, (), 0),
    "image added": (add_image, STAGES, "new"),
    "image renamed": (rename, ("dataset",), 0),
    "folder rearranged": (move_all, ("dataset",), 0),
    "image touched": (touch, (), 0),
    "image re-saved": (resave, STAGES, "new"),
    "image relabelled": (relabel, STAGES, 0),
    "image removed": (remove, STAGES, 0),
    "image broken": (break_one, STAGES, 0),
    "image copied": (copy_one, ("dataset",), 0),
    "near copy added": (add_near_copy, STAGES, "new"),
    "other file added": (add_other_file, ("dataset",), 0),
    "near copies: distance": ({"duplicates": {"distance": 4}}, (), 0),
    "checks: thresholds": ({"checks": {"per_class": 1, "set_aside": 0.5}}, (), 0),
}
# Rows that the dataset stage decodes: only images whose bytes it had not seen.
DECODED = {"image added": 1, "image re-saved": 1, "image broken": 1, "near copy added": 1}


def computed(held) -> tuple[str, ...]:
    return tuple(stage for stage in STAGES if not held[stage].reused)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, labels, shared):
    """A pipeline that ran twice, whose photos each change alters and puts back."""
    root = tmp_path_factory.mktemp("base")
    photos = copy_photos(root / "photos", labels, 20)
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        for name, value in share_backbones(root / "store", shared).items():
            patch.setenv(name, value)
        pipeline = Pipeline(ArtifactStore(root / "store"), instance, photos)
        assert pipeline.run().success
        assert computed(pipeline.held()) == STAGES
        assert pipeline.run().success
        yield pipeline


@pytest.mark.parametrize("kind", MATRIX)
def test_change_matrix(kind, finished):
    change, stages, forwarded = MATRIX[kind]
    pipeline, photos, shards = finished, finished.photos, finished.store.layout.features
    kept = photos.with_name("kept")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(photos, kept)
    assert computed(pipeline.held()) == ()
    features = set(shards.glob("*/*.arrow"))
    before = set(read_views(pipeline.held()["bottleneck_features"].artifact.path)["key"])
    changes = change if isinstance(change, dict) else {}
    try:
        if callable(change):
            change(photos)
        assert pipeline.run(**changes).success
        held = pipeline.held(changes.get("name", "cells"))
        table = read_views(held["bottleneck_features"].artifact.path)
        expected = {"new": len(set(table["key"]) - before), "all": len(table)}.get(forwarded, forwarded)
        assert computed(held) == stages
        assert held["bottleneck_features"].computed == expected
        assert expected > 0 or forwarded not in ("new", "all")
        assert held["bottleneck_features"].reused_rows == len(table) - expected
        assert held["dataset"].computed == DECODED.get(kind, 0)
    finally:
        shutil.rmtree(photos)
        kept.rename(photos)
        new_shards = set(shards.glob("*/*.arrow")) - features
        assert pipeline.run().success  # back again, for the next change too
    back = pipeline.held()
    assert computed(back) == ()
    assert {stage: back[stage].computed for stage in STAGES if back[stage].computed} == {}
    for shard in new_shards:  # the next change starts from the same cache
        shard.unlink()
