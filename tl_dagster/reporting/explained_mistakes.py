"""The worst mistakes of a model, with the places that spoke for the wrong class."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from tl_dagster.data.decoding import read_verified
from tl_dagster.data.manifest import image_uris, shown_uris
from tl_dagster.models.classifier import ImageClassifier
from tl_dagster.reporting.grad_cam import heat_maps
from tl_dagster.reporting.mistakes import Mistake
from tl_dagster.runtime.errors import InputError

__all__ = ["explain_mistakes"]


def explain_mistakes(
    classifier: ImageClassifier, manifest: pd.DataFrame, rows: pd.DataFrame, probabilities: np.ndarray
) -> tuple[list[Mistake], str]:
    """Return mistakes with their heat maps, and a sentence that says what the maps show or why there are none.

    Args:
        classifier: the model.
        manifest: the dataset's images.
        rows: the mistaken images' rows of predictions (id, label, predicted …).
        probabilities: (rows, classes).
    """
    likely = probabilities.max(1).tolist()
    columns = zip(shown_uris(manifest, rows["id"]), rows["label"], rows["predicted"], likely, strict=True)
    mistakes = [Mistake(uri, label, predicted, probability) for uri, label, predicted, probability in columns]
    images = _readable(classifier, manifest, rows["id"].tolist())
    known = [number for number, image in enumerate(images) if image is not None]
    if not known:
        return mistakes, "The images could not be read again."
    inputs = torch.cat([image for image in images if image is not None])
    heat = heat_maps(classifier.network, inputs, probabilities.argmax(1)[known])
    if heat is None:
        name = classifier.spec.backbone.name if classifier.spec.backbone else classifier.spec.architecture
        return mistakes, f"{name} works on tokens, not on maps: Grad-CAM has nothing to show."
    low, high = inputs.amin((1, 2, 3), keepdim=True), inputs.amax((1, 2, 3), keepdim=True)
    pixels = ((inputs - low) / (high - low).clamp_min(1e-6) * 255).byte().permute(0, 2, 3, 1).numpy().astype(np.uint8)
    for number, picture, each in zip(known, pixels, heat, strict=True):
        mistakes[number] = replace(mistakes[number], seen=picture, heat=each)
    return mistakes, "Beside each image, bright: what spoke for the wrong class (Grad-CAM, Selvaraju et al. 2017)."


def _readable(classifier: ImageClassifier, manifest: pd.DataFrame, ids: Sequence[str]) -> list[torch.Tensor | None]:
    """Return the network's input of each image, (1, 3, size, size); None for one that cannot be read any more."""
    uris = image_uris(manifest)
    images: list[torch.Tensor | None] = []
    for identity in ids:
        try:
            read_verified(uris[identity], identity)
            images.append(classifier.normalized([uris[identity]]))
        except (InputError, OSError, KeyError):
            images.append(None)
    return images
