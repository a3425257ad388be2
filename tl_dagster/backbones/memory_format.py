"""The layout of tensors in memory that convolutions are fastest with."""

import itertools

import torch

__all__ = ["to_channels_last"]


def to_channels_last(network: torch.nn.Module) -> None:
    """Lay parameters and buffers of four dimensions out channels last, in place.

    ``Module.to(memory_format=…)`` tries it on those of five dimensions too, and fails: the masks of windows of Swin.
    """
    for tensor in itertools.chain(network.parameters(), network.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
