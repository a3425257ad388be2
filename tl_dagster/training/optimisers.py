"""Optimisers: groups of parameters with learning rates and weight decay of their own."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["ParameterGroup", "build_optimiser", "decay_weights"]

MOMENTUM = 0.9


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained alike.

    Attributes:
        parameters: those of the network.
        rate: their peak learning rate.
        decay: decoupled weight decay (Loshchilov & Hutter 2019), of parameters with more than one axis: biases and
            normalisation are left unchanged.
        anchored: they decay towards their present values instead of zero (L2-SP: Li, Grandvalet & Davoine 2018,
            "Explicit inductive bias for transfer learning with convolutional networks").
    """

    parameters: Sequence[torch.nn.Parameter]
    rate: float
    decay: float = 0.0
    anchored: bool = False


def build_optimiser(kind: str, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
    """Build AdamW (Loshchilov & Hutter 2019), or SGD with Nesterov's momentum.

    Args:
        kind: "adamw" or "sgd".
        groups: those without parameters are left out.
    """
    described = [
        {
            "params": list(group.parameters),
            "lr": group.rate,
            "initial_lr": group.rate,  # the peak, for a schedule that starts anywhere
            "decay": group.decay,
            "anchors": [parameter.detach().clone() for parameter in group.parameters]
            if group.decay and group.anchored
            else None,
        }
        for group in groups
        if group.parameters
    ]
    # Decay is ours (see below), the same for both.
    if kind == "sgd":
        return torch.optim.SGD(described, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(described, weight_decay=0.0)


def decay_weights(optimiser: torch.optim.Optimizer) -> None:
    """Apply one step of weight decay, before the optimiser's own step: towards zero, or towards the anchors (L2-SP)."""
    with torch.no_grad():
        for group in optimiser.param_groups:
            if not group["decay"]:
                continue
            share = group["lr"] * group["decay"]
            anchors = group["anchors"] or [torch.zeros(()).to(parameter) for parameter in group["params"]]
            for parameter, anchor in zip(group["params"], anchors, strict=True):
                if parameter.ndim > 1:
                    parameter.lerp_(anchor.expand_as(parameter), share)
