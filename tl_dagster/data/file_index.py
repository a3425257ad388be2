"""The index of files that were read: an unchanged one is not read again, and known bytes are not decoded again.

Rows are appended as Parquet shards, each written under a temporary name and renamed: a kill at any moment, or a
server that stops answering, loses at most the files since the last flush.
"""

import uuid
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow.parquet as pq

from tl_dagster.data.decoding import ImageInfo
from tl_dagster.store.files import replace_atomically

__all__ = ["INFO_COLUMNS", "NUMBERS", "FileIndex", "FileRecord"]

INFO_COLUMNS = [field.name for field in fields(ImageInfo)]
TEXTS = {"uri": "str", "stamp": "str", "id": "str", "format": "str", "perceptual": "str", "problem": "str"}
NUMBERS = {"bytes": "int64", "width": "int64", "height": "int64", "brightness": "float64", "contrast": "float64"}
MOST_SHARDS = 8


class FileRecord(NamedTuple):
    """A file that was read.

    Attributes:
        uri: its address.
        stamp: changes when the file does; None: read it again next time.
        id: its image id.
        size: bytes.
        info: from decoding it; None: the bytes are known already.
    """

    uri: str
    stamp: str | None
    id: str
    size: int
    info: ImageInfo | None


class FileIndex:
    """The index of one source.

    Args:
        folder: made when first written; safe to delete: everything is read again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> pd.DataFrame:
        """Return what is known of files: uri, stamp, id, bytes (int64) and the fields of :class:`ImageInfo`.

        There is a row for each content that a file has had, so that a file which is changed back is known again; the
        last row of a uri is the newest.
        """
        while True:
            shards = self._shards()
            try:
                tables = [pq.read_table(shard).to_pandas() for shard in shards]
                break
            except FileNotFoundError:  # another run has joined the shards meanwhile
                continue
        rows: pd.DataFrame = pd.concat(tables) if tables else pd.DataFrame(columns=[*TEXTS, *NUMBERS])
        return rows.astype({**TEXTS, **NUMBERS}).drop_duplicates(["uri", "id"], keep="last", ignore_index=True)

    def append(self, records: Sequence[FileRecord], known: pd.DataFrame) -> pd.DataFrame:
        """Write files that were read as one shard, and return its rows.

        Args:
            records: files, in the order in which they were read.
            known: rows by image id, for files whose bytes were decoded before.

        Raises:
            DiskError: the store cannot be written.
        """
        rows = pd.DataFrame([record[:4] for record in records], columns=["uri", "stamp", "id", "bytes"])
        decoded = {record.id: asdict(record.info) for record in records if record.info is not None}
        infos = pd.DataFrame.from_dict(decoded, orient="index", columns=INFO_COLUMNS)
        lacking = [identity for identity in rows["id"].unique() if identity not in decoded]
        # The rest was decoded before: in an earlier run, or as another file of this one.
        infos = pd.concat([infos, known.reindex(lacking)[INFO_COLUMNS]]) if lacking else infos
        rows = pd.concat([rows, infos.reindex(rows["id"]).reset_index(drop=True)], axis=1).astype({**TEXTS, **NUMBERS})
        self._write(rows)
        return rows

    def compact(self) -> None:
        """Join the shards when there are many."""
        shards = self._shards()
        if len(shards) > MOST_SHARDS:
            self._write(self.read())
            for shard in shards:
                shard.unlink(missing_ok=True)

    def _shards(self) -> list[Path]:
        # Names begin with a number that rises: the newest row of a file is in the last shard.
        return sorted(self.folder.glob("*.parquet"))

    def _write(self, rows: pd.DataFrame) -> None:
        shards = self._shards()
        number = int(shards[-1].name.partition("-")[0]) + 1 if shards else 0
        with replace_atomically(self.folder / f"{number:08d}-{uuid.uuid4().hex}.parquet") as temporary:
            rows.to_parquet(temporary, index=False)
