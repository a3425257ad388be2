"""Digests: the addresses of everything that is computed once."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["digest", "digest_columns", "digest_file"]


def digest(value: object) -> str:
    """SHA-256 (64 hex digits) of a JSON-serialisable value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Return the SHA-256 (64 hex digits) of a file's bytes.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_columns(frame: "pd.DataFrame") -> str:
    """SHA-256 (64 hex digits) of a table of texts and numbers: column names, values, what is missing, and the order.

    Whole columns are hashed at a time, so that a million rows take a second.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    running = hashlib.sha256()
    for name in frame.columns:
        running.update(digest([str(name), len(frame)]).encode())
        values = frame[name]
        if values.dtype.kind in "fiub":
            numbers = values.to_numpy(np.float64)
            running.update(np.where(np.isnan(numbers), np.nan, numbers).tobytes())
            continue
        texts = pa.array(values, pa.large_string(), from_pandas=True)
        texts = pa.concat_arrays(texts.chunks) if isinstance(texts, pa.ChunkedArray) else texts
        filled = pc.fill_null(texts, "")
        running.update(pc.is_null(texts).to_numpy(zero_copy_only=False).tobytes())
        # Without nulls, a column's texts lie one after the other between its first offset and its last.
        _, offsets, content = filled.buffers()
        ends = np.frombuffer(offsets, np.int64)[filled.offset : filled.offset + len(filled) + 1]
        running.update(np.diff(ends).tobytes())
        running.update(memoryview(content)[ends[0] : ends[-1]] if content else b"")
    return running.hexdigest()
