"""Processes: pools of workers that end with their parent, and the identity of a process across machines."""

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any

from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.leftovers import name_leftovers, remove_temporary_folder

__all__ = [
    "ProcessPool",
    "end_with_parent",
    "explain_ended_workers",
    "has_ended",
    "identify_process",
    "interrupts_blocked",
]

SAME_START = 5.0  # seconds: the clock that start times are counted from may be set


class ProcessPool(ProcessPoolExecutor):
    """Worker processes that end with their parent, however it ends, and leave Ctrl-C to it.

    A context manager: its processes end with the block. They are started when work is submitted.

    Args:
        workers: at most so many processes.
        initialize: called in each process when it starts.
        arguments: of ``initialize``.
        preload: modules that are imported once and that all workers are then forked with; none: each worker is a
            process of its own from the start.
    """

    def __init__(
        self,
        workers: int,
        initialize: Callable[..., None] | None = None,
        arguments: Sequence[Any] = (),
        preload: Sequence[str] = (),
    ) -> None:
        forkserver = preload and "forkserver" in multiprocessing.get_all_start_methods()
        name_leftovers()
        context: Any = multiprocessing.get_context("forkserver" if forkserver else "spawn")
        if forkserver:
            context.set_forkserver_preload(list(preload))
        super().__init__(workers, context, _start_worker, (initialize, *arguments))

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Submit a call; a worker that is started by it inherits that Ctrl-C is blocked."""
        with interrupts_blocked():
            return super().submit(function, *arguments, **options)


@contextmanager
def explain_ended_workers() -> Iterator[None]:
    """Turn the end of a worker process into a clear error.

    Raises:
        InputError: a worker ended by itself, or was killed.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise InputError(
            "a process that decodes images ended unexpectedly, most often for want of memory (the log may say "
            "more); set compute.workers to a smaller number"
        ) from error


def _start_worker(initialize: Callable[..., None] | None, *arguments: Any) -> None:
    end_with_parent()
    if initialize is not None:
        initialize(*arguments)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C in this thread, and so in the processes that it starts: a terminal sends it to all of them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """End this process as soon as the one that started it ends: a killed parent cannot tell its workers to.

    Does nothing in a process that multiprocessing did not start.
    """
    if multiprocessing.parent_process() is not None:
        threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        remove_temporary_folder()  # the parent cannot, any more
        os._exit(1)


def identify_process() -> str:
    """Return the identity of this process: machine, process number, start (seconds since 1970)."""
    import psutil

    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.0f}"


def has_ended(identity: str) -> bool:
    """Return whether a process is known to have ended; nothing is known of one on another machine.

    Args:
        identity: see :func:`identify_process`.
    """
    import psutil

    host, number, started = identity.rsplit(" ", 2)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(number))
        another = abs(process.create_time() - float(started)) > SAME_START
        return another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
