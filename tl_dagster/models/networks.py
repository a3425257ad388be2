"""Networks of fine-tuned models: the trained upper part with the head on it, and the whole from images to logits."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tl_dagster.backbones.memory_format import to_channels_last
from tl_dagster.models.heads import build_head

__all__ = ["PREDICTION_BATCH", "TunedNetwork", "WholeNetwork", "build_tuned_network", "predict_batches", "to_maps"]

PREDICTION_BATCH = 32  # rows of a forward pass of the upper part


class TunedNetwork(torch.nn.Module):
    """The upper part of a backbone with the top model on it: (inputs, frozen features) → logits (n, classes).

    Args:
        upper: boundary activations or images → a list of the features (n, D_tap) of the taps above the boundary.
        head: features (n, D) → logits.
        frozen: (D,): which of the features that the head reads come from below the boundary.
    """

    order: torch.Tensor

    def __init__(self, upper: torch.nn.Module, head: torch.nn.Module, frozen: Sequence[bool]) -> None:
        super().__init__()
        self.upper, self.head = upper, head
        # Frozen features come first, then those above; the head reads them in the order of the taps.
        places = np.argsort(np.argsort(~np.asarray(frozen), kind="stable"))
        self.register_buffer("order", torch.from_numpy(places), persistent=False)

    def forward(self, inputs: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Return float32 logits.

        Args:
            inputs: boundary activations or images (n, C, H, W).
            features: (n, D_frozen) of the taps below the boundary.
        """
        joined = torch.cat([features, *(each.float() for each in self.upper(inputs))], 1)
        with torch.autocast(joined.device.type, enabled=False):  # in fp32, as the top model was trained
            logits: torch.Tensor = self.head(joined[:, self.order])
        return logits


class WholeNetwork(torch.nn.Module):
    """A fine-tuned model from normalized images (n, 3, size, size) to logits (n, classes), for explanations.

    Args:
        lower: images → features of the frozen taps and, last, the boundary's flattened map; None: nothing is frozen.
        tuned: the upper part.
        map_shape: of the boundary's output; None: the upper part reads images.
    """

    def __init__(self, lower: torch.nn.Module | None, tuned: TunedNetwork, map_shape: tuple[int, ...] | None) -> None:
        super().__init__()
        self.lower, self.tuned, self.map_shape = lower, tuned, map_shape

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 logits."""
        features: list[torch.Tensor] = self.lower(images) if self.lower is not None else []
        inputs = images
        if self.map_shape is not None:
            *features, flat = features
            inputs = flat.reshape(-1, *self.map_shape)
        logits: torch.Tensor = self.tuned(inputs, torch.cat([images.new_zeros(len(images), 0), *features], 1))
        return logits


def build_tuned_network(
    upper: torch.nn.Module, head: Mapping[str, torch.Tensor], frozen: Sequence[bool]
) -> TunedNetwork:
    """Return a network in evaluation mode, whose logits are the top model's as long as nothing is trained.

    Args:
        upper: see :class:`TunedNetwork`.
        head: state of the top model; see :func:`tl_dagster.models.heads.build_head`.
        frozen: see :class:`TunedNetwork`.
    """
    network = TunedNetwork(upper, build_head(head), frozen).eval()
    to_channels_last(network)
    return network


def predict_batches(
    network: torch.nn.Module,
    inputs: torch.Tensor,
    features: torch.Tensor | None,
    precision: str,
    size: int = PREDICTION_BATCH,
) -> torch.Tensor:
    """Return the float32 logits (n, classes) of one batch, on the CPU.

    The batch is filled up to a fixed size, so that a row's last bit does not depend on how many come with it.

    Args:
        network: a :class:`TunedNetwork`, or one that reads the inputs only.
        inputs: (n, …), n at most ``size``.
        features: (n, D_frozen); None for a network that reads none.
        precision: "bf16" (autocast) or "fp32".
        size: rows of a full batch.
    """
    count = len(inputs)
    device = next(network.parameters()).device
    full = [_filled(each, size).to(device) for each in (inputs, features) if each is not None]
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits: torch.Tensor = network(*full)[:count].float().cpu()
    return logits


def _filled(rows: torch.Tensor, size: int) -> torch.Tensor:
    if len(rows) == size:
        return rows
    filled = torch.cat([rows, rows[:1].expand(size - len(rows), *rows.shape[1:])])
    return filled.contiguous(memory_format=torch.channels_last) if filled.ndim == 4 else filled


def to_maps(values: np.ndarray, shape: Sequence[int]) -> torch.Tensor:
    """Return flattened activations (n, D) as float32 maps (n, *shape), channels last."""
    maps = torch.from_numpy(values).reshape(-1, *shape)
    return maps.to(torch.float32, memory_format=torch.channels_last) if maps.ndim == 4 else maps.float()
