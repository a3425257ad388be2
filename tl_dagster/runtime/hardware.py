"""Processors, their instruction sets and GPUs, detected without importing torch."""

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

__all__ = [
    "batch_size_for",
    "count_gpus",
    "cpu_flags",
    "has_gpu",
    "has_gpu_device",
    "is_apple_silicon",
    "is_torch_for_cpus",
    "processors",
]

# Views of 224 pixels in one forward pass. A CPU's caches like small batches; a GPU wants its thousands of cores busy.
CPU_BATCH, GPU_BATCH = 32, 256


def has_gpu() -> bool:
    """Return whether there is an NVIDIA GPU that is not hidden, and a torch that can use it."""
    return count_gpus() > 0


def count_gpus() -> int:
    """Return the number of NVIDIA GPUs that are not hidden, and that torch can use."""
    if not has_gpu_device() or is_torch_for_cpus():
        return 0
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return max(1, len([*Path("/dev").glob("nvidia[0-9]*")]))  # WSL has none of these files, for one GPU or more
    listed = [name.strip() for name in shown.split(",")]
    return next((at for at, name in enumerate(listed) if name in ("", "-1")), len(listed))  # what follows is hidden


def is_apple_silicon() -> bool:
    """Return whether this is a Mac whose GPU torch can use (mps)."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def has_gpu_device() -> bool:
    """Return whether the driver of an NVIDIA GPU is there, hidden or not."""
    return any(Path("/dev", name).exists() for name in ("nvidiactl", "dxg"))  # dxg: WSL


def is_torch_for_cpus() -> bool:
    """Return whether the torch that is installed can use no GPU."""
    return version("torch").endswith("+cpu")


def cpu_flags() -> set[str]:
    """Return the processor's instruction sets, as Linux names them; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batch_size_for(size: int, *, gpu: bool) -> int:
    """Return the views in one forward pass: a fixed number of pixels, so that memory does not depend on the size."""
    most = GPU_BATCH if gpu else CPU_BATCH
    return max(1, min(most, round(most * (224 / size) ** 2)))
