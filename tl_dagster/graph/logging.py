"""The terminal's view of a run: one line per step of progress, errors in full."""

import logging
import sys

import dagster as dg

__all__ = ["run_logger"]


@dg.logger(None, description="One line per step of progress; errors in full; nothing of Dagster's own events.")
def run_logger(_: dg.InitLoggerContext) -> logging.Logger:
    """A Dagster logger that writes what the stages say to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    handler.addFilter(_wanted)
    logger = logging.Logger("tl_dagster.runtime.progress", logging.INFO)
    logger.addHandler(handler)
    return logger


def _wanted(record: logging.LogRecord) -> bool:
    meta = getattr(record, "dagster_meta", {}) or {}
    event = meta.get("dagster_event")
    if event is None:
        record.msg = meta.get("orig_message", record.msg)
        return not str(record.msg).startswith("Dependencies for step")  # that the rest does not run goes without saying
    if event.is_step_failure:  # a stage has already said what the user can mend, and which check stops the run
        failure = event.step_failure_data
        return failure.user_failure_data is None and failure.error.cls_name != "DagsterAssetCheckFailedError"
    return record.levelno >= logging.ERROR and not event.is_run_failure
