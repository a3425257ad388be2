"""The memory of splits: which image and which group was assigned to what, for good.

Without it a new image could move old ones: the rank of an image in its class changes with every other one.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from filelock import FileLock

from tl_dagster.store.digests import digest
from tl_dagster.store.files import replace_atomically, write_atomically

__all__ = ["SplitMemory", "nothing"]


def nothing() -> pd.Series:
    """Return the parts of no image: an empty series of str by str."""
    return pd.Series(dtype="str", index=pd.Index([], dtype="str"))


class SplitMemory:
    """The parts that images and groups of one source were assigned to, by division.

    Args:
        folder: made when first written; None: it is forgotten with the object.
        start: gives image id → split, for a division that nothing is remembered of.
    """

    def __init__(self, folder: Path | None = None, start: Callable[[], pd.Series] = nothing) -> None:
        self._folder, self._start = folder, start
        self._parts: dict[str, pd.Series] = {}

    def lock(self) -> contextlib.AbstractContextManager[object]:
        """Return the lock to take from recalling to writing, so that no other run's decisions are lost."""
        if self._folder is None:
            return contextlib.nullcontext()
        self._folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self._folder / "lock")

    def recall(self, division: str) -> pd.Series:
        """Return what a division assigned before: image id or group → part (str)."""
        if division not in self._parts:
            self._parts[division] = self._read(division)
        return self._parts[division]

    def remember(self, division: str, parts: pd.Series) -> None:
        """Add image ids and groups with their parts; :meth:`write` stores them."""
        both = pd.concat([self.recall(division), parts])
        self._parts[division] = both[~both.index.duplicated(keep="last")]

    def find(self, version: str) -> str | None:
        """Return the digest of what a version of the images was assigned to; None: it was not looked at yet."""
        try:
            return self._path(f"{version}.txt").read_text()
        except FileNotFoundError:
            return None

    def write(self, version: str, assigned: str) -> None:
        """Store what was added, and the digest of what a version of the images was assigned to: both for good.

        Raises:
            DiskError: the store cannot be written.
        """
        for division, parts in self._parts.items():
            with replace_atomically(self._table(division)) as temporary:
                parts.rename("part").rename_axis("name").reset_index().to_parquet(temporary, index=False)
        write_atomically(self._path(f"{version}.txt"), assigned.encode())

    def _read(self, division: str) -> pd.Series:
        if self._folder is None or not self._table(division).exists():
            return self._start()
        return pd.read_parquet(self._table(division)).set_index("name")["part"]

    def _table(self, division: str) -> Path:
        return self._path(f"{digest(division)[:32]}.parquet")

    def _path(self, name: str) -> Path:
        assert self._folder is not None  # noqa: S101  (for the type checker)
        return self._folder / name
