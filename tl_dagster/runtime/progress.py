"""Progress of long work: what is done, how fast, and when it will end; a line every few seconds."""

import time
from collections.abc import Callable

__all__ = ["Progress", "clock"]

INTERVAL = 3.0


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Progress:
    """Counts units of work and reports their rate and the time left.

    Args:
        log: receives each line.
        unit: what is counted, such as "views".
    """

    def __init__(self, log: Callable[[str], None], unit: str = "images") -> None:
        self.log = log
        self.start(unit)

    def start(self, unit: str, done: int = 0) -> None:
        """Begin counting; ``done`` units are there already and do not count for the rate."""
        self._unit = unit
        self._done = done
        self._begun = self._told = time.monotonic()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Tell how far the work is; a line is said every few seconds, and at the end."""
        now = time.monotonic()
        if now - self._told < INTERVAL and done < total:
            return
        self._told = now
        rate = max((done - self._done) / max(now - self._begun, 1e-9), 1e-9)
        left = "done" if done >= total else f"ETA {clock((total - done) / rate)}"
        shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        self.log(f"{done:,}/{total:,} {self._unit} · {shown} {self._unit}/s · {left}{' · ' + note if note else ''}")
