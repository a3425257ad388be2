"""Splits that the columns of tables hold."""

from collections.abc import Mapping

import pandas as pd

from tl_dagster.data.split_names import FLAGS, NAMES, SplitChoice, ask, find_splits, holds_splits
from tl_dagster.runtime.errors import InputError, printable, suggest

__all__ = ["parse_splits", "require_declared_splits"]

FEW = 100  # values


def parse_splits(values: pd.Series, names: Mapping[str, SplitChoice] | None, where: str) -> pd.Series:
    """Return train, validation, test or :data:`tl_dagster.data.split_names.IGNORED` (str) for a column's names.

    Args:
        values: (n,) names; an empty one is missing, and stays so.
        names: declared choices; they go before the field's names.
        where: the file or field, for the message.

    Raises:
        InputError: a name means none of them, or two names mean the same split.
    """
    texts = values.where(values.notna(), None).astype("str").str.strip()
    texts = texts.where(texts != "", None)
    distinct = texts.dropna().unique().tolist()
    splits = find_splits(distinct, names, where)
    none = {name.strip().casefold() for name, choice in (names or {}).items() if choice == "none"}
    for name in distinct:
        if name not in splits and name.casefold() not in none:
            raise InputError(ask(where, f"split '{printable(name)}' is not known: {suggest(name, NAMES)}", name))
    return texts.map(splits).astype("str")


def require_declared_splits(columns: Mapping[str, pd.Series], where: str) -> None:
    """Refuse columns of splits that the declaration does not name: their test images would be trained on.

    Args:
        columns: those that are not declared, by name.
        where: the table, for the message.

    Raises:
        InputError: one of them holds splits.
    """
    for name, values in columns.items():
        few = values.head(FEW).dropna().astype("str")  # most columns are ruled out by these
        if not (holds_splits(name, [*few, "train", "test"]) or holds_splits(name, FLAGS[0])):
            continue
        distinct = sorted(values.dropna().astype("str").unique())
        if holds_splits(name, distinct):
            shown = ", ".join(f"'{printable(value)}'" for value in distinct)
            raise InputError(
                f"{where}: column '{printable(name)}' looks like splits ({shown}); declare source.split: "
                f"{printable(name)}, and in source.split_names what each value means where that is not plain "
                "(none: the split is drawn)"
            )
