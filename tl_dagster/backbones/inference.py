"""The frozen network on its device, fed batches of one fixed shape.

On a CPU it may be compiled, ahead of time, into a library of its own (AOTInductor, with weights frozen into it). That
library is kept on this machine: a later run of the same network starts with it at once, and computes the same rows to
the last bit. Whether compiling repays itself is estimated from the time of a batch.
"""

import contextlib
import math
import os
import platform
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch._inductor import config

from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.hardware import cpu_flags
from tl_dagster.runtime.memory import keep_freed_memory
from tl_dagster.runtime.progress import clock
from tl_dagster.store.digests import digest
from tl_dagster.store.files import replace_atomically

__all__ = ["InferenceRunner", "normalize", "per_channel", "select_device"]

# Seen with EfficientNet-lite0, ResNet-18 and ResNet-50 on two cores: seconds that compiling takes, and what it gains.
COMPILE_SECONDS, GAIN = 20.0, 1.25
FEWEST_BATCHES = 8  # less work is not worth the time that an estimate takes
SPARE = 64  # bytes
NETWORK_RECIPE = 2  # another number when the network is put together otherwise
COMPARED = 16  # images whose features are computed in fp32 too, to tell the difference


def select_device() -> torch.device:
    """Where networks run: the GPU when there is one."""

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class InferenceRunner:
    """A backbone behind its normalisation, in the declared precision and channels-last.

    Args:
        model: loads it, when it is needed: images (N, 3, size, size) → list of (N, D).
        key: what determines its numbers: JSON-serialisable; names the compiled library.
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
        self.device = select_device()
        self.batch_size = batch_size
        self.compiled = False
        self._key = key
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._load, self._mean, self._std = model, mean, std
        self._library: Callable[[torch.Tensor], Sequence[torch.Tensor]] | None = None
        self._copying: torch.cuda.Stream | None = None
        self._input: torch.Tensor | None = None

    @cached_property
    def _exact(self) -> torch.nn.Module:
        """The network as its weights are: float32."""

        with torch.inference_mode(False):  # whoever asks first: tensors made in that mode cannot be exported
            return _normalised(self._load(), self._mean, self._std).to(self.device)

    @cached_property
    def _eager(self) -> torch.nn.Module:
        """The network in its precision; the exact one is gone then."""

        with torch.inference_mode(False):
            self._exact.model.to(dtype=self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self._exact

    def difference(self, pixels: np.ndarray) -> list[dict[str, float]]:
        """How far features in the declared precision lie from those in fp32; to be asked before anything else.

        Args:
            pixels: uint8 (n, size, size, 3), of which the first 16 are compared.

        Returns:
            For each output the median and the largest of the images' relative differences, |a - b| / |b|.
        """

        few = torch.from_numpy(pixels[:COMPARED].copy()).to(self.device)
        found = []
        with torch.inference_mode():
            exact = self._exact(few)
            for ours, reference in zip(self._eager(few), exact, strict=True):
                relative = (ours.float() - reference).norm(dim=1) / reference.norm(dim=1).clamp_min(1e-12)
                found.append({"median": float(relative.median()), "largest": float(relative.max())})
        return found

    def consider_compiling(
        self, pixels: np.ndarray, work: int, log: Callable[[str], None], *, always: bool = False
    ) -> None:
        """Load the compiled library if there is one; else make it if that is likely to save time.

        Args:
            pixels: a batch to try, uint8 (n, size, size, 3).
            work: views to forward.
            log: told what was decided, and why.
            always: make it also where that is not likely to save time.
        """
        path = self._path()
        if path.exists():
            self._open(path, log)
            if self.compiled or not always:
                return
        if work < FEWEST_BATCHES * self.batch_size and not always:
            return
        if not _can_compile(self.device.type):
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

        Out of GPU memory, the batch is halved, for good.

        Returns:
            What waits for the outputs and gives them, (n, D) each: a GPU works on while the next pixels are fetched.

        Raises:
            InputError: not even one image fits.
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
            if self._library is None:
                raise
            # What goes wrong in compiled code, want of memory too, has no kind of its own: the eager network tells.
            self._library, self.compiled = None, False
            return self(pixels)
        else:
            return lambda: [torch.cat(outputs) for outputs in zip(*(part() for part in parts), strict=True)]
        torch.cuda.empty_cache()
        self.batch_size = -(-self.batch_size // 2)
        self._library = self._input = None  # they are for another batch
        self.compiled = False
        return self(pixels)

    def _forward(self, pixels: np.ndarray) -> Callable[[], list[torch.Tensor]]:

        images = self._batch(pixels)
        if self.device.type == "cuda":
            images = self._sent(images)
        with torch.inference_mode():
            outputs = [output[: len(pixels)] for output in (self._library or self._eager)(images)]
        return self._fetched(outputs) if self.device.type == "cuda" else lambda: outputs

    def _batch(self, pixels: np.ndarray) -> torch.Tensor:
        """Pixels as a full batch; memory goes on behind them, as compiled code loads 16 bytes for the last three."""

        shape = (self.batch_size, *pixels.shape[1:])
        if self._input is None:
            with torch.inference_mode(False):  # it may be filled in that mode or out of it
                self._input = torch.zeros(math.prod(shape) + SPARE, dtype=torch.uint8)
        batch = self._input[:-SPARE].view(shape)
        batch[: len(pixels)] = torch.from_numpy(pixels)
        batch[len(pixels) :] = batch[0]
        return batch

    def _sent(self, images: torch.Tensor) -> torch.Tensor:
        """Pixels on the GPU, copied from pinned memory beside the previous batch's forward pass."""

        if self._copying is None:
            self._copying = torch.cuda.Stream()
        with torch.cuda.stream(self._copying):
            sent = images.pin_memory().to(self.device, non_blocking=True)
        torch.cuda.current_stream().wait_stream(self._copying)
        sent.record_stream(torch.cuda.current_stream())
        return sent

    def _fetched(self, outputs: list[torch.Tensor]) -> Callable[[], list[torch.Tensor]]:
        """What waits for this batch's outputs in pinned memory, and for no later batch's."""

        fetched = [torch.empty_like(output, device="cpu", pin_memory=True) for output in outputs]
        for host, output in zip(fetched, outputs, strict=True):
            host.copy_(output, non_blocking=True)
        done = torch.cuda.Event()
        done.record()

        def wait() -> list[torch.Tensor]:
            done.synchronize()
            return fetched

        return wait

    def _path(self) -> Path:

        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "tl-dagster")
        # Compiled code uses every instruction of the processor that it is made on.
        chip = torch.cuda.get_device_name() if self.device.type == "cuda" else sorted(cpu_flags())
        libraries = [NETWORK_RECIPE, torch.__version__, version("timm"), version("torchvision")]
        made_for = [*libraries, platform.machine(), chip, torch.get_num_threads(), self.batch_size]
        return home / f"{digest([self._key, *made_for])}.pt2"

    def _open(self, path: Path, log: Callable[[str], None]) -> None:

        try:
            # What `torch._inductor.aoti_load_package` wraps, without a second of imports for its compiler.
            loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
            self._library = lambda images: loader.boxed_run([images])
            self.compiled = True
        except Exception as error:
            log(f"the compiled network {path} cannot be used ({error}); it is deleted")
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _compile(self, path: Path, size: int, log: Callable[[str], None]) -> None:

        images = torch.zeros(self.batch_size, size, size, 3, dtype=torch.uint8, device=self.device)
        try:
            with torch.no_grad(), warnings.catch_warnings(), replace_atomically(path) as temporary:
                warnings.simplefilter("ignore")
                package = temporary.with_suffix(".pt2")
                exported = torch.export.export(self._eager, (images,))
                with config.patch(freezing=True):  # weights become constants: batch norm is folded into convolutions
                    torch._inductor.aoti_compile_and_package(exported, package_path=str(package))
                package.rename(temporary)
        except Exception as error:
            # Networks that cannot be exported, and compilers that are there but do not work, fail in many ways.
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            log(f"the network cannot be compiled ({said[:200]}); it runs uncompiled")
            return
        self._open(path, log)


def per_channel(values: Sequence[float]) -> torch.Tensor:
    """Mean or std of pixels in [0, 1], for pixels from 0 to 255: (1, 3, 1, 1)."""

    return (torch.tensor(values) * 255).view(1, 3, 1, 1)


def normalize(pixels: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """What a network reads of uint8 pixels (n, size, size, 3): float32 (n, 3, size, size)."""
    return (pixels.permute(0, 3, 1, 2).float() - shift) / scale


def _normalised(model: torch.nn.Module, mean: Sequence[float], std: Sequence[float]) -> torch.nn.Module:
    """The network behind its normalisation, so that both are compiled as one: uint8 (n, size, size, 3) → outputs."""

    class Normalised(torch.nn.Module):
        shift: torch.Tensor
        scale: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.model = model
            for name, values in (("shift", mean), ("scale", std)):
                self.register_buffer(name, per_channel(values))

        def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
            images = normalize(pixels, self.shift, self.scale)
            dtype = next(self.model.parameters()).dtype
            outputs: list[torch.Tensor] = self.model(images.to(dtype).contiguous(memory_format=torch.channels_last))
            return outputs

    return Normalised().eval()


def _can_compile(kind: str) -> bool:
    # On CUDA, Triton is the compiler; on the CPU, inductor calls g++ (or $CXX).
    return kind == "cuda" or shutil.which(os.environ.get("CXX", "g++")) is not None
