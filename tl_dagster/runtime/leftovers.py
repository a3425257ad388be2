"""The leftovers of :mod:`multiprocessing` in the system: a folder with a socket, and semaphores.

They are named after the process that made them, so that whoever comes next removes what a killed one left. Python
names them at random (``pymp-…``, ``sem.mp-…``), and nobody can tell whose they are.
"""

import contextlib
import hashlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from multiprocessing import util
from pathlib import Path
from typing import Any

__all__ = ["name_leftovers", "remove_temporary_folder"]

SEMAPHORES = Path("/dev/shm")  # noqa: S108  (where Linux keeps named semaphores, as "sem.NAME")


def name_leftovers() -> None:
    """Name what this process will leave if it is killed, and remove what killed ones left; before a pool is made.

    It sets two entries of the configuration that each process of :mod:`multiprocessing` inherits. Where another part
    of the program has made processes before, their folder is used.
    """
    config = _config()
    if sys.platform != "linux" or "tempdir" in config:
        return
    prefix = f"tl-{_machine()}-"  # short: the path of a socket has at most 107 bytes
    _remove_leftovers(prefix)
    config["semprefix"] = f"/{prefix}{os.getpid()}"
    config["tempdir"] = tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-")
    util.Finalize(None, remove_temporary_folder, exitpriority=-100)  # after the pools, as Python does with its own


def remove_temporary_folder() -> None:
    """Remove the folder of this process and its children."""
    if folder := _config().get("tempdir"):
        shutil.rmtree(folder, ignore_errors=True)


def _config() -> dict[str, Any]:
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    return config


def _machine() -> str:
    """Return a name of this machine since its start, and of the container: a number of a process means only there."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    return hashlib.sha256(f"{boot} {os.stat('/proc/self/ns/pid').st_ino}".encode()).hexdigest()[:6]  # noqa: PTH116


def _remove_leftovers(prefix: str) -> None:
    for path in [*Path(tempfile.gettempdir()).glob(f"{prefix}*"), *SEMAPHORES.glob(f"sem.{prefix}*")]:
        number = path.name.partition(prefix)[2].partition("-")[0]
        if number.isdigit() and not Path("/proc", number).exists():
            with contextlib.suppress(OSError):  # another user's
                path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
