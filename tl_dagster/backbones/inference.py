"""Inference with the frozen network, in batches of one fixed shape.

The network may be compiled ahead of time (:mod:`tl_dagster.backbones.compiled`). The compiled file stays on this
machine: a later run of the same network starts with it at once, and computes the same rows to the last bit. Whether
compiling saves time is estimated from the time of a batch.
"""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tl_dagster.backbones.compiled import (
    CompiledNetwork,
    can_compile,
    compile_network,
    get_compiled_path,
    load_compiled,
)
from tl_dagster.backbones.memory_format import to_channels_last
from tl_dagster.runtime.devices import open_device
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.memory import keep_freed_memory
from tl_dagster.runtime.progress import clock

__all__ = ["InferenceRunner", "NormalizedBackbone", "normalize", "per_channel"]

# Measured with EfficientNet-lite0, ResNet-18 and ResNet-50 on two cores: seconds that compiling takes, and its gain.
COMPILE_SECONDS, GAIN = 20.0, 1.25
FEWEST_BATCHES = 8  # less work is not worth the time that an estimate takes
SPARE = 64  # bytes
COMPARED = 16  # images whose features are computed in fp32 too, to measure the precision error


def per_channel(values: Sequence[float]) -> torch.Tensor:
    """Convert a mean or std of pixels in [0, 1] to one for pixels from 0 to 255: (1, 3, 1, 1)."""
    return (torch.tensor(values) * 255).view(1, 3, 1, 1)


def normalize(pixels: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Convert uint8 pixels (n, size, size, 3) to a network's input: float32 (n, 3, size, size).

    Args:
        pixels: the images.
        shift: the mean, see :func:`per_channel`.
        scale: the standard deviation, see :func:`per_channel`.
    """
    return (pixels.permute(0, 3, 1, 2).float() - shift) / scale


class NormalizedBackbone(torch.nn.Module):
    """A network behind its normalization, so that both are compiled as one: uint8 (n, size, size, 3) → outputs.

    Args:
        model: images (n, 3, size, size) → list of (n, D).
        mean: per channel, of pixels in [0, 1].
        std: per channel.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, model: torch.nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        for name, values in (("shift", mean), ("scale", std)):
            self.register_buffer(name, per_channel(values))

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        """Return the outputs, in the precision of the network's parameters."""
        images = normalize(pixels, self.shift, self.scale)
        dtype = next(self.model.parameters()).dtype
        outputs: list[torch.Tensor] = self.model(images.to(dtype).contiguous(memory_format=torch.channels_last))
        return outputs


class InferenceRunner:
    """A backbone behind its normalization, in the declared precision and channels-last.

    Args:
        model: loads the backbone when it is first needed: images (N, 3, size, size) → list of (N, D).
        key: what determines its numbers: JSON-serialisable; names the compiled file.
        precision: "fp32" or "bf16".
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        batch_size: views in one forward pass.
    """

    def __init__(
        self,
        model: Callable[[], torch.nn.Module],
        key: Any,
        precision: str,
        mean: Sequence[float],
        std: Sequence[float],
        batch_size: int,
    ) -> None:
        keep_freed_memory()
        self.device = open_device()
        self.batch_size = batch_size
        self.compiled = False
        self._key = key
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._load, self._mean, self._std = model, mean, std
        self._compiled_network: CompiledNetwork | None = None
        self._copying: torch.cuda.Stream | None = None
        self._input: torch.Tensor | None = None

    @cached_property
    def _exact(self) -> NormalizedBackbone:
        """The network in the precision of its weights: float32."""
        with torch.inference_mode(False):  # in any caller's mode: tensors made in inference mode cannot be exported
            return NormalizedBackbone(self._load(), self._mean, self._std).eval().to(self.device)

    @cached_property
    def _eager(self) -> NormalizedBackbone:
        """The network in the declared precision; it replaces the exact one."""
        with torch.inference_mode(False):
            self._exact.model.to(dtype=self._dtype)
            to_channels_last(self._exact.model)
        return self._exact

    def precision_error(self, pixels: np.ndarray) -> list[dict[str, float]]:
        """Compare features in the declared precision with those in fp32; must be called first, before the conversion.

        Args:
            pixels: uint8 (n, size, size, 3), of which the first 16 are compared.

        Returns:
            For each output the median and the largest of the images' relative differences, |a - b| / |b|.
        """
        few = torch.from_numpy(pixels[:COMPARED].copy()).to(self.device)
        errors = []
        with torch.inference_mode():
            exact = self._exact(few)
            for ours, reference in zip(self._eager(few), exact, strict=True):
                relative = (ours.float() - reference).norm(dim=1) / reference.norm(dim=1).clamp_min(1e-12)
                errors.append({"median": float(relative.median()), "largest": float(relative.max())})
        return errors

    def consider_compiling(
        self, pixels: np.ndarray, work: int, log: Callable[[str], None], *, always: bool = False
    ) -> None:
        """Load the compiled network if there is one; else compile it if that is likely to save time.

        Args:
            pixels: a batch to try, uint8 (n, size, size, 3).
            work: views to forward.
            log: receives the decision and its reason.
            always: compile it also where that is not likely to save time.
        """
        path = get_compiled_path(self._key, self.batch_size, self.device.type)
        if path.exists():
            self._open(path, log)
            if self.compiled or not always:
                return
        if work < FEWEST_BATCHES * self.batch_size and not always:
            return
        if not can_compile(self.device.type):
            log("no C++ compiler (g++): the network runs uncompiled, which takes about 1.25 times as long")
            return
        if always:
            self._compile(path, pixels.shape[1], log)
            return
        self(pixels)()  # the first pass allocates
        begun = time.monotonic()
        self(pixels)()
        expected = (time.monotonic() - begun) * work / len(pixels)
        saved = expected * (1 - 1 / GAIN)
        if saved < COMPILE_SECONDS:
            return
        log(
            f"compiling takes about {COMPILE_SECONDS:.0f} s, and should save {clock(saved)} "
            f"of the {clock(expected)} that the forward passes would take"
        )
        self._compile(path, pixels.shape[1], log)

    def __call__(self, pixels: np.ndarray) -> Callable[[], list[torch.Tensor]]:
        """Forward uint8 pixels (n ≤ batch_size, size, size, 3).

        When the GPU's memory is exhausted, the batch size is halved, permanently.

        Returns:
            A function that waits for the outputs and returns them, (n, D) each: a GPU goes on while the next pixels are
            fetched.

        Raises:
            InputError: not even one image fits into the GPU's memory.
        """
        try:
            parts = [self._forward(pixels[at : at + self.batch_size]) for at in range(0, len(pixels), self.batch_size)]
        except torch.OutOfMemoryError as error:
            if self.batch_size == 1:
                raise InputError(
                    "the GPU's memory does not hold the network and one image; choose a smaller backbone.image_size or "
                    "backbone, or free the GPU"
                ) from error
        except RuntimeError:
            if self._compiled_network is None:
                raise
            # Compiled code raises this for every failure, lack of memory too: the eager network is more specific.
            self._compiled_network, self.compiled = None, False
            return self(pixels)
        else:
            return lambda: [torch.cat(outputs) for outputs in zip(*(part() for part in parts), strict=True)]
        torch.cuda.empty_cache()
        self.batch_size = -(-self.batch_size // 2)
        self._compiled_network = self._input = None  # they are for the old batch size
        self.compiled = False
        return self(pixels)

    def _forward(self, pixels: np.ndarray) -> Callable[[], list[torch.Tensor]]:
        images = self._batch(pixels)
        if self.device.type == "cuda":
            images = self._to_gpu(images)
        elif self.device.type == "mps":
            images = images.to(self.device)
        with torch.inference_mode():
            outputs = [output[: len(pixels)] for output in (self._compiled_network or self._eager)(images)]
        if self.device.type == "cuda":
            return self._to_host(outputs)
        outputs = [output.cpu() for output in outputs]
        return lambda: outputs

    def _batch(self, pixels: np.ndarray) -> torch.Tensor:
        """Return pixels as a full batch, with spare memory after it: compiled code reads 16 bytes for the last 3."""
        shape = (self.batch_size, *pixels.shape[1:])
        if self._input is None:
            with torch.inference_mode(False):  # it may be filled in that mode or out of it
                self._input = torch.zeros(math.prod(shape) + SPARE, dtype=torch.uint8)
        batch = self._input[:-SPARE].view(shape)
        batch[: len(pixels)] = torch.from_numpy(pixels)
        batch[len(pixels) :] = batch[0]
        return batch

    def _to_gpu(self, images: torch.Tensor) -> torch.Tensor:
        """Return pixels on the GPU, copied from pinned memory beside the previous batch's forward pass."""
        if self._copying is None:
            self._copying = torch.cuda.Stream()
        with torch.cuda.stream(self._copying):
            sent = images.pin_memory().to(self.device, non_blocking=True)
        torch.cuda.current_stream().wait_stream(self._copying)
        sent.record_stream(torch.cuda.current_stream())
        return sent

    def _to_host(self, outputs: list[torch.Tensor]) -> Callable[[], list[torch.Tensor]]:
        """Return a function that waits for this batch's outputs in pinned memory, and not for any later batch's."""
        copies = [torch.empty_like(output, device="cpu", pin_memory=True) for output in outputs]
        for host, output in zip(copies, outputs, strict=True):
            host.copy_(output, non_blocking=True)
        done = torch.cuda.Event()
        done.record()

        def wait() -> list[torch.Tensor]:
            done.synchronize()
            return copies

        return wait

    def _open(self, path: Path, log: Callable[[str], None]) -> None:
        try:
            self._compiled_network = load_compiled(path)
            self.compiled = True
        except Exception as error:
            log(f"the compiled network {path} cannot be used ({error}); it is deleted")
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _compile(self, path: Path, size: int, log: Callable[[str], None]) -> None:
        images = torch.zeros(self.batch_size, size, size, 3, dtype=torch.uint8, device=self.device)
        try:
            compile_network(self._eager, images, path)
        except Exception as error:
            # Networks that cannot be exported, and compilers that are there but do not work, fail in many ways.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log(f"the network cannot be compiled ({reason[:200]}); it runs uncompiled")
            return
        self._open(path, log)
