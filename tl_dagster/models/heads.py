"""The classifier on the backbone's features: its layers, its state and its logits of many views."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from torch import nn

from tl_dagster.features.blocks import blocks

__all__ = ["SliceableRows", "TopModelHead", "build_head", "build_layers", "compute_logits", "fold_temperature"]

BATCH = 256  # rows of a forward pass


class SliceableRows(Protocol):
    """Features that are read by slices of rows: an array, a tensor, or columns of the feature cache."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, rows: slice, /) -> np.ndarray | torch.Tensor:
        """Return a slice of the rows: (n, D), float16 or float32."""


def build_layers(
    width: int, classes: int, hidden: int | None = None, dropout: float = 0.0
) -> OrderedDict[str, nn.Module]:
    """Build the layers from standardized features (n, D) to logits (n, classes), by name.

    Args:
        width: D.
        classes: number of classes.
        hidden: units of a dense layer with ReLU before the last one; None: there is none.
        dropout: share of the hidden units that is dropped in training.
    """
    if hidden is None:
        return OrderedDict(output=nn.Linear(width, classes))
    return OrderedDict(
        hidden=nn.Linear(width, hidden),
        activation=nn.ReLU(),
        dropout=nn.Dropout(dropout),
        output=nn.Linear(hidden, classes),
    )


class TopModelHead(nn.Sequential):
    """The top model on features as the backbone gives them: they are standardized first.

    Args:
        width: features of a view (D).
        classes: number of classes.
        hidden: units of a dense layer before the last one; None: there is none.
        dropout: share of the hidden units that is dropped in training.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, width: int, classes: int, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__(build_layers(width, classes, hidden, dropout))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes) of float32 features (n, D)."""
        logits = (features - self.mean) / self.std
        for layer in self:
            logits = layer(logits)
        return logits


def build_head(state: Mapping[str, torch.Tensor], dropout: float = 0.0) -> TopModelHead:
    """Build a top model from its state.

    Args:
        state: mean and std (D,); output.weight (classes, D or units) and output.bias (classes,); of an mlp
            hidden.weight (units, D) and hidden.bias (units,).
        dropout: share of the hidden units that is dropped when it is trained further.

    Returns:
        A module in evaluation mode; its state has the same names and values, copied.
    """
    hidden = len(state["hidden.bias"]) if "hidden.bias" in state else None
    head = TopModelHead(len(state["mean"]), len(state["output.bias"]), hidden, dropout)
    head.load_state_dict(dict(state))
    return head.eval()


def fold_temperature(output: nn.Module, temperature: float) -> None:
    """Divide the logits of a model for good, in the weights and the bias of its last layer."""
    with torch.no_grad():
        for parameter in output.parameters():
            parameter.div_(temperature)


def compute_logits(module: nn.Module, features: SliceableRows, classes: int) -> np.ndarray:
    """Compute a module's logits of many views, block by block: float32 (n, classes).

    Args:
        module: (n, D) → (n, classes), in evaluation mode.
        features: (n, D), as the module takes them.
        classes: number of classes.
    """
    logits = np.empty((len(features), classes), np.float32)
    width = max(features[:1].shape[1], classes)
    with torch.inference_mode():
        for block in blocks(len(features), width):
            rows = torch.as_tensor(features[block]).float()
            parts = [_full_batch(module, part) for part in rows.split(BATCH)]
            logits[block] = torch.cat(parts).numpy()
    return logits


def _full_batch(module: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Return the outputs of at most a batch of rows; it is filled up, so that a row's bits do not depend on others."""
    missing = BATCH - len(rows)
    outputs: torch.Tensor = module(torch.cat([rows, rows[:1].expand(missing, -1)]) if missing else rows)
    return outputs[: len(rows)]
