"""Settings of the computing: how the work is done, but not what comes out."""

from typing import Literal

from pydantic import Field

from tl_dagster.runtime.devices import DECLARED_DEVICE
from tl_dagster.runtime.settings import Settings

__all__ = ["Compute"]


class Compute(Settings):
    """How the work is done. Results are equal up to the rounding of the precision."""

    workers: int = Field(0, ge=0, le=256, description="Decoding processes; 0: one for each processor.")
    executor: Literal["in_process", "multiprocess", "project"] = Field(
        "in_process",
        description="in_process: all steps of a run in its process; multiprocess: each in one of its own, so that a "
        "crash of one leaves the others; project: the executor of the project's definitions.",
    )
    device: str = Field(
        "auto",
        pattern=DECLARED_DEVICE,
        description="Where networks run: auto (an NVIDIA GPU, where there is one), cpu, cuda, cuda:N or mps (Apple).",
    )
    missing_device: Literal["stop", "cpu"] = Field(
        "stop",
        description="What a stage of the pool gpu does without the GPU that device or resources.gpu.gpus promises: "
        "stop ends the run before its work begins; cpu runs it on the CPU, and says so.",
    )
    batch_size: int = Field(
        0,
        ge=0,
        le=4096,
        description="Views in one forward pass; 0: by device and image size. Halved where a GPU's "
        "memory does not hold it.",
    )
    feature_cache_gb: float | None = Field(
        None, gt=0, description="Disk for the whole feature cache of the store; not given: what is free."
    )
    activation_cache_gb: float = Field(
        4.0,
        ge=0,
        description="Disk for the activations of one pipeline that fine-tuning starts from; beyond it, "
        "the frozen part runs in each epoch: slower, the same model.",
    )
    compile: Literal["auto", "never"] = Field(
        "auto",
        description="auto: the network is compiled when that is likely to save time, and a C++ compiler is there.",
    )
