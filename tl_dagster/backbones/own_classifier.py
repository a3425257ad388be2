"""The backbone's own classifier, which transfer learning drops: how sure it is of images that it was not made for."""

from typing import Any

import numpy as np
import torch

from tl_dagster.backbones.building import create_network
from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.backbones.weights import Weights, load_weights
from tl_dagster.features.backbone_features import BackboneFeatures

__all__ = ["confidence", "own_classifier"]


def own_classifier(info: BackboneInfo, weights: Weights) -> torch.nn.Linear | None:
    """The last fully connected layer as it was pre-trained; None where the weights have none.

    Args:
        info: the backbone's description.
        weights: its weights; random ones, and those of a trunk, have no such layer.

    Raises:
        InputError: the file's keys do not fit the architecture.
    """

    if weights.path is None or not info.classifier:
        return None
    model = create_network(info.name, info.preprocess["size"])
    layer = model.get_submodule(info.classifier)
    if not isinstance(layer, torch.nn.Linear):
        return None
    torch.nn.init.constant_(layer.weight, torch.nan)  # what the file does not hold stays so
    load_weights(model, info, weights, [info.classifier])
    return None if layer.weight.isnan().any() else layer.eval().requires_grad_(False)


def confidence(layer: torch.nn.Linear, features: np.ndarray) -> float:
    """The mean of the largest softmax probability: near 1 where images look like those of the backbone's classes.

    Hendrycks & Gimpel, "A baseline for detecting misclassified and out-of-distribution examples", ICLR 2017.

    Args:
        layer: see :func:`own_classifier`.
        features: (n, D) of any float type, penultimate features.
    """

    with torch.no_grad():
        return float(layer(torch.tensor(features, dtype=torch.float32)).softmax(1).amax(1).mean())


def own_confidence(frozen: BackboneFeatures, features: dict[str, np.ndarray]) -> dict[str, Any]:
    """The backbone's own confidence, or why there is none."""

    penultimate = [tap for tap in features if frozen.info.module(tap) == frozen.info.classifier]
    if not penultimate:
        return {"own_confidence": None, "own_confidence_note": "no penultimate features are cached"}
    layer = own_classifier(frozen.info, frozen.weights)
    values = features[penultimate[0]]
    if layer is None or layer.in_features != values.shape[1]:
        return {"own_confidence": None, "own_confidence_note": "the weights have no linear classifier for them"}
    return {"own_confidence": confidence(layer, values), "own_confidence_note": ""}
