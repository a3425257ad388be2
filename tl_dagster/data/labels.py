"""Class names, class numbers and label confidence of tables; names that look alike, and classes without an image."""

import unicodedata

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tl_dagster.data.skipped import NAME

__all__ = ["class_indices", "class_names", "label_confidence", "lost_classes", "names_alike", "normalize_names"]


def normalize_names(names: pd.Series) -> pd.Series:
    """Return names (str) in Unicode's composed form (NFC) and without blanks around them; missing stays missing."""
    composed = pc.utf8_normalize(pa.array(names, pa.large_string(), from_pandas=True), form="NFC")
    return pd.Series(pc.utf8_trim_whitespace(composed), names.index, dtype="str")


def class_names(table: pd.DataFrame) -> list[str]:
    """Return the class names in the order of a model's outputs (sorted)."""
    return sorted(str(label) for label in table["label"].unique())


def class_indices(labels: pd.Series, classes: list[str]) -> np.ndarray:
    """Return the class number of each label: (n,) int64.

    Args:
        labels: (n,) class names.
        classes: the class names in the order of a model's outputs.
    """
    numbers: np.ndarray = labels.map({label: number for number, label in enumerate(classes)}).to_numpy(np.int64)
    return numbers


def label_confidence(table: pd.DataFrame) -> np.ndarray:
    """Return the probability that each view's label is right: float32 (views,); 1 where the source says nothing."""
    confidence: np.ndarray = table["confidence"].to_numpy(np.float32, na_value=1.0)
    return confidence


def names_alike(names: pd.Series) -> list[tuple[str, str]]:
    """Return pairs of names that differ by case, blanks, dashes or the form of characters alone, sorted.

    Args:
        names: (n,) str; each name that looks like an earlier one (in order) makes a pair with it.
    """
    first: dict[str, str] = {}
    pairs = []
    for name in sorted(names.dropna().unique()):
        earlier = first.setdefault(_appearance(name), name)
        if earlier != name:
            pairs.append((earlier, name))
    return pairs


def _appearance(name: str) -> str:
    """Return a name without case, with one blank for each run of blanks and dashes, and in compatible characters."""
    if name.isascii():
        return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
    shown = "".join(each for each in name if unicodedata.category(each) != "Cf")  # such as zero-width blanks
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", shown).casefold())
    return " ".join(
        "".join(" " if unicodedata.category(each) == "Pd" else each for each in folded).replace("_", " ").split()
    )


def lost_classes(manifest: pd.DataFrame, skipped: pd.DataFrame) -> pd.DataFrame:
    """Return the classes that a source names and that have no usable image.

    Args:
        manifest: columns label and problem.
        skipped: what is not looked at; see :mod:`tl_dagster.data.skipped`.

    Returns:
        Columns label, reason (str, of its first file), files (int64) and missing (bool: False where everything in its
        folder is no image by its name, as in a folder of documents), sorted by label.
    """
    rejected = manifest.loc[manifest["problem"].notna(), ["label", "problem"]].set_axis(["label", "reason"], axis=1)
    seen = pd.concat([rejected.assign(entries=1), skipped[["label", "reason", "entries"]]])
    used = manifest.loc[manifest["problem"].isna(), "label"].unique()
    lost = seen[(seen["label"] != "") & ~seen["label"].isin(used)]
    by_label = lost.assign(missing=lost["reason"] != NAME).groupby("label", as_index=False)
    return by_label.agg(reason=("reason", "first"), files=("entries", "sum"), missing=("missing", "any"))
