"""Answers of our own modules run in processes of their own, kept in the store."""

import contextlib
import json
import subprocess
import sys
from functools import cache
from typing import Any

from tl_dagster.runtime.errors import InputError
from tl_dagster.store.digests import digest
from tl_dagster.store.files import DiskError, write_atomically
from tl_dagster.store.layout import StoreLayout, default_root

__all__ = ["ask_module"]


@cache
def ask_module(module: str, arguments: tuple[str, ...], versions: str) -> dict[str, Any]:
    """What one of our modules prints as JSON when run on its own; kept in the store for these library versions."""
    kept = StoreLayout(default_root()).answer(digest([module, arguments, versions])[:16])
    try:
        return dict(json.loads(kept.read_text()))
    except (OSError, ValueError):
        pass
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  (no shell; our own module)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]  # killed: silent
        raise InputError(f"{' '.join(arguments).strip()[:80]} cannot be looked at: {lines[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise InputError(answer["error"])
    with contextlib.suppress(DiskError):  # a read-only store is told of when something must be stored there
        write_atomically(kept, json.dumps(answer).encode())
    return answer
