"""Checkpoints: what a training that was killed goes on from; one safetensors file, replaced whole after each epoch."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tl_dagster.store.files import replace_atomically

__all__ = ["Checkpoint", "optimiser_tensors", "restore_optimiser", "select_group"]

FACTS = "facts"
Found = TypeVar("Found")


class Checkpoint:
    """The last whole state of one training.

    Args:
        path: the file.
        log: told what was found, and when a checkpoint could not be written.

    Attributes:
        circumstances: gives facts (JSON-serialisable) to be kept with a state: what a training that goes on has to
            find as it was, to end with the same bits.
    """

    def __init__(self, path: Path, log: Callable[[str], None]) -> None:
        self.path = path
        self.circumstances: Callable[[], dict[str, Any]] = dict
        self._log = log

    def metadata(self) -> dict[str, Any]:
        """The facts of the last state; none when there is nothing to go on from."""
        return self._read(_facts) or {}

    def load(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors on the CPU by name, and the facts saved with them; None when there is nothing to go on from."""
        return self._read(lambda file: ({name: file.get_tensor(name) for name in file.keys()}, _facts(file)))  # noqa: SIM118  (no mapping)

    def _read(self, found: Callable[[Any], Found]) -> Found | None:

        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                return found(file)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            self._log(f"the checkpoint {self.path} cannot be read ({error}); training starts from the beginning")
            return None

    def save(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Take the place of the checkpoint before, or leave that whole where the disk has no room.

        Args:
            tensors: of any device.
            facts: JSON-serialisable.
        """

        held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            with replace_atomically(self.path) as temporary:
                save_file(held, temporary, metadata={FACTS: json.dumps({**self.circumstances(), **facts})})
        except (OSError, SafetensorError) as error:
            self._log(f"no checkpoint of this epoch, the one before stays: cannot write {self.path}: {error}")


def _facts(file: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.metadata()[FACTS])
    return found


def select_group(tensors: Mapping[str, torch.Tensor], group: str, separator: str = "/") -> dict[str, torch.Tensor]:
    """Those whose names begin with a group and a separator, by the rest of their names."""
    begin = group + separator
    return {name.removeprefix(begin): each for name, each in tensors.items() if name.startswith(begin)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The state of an optimiser's parameters, by "number of the parameter/name"; learning rates are not in it."""

    state = optimiser.state_dict()["state"]
    return {
        f"{number}/{name}": value
        for number, each in state.items()
        for name, value in each.items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give an optimiser of the same parameters the state that :func:`optimiser_tensors` read."""

    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        number, _, key = name.partition("/")
        # In its parameter's order of axes: sums over another order would end in another last bit.
        like = parameters[int(number)]
        held = torch.empty_like(like, requires_grad=False).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(number), {})[key] = held
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
