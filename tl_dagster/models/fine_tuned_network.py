"""The network that fine-tuning trains: the upper part of a backbone with the top model on it."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from tl_dagster.models.heads import build_head

__all__ = ["FineTunedNetwork", "build_tuned_network"]


class FineTunedNetwork(nn.Module):
    """The upper part of a backbone, and a classifier on its features and on those of the taps below it.

    Args:
        upper: boundary activations or images → a list of the features (n, D_tap) of the taps above the boundary.
        head: features (n, D) → logits (n, classes).
        order: int64 (D,), the place of each feature that the head reads among those below, then those above.
    """

    order: torch.Tensor

    def __init__(self, upper: nn.Module, head: nn.Module, order: torch.Tensor) -> None:
        super().__init__()
        self.upper = upper
        self.head = head
        self.register_buffer("order", order, persistent=False)

    def forward(self, inputs: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return logits (n, classes).

        Args:
            inputs: boundary activations or images.
            features: float32 (n, D_below), of the taps below the boundary.
        """
        joined = torch.cat([features, *(values.float() for values in self.upper(inputs))], 1)
        with torch.autocast(joined.device.type, enabled=False):  # in fp32, as the top model was trained
            logits: torch.Tensor = self.head(joined[:, self.order])
        return logits


def build_tuned_network(upper: nn.Module, head: Mapping[str, torch.Tensor], below: Sequence[bool]) -> FineTunedNetwork:
    """Build the upper part of a backbone with the top model on it.

    Args:
        upper: see :class:`FineTunedNetwork`.
        head: state of the top model; see :func:`tl_dagster.models.heads.build_head`.
        below: (D,): True for the features of the top model that come from below the boundary.

    Returns:
        A module in evaluation mode. Its logits equal the top model's as long as nothing is trained.
    """
    # Features come as those below, then those above; the top model reads them in the order of the taps.
    order = np.argsort(np.argsort(~np.asarray(below), kind="stable"))
    return FineTunedNetwork(upper, build_head(head), torch.from_numpy(order)).eval()
