"""The feature cache: one row per (view, key), written once and never changed.

A *column* of the cache is everything that does not vary from view to view: decoding and preprocessing, backbone,
weights, tap layer, pooling, precision. Its digest names a folder of append-only shards
(:mod:`tl_dagster.features.shards`): a kill at any moment loses at most the rows since the last flush. Shards are
memory-mapped for reading, and shared by every pipeline that uses the same store.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from filelock import BaseFileLock, FileLock, Timeout

from tl_dagster.features import shards
from tl_dagster.features.shards import KEY_BYTES, DamagedError, Shard
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.digests import digest
from tl_dagster.store.files import write_atomically, writing

__all__ = ["ConcatFeatures", "FeatureColumn", "FeatureRows", "list_columns", "locked"]

KEY, NOTES, LOCK = "recipe.json", "notes.json", ".lock"
STALE_SECONDS = 600.0  # nothing takes so long to write


class FeatureRows:
    """Rows of a column, gathered from memory-mapped shards when indexed.

    Args:
        opened: the column's shards.
        places: (len,) int64: row numbers in the shards one after the other.
    """

    def __init__(self, opened: Sequence[Shard], places: np.ndarray) -> None:

        self._shards = opened
        self._places = places
        self._ends = np.cumsum([len(shard) for shard in opened], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def width(self) -> int:
        """Values in one row (D)."""
        return self._shards[0].width

    def __getitem__(self, chosen: np.ndarray | slice) -> np.ndarray:
        """Rows by position: int64 indices of shape (n,) or a slice → (n, D), a copy.

        Raises:
            InputError: a shard is damaged; it is quarantined.
        """
        places = self._places[chosen]
        numbers = np.searchsorted(self._ends, places, side="right")
        order = np.argsort(numbers, kind="stable")
        out = np.empty((len(places), self.width), dtype=self._shards[0].dtype)
        for mine in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(order) else []:
            number = numbers[mine[0]]
            start = self._ends[number] - len(self._shards[number])
            out[mine] = self._values(self._shards[number])[places[mine] - start]
        return out

    def _values(self, shard: Shard) -> np.ndarray:
        try:
            return shard.values()
        except DamagedError as error:
            with contextlib.suppress(OSError):
                shards.quarantine(shard.path)
            raise InputError(
                f"the feature cache has a damaged shard ({error}), now quarantined; materialize `bottleneck_features` "
                f"again: it computes its {len(shard):,} rows again"
            ) from error


class FeatureColumn:
    """The rows of one feature key.

    Args:
        root: folder of the feature cache.
        key: everything that determines a row but for its view; JSON-serialisable.

    Attributes:
        damaged: the fault of each shard that was quarantined; its rows count as missing.
    """

    def __init__(self, root: Path, key: Mapping[str, Any]) -> None:
        self.key = dict(key)
        self.name = digest(self.key)
        self.folder = root / self.name
        self.damaged: list[str] = []
        self._open: dict[Path, Shard] = {}

    @property
    def output(self) -> tuple[str, str]:
        """Module or node of the network that the values come from, and their pooling."""
        tap, pooling = self.key["tap"], self.key["pooling"]
        return tap, pooling

    @property
    def title(self) -> str:
        """The column in one line."""
        key = self.key
        return f"{key['backbone']} {key['tap']} {key['pooling']} {key['precision']} {key['resize']['size']} px"

    @property
    def dtype(self) -> str:
        """float32 where features are computed in fp32, else float16 (a bf16 forward pass has 8 significant bits)."""
        return "float32" if self.key["precision"] == "fp32" else "float16"

    @property
    def lock(self) -> BaseFileLock:
        """Held by whoever adds or removes rows; of one process, every column of this name has the same."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / LOCK, is_singleton=True)

    def missing(self, keys: Sequence[str]) -> np.ndarray:
        """Which of these views (hex digests) have no row yet: bool (len(keys),)."""
        return self._places(keys, self.shards()) < 0

    def write(self, keys: Sequence[str], values: np.ndarray) -> None:
        """Append rows as one shard.

        Args:
            keys: view identities (64 hex digits each), one per row.
            values: (len(keys), D), cast to the column's dtype.

        Raises:
            InputError: the cache cannot be written, or a value is not finite.
        """
        values = np.ascontiguousarray(values, dtype=self.dtype)
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.key['backbone']} gives infinite or undefined features at {self.key['tap']} in "
                f"{self.key['precision']}; set backbone.precision: fp32, or check the weights"
            )
        self._commit(bytes.fromhex("".join(keys)), values)

    def _commit(self, views: bytes, values: np.ndarray) -> None:
        with writing(self.folder, f"the feature cache {self.folder}"):
            described = self.folder / KEY
            if not described.exists():
                write_atomically(described, json.dumps(self.key, indent=1).encode())
            shards.write(self.folder, views, values)
            os.utime(described)  # what was written today is no candidate for pruning

    def read(self, keys: Sequence[str]) -> FeatureRows:
        """The rows of these views, in order; values are read, and checked, when they are used.

        Raises:
            InputError: a view has no row.
        """
        opened = self.shards()
        places = self._places(keys, opened)
        if len(places) and places.min() < 0:
            raise InputError(
                f"the feature cache {self.folder} lacks a row that was computed before; "
                "materialize `bottleneck_features` again"
            )
        with contextlib.suppress(OSError):  # what was read today is no candidate for pruning
            os.utime(self.folder / KEY)
        return FeatureRows(opened, places)

    def last_used(self) -> float:
        """When its rows were last read or written, in seconds since the epoch."""
        return (self.folder / KEY).stat().st_mtime

    def write_notes(self, metadata: Mapping[str, Any]) -> None:
        """Keep what was measured of the column's rows (JSON-serialisable)."""
        write_atomically(self.folder / NOTES, json.dumps(dict(metadata), indent=1).encode())

    def read_notes(self) -> dict[str, Any]:
        """What was measured of the column's rows; empty when nothing was."""
        try:
            return dict(json.loads((self.folder / NOTES).read_text()))
        except (OSError, ValueError):
            return {}

    def verify(self) -> list[str]:
        """Read every shard; quarantine damaged ones, and return :attr:`damaged`."""
        for shard in self.shards():
            try:
                shard.values()
            except DamagedError as error:
                self._quarantine(shard.path, error)
        return self.damaged

    def drop(self, views: set[bytes], *, dry_run: bool = False) -> tuple[int, int]:
        """Delete the rows of some views: a shard that loses rows is written again, and the old one then deleted.

        Args:
            views: view identities (32 bytes each).
            dry_run: only count.

        Returns:
            Rows and bytes that are (or would be) freed.
        """
        rows = freed = 0
        if not dry_run:
            self.verify()  # what is damaged must not be written again with a new checksum
        for shard in self.shards():
            present = [bytes(shard.views[at : at + KEY_BYTES]) for at in range(0, len(shard.views), KEY_BYTES)]
            kept = [row for row, view in enumerate(present) if view not in views]
            lost = len(present) - len(kept)
            if not lost:
                continue
            rows, freed = rows + lost, freed + shard.path.stat().st_size * lost // len(present)
            if not dry_run:
                if kept:
                    self._commit(b"".join(present[row] for row in kept), np.ascontiguousarray(shard.values()[kept]))
                shard.path.unlink()
        return rows, freed

    def remove_stale_files(self) -> None:
        """Delete what a killed process was writing; to be called under the lock."""
        for path in self.folder.glob(".*"):
            with contextlib.suppress(FileNotFoundError):
                if path.name != LOCK and path.stat().st_mtime < time.time() - STALE_SECONDS:
                    path.unlink()

    def shards(self, *, again: bool = True) -> list[Shard]:
        """The column's shards; damaged ones are quarantined.

        Args:
            again: look once more when another process replaced one meanwhile.
        """
        opened: dict[Path, Shard] = {}
        for path in self._paths():
            try:
                opened[path] = self._open.get(path) or Shard(path, self.dtype)
            except FileNotFoundError:
                if again:
                    return self.shards(again=False)
            except DamagedError as error:
                self._quarantine(path, error)
        self._open = opened
        return list(opened.values())

    def _quarantine(self, path: Path, error: DamagedError) -> None:
        self._open.pop(path, None)
        self.damaged.append(str(error))
        with contextlib.suppress(OSError):  # another process was faster, or the store is read-only
            shards.quarantine(path)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.arrow"))

    def _places(self, keys: Sequence[str], opened: list[Shard]) -> np.ndarray:
        """Row number of each view in the shards one after the other, int64; -1: none."""
        kind = pa.binary(KEY_BYTES)
        arrays = [
            pa.FixedSizeBinaryArray.from_buffers(kind, len(shard), [None, pa.py_buffer(shard.views)])
            for shard in opened
        ]
        wanted = pa.py_buffer(bytes.fromhex("".join(keys)))
        found = pc.index_in(
            pa.FixedSizeBinaryArray.from_buffers(kind, len(keys), [None, wanted]),
            value_set=pa.chunked_array(arrays, kind),
        )
        places: np.ndarray = found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return places


class ConcatFeatures:
    """The rows of views in several columns, joined; gathered when indexed.

    Args:
        columns: their order is that of the values.
        keys: the views.

    Raises:
        InputError: a view has no row.
    """

    def __init__(self, columns: Sequence[FeatureColumn], keys: Sequence[str]) -> None:
        self._parts = [column.read(keys) for column in columns]

    def __len__(self) -> int:
        return len(self._parts[0])

    def __getitem__(self, chosen: np.ndarray | slice) -> np.ndarray:
        """Rows by position: int64 indices of shape (n,) or a slice → (n, ΣD), a copy; see :class:`TableRows`."""
        return np.concatenate([part[chosen] for part in self._parts], axis=1)


def list_columns(root: Path) -> list[FeatureColumn]:
    """Every column of a feature cache."""
    return [FeatureColumn(root, json.loads(path.read_text())) for path in sorted(root.glob(f"*/{KEY}"))]


@contextlib.contextmanager
def locked(columns: Sequence[FeatureColumn], log: Callable[[str], None]) -> Iterator[None]:
    """Keep every other run from adding rows to some columns, so that no row is computed or written twice.

    A run that finds them taken waits. The kernel lets go of a dead process's locks, also over NFS.

    Args:
        columns: those that rows are to be added to.
        log: receives a line when there is something to wait for.
    """
    with contextlib.ExitStack() as locks:
        for column in sorted(columns, key=lambda column: column.name):  # in one order: nobody waits in a circle
            try:
                with writing(column.folder):
                    locks.enter_context(column.lock.acquire(timeout=0))
            except Timeout:
                log("another run computes these features; waiting for it, to use its rows")
                begun = time.monotonic()
                locks.enter_context(column.lock.acquire())
                log(f"waited {time.monotonic() - begun:.0f} s")
        yield
