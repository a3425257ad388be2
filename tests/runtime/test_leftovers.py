"""What killed processes leave in the system: removed by their workers, or by the next process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tl_dagster.runtime import leftovers

CODE = """
import time
from tl_dagster.data.augmentation import Augmenter
from tl_dagster.data.decoding import Resize
from tl_dagster.data.settings import Augmentation
from tl_dagster.features import loading

if __name__ == "__main__":
    loading.PROCESSES_FROM = 0
    resize = Resize(32, "squash", 1.0, "bilinear")
    loader = loading.Loader(resize, Augmenter(Augmentation(preset="none")), batch_size=2, workers=1)
    loader._pool.submit(abs, 1).result()
    print("started", flush=True)
    time.sleep(600)
"""


def left(folder: Path) -> list[str]:
    """What a process and its children have left in a temporary folder, and as semaphores of this name."""
    return [path.name for path in [*folder.iterdir(), *leftovers.SEMAPHORES.glob("sem.tl-*")]]


def start(folder: Path) -> subprocess.Popen:
    """A process that draws views in a worker, in a session of its own."""
    script = folder.parent / "script.py"
    script.write_text(CODE)
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(Path.cwd())}
    running = subprocess.Popen(
        [sys.executable, script],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert running.stdout and running.stdout.readline() == b"started\n"
    return running


def test_a_killed_process_leaves_nothing(tmp_path_factory):
    (folder := tmp_path_factory.mktemp("k") / "t").mkdir()
    running = start(folder)
    assert list(folder.glob("tl-*"))
    running.kill()
    running.wait()
    for _ in range(100):  # its workers and Python's own tracker tidy up
        if not [name for name in left(folder) if f"-{running.pid}-" in name or "pymp" in name]:
            return
        time.sleep(0.1)
    raise AssertionError(left(folder))


def test_what_a_killed_session_left_is_removed_by_the_next_process(tmp_path_factory, monkeypatch):
    (folder := tmp_path_factory.mktemp("k") / "t").mkdir()
    running = start(folder)
    os.killpg(running.pid, signal.SIGKILL)  # the workers and the tracker too
    running.wait()
    time.sleep(0.2)
    assert [name for name in left(folder) if f"-{running.pid}-" in name]
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    leftovers._remove_leftovers(f"tl-{leftovers._machine()}-")
    assert not [name for name in left(folder) if f"-{running.pid}-" in name or "pymp" in name]
