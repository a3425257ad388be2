"""The grounds of a prediction: the model's probabilities, and the training images that look most like the image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tl_dagster.data.manifest import read_manifest, shown_uris
from tl_dagster.evaluation.neighbours import find_nearest, standardize
from tl_dagster.features.feature_table import FeatureTable
from tl_dagster.models.classifier import ImageClassifier
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import DATASET, FEATURES, Artifact, ArtifactStore
from tl_dagster.store.lineage import find_above, list_artifacts

__all__ = ["NearImage", "PredictionLineage", "trace_prediction"]

SHOWN = 5


@dataclass(frozen=True)
class NearImage:
    """A training image that looks like the predicted one to the backbone.

    Attributes:
        id: of the image.
        uri: where it was when the model was trained; its id where that is not known any more.
        label: its class.
        distance: between standardized features of length one: 0 for the same image, 1.41 for unrelated ones.
    """

    id: str
    uri: str
    label: str
    distance: float


@dataclass(frozen=True)
class PredictionLineage:
    """A prediction and what it rests on.

    Attributes:
        probabilities: class → calibrated probability, the likeliest first.
        nearest: training images, nearest first.
        training_images: how many there are, with features in the cache.
    """

    probabilities: Mapping[str, float]
    nearest: Sequence[NearImage]
    training_images: int


def trace_prediction(store: ArtifactStore, model: Artifact, image: str) -> PredictionLineage:
    """Return the prediction of a model for an image, and the training images nearest to it.

    Args:
        store: of the model.
        model: top_model or fine_tuned_model.
        image: a file or an address.

    Raises:
        InputError: the image cannot be read, or the features that the model was trained on were deleted.
    """
    classifier = ImageClassifier.load(model.path, store.root)
    (probabilities,) = classifier.predict([image])
    above = find_above(list_artifacts(store), model)
    found = {each.stage: each for each in above}
    if FEATURES not in found:
        raise InputError(f"{model.path}: the features that it was trained on were deleted: run its pipeline again")
    table = FeatureTable.open(found[FEATURES].path, store.layout.features)
    rows = np.flatnonzero((table.views["split"] == "train") & (table.views["view"] == 0))
    rows = rows[table.has_features(rows, classifier.spec.tap_names)]
    if not len(rows):
        raise InputError(f"{model.path}: its training images left the dataset, and their features were deleted")
    values = table.features(rows, classifier.spec.tap_names)
    known, own = standardize(values, classifier.features([image]))
    places, distances = (each[0] for each in find_nearest(known, own, SHOWN))
    views = table.views.iloc[rows[places]]
    dataset = found.get(DATASET)  # deleted with --artifacts, where the pipeline has another one
    uris = shown_uris(read_manifest(dataset.path), views["id"]) if dataset else views["id"]
    return PredictionLineage(
        dict(sorted(probabilities.items(), key=lambda each: -each[1])),
        [
            NearImage(identity, uri, label, float(distance))
            for identity, uri, label, distance in zip(views["id"], uris, views["label"], distances, strict=True)
        ],
        len(rows),
    )
