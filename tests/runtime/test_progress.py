"""Progress: few lines in a log, a bar in a terminal, and lines above it."""

import os
import pty
import re
import subprocess
import sys

import pytest

from tl_dagster.runtime import progress
from tl_dagster.runtime.progress import Progress

RUN = """
import time
import dagster as dg
from tl_dagster.graph.logging import run_logger
from tl_dagster.runtime.progress import Progress

@dg.asset
def counted(context):
    counter = Progress(context.log.info)
    counter.log("begins")
    counter.start("views")
    for done in range(1, 51):
        counter.update(done, 50, "a note")
        if done == 25:
            counter.log("halfway")
        time.sleep(0.02)
    counter.start("steps")
    counter.update(1, 4)
    if {fails}:
        raise dg.Failure("ends")

job = dg.define_asset_job("job", selection=[counted])
with dg.DagsterInstance.ephemeral() as instance:
    dg.Definitions([counted], jobs=[job], loggers={{"progress": run_logger}}).resolve_job_def("job").execute_in_process(
        instance=instance, run_config={{"loggers": {{"progress": {{}}}}}}, raise_on_error=False
    )
"""


def in_terminal(code: str) -> str:
    """What a process writes to a terminal of 100 columns."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "TERM": "xterm-256color"}
    process = subprocess.Popen([sys.executable, "-c", code], stderr=child, stdout=child, env=environment)
    os.close(child)
    written = b""
    try:
        while part := os.read(parent, 65_536):
            written += part
    except OSError:  # Linux says so when the last writer is gone
        pass
    os.close(parent)
    assert process.wait() == 0, written.decode()
    return written.decode()


def test_a_log_gets_few_lines(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    counter = Progress(lines.append)
    counter.start("views", done=10)
    for done in range(10, 110):
        now[0] += 1
        counter.update(done + 1, 110, "a note")
    assert [line.split(" ")[0] for line in lines] == ["40/110", "70/110", "100/110", "110/110"]
    assert lines[0] == "40/110 views · 1.0 views/s · ETA 1:10 · a note" and "done" in lines[-1]


def test_lines_where_there_is_no_terminal():
    code = RUN.format(fails=False)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [re.sub(r"\d\d:\d\d:\d\d  ", "", line) for line in done.stderr.splitlines()]
    assert lines[:2] == ["begins", "halfway"] and lines[2].startswith("50/50 views") and len(lines) == 3


@pytest.mark.parametrize("fails", [False, True])
def test_a_bar_in_a_terminal(fails):
    written = in_terminal(RUN.format(fails=fails))
    assert "━" in written and re.search(r"\d+/50 views · .* · a note", written)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)
    for line in ("begins", "halfway", r"50/50 views .* done · a note"):  # whole lines, above the bar
        assert re.search(rf"(^|[\r\n])\d\d:\d\d:\d\d  {line}\r?\n", plain), plain
    assert len(re.findall("halfway", plain)) == 1
    assert written.count("\x1b[?25h") >= written.count("\x1b[?25l") > 0  # the cursor is back
