"""Processors, their instruction sets and GPUs, detected without importing torch."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Literal

__all__ = [
    "batch_size_for",
    "cpu_flags",
    "has_gpu",
    "has_gpu_device",
    "is_torch_for_cpus",
    "processors",
    "resolve_precision",
]

# Views of 224 pixels in one forward pass. A CPU's caches like small batches; a GPU wants its thousands of cores busy.
CPU_BATCH, GPU_BATCH = 32, 256


def has_gpu() -> bool:
    """Return whether there is an NVIDIA GPU that is not hidden, and a torch that can use it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return has_gpu_device() and not hidden and not is_torch_for_cpus()


def has_gpu_device() -> bool:
    """Return whether the driver of an NVIDIA GPU is there, hidden or not."""
    return any(Path("/dev", name).exists() for name in ("nvidiactl", "dxg"))  # dxg: WSL


def is_torch_for_cpus() -> bool:
    """Return whether the torch that is installed can use no GPU."""
    return version("torch").endswith("+cpu")


def resolve_precision(declared: Literal["auto", "fp32", "bf16"]) -> Literal["fp32", "bf16"]:
    """Return the precision that "auto" stands for: bf16 on CUDA and on processors that compute in it, else fp32."""
    if declared != "auto":
        return declared
    return "bf16" if has_gpu() or cpu_flags() & {"avx512_bf16", "amx_bf16"} else "fp32"


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
