"""The classifier on the backbone's features: its layers, its state and what it says of many views."""

from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from tl_dagster.features.blocks import Features, blocks
from tl_dagster.training.feature_batches import StandardizedFeatures

__all__ = [
    "build_head",
    "build_layers",
    "compute_logits",
]


def build_layers(
    width: int, classes: int, hidden: int | None = None, dropout: float = 0.0
) -> OrderedDict[str, torch.nn.Module]:
    """The layers from standardised features (n, D) to logits (n, classes), by name.

    Args:
        width: D.
        classes: how many.
        hidden: units of a dense layer with ReLU before the last one; None: there is none.
        dropout: share of them that is dropped in training.
    """
    if hidden is None:
        return OrderedDict(output=nn.Linear(width, classes))
    return OrderedDict(
        hidden=nn.Linear(width, hidden),
        activation=nn.ReLU(),
        dropout=nn.Dropout(dropout),
        output=nn.Linear(hidden, classes),
    )


def build_head(state: Mapping[str, torch.Tensor], dropout: float = 0.0) -> torch.nn.Module:
    """A top model from its state.

    Args:
        state: mean and std (D,); output.weight (classes, D or units) and output.bias (classes,); of an mlp
            hidden.weight (units, D) and hidden.bias (units,).
        dropout: share of the hidden units that is dropped when it is trained on.

    Returns:
        A module in evaluation mode: float32 (n, D) features as the backbone gives them → logits (n, classes). Its
        state has the same names and values, copied.
    """

    class Classifier(torch.nn.Sequential):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            hidden = len(state["hidden.bias"]) if "hidden.bias" in state else None
            super().__init__(build_layers(len(state["mean"]), len(state["output.bias"]), hidden, dropout))
            self.register_buffer("mean", torch.empty_like(state["mean"]))
            self.register_buffer("std", torch.empty_like(state["std"]))

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            logits = (features - self.mean) / self.std
            for layer in self:
                logits = layer(logits)
            return logits

    module = Classifier()
    module.load_state_dict(dict(state))
    return module.eval()


def compute_logits(module: torch.nn.Module, features: Features | StandardizedFeatures, classes: int) -> np.ndarray:
    """What a module in evaluation mode says of many views, block by block: float32 (n, classes).

    Args:
        module: (n, D) → (n, classes).
        features: (n, D), as the module takes them.
        classes: how many.
    """
    found = np.empty((len(features), classes), np.float32)
    width = max(features[:1].shape[1], classes)
    with torch.inference_mode():
        for part in blocks(len(features), width):
            found[part] = module(torch.as_tensor(features[part]).float()).numpy()
    return found
