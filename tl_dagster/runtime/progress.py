"""Progress of long work: its rate and the time left; a line every half minute, and a bar in a terminal."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Protocol

from tl_dagster.runtime.interrupts import repeat_lost_interrupt

__all__ = ["Progress", "ProgressBar", "clock"]

INTERVAL = 30.0  # seconds between two lines


class ProgressBar(Protocol):
    """A live display of one count at a time, in the terminal of this process."""

    def show(self, line: str, done: int, total: int) -> None:
        """Draw the count; ``line`` says it in words."""

    def clear(self) -> None:
        """Remove what is drawn."""

    def hide_lines(self) -> AbstractContextManager[None]:
        """Keep the lines that are logged meanwhile out of the terminal: the bar shows the same."""


class Progress:
    """A counter of units of work that reports their rate and the time left.

    Args:
        log: receives each line: at most one in 30 seconds while units are counted, and one at the end.
        unit: the name of what is counted, such as "views".

    Attributes:
        bar: a live display of the process, when its log goes to a terminal.
    """

    bar: ClassVar[ProgressBar | None] = None

    def __init__(self, log: Callable[[str], None], unit: str = "images") -> None:
        self.log = log
        self.start(unit)

    def start(self, unit: str, done: int = 0) -> None:
        """Begin counting; ``done`` units are there already and do not count for the rate."""
        self._unit = unit
        self._done = done
        self._begun = self._logged = time.monotonic()
        if self.bar:
            self.bar.clear()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Report how far the work is: in the bar at once, in the log now and then and at the end.

        Work that was told to stop, and goes on since the interrupt was lost, is interrupted here.
        """
        repeat_lost_interrupt()
        now, finished = time.monotonic(), done >= total
        due = finished or now - self._logged >= INTERVAL
        if not due and self.bar is None:
            return
        line = self._describe(done, total, now - self._begun, note)
        if self.bar:
            self.bar.clear() if finished else self.bar.show(line, done, total)
        if due:
            self._logged = now
            with nullcontext() if finished or self.bar is None else self.bar.hide_lines():
                self.log(line)

    def _describe(self, done: int, total: int, seconds: float, note: str) -> str:
        rate = max((done - self._done) / max(seconds, 1e-9), 1e-9)
        left = "done" if done >= total else f"ETA {clock((total - done) / rate)}"
        shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        return f"{done:,}/{total:,} {self._unit} · {shown} {self._unit}/s · {left}{' · ' + note if note else ''}"


def clock(seconds: float) -> str:
    """Return seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
