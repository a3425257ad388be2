"""The classifier that transfer learning drops from the backbone, and its confidence on other images."""

import numpy as np
import torch

from tl_dagster.backbones.building import create_network
from tl_dagster.backbones.checkpoint_loading import load_weights
from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.backbones.weights import Weights

__all__ = ["confidence", "load_with_classifier", "own_confidence"]


def load_with_classifier(info: BackboneInfo, weights: Weights) -> tuple[torch.nn.Module, torch.nn.Linear | None]:
    """Return a pre-trained network as a whole, and its last fully connected layer; None where the weights have none.

    Args:
        info: the backbone's description.
        weights: its weights; random ones, and those of a trunk, have no such layer.

    Raises:
        InputError: the file's keys do not fit the architecture.
    """
    model = create_network(info.name, info.preprocess["size"])
    layer = model.get_submodule(info.classifier) if info.classifier and weights.path is not None else None
    if not isinstance(layer, torch.nn.Linear):
        return model, None
    torch.nn.init.constant_(layer.weight, torch.nan)  # stays so where the file lacks it
    load_weights(model, info, weights, [info.classifier])
    return model, None if layer.weight.isnan().any() else layer.eval().requires_grad_(False)


def confidence(layer: torch.nn.Linear, features: np.ndarray) -> float:
    """Return the mean of the largest softmax probability: near 1 where images resemble those of the backbone's classes.

    Hendrycks & Gimpel, "A baseline for detecting misclassified and out-of-distribution examples", ICLR 2017.

    Args:
        layer: see :func:`load_with_classifier`.
        features: (n, D) of any float type, penultimate features.
    """
    with torch.no_grad():
        return float(layer(torch.tensor(features, dtype=torch.float32)).softmax(1).amax(1).mean())


def own_confidence(layer: torch.nn.Linear | None, features: np.ndarray | None) -> tuple[float | None, str]:
    """Return the confidence of a backbone's own classifier on some images, or None and why there is none.

    Args:
        layer: see :func:`load_with_classifier`.
        features: (n, D) of any float type, penultimate features; None where they are not cached.
    """
    if features is None:
        return None, "no penultimate features are cached"
    if layer is None or layer.in_features != features.shape[1]:
        return None, "the weights have no linear classifier for them"
    return confidence(layer, features), ""
