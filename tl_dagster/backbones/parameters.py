"""Counts of a backbone's parameters."""

import torch

from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.runtime.errors import InputError

__all__ = ["count_tuned_parameters"]


def count_tuned_parameters(model: torch.nn.Module, info: BackboneInfo, highest: str) -> int:
    """Return how many parameters lie between the boundary of depth "top" and the highest tap.

    Args:
        model: the backbone, with or without its classifiers, which do not count.
        info: its description.
        highest: the declared tap that finishes last.
    """
    order = list(info.outputs)
    try:
        boundary = info.frozen_through([highest], "top")
    except InputError:  # no stage lies below: all of it would be tuned
        boundary = None
    first = -1 if boundary is None else order.index(info.module(boundary))
    last, count = order.index(info.module(highest)), 0
    dropped = tuple(f"{path}." for path in info.classifiers)
    for name, parameter in model.named_parameters():
        if dropped and name.startswith(dropped):
            continue
        holder = name.rpartition(".")[0]
        while holder and holder not in info.outputs:
            holder = holder.rpartition(".")[0]
        place = order.index(holder) if holder else 0
        count += parameter.numel() if first < place <= last else 0
    return count
