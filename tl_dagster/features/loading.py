"""Decoding ahead of the network: workers draw views straight into memory that the network reads from.

That memory is a ring of rows, a few batches long. Each image is read and decoded once for all its views that follow
each other, and its views are written to their places in the ring; the network takes batch after batch out of it,
without a copy. Workers are processes, which share the ring; for little work they are threads, which start at once.
"""

import ctypes
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from tl_dagster.data.augmentation import Augmenter
from tl_dagster.data.decoding import Resize, read_verified
from tl_dagster.data.views import View
from tl_dagster.runtime.hardware import processors
from tl_dagster.runtime.processes import ProcessPool, explain_ended_workers

__all__ = ["Loader"]

# Processes take a second to start and import: less work than this is done sooner by threads.
PROCESSES_FROM = 512
TASK_VIEWS = 8  # drawn in one call: fewer calls for large machines, and little to wait for at the end
DEPTH = 4  # batches in the ring


Image = tuple[str, str, list[tuple[int, int]]]  # uri, id, and of each view its row of the ring and its index


@dataclass
class _Task:
    """Some images with their views; ``end`` counts all views up to its last."""

    end: int = 0
    views: int = 0
    images: list[Image] = field(default_factory=list)


class _Tasks:
    """Tasks in order, begun when there is room for their views."""

    def __init__(self, tasks: Iterator[_Task], submit: Callable[[list[Image]], Future[tuple[float, float]]]) -> None:
        self.pending: deque[tuple[int, Future[tuple[float, float]]]] = deque()
        self._tasks, self._submit = tasks, submit
        self._coming = next(tasks, None)

    def begin(self, room: int) -> None:
        """Begin those whose views are among the first so many."""
        while self._coming and self._coming.end <= room:
            self.pending.append((self._coming.end - self._coming.views, self._submit(self._coming.images)))
            self._coming = next(self._tasks, None)


class Loader:
    """Draws views in order, ahead of whoever takes them; a context manager.

    Args:
        resize: geometry from file to network input.
        views: draws the views.
        batch_size: rows of a full batch.
        workers: how many; 0: one for each processor.
        work: views that are to come: whether processes repay their start.
        yielding: let other threads of this machine go first: the network's, which on a CPU run on the same cores
            and wait for each other at each layer.

    Attributes:
        decode: seconds that workers spent reading, decoding and resizing.
        augment: seconds that workers spent drawing views from decoded images.
        waited: seconds that the taker waited for pixels.
        images: how many were decoded.
    """

    def __init__(
        self,
        resize: Resize,
        views: Augmenter,
        *,
        batch_size: int,
        workers: int = 0,
        work: int = 0,
        yielding: bool = True,
    ) -> None:
        self.batch_size = batch_size
        self.decode = self.augment = self.waited = 0.0
        self.images = 0
        self._workers = workers or processors()
        self._size = resize.size
        self._rows = DEPTH * batch_size
        count = self._rows * self._size**2 * 3
        self._pool: Executor
        if work >= PROCESSES_FROM:
            # In /dev/shm where there is room, else a temporary file; without a name, so that nothing is left behind.
            memory: Any = multiprocessing.RawArray(ctypes.c_ubyte, count)
            preload = [__name__, "PIL.Image", *(["albumentations"] if views.steps else [])]
            arguments = (memory, self._size, resize, views, yielding)
            self._pool = ProcessPool(self._workers, _start_worker, arguments, preload)
            self._draw = _draw_here
        else:
            memory = bytearray(count)
            self._pool = ThreadPoolExecutor(self._workers)
            self._draw = _Drawer(memory, self._size, resize, views)
        self._ring = _ring(memory, self._size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def batches(self, wanted: Sequence[View]) -> Generator[np.ndarray]:
        """The pixels of views in order: uint8 (n ≤ batch_size, size, size, 3), valid until the next are asked for.

        Raises:
            InputError: a file is gone or changed since ingestion, or a worker was killed.
        """
        tasks = _Tasks(self._tasks(wanted), self._submit)
        tasks.begin(self._rows)  # at once: the first pixels are drawn while the taker is still getting ready
        return self._taken(len(wanted), tasks)

    def _taken(self, count: int, tasks: _Tasks) -> Generator[np.ndarray]:
        pending = tasks.pending
        try:
            with explain_ended_workers():
                for start in range(0, count, self.batch_size):
                    end = min(start + self.batch_size, count)
                    tasks.begin(start + self._rows)
                    begun = time.monotonic()
                    while pending and pending[0][0] < end:
                        decode, augment = pending.popleft()[1].result()
                        self.decode += decode
                        self.augment += augment
                    self.waited += time.monotonic() - begun
                    at = start % self._rows
                    yield self._ring[at : at + end - start]
        finally:
            wait([future for _, future in pending if not future.cancel()])  # they write into the ring

    def _submit(self, images: list[Image]) -> Future[tuple[float, float]]:
        self.images += len(images)
        return self._pool.submit(self._draw, images)

    def _tasks(self, wanted: Sequence[View]) -> Iterator[_Task]:
        task, previous = _Task(), None
        for number, view in enumerate(wanted):
            same = previous == view.image_id
            # An image with many views may end a task early: never hold more than half of the ring.
            if task.views >= (self._rows // 2 if same else min(TASK_VIEWS, self.batch_size)):
                yield task
                task, same = _Task(), False
            if not same:
                task.images.append((view.uri, view.image_id, []))
            task.images[-1][2].append((number % self._rows, view.index))
            task.views, task.end, previous = task.views + 1, number + 1, view.image_id
        if task.views:
            yield task


class _Drawer:
    """Decodes images and writes their views into the ring."""

    def __init__(self, memory: Any, size: int, resize: Resize, views: Augmenter) -> None:
        self._ring, self._resize, self._views = _ring(memory, size), resize, views

    def __call__(self, images: list[Image]) -> tuple[float, float]:
        """Seconds of decoding and of drawing views."""
        decode = augment = 0.0
        for uri, identity, places in images:
            begun = time.monotonic()
            plain = self._resize(read_verified(uri, identity))
            decoded = time.monotonic()
            for row, index in places:
                self._ring[row] = self._views.draw(plain, identity, index)
            decode, augment = decode + decoded - begun, augment + time.monotonic() - decoded
        return decode, augment


def _ring(memory: Any, size: int) -> np.ndarray:

    return np.frombuffer(memory, np.uint8).reshape(-1, size, size, 3)


_here: list[_Drawer] = []  # of a worker process


def _start_worker(memory: Any, size: int, resize: Resize, views: Augmenter, yielding: bool) -> None:
    if yielding and hasattr(os, "nice"):
        os.nice(10)
    _here.append(_Drawer(memory, size, resize, views))


def _draw_here(images: list[Image]) -> tuple[float, float]:
    return _here[0](images)
