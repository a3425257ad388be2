"""Tables for Dagster's UI; nothing heavy is imported here."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tl_dagster.runtime.errors import printable, redact
from tl_dagster.store.artifacts import TableRows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MOST_ROWS", "REJECTED", "table_rows"]

MOST_ROWS = 100  # of a table in the UI
REJECTED = {"file": "uri", "label": "label", "reason": "problem"}  # heading → column of the manifest


def table_rows(columns: "Mapping[str, pd.Series]") -> TableRows:
    """Return the first rows of columns as a table for the UI, each text on one line and without secrets of URLs."""
    values = [column.head(MOST_ROWS).tolist() for column in columns.values()]
    return [
        {name: _shown(value) if isinstance(value, str) else value for name, value in zip(columns, row, strict=True)}
        for row in zip(*values, strict=True)
    ]


def _shown(text: str) -> str:
    return printable(redact(text))
