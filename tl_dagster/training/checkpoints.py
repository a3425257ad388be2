"""Checkpoints, from which a killed training is resumed: one safetensors file, replaced whole after each epoch."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tl_dagster.store.files import DiskError, replace_atomically

__all__ = ["Checkpoint", "optimiser_tensors", "restore_optimiser", "select_group"]

METADATA = "facts"  # the key in the file
Content = TypeVar("Content")


class Checkpoint:
    """The last whole state of one training.

    Args:
        path: the file.
        log: receives a line when a checkpoint cannot be read or written.

    Attributes:
        circumstances: gives further metadata (JSON-serialisable) of each state: circumstances that a resumed training
            must restore to end with the same bits.
    """

    def __init__(self, path: Path, log: Callable[[str], None]) -> None:
        self.path = path
        self.circumstances: Callable[[], dict[str, Any]] = dict
        self._log = log

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of the last state; empty when there is nothing to resume."""
        return self._read(_metadata) or {}

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Return tensors on the CPU by name, and their metadata; None when there is nothing to resume."""
        return self._read(lambda file: ({name: file.get_tensor(name) for name in file.keys()}, _metadata(file)))  # noqa: SIM118  (not a mapping)

    def _read(self, read: Callable[[Any], Content]) -> Content | None:

        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                return read(file)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            self._log(f"the checkpoint {self.path} cannot be read ({error}); training starts from the beginning")
            return None

    def save(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
        """Replace the previous checkpoint, or leave it whole where the disk has no room.

        Args:
            tensors: of any device.
            metadata: JSON-serialisable.
        """
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            with replace_atomically(self.path) as temporary:
                save_file(on_cpu, temporary, metadata={METADATA: json.dumps({**self.circumstances(), **metadata})})
        except DiskError as error:
            self._log(f"no checkpoint of this epoch, the one before stays: {error}")


def _metadata(file: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(file.metadata()[METADATA])
    return metadata


def select_group(tensors: Mapping[str, torch.Tensor], group: str, separator: str = "/") -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with a group and a separator, by the rest of their names."""
    begin = group + separator
    return {name.removeprefix(begin): value for name, value in tensors.items() if name.startswith(begin)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the state of an optimiser's parameters, by "number of the parameter/name", without learning rates."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}/{name}": value
        for number, values in state.items()
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Restore the state that :func:`optimiser_tensors` read, in an optimiser of the same parameters."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition("/")
        # In its parameter's order of axes: sums over another order would end in another last bit.
        like = parameters[int(number)]
        ordered = torch.empty_like(like, requires_grad=False).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[key] = ordered
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
