"""The feature cache: one row per (view, recipe), written once and never changed.

A *column* of the cache is everything that does not vary from view to view: decoding and preprocessing, backbone,
weights, tap layer, pooling, precision. Its digest names a folder of append-only Arrow files ("shards"), each
written under a temporary name, flushed to disk and renamed: a kill at any moment loses at most the rows since the
last flush. Shards are memory-mapped for reading, and shared by every pipeline that uses the same store.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.disk import replacing, write_atomically
from tl_dagster.errors import InputError
from tl_dagster.identity import digest

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Column", "Rows", "side_by_side"]

KEY_BYTES = 32


class Column:
    """The rows of one recipe.

    Args:
        root: folder of the feature cache.
        recipe: everything that determines a row but for its view; JSON-serialisable.
    """

    def __init__(self, root: Path, recipe: Mapping[str, Any]) -> None:
        self.recipe = dict(recipe)
        self.name = digest(self.recipe)
        self.folder = root / self.name
        self._known: tuple[list[Path], dict[bytes, tuple[int, int]]] = ([], {})

    @property
    def dtype(self) -> str:
        """float32 where the recipe computes in fp32, else float16 (a bf16 forward pass has 8 significant bits)."""
        return "float32" if self.recipe["precision"] == "fp32" else "float16"

    def missing(self, keys: Sequence[str]) -> list[bool]:
        """Which of these views (hex digests) have no row yet, in order."""
        held = set(self._index())
        return [bytes.fromhex(key) not in held for key in keys]

    def write(self, keys: Sequence[str], values: "np.ndarray") -> None:
        """Append rows as one shard.

        Args:
            keys: view identities (64 hex digits each), one per row.
            values: (len(keys), D), cast to the column's dtype.

        Raises:
            InputError: the cache cannot be written, or a value is not finite.
        """
        import numpy as np
        import pyarrow as pa

        values = np.ascontiguousarray(values, dtype=self.dtype)
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.recipe['backbone']} gives infinite or undefined features at {self.recipe['tap']} in "
                f"{self.recipe['precision']}; set backbone.precision: fp32, or check the weights"
            )
        table = pa.table(
            {
                "view": pa.array([bytes.fromhex(key) for key in keys], pa.binary(KEY_BYTES)),
                "values": pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1]),
            }
        )
        self._commit(table)

    def _commit(self, table: Any) -> None:
        import pyarrow as pa

        try:
            described = self.folder / "recipe.json"
            if not described.exists():
                write_atomically(described, json.dumps(self.recipe, indent=1).encode())
            with (
                replacing(self.folder / f"{uuid.uuid4().hex}.arrow") as temporary,
                pa.OSFile(str(temporary), "wb") as file,
                pa.ipc.new_file(file, table.schema) as writer,
            ):
                writer.write_table(table)  # one record batch: read back without a copy
        except OSError as error:
            raise InputError(f"cannot write the feature cache {self.folder}: {error.strerror or error}") from error

    def read(self, keys: Sequence[str]) -> "Rows":
        """The rows of these views, in order; nothing is read from disk until it is used.

        Raises:
            InputError: a view has no row.
        """
        import numpy as np

        index = self._index()
        try:
            places = np.array([index[bytes.fromhex(key)] for key in keys], dtype=np.int64).reshape(-1, 2)
        except KeyError as error:
            raise InputError(
                f"the feature cache {self.folder} lacks a row that was computed before; "
                "materialize `bottleneck_features` again"
            ) from error
        return Rows([_values(path) for path in self._shards()], places)

    def drop(self, views: "set[bytes]", *, dry_run: bool = False) -> tuple[int, int]:
        """Delete the rows of some views: a shard that loses rows is written anew, and the old one then deleted.

        Args:
            views: view identities (32 bytes each).
            dry_run: only count.

        Returns:
            Rows and bytes that are (or would be) freed.
        """
        import pyarrow as pa

        rows = freed = 0
        for path in self._shards():
            table = _table(path)
            kept = [view not in views for view in table.column("view").to_pylist()]
            if all(kept):
                continue
            lost = len(kept) - sum(kept)
            rows, freed = rows + lost, freed + path.stat().st_size * lost // len(kept)
            if not dry_run:
                if any(kept):
                    self._commit(table.filter(pa.array(kept)).combine_chunks())
                path.unlink()
        return rows, freed

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("*.arrow"))

    def _index(self) -> dict[bytes, tuple[int, int]]:
        shards = self._shards()
        if shards != self._known[0]:
            index: dict[bytes, tuple[int, int]] = {}
            for number, path in enumerate(shards):
                for row, key in enumerate(_table(path).column("view").to_pylist()):
                    index.setdefault(key, (number, row))
            self._known = (shards, index)
        return self._known[1]


class Rows:
    """Rows of a column, gathered from memory-mapped shards when indexed.

    Args:
        shards: (N_i, D) arrays.
        places: (len, 2) int64: shard and row of each.
    """

    def __init__(self, shards: "list[np.ndarray]", places: "np.ndarray") -> None:
        self._shards = shards
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def width(self) -> int:
        """Values in one row (D)."""
        return int(self._shards[0].shape[1])

    def __getitem__(self, chosen: "np.ndarray | slice") -> "np.ndarray":
        """Rows by position: int64 indices of shape (n,) or a slice → (n, D), a copy."""
        import numpy as np

        places = self._places[chosen]
        out = np.empty((len(places), self.width), dtype=self._shards[0].dtype)
        for number in np.unique(places[:, 0]):
            mine = places[:, 0] == number
            out[mine] = self._shards[number][places[mine, 1]]
        return out


def side_by_side(columns: Sequence[Column], keys: Sequence[str]) -> "np.ndarray":
    """The rows of views in several columns, joined: (len(keys), D), a copy.

    Raises:
        InputError: a view has no row.
    """
    import numpy as np

    return np.concatenate([column.read(keys)[:] for column in columns], axis=1)


def _table(path: Path) -> Any:
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _values(path: Path) -> "np.ndarray":
    column = _table(path).column("values").chunk(0)
    flat: np.ndarray = column.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(len(column), -1)
