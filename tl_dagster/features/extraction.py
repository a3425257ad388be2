"""Extraction: the frozen backbone's activations of each view that the cache does not hold yet.

Workers decode and augment ahead (:mod:`tl_dagster.features.loading`), the main thread runs the network
(:mod:`tl_dagster.backbones.inference`), and a thread writes: the network waits for neither. A compiled and an eager
network give the same rows up to the rounding of the declared precision; a row is computed by one of them, once.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np
import torch

from tl_dagster.backbones.inference import InferenceRunner
from tl_dagster.data.views import View
from tl_dagster.features.cache import FeatureColumn
from tl_dagster.features.loading import Loader
from tl_dagster.features.results import ExtractionResult
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.progress import Progress

__all__ = ["extract"]

FLUSH_SECONDS = 5.0
FLUSH_BYTES = 64 * 2**20


def extract(
    wanted: Sequence[View],
    columns: Sequence[tuple[FeatureColumn, np.ndarray]],
    network: Callable[[], torch.nn.Module],
    loader: Loader,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    progress: Progress,
    compiling: bool = True,
    compare: bool = True,
    reused: int = 0,
    required: int | None = None,
) -> ExtractionResult:
    """Compute and store the rows that are missing.

    Args:
        wanted: views that lack a row in at least one column, at least one; those of one image follow each other.
        columns: one for each output of the network, with which of the views it lacks: bool (len(wanted),). A flush
            writes the last first.
        network: loads the backbone, unless it was compiled before: images (N, 3, size, size) → list of (N, D), one for
            each column.
        loader: draws the views; closed at the end.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        progress: informed of each batch.
        compiling: compile the network where that is likely to save time.
        compare: measure the difference to fp32.
        reused: number of cached views, for progress.
        required: the first so many columns; of the others a part that cannot be written is left out. None: all.

    Raises:
        InputError: a file changed since ingestion, or the cache cannot be written.
    """
    keys = [column.key for column, _ in columns]
    precision = keys[0]["precision"]
    progress.log(f"{len(wanted):,} views to forward, {reused:,} reused")
    with loader, contextlib.ExitStack() as closing, _Writer(columns, wanted, required, progress.log) as writer:
        batches = closing.enter_context(contextlib.closing(loader.batches(wanted)))
        model = InferenceRunner(
            network, keys, precision, mean, std, loader.batch_size
        )  # imports torch; workers draw meanwhile
        first = next(batches)
        difference = model.precision_error(first) if compare and precision != "fp32" else []
        if compiling:
            model.consider_compiling(first, len(wanted), progress.log)
        begun, forward = time.monotonic(), 0.0
        loader.waited = 0.0
        progress.start("views")
        for pixels in itertools.chain([first], batches):
            started = time.monotonic()
            # This batch is sent before the last one's rows are fetched, so that a GPU always has work.
            writer.add(model(pixels))
            forward += time.monotonic() - started
            seconds = {"decode": loader.decode, "augment": loader.augment, "forward": forward, "write": writer.seconds}
            if writer.done:
                progress.update(writer.done, len(wanted), f"{reused:,} reused · {_shares(seconds)}")
    progress.update(len(wanted), len(wanted), f"{reused:,} reused · {_shares(seconds)}")
    seconds = {**seconds, "write": writer.seconds, "wait": loader.waited}
    rate = len(wanted) / (time.monotonic() - begun)
    return ExtractionResult(len(wanted), loader.images, seconds, rate, model.compiled, difference)


def _shares(seconds: Mapping[str, float]) -> str:
    total = max(sum(seconds.values()), 1e-9)
    return ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items())


class _Writer:
    """Gathers rows and writes them every few seconds, in a thread; at the end, also after an error, the rest.

    Attributes:
        done: views whose rows are gathered.
        seconds: spent writing.
    """

    def __init__(
        self,
        columns: Sequence[tuple[FeatureColumn, np.ndarray]],
        wanted: Sequence[View],
        required: int | None,
        log: Callable[[str], None],
    ) -> None:
        self.seconds = 0.0
        self._required, self._log = len(columns) if required is None else required, log
        self._columns, self._wanted = columns, wanted
        self._kept: list[list[np.ndarray]] = [[] for _ in columns]
        self._running: Callable[[], list[torch.Tensor]] | None = None
        self.done = self._flushed = self._waiting_bytes = 0
        self._flushed_at = time.monotonic()
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._take()
            self._flush()
            self._wait()
        finally:
            self._thread.shutdown()

    def add(self, running: Callable[[], list[torch.Tensor]]) -> None:
        """Take what will give the next views' rows, one tensor for each column, and fetch those of the call before."""
        self._take()
        self._running = running
        if self._waiting_bytes > FLUSH_BYTES or time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self._flush()

    def _take(self) -> None:

        running, self._running = self._running, None
        if running is None:
            return
        outputs = running()
        for kept, output, (column, _) in zip(self._kept, outputs, self._columns, strict=True):
            kept.append(output.to(getattr(torch, column.dtype)).numpy())
            self._waiting_bytes += kept[-1].nbytes
        self.done += len(outputs[0])

    def _flush(self) -> None:
        self._wait()  # one at a time: what waits in memory stays within twice the limit
        kept, start, end = self._kept, self._flushed, self.done
        self._kept, self._flushed, self._waiting_bytes = [[] for _ in self._columns], end, 0
        self._flushed_at = time.monotonic()
        if start < end:
            self._writing = self._thread.submit(self._write, kept, start, end)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, kept: list[list[np.ndarray]], start: int, end: int) -> None:

        begun = time.monotonic()
        # The first columns last: a view that has its row there is not forwarded again, and should have all others then.
        for number, parts in reversed(list(enumerate(kept))):
            rows = np.flatnonzero(self._columns[number][1][start:end])
            if len(rows):
                self._add(number, [self._wanted[start + int(row)].key for row in rows], np.concatenate(parts)[rows])
        self.seconds += time.monotonic() - begun

    def _add(self, number: int, keys: list[str], values: np.ndarray) -> None:
        try:
            self._columns[number][0].write(keys, values)
        except InputError as error:
            if number < self._required:
                raise
            self._log(f"left out, as no feature depends on it: {error}")
