"""The terminal's view of a run: the lines of the stages with a progress bar below them; errors in full."""

import logging
import sys
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.execution.plan.objects import ErrorSource

from tl_dagster.runtime.progress import Progress

if TYPE_CHECKING:
    from tl_dagster.runtime.terminal import Terminal

__all__ = ["run_logger"]


@dg.logger(
    None, description="The lines of the stages and a progress bar; errors in full; none of Dagster's own events."
)
def run_logger(_: dg.InitLoggerContext) -> logging.Logger:
    """Return a Dagster logger that writes the lines of the stages to standard error.

    Where that is a terminal, counts are shown as a progress bar below the lines.
    """
    handler = _terminal_handler() if sys.stderr.isatty() else logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    handler.addFilter(_is_shown)
    logger = logging.Logger("tl_dagster.runtime.progress", logging.INFO)
    logger.addHandler(handler)
    return logger


class TerminalHandler(logging.Handler):
    """A handler that prints above the progress bar, and removes the bar when something failed."""

    def __init__(self, terminal: "Terminal") -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        if record.levelno >= logging.ERROR:
            self._terminal.clear()
        self._terminal.print(self.format(record))


def _terminal_handler() -> TerminalHandler:
    from tl_dagster.runtime.terminal import Terminal

    terminal = Terminal(sys.stderr)
    Progress.bar = terminal
    return TerminalHandler(terminal)


def _is_shown(record: logging.LogRecord) -> bool:
    meta = getattr(record, "dagster_meta", {}) or {}
    event = meta.get("dagster_event")
    if event is None:
        record.msg = meta.get("orig_message", record.msg)
        return not str(record.msg).startswith("Dependencies for step")  # that the rest does not run is clear anyway
    if event.is_step_failure:  # a stage has already logged what the user can fix, and which check stops the run
        failure = event.step_failure_data
        if failure.error_source is ErrorSource.INTERRUPT:  # the user's own doing
            return False
        return failure.user_failure_data is None and failure.error.cls_name != "DagsterAssetCheckFailedError"
    return record.levelno >= logging.ERROR and not event.is_job_event
