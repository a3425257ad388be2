"""The device that networks run on: what is declared, what is there, and what a process uses."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.hardware import count_gpus, cpu_flags, has_gpu, is_apple_silicon

if TYPE_CHECKING:
    import torch

__all__ = ["DECLARED_DEVICE", "Device", "find_device", "open_device", "resolve_precision", "use_device", "uses_gpu"]

DECLARED_DEVICE = r"^(auto|cpu|mps|cuda(:[0-9]{1,2})?)$"


@dataclass(frozen=True)
class Device:
    """The device of a stage.

    Attributes:
        name: torch's name of it: "cpu", "mps", "cuda" or "cuda:N".
        expected: the device that was declared, or that is here where none was: it decides what precision "auto" stands
            for, so that a stage which falls back, or runs where no GPU is needed, reads the same features.
        fall_back: told why, where the CPU takes the place of a GPU that torch cannot use; None: that is an error.
    """

    name: str
    expected: str
    fall_back: Callable[[str], None] | None = field(default=None, compare=False)

    @property
    def is_gpu(self) -> bool:
        """True for an NVIDIA GPU."""
        return self.name.startswith("cuda")


_in_use: list[Device] = []  # of the process, not of a thread: the threads of a stage share its device


def find_device(declared: str) -> str | None:
    """Return torch's name of a declared device; None: it is not here. Does not import torch.

    Args:
        declared: "auto" (an NVIDIA GPU, or the CPU), "cpu", "mps", "cuda" or "cuda:N".
    """
    if declared == "auto":
        return "cuda" if has_gpu() else "cpu"
    if declared == "mps":
        return declared if is_apple_silicon() else None
    if declared == "cpu":
        return declared
    number = int(declared.partition(":")[2] or 0)
    return declared if number < count_gpus() else None


@contextmanager
def use_device(device: Device) -> Iterator[None]:
    """Use a device for the networks of this process."""
    _in_use.append(device)
    try:
        yield
    finally:
        _in_use.pop()


def _get_device() -> Device:
    if _in_use:
        return _in_use[-1]
    name = find_device("auto") or "cpu"
    return Device(name, name)


def uses_gpu() -> bool:
    """Return whether networks run on an NVIDIA GPU."""
    return _get_device().is_gpu


def open_device() -> "torch.device":
    """Return the device that networks run on; of several GPUs it becomes torch's current one.

    Raises:
        InputError: a GPU is there, but torch cannot use it.
    """
    import torch

    chosen = _get_device()
    device = torch.device(chosen.name)
    if device.type == "cuda":
        usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= usable:
            reason = f"torch {torch.__version__} can use {usable} GPUs, and {device} is declared or was found"
            if chosen.fall_back is None:
                raise InputError(f"{reason}: see tl-dagster doctor, or set compute.device: cpu")
            chosen.fall_back(f"{reason}: it runs on the CPU")
            return torch.device("cpu")
        torch.cuda.set_device(device.index or 0)
    return device


def resolve_precision(declared: Literal["auto", "fp32", "bf16"]) -> Literal["fp32", "bf16"]:
    """Return the precision that "auto" stands for: bf16 on CUDA and on processors that compute in it, else fp32."""
    if declared != "auto":
        return declared
    expected = _get_device().expected
    if expected == "mps":
        return "fp32"
    return "bf16" if expected.startswith("cuda") or cpu_flags() & {"avx512_bf16", "amx_bf16"} else "fp32"
