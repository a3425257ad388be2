"""Signals that stop a command: Ctrl-C, a closed terminal, and the end that systemd, cron or Docker ask for."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn, Self

import click

from tl_dagster.runtime.interrupts import SafeInterrupts

__all__ = ["Interrupts", "run_or_exit"]

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupts:
    """A context in which each signal that stops a command interrupts it as Ctrl-C does; the interrupt ends there.

    A signal that was ignored when the command started (nohup) stays ignored.

    Attributes:
        received: the first signal that came, or None.
    """

    received: int | None = None

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in STOPPING}
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._interrupt)
        # Dagster puts its own handlers in place of these while it executes; all signals are written here too.
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(self._write_end, False)
        signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        with contextlib.suppress(BlockingIOError):
            self.received = next((number for number in os.read(self._read_end, 4096) if number in STOPPING), None)
        os.close(self._read_end)
        os.close(self._write_end)
        return self.received is not None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Interrupt as Ctrl-C does at the moment: at once, or where it is safe and Dagster allows it."""
        current = signal.getsignal(signal.SIGINT)
        if number == signal.SIGINT or not callable(current):
            raise KeyboardInterrupt
        current(signal.SIGINT, frame)

    def exit(self, message: str) -> NoReturn:
        """Say why, and exit with the status of a command that a signal ended."""
        with contextlib.suppress(OSError):  # the terminal is gone
            click.echo(message, err=True)
        sys.exit(128 + (self.received or 0))


def run_or_exit(run: Callable[[], bool]) -> None:
    """Do work that a signal may stop; exit where one did, or where the work did not succeed.

    Args:
        run: the work; returns whether it succeeded.
    """
    with Interrupts() as interrupts, SafeInterrupts():
        succeeded = run()
    if interrupts.received:
        interrupts.exit("stopped; run again to go on")
    if not succeeded:
        sys.exit(1)
