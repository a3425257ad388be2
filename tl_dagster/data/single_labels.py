"""The refusal of cells that hold several labels: a classifier gives each image one class."""

import re
from collections import Counter
from itertools import chain

import pandas as pd

from tl_dagster.runtime.errors import InputError, printable

__all__ = ["require_single_labels", "several_labels"]

LIST = re.compile(r"(?s)\[.*[\s,;].*\]|\(.*[,;].*\)|\{.*[,;].*\}")
SEPARATORS = ("|", ";", ",", "/", "+", "&", " ")


def require_single_labels(labels: pd.Series, where: str) -> None:
    """Refuse cells that hold several labels: each combination would become a class.

    Such a cell is a written list, or consists of names that are classes of their own (those that "|" or ";" separates
    need only occur in another cell too).

    Args:
        labels: (n,) class names.
        where: the table, for the message.

    Raises:
        InputError: a cell holds several labels.
    """
    classes = [str(label) for label in labels.dropna().unique()]
    for label in classes:
        if LIST.fullmatch(label.strip()):
            raise several_labels(f"{where}: label '{printable(label)}' is a list")
    for separator in SEPARATORS:
        parts = {label: _split(label, separator) for label in classes if separator in label}
        known = set(classes)
        if separator in "|;":
            known |= {part for part, count in Counter(chain(*map(set, parts.values()))).items() if count > 1}
        for label, names in parts.items():
            if len(set(names)) > 1 and (set(names) <= known or (separator in "|;" and known & set(names))):
                raise several_labels(f"{where}: label '{printable(label)}' is several in one cell")


def several_labels(words: str) -> InputError:
    """Return the error for images with several labels each.

    Args:
        words: where they are.
    """
    return InputError(
        f"{words}, but a classifier gives each image one class (multi-label sets are not supported); give a column of "
        "one label each, or join the parts of a name that is one class with _"
    )


def _split(label: str, separator: str) -> list[str]:
    return [part.strip() for part in label.split(separator) if part.strip()]
