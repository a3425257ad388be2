"""Loading of a weights file into a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.backbones.weights import Weights
from tl_dagster.runtime.errors import InputError

__all__ = ["load_weights"]


def load_weights(model: torch.nn.Module, info: BackboneInfo, weights: Weights, taps: Sequence[str] = ()) -> None:
    """Load a file's weights into a network that still has its classifiers.

    Args:
        model: the network.
        info: its description.
        weights: the file.
        taps: the layers that are read: the file may lack what runs after all of them. Empty: it must be complete.

    Raises:
        InputError: the file's keys do not fit the network's.
    """
    if weights.path is None:
        return
    own = model.state_dict()
    state = _read_state(weights.path)
    if weights.in_order and len(own) == len(state):
        state = dict(zip(own, state.values(), strict=True))
    state = _rename_keys(state, own)
    _check_keys(state, own, info, weights.path, taps)
    fitting = {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}
    model.load_state_dict(fitting, strict=False)


def _check_keys(
    state: Mapping[str, Any], own: Mapping[str, Any], info: BackboneInfo, path: Path, taps: Sequence[str]
) -> None:
    """Check that a file has all weights that the taps need, in the network's shapes, and no others."""
    dropped = tuple(f"{classifier}." for classifier in info.classifiers)
    # Older files lack the batch counters, and the classifier is dropped anyway.
    needed = [key for key in own if not key.endswith("num_batches_tracked") and not key.startswith(dropped)]
    if taps:
        needed = [key for key in needed if not _runs_after(info, key, taps)]
    missing = [key for key in needed if key not in state]
    unexpected = [key for key in state if key not in own and not key.startswith(dropped)]
    reshaped = [key for key in needed if key in state and state[key].shape != own[key].shape]
    if missing or unexpected or reshaped:
        lower = [stage for stage in info.stages if all(_runs_after(info, key, [stage]) for key in missing + reshaped)]
        raise InputError(
            f"backbone.weights: {path} does not fit {info.name}: "
            f"missing {missing[:8]}, unexpected {unexpected[:8]}, of another shape {reshaped[:8]}"
            + (f"; it is enough for the taps {', '.join(lower)}" if lower and not unexpected else "")
        )


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    nested: dict[str, torch.Tensor] = state.get("state_dict", state)
    return nested


def _rename_keys(state: dict[str, torch.Tensor], own: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Use the network's own keys for a file saved from around it ("module.") or from inside it (its trunk)."""
    if any(key in own for key in state):
        return state
    if len({key.partition(".")[0] for key in state}) == 1:
        inner = {key.partition(".")[2]: value for key, value in state.items()}
        if any(key in own for key in inner):
            return inner
    for part in dict.fromkeys(key.partition(".")[0] for key in own):
        if all(f"{part}.{key}" in own for key in state):
            return {f"{part}.{key}": value for key, value in state.items()}
    return state


def _runs_after(info: BackboneInfo, key: str, taps: Sequence[str]) -> bool:
    """Return whether the module that holds a weight starts only when all taps have been read."""
    holder = key.rpartition(".")[0]
    while holder and holder not in info.outputs:
        holder = holder.rpartition(".")[0]
    paths = [info.module(tap) for tap in taps]
    return bool(holder) and not any(info.is_below(holder, path) or path.startswith(f"{holder}.") for path in paths)
