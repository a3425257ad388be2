"""Loading of a weights file into a network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tl_dagster.backbones.checkpoint_files import read_checkpoint
from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.backbones.weights import Weights
from tl_dagster.runtime.errors import InputError

__all__ = ["load_weights", "read_fitting"]


def load_weights(model: torch.nn.Module, info: BackboneInfo, weights: Weights, taps: Sequence[str] = ()) -> None:
    """Load a file's weights into a network that still has its classifiers.

    Args:
        model: the network.
        info: its description.
        weights: the file.
        taps: the layers that are read: the file may lack what runs after all of them. Empty: it must be complete.

    Raises:
        InputError: it is not a weights file, or its keys do not fit the network's.
    """
    if weights.path is not None:
        model.load_state_dict(read_fitting(weights, model.state_dict(), info, taps), strict=False)


def read_fitting(
    weights: Weights, own: Mapping[str, torch.Tensor], info: BackboneInfo, taps: Sequence[str], *, mapped: bool = False
) -> dict[str, torch.Tensor]:
    """Return the tensors of a weights file that have the names and shapes of a network's.

    Args:
        weights: the file.
        own: the network's tensors.
        info: its description.
        taps: see :func:`load_weights`.
        mapped: see :func:`.checkpoint_files.read_checkpoint`.

    Raises:
        InputError: it is not a weights file, or its keys do not fit the network's.
    """
    assert weights.path is not None  # noqa: S101  (for the type checker)
    state = read_checkpoint(weights.path, mapped=mapped)
    if weights.in_order and len(own) == len(state):
        state = dict(zip(own, state.values(), strict=True))
    state = _rename_keys(state, own, weights.path)
    _check_keys(state, own, info, weights.path, taps)
    return {key: value for key, value in state.items() if key in own and value.shape == own[key].shape}


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


def _rename_keys(state: dict[str, torch.Tensor], own: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """Use the network's own keys for a file saved from around it ("module.", "model.") or from inside it (its trunk).

    What lies beside the network under such a prefix, as the head of a self-supervised training, is left out.
    """
    prefixes = Counter(key.removesuffix(rest) for key in state for rest in _endings(key) if rest in own)
    if prefixes:
        (prefix, count), *others = prefixes.most_common(2)
        if others and others[0][1] == count > len(own) // 2:
            raise InputError(
                f"backbone.weights: {path} holds several networks that fit, '{prefix}' and '{others[0][0]}': "
                "save one of them alone"
            )
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    for part in dict.fromkeys(key.partition(".")[0] for key in own):
        if all(f"{part}.{key}" in own for key in state):
            return {f"{part}.{key}": value for key, value in state.items()}
    around = {key.partition(".")[0] for key in state}
    if len(around) == 1 and all("." in key for key in state):
        return _rename_keys({key.partition(".")[2]: value for key, value in state.items()}, own, path)
    return state


def _endings(key: str) -> list[str]:
    """Return a key, and what is left of it without its first names."""
    names = key.split(".")
    return [".".join(names[first:]) for first in range(len(names))]


def _runs_after(info: BackboneInfo, key: str, taps: Sequence[str]) -> bool:
    """Return whether the module that holds a weight starts only when all taps have been read."""
    holder = key.rpartition(".")[0]
    while holder and holder not in info.outputs:
        holder = holder.rpartition(".")[0]
    paths = [info.module(tap) for tap in taps]
    return bool(holder) and not any(info.is_below(holder, path) or path.startswith(f"{holder}.") for path in paths)
