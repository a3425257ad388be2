"""Models that cannot be trusted are refused by name, before anything runs."""

import json
import pickle

import pytest
import torch

from tests.conftest import Pipeline
from tl_dagster import ImageClassifier, InputError
from tl_dagster.models.bundle import save_model
from tl_dagster.models.spec import ModelSpec, read_spec


def without(*path: str):
    def change(spec: dict) -> None:
        for part in path[:-1]:
            spec = spec[part]
        del spec[path[-1]]

    return change


def replaced(value, *path: str):
    def change(spec: dict) -> None:
        for part in path[:-1]:
            spec = spec[part]
        spec[path[-1]] = value

    return change


SPEC = {
    "field missing": (without("classes"), r"model\.json: classes: Field required"),
    "field of a part missing": (without("resize", "size"), r"model\.json: resize\.size: Field required"),
    "unknown field": (replaced(1, "surprise"), r"model\.json: surprise: Extra inputs"),
    "class twice": (replaced(["a", "a"], "classes"), r"class 'a' is named twice"),
    "one class": (replaced(["a"], "classes"), r"model\.json: classes: List should have at least 2"),
    "digest that is not one": (replaced("../x", "backbone", "weights"), r"model\.json: backbone\.weights"),
    "later format": (replaced(2, "format"), r"format 2 was written by another version"),
    "other decoder": (replaced(99, "decoder"), r"decoder 99: this version of tl-dagster decodes with"),
    "no taps": (replaced([], "taps"), r"needs a backbone and taps"),
}


@pytest.fixture
def bundle(pipeline: Pipeline, tmp_path):
    """A model with a backbone of its own, carried along."""
    assert pipeline.run(upto="top_model").success
    classifier = ImageClassifier.load(pipeline.held()["top_model"].artifact.path)
    classifier.save(tmp_path / "bundle", with_backbone=True)
    return tmp_path / "bundle"


def test_bad_bundles(bundle):
    good = (bundle / "model.json").read_text()
    for change, words in SPEC.values():
        spec = json.loads(good)
        change(spec)
        (bundle / "model.json").write_text(json.dumps(spec))
        with pytest.raises(InputError, match=words):
            ImageClassifier.load(bundle)
    (bundle / "model.json").write_text(good[:100])
    with pytest.raises(InputError, match=r"model\.json is damaged"):
        ImageClassifier.load(bundle)
    (bundle / "model.json").write_text(good)

    weights = (bundle / "model.safetensors").read_bytes()
    (bundle / "model.safetensors").write_bytes(weights[:-10])
    with pytest.raises(InputError, match=r"model\.safetensors has another SHA-256.*cut short or changed"):
        ImageClassifier.load(bundle)
    (bundle / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"it has no model\.safetensors"):
        ImageClassifier.load(bundle)
    (bundle / "model.safetensors").write_bytes(weights)

    (backbone,) = bundle.glob("backbone.*")
    backbone.write_bytes(backbone.read_bytes() + b"\0")
    with pytest.raises(InputError, match=r"backbone\.pth has another SHA-256 than"):
        ImageClassifier.load(bundle)
    with pytest.raises(InputError, match=r"it has no model\.json"):
        ImageClassifier.load(bundle.parent)


class Opened:
    """A pickle that would tell that it was opened."""

    def __reduce__(self):
        return pytest.fail, ("the pickle was opened",)


def test_a_pickle_is_never_opened(bundle):
    """Also one that the description names with its right digest."""
    spec = read_spec(bundle)
    save_model(bundle, spec, {"head.output.bias": torch.zeros(2)})
    (bundle / "model.safetensors").write_bytes(pickle.dumps(Opened()))
    import hashlib

    digest = hashlib.sha256((bundle / "model.safetensors").read_bytes()).hexdigest()
    fields = spec.model_copy(update={"weights_sha256": digest})
    (bundle / "model.json").write_text(fields.model_dump_json())
    with pytest.raises(InputError, match="is not a safetensors file"):
        ImageClassifier.load(bundle)


def test_tensors_that_are_not_those_of_the_head(bundle):
    spec: ModelSpec = read_spec(bundle)
    save_model(bundle, spec, {"head.output.bias": torch.zeros(2)})
    with pytest.raises(InputError, match="the head's tensors are not whole"):
        ImageClassifier.load(bundle).predict([torch.zeros(8, 8, 3, dtype=torch.uint8).numpy()])
