"""Extraction: the frozen backbone's activations of each view that the cache does not hold yet.

Threads read, decode and augment (Pillow and OpenCV release the interpreter lock) while the main thread runs the
network on batches of one fixed shape. A compiled and an eager network give the same rows up to the rounding of the
declared precision; a row is computed by one of them, once.
"""

import contextlib
import itertools
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tl_dagster.data.augmentation import Views
from tl_dagster.data.decoding import Resize, read_verified
from tl_dagster.features.cache import Column
from tl_dagster.features.hardware import processors
from tl_dagster.progress import Progress
from tl_dagster.spec import Compute

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["View", "autocast_dtype", "batches", "extract"]

FLUSH_SECONDS = 5.0
FLUSH_BYTES = 64 * 2**20
# Compiling takes about as long as this many views of a small network; less work than that is not worth it.
COMPILE_FROM = 3000


@dataclass(frozen=True)
class View:
    """One view to draw: where the image is, which view of it, and its identity (the cache's key)."""

    uri: str
    image_id: str
    index: int
    key: str


def autocast_dtype(precision: str) -> "torch.dtype":
    """The torch dtype of a resolved precision."""
    import torch

    return torch.bfloat16 if precision == "bf16" else torch.float32


def extract(
    wanted: Sequence[View],
    columns: Sequence[Column],
    network: "Callable[[], torch.nn.Module]",
    *,
    resize: Resize,
    views: Views,
    mean: Sequence[float],
    std: Sequence[float],
    compute: Compute,
    progress: Progress,
) -> int:
    """Compute and store the rows that are missing.

    Args:
        wanted: views that lack a row in at least one column.
        columns: one column for each output of the network.
        network: loads the backbone: images (N, 3, size, size) → list of (N, D), one for each column.
        resize: geometry from file to network input.
        views: draws the views.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        compute: threads, batch size, compilation.
        progress: told of each batch.

    Returns:
        The number of views forwarded.

    Raises:
        InputError: a file changed since ingestion, or the cache cannot be written.
    """
    import numpy as np
    import torch

    if not wanted:
        return 0
    lacking = [column.missing([view.key for view in wanted]) for column in columns]
    forward = _prepared(network(), columns[0].recipe["precision"], mean, std, compute, len(wanted))
    kept: list[list[np.ndarray]] = [[] for _ in columns]
    flushed = done = held = 0
    told = time.monotonic()

    def flush() -> None:
        nonlocal flushed, held, told
        for column, parts, lacks in zip(columns, kept, lacking, strict=True):
            if parts:
                rows = np.flatnonzero(lacks[flushed:done])
                if len(rows):
                    column.write([wanted[flushed + int(row)].key for row in rows], np.concatenate(parts)[rows])
                parts.clear()
        flushed, held, told = done, 0, time.monotonic()

    progress.say(f"{len(wanted):,} views to forward; the first batch loads (and compiles) the network")
    try:
        with torch.inference_mode():
            for pixels in batches(wanted, resize, views, compute):
                outputs = forward(pixels)
                for parts, output, column in zip(kept, outputs, columns, strict=True):
                    parts.append(output[: len(pixels)].to(getattr(torch, column.dtype)).cpu().numpy())
                    held += parts[-1].nbytes
                if done == 0:
                    progress.start("views", len(pixels))
                done += len(pixels)
                progress.update(done, len(wanted))
                if held > FLUSH_BYTES or time.monotonic() - told > FLUSH_SECONDS:
                    flush()
    finally:
        flush()  # also when a file was missing: what was computed is kept
    return len(wanted)


def batches(wanted: Sequence[View], resize: Resize, views: Views, compute: Compute) -> "Iterator[np.ndarray]":
    """The pixels of views in order, decoded ahead by threads: uint8 (n ≤ batch_size, size, size, 3).

    An image is decoded once for all its views, when they follow each other.
    """
    import numpy as np

    def draw(image: list[View]) -> "list[np.ndarray]":
        plain = resize(read_verified(image[0].uri, image[0].image_id))
        return [views.draw(plain, view.image_id, view.index) for view in image]

    images = [list(group) for _, group in itertools.groupby(wanted, key=lambda view: view.image_id)]
    workers = compute.workers or processors()
    batch: list[np.ndarray] = []
    for drawn in _ahead(draw, images, workers, 2 * workers + compute.batch_size // 2):
        for pixels in drawn:
            batch.append(pixels)
            if len(batch) == compute.batch_size:
                yield np.stack(batch)
                batch = []
    if batch:
        yield np.stack(batch)


def _ahead(work: "Callable[[Any], Any]", items: Iterable[Any], workers: int, depth: int) -> Iterator[Any]:
    """Map in order on threads, at most ``depth`` results ahead of the consumer."""
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[Any]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _prepared(
    model: "torch.nn.Module", precision: str, mean: Sequence[float], std: Sequence[float], compute: Compute, work: int
) -> "Callable[[np.ndarray], list[torch.Tensor]]":
    """The network on its device: uint8 (n, size, size, 3) → outputs of the fixed batch size (padded rows last)."""
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = autocast_dtype(precision)
    shift, scale = ((torch.tensor(values, device=device) * 255).view(1, 3, 1, 1) for values in (mean, std))

    class Normalised(torch.nn.Module):
        """The network behind its normalisation, so that both are compiled as one."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
            images = ((pixels.permute(0, 3, 1, 2).float() - shift) / scale).to(dtype)
            outputs: list[torch.Tensor] = self.model(images.contiguous(memory_format=torch.channels_last))
            return outputs

    network = Normalised()
    run = _compiled(network) if _worth_compiling(compute, work, device.type) else network

    def forward(pixels: "np.ndarray") -> "list[torch.Tensor]":
        images = torch.from_numpy(pixels).to(device)
        if len(images) < compute.batch_size:
            images = torch.cat([images, images[:1].expand(compute.batch_size - len(images), -1, -1, -1)])
        outputs: list[torch.Tensor] = run(images)
        return outputs

    return forward


def _worth_compiling(compute: Compute, work: int, device: str) -> bool:
    # On CUDA, Triton is the compiler; on the CPU, inductor calls g++ (or $CXX).
    able = device == "cuda" or shutil.which(os.environ.get("CXX", "g++")) is not None
    return compute.compile == "auto" and able and work >= COMPILE_FROM


def _compiled(model: "torch.nn.Module") -> "Callable[[torch.Tensor], list[torch.Tensor]]":
    import torch
    from torch._inductor import config

    config.freezing = True  # weights become constants: batch norm is folded into the convolutions
    compiled = torch.compile(model)
    working = [compiled]

    def run(images: "torch.Tensor") -> "list[torch.Tensor]":
        if working[0] is compiled:
            with contextlib.suppress(torch._dynamo.exc.BackendCompilerFailed, torch._inductor.exc.CppCompileError):
                return compiled(images)  # type: ignore[no-any-return]
            working[0] = model  # a compiler that is there but does not work: the same network, eagerly
        return model(images)  # type: ignore[no-any-return]

    return run
