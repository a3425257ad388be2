"""Shards: the Arrow files of the feature cache. Each is written once, whole, and carries checksums.

A shard is one record batch of `view` (32 bytes) and `values` (a list of fixed length); its name ends with the number of
the format. The schema's metadata holds the CRC-32 of both buffers: the views are checked when a shard is opened, the
values when they are first used, so that looking for what is missing never reads the values.
"""

import uuid
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tl_dagster.runtime.errors import InputError
from tl_dagster.store.files import replace_atomically

__all__ = ["KEY_BYTES", "DamagedError", "Shard", "quarantine", "write"]

FORMAT = 2
KEY_BYTES = 32
SUFFIX = ".damaged"


class DamagedError(Exception):
    """A shard's bytes are not those that were written."""


def write(folder: Path, views: bytes, values: np.ndarray) -> Path:
    """Write a shard: under a temporary name, flushed to the disk, then renamed.

    Args:
        folder: the column's.
        views: identities, 32 bytes each, one after the other.
        values: (len(views) / 32, D), float16 or float32, C-contiguous.

    Raises:
        DiskError: the disk refuses.
    """
    count, width = values.shape
    table = pa.table(
        {
            "view": pa.FixedSizeBinaryArray.from_buffers(pa.binary(KEY_BYTES), count, [None, pa.py_buffer(views)]),
            "values": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width),
        }
    ).replace_schema_metadata({"view": _crc(views), "values": _crc(values.reshape(-1))})
    path = folder / f"{uuid.uuid4().hex}.{FORMAT}.arrow"
    with (
        replace_atomically(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        pa.ipc.new_file(file, table.schema) as writer,
    ):
        writer.write_table(table)  # one record batch: read back without a copy
    return path


class Shard:
    """A shard, memory-mapped.

    Args:
        path: the file.
        dtype: of its values.

    Raises:
        DamagedError: it cannot be opened, or its views are not those that were written.
        InputError: another version wrote it.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self.path = path
        self.dtype = dtype
        _require_format(path)
        self._table, self._metadata = _opened(path)
        if _crc(self.views) != self._metadata[b"view"]:
            raise DamagedError(f"{path.name}: the views' checksum differs")
        self._checked = False

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def width(self) -> int:
        """Values in a row."""
        return int(self._table.schema.field("values").type.list_size)

    @property
    def views(self) -> memoryview:
        """The views' identities, 32 bytes each, one after the other."""
        column = self._table.column("view").chunk(0)
        start = column.offset * KEY_BYTES
        return memoryview(column.buffers()[1])[start : start + len(column) * KEY_BYTES]

    def values(self) -> np.ndarray:
        """The rows, (len, width), without a copy.

        Raises:
            DamagedError: they are not those that were written.
        """
        flat = _flat(self._table)
        if not self._checked:
            if flat.dtype != self.dtype or _crc(flat) != self._metadata[b"values"]:
                raise DamagedError(f"{self.path.name}: the values' checksum differs")
            self._checked = True
        return flat.reshape(len(self), -1)


def quarantine(path: Path) -> None:
    """Rename a damaged shard, so that its rows count as missing; it stays for whoever wants to know what happened."""
    path.rename(path.with_name(path.name + SUFFIX))


def _require_format(path: Path) -> None:
    stem, _, number = path.name.removesuffix(".arrow").rpartition(".")
    number = number if stem else "1"
    if number != str(FORMAT):
        raise InputError(
            f"the feature cache {path.parent} was written by another version of tl-dagster (format {number}, this one "
            f"knows {FORMAT}): upgrade, or use another store"
        )


def _opened(path: Path) -> tuple[Any, dict[bytes, bytes]]:

    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        table.validate()
        if table.column("view").num_chunks != 1:
            raise ValueError("not one record batch")
        metadata: dict[bytes, bytes] = table.schema.metadata or {}
        shape = [table.schema.field("view").type, table.schema.field("values").type.list_size > 0]
        if shape != [pa.binary(KEY_BYTES), True] or not {b"view", b"values"} <= metadata.keys():
            raise ValueError("not a shard")
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError, AttributeError, ValueError) as error:
        if getattr(error, "errno", None):  # the system's trouble, not the file's
            raise InputError(f"cannot read the feature cache {path}: {error}") from error
        raise DamagedError(f"{path.name}: {error}") from error
    return table, metadata


def _flat(table: Any) -> np.ndarray:
    flat: np.ndarray = table.column("values").chunk(0).flatten().to_numpy(zero_copy_only=True)
    return flat


def _crc(content: Any) -> bytes:  # any contiguous buffer
    return b"%08x" % zlib.crc32(content)
