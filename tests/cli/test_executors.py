"""Steps in processes of their own end when their work is done: no pool of workers keeps them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness.projects import MARK
from benchmarks.harness.stopped_runs import find_processes
from tests.conftest import ROOT
from tl_dagster.data.ingestion import PROCESSES_FROM


def add_photos(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(folder / f"{number}.png")


def test_a_step_that_read_with_processes_ends(project, store, photos):
    add_photos(photos / "functional", PROCESSES_FROM)
    environment = {**os.environ, MARK: str(project), "PYTHONPATH": os.pathsep.join([str(project), str(ROOT)])}
    config = json.dumps({"execution": {"config": {"multiprocess": {}}}})
    command = [Path(sys.executable).with_name("dg"), "launch", "--assets", "first/dataset", "--config-json", config]
    # An idle pool would keep the step for five minutes.
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "multiprocess executor" in done.stderr
    assert store.get_current("first", "dataset").artifact.summary.rows > PROCESSES_FROM
    assert not find_processes(str(project))
