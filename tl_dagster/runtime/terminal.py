"""The terminal of a run: lines, and below them a live progress bar."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

__all__ = ["Terminal"]


class Terminal:
    """A terminal that shows lines, and one count below them as a bar.

    Args:
        stream: is written to through a descriptor of its own: Dagster redirects that of the process while a step runs.
    """

    def __init__(self, stream: TextIO) -> None:
        own = os.fdopen(os.dup(stream.fileno()), "w", encoding="utf-8")
        self.console = Console(file=own, highlight=False)
        self._hidden = False
        self._bar: Progress | None = None
        atexit.register(self.clear)

    def print(self, line: str) -> None:
        """Print a line, above the bar when there is one."""
        if not self._hidden:
            self.console.print(line, markup=False, soft_wrap=True)

    def show(self, line: str, done: int, total: int) -> None:
        """Draw the bar of a count, and the count in words beside it."""
        if self._bar is None:
            columns = BarColumn(), TaskProgressColumn(), TextColumn("{task.description}", markup=False)
            self._bar = Progress(
                *columns, console=self.console, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._bar.add_task(line)
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], description=line, completed=done, total=total)

    def clear(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @contextmanager
    def hide_lines(self) -> Iterator[None]:
        """Print no lines meanwhile."""
        self._hidden = True
        try:
            yield
        finally:
            self._hidden = False
