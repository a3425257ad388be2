"""The device of a stage: the declared one, or what is done where it is missing."""

from collections.abc import Callable

from tl_dagster.graph.stage import Stage
from tl_dagster.runtime.devices import Device, find_device
from tl_dagster.runtime.errors import InputError

__all__ = ["choose_device"]


def choose_device(stage: Stage, log: Callable[[str], None]) -> Device:
    """Return the device of a stage's networks. Stages outside of the pool gpu take the CPU where there is no other.

    Args:
        stage: what is about to run.
        log: told of a fall back.

    Raises:
        InputError: the stage was promised a GPU that is not here, and shall then stop.
    """
    compute, gpus = stage.declaration.compute, stage.declaration.resources.gpu.gpus
    promised = "cuda" if gpus and compute.device == "auto" else compute.device
    found = find_device(promised)
    if found:
        required = stage.gpu and promised != "auto" and compute.missing_device == "stop"
        return Device(found, found, None if required else log)
    if stage.gpu:
        source = f"compute.device {compute.device}" if promised == compute.device else f"resources.gpu.gpus {gpus}"
        if compute.missing_device == "stop":
            raise InputError(
                f"{source} is declared, and {_describe(promised)} is not here: see tl-dagster doctor, or declare "
                "compute.missing_device: cpu"
            )
        log(f"{source} is declared, and {_describe(promised)} is not here: it runs on the CPU (compute.missing_device)")
    return Device("cpu", expected=promised)


def _describe(device: str) -> str:
    return "Apple's GPU" if device == "mps" else f"the GPU {device}"
