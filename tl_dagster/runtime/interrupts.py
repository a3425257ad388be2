"""Interrupts that neither do harm nor get lost: Ctrl-C, and the signal by which a run is asked to end.

An exception that is raised at any instruction may come in the middle of an import, where it leaves half a module, is
swallowed by a library that catches whatever comes, or ends the process inside of C++; or in a callback of the garbage
collector, where Python prints it and goes on.
"""

import os
import signal
import sys
import threading
from _thread import interrupt_main
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

__all__ = ["SafeInterrupts", "repeat_lost_interrupt"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
RETRY_SECONDS = 0.1
IMPORTS = "<frozen importlib"


class SafeInterrupts:
    """A context in whose main thread the present handlers of signals are called after an import, not within it.

    What a handler raises and a library loses is raised again by the next :func:`repeat_lost_interrupt`, and at the
    latest at the end of the context. In other threads it does nothing.
    """

    def __enter__(self) -> Self:
        self._postponed: int | None = None
        self._raised: BaseException | None = None
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._ended = False
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: handler for number in SIGNALS if callable(handler := signal.getsignal(number))}
            for number in self._handlers:
                signal.signal(number, self._handle)
            self._unraisablehook, sys.unraisablehook = sys.unraisablehook, self._note_lost
            _active.append((os.getpid(), self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = True
        if not self._handlers:
            return
        _active.pop()
        sys.unraisablehook = self._unraisablehook
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if error is None or isinstance(error, Exception):  # which may be what a library made of the interrupt
            self._repeat()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if _is_importing(frame):
            self._postpone(number)
            return
        self._postponed = None
        try:
            self._handlers[number](number, frame)
        except BaseException as error:
            self._postponed, self._raised = number, error
            raise

    def _postpone(self, number: int) -> None:
        self._postponed = number
        timer = threading.Timer(RETRY_SECONDS, self._retry, (number,))
        timer.daemon = True
        timer.start()

    def _retry(self, number: int) -> None:
        if not self._ended:
            interrupt_main(signal.Signals(number))

    def _note_lost(self, lost: Any) -> None:
        """Take over from Python, which would print an exception that cannot be raised and go on."""
        if lost.exc_value is not None and lost.exc_value is self._raised:
            self._postpone(self._postponed or signal.SIGINT)
        else:
            self._unraisablehook(lost)

    def _repeat(self) -> None:
        """Call the handler of a signal that came, since work goes on or has ended as if it had not."""
        if self._postponed is not None:
            number, self._postponed = self._postponed, None
            self._handlers[number](number, None)


_active: list[tuple[int, SafeInterrupts]] = []  # with its process: a fork's are not its parent's


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith(IMPORTS):
            return True
        frame = frame.f_back
    return False


def repeat_lost_interrupt() -> None:
    """Interrupt work that was told to stop and goes on, since a library swallowed the interrupt."""
    if _active and _active[-1][0] == os.getpid() and threading.current_thread() is threading.main_thread():
        _active[-1][1]._repeat()
