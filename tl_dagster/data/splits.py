"""Splits and views: the images that train, validate and test, and the number of views of each.

Each class is divided by the declared fractions, its groups in the order of a hash of their names and the seed. An image
that was assigned before stays where it is: adding, removing, renaming or reordering images never moves another one.

``views.parquet`` of an augmented_splits artifact holds one row per view, those of an image together, images in the
order of their ids: id, label, split (str), confidence (float64), view (int64) and key (str, 64 hex digits: the view's
identity).
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from tl_dagster.data.augmentation import MIRRORED
from tl_dagster.data.division import divide, group_keys
from tl_dagster.data.settings import Augmentation, Splits
from tl_dagster.data.split_memory import SplitMemory
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import VIEWS

__all__ = ["assign_splits", "held_out_views", "list_views", "read_views", "split_origins", "unit_hash", "write_views"]

HELD_OUT = ("test", "validation")


def write_views(folder: Path, table: pd.DataFrame) -> None:
    """Write the table of views into an artifact's folder; see :mod:`tl_dagster.data.splits` for its columns."""
    table.to_parquet(folder / VIEWS)


def read_views(path: Path) -> pd.DataFrame:
    """Return the table of views of an augmented_splits artifact; see :mod:`tl_dagster.data.splits` for its columns."""
    return pd.read_parquet(path / VIEWS)


def unit_hash(*parts: object) -> float:
    """Return a number in [0, 1) that depends on the parts alone (the first 8 bytes of their SHA-256)."""
    content = "\0".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64


def assign_splits(images: pd.DataFrame, splits: Splits, memory: SplitMemory | None = None) -> pd.Series:
    """Return the split of each image (str, index of ``images``): train, validation or test.

    Splits that the source declares stay. A split for which the source declares no image is taken from its training
    images, and so are all of them when the source declares none; see :func:`.division.divide`. With folds, the test
    split is one of them, and validation is a share of the others.

    Args:
        images: usable rows of a manifest (columns id, label, group, split).
        splits: fractions and seed.
        memory: of what was assigned before; what is new is added to it. None: nothing was.

    Raises:
        InputError: a class has no image in one of the splits.
    """
    memory = memory or SplitMemory()
    declared = images["split"].astype("str")
    given = set(HELD_OUT) & set(declared.dropna())
    assigned = declared.where(declared.isin(HELD_OUT), "train")
    rows = images[assigned == "train"]
    fractions = {name: getattr(splits, name) for name in HELD_OUT if name not in given}
    if splits.folds is not None:
        if "test" in given:
            raise InputError("splits.folds: the source gives a test split already; remove `folds`, or that split")
        folds = {str(number): 1 / splits.folds for number in range(splits.folds)}
        tested = _divide(rows, folds, splits.seed, memory) == str(splits.fold)
        assigned.loc[rows.index[tested]] = "test"
        rows = rows[~tested]
        del fractions["test"]
    if fractions:
        seed = splits.seed if splits.folds is None else f"{splits.seed}/validation/{splits.folds}/{splits.fold}"
        assigned.loc[rows.index] = _divide(rows, {**fractions, "train": 1 - sum(fractions.values())}, seed, memory)
    _require_every_class(images, assigned, given)
    return assigned


def split_origins(declared: pd.Series, assigned: pd.Series) -> dict[str, str]:
    """Return where the images of each split come from: "given" by the source, "hashed", or both.

    Args:
        declared: the split that the source gives each image (str; missing where it gives none).
        assigned: the split of each, by :func:`assign_splits`.
    """
    return {
        str(split): "given" if given.all() else "given and hashed" if given.any() else "hashed"
        for split, given in (declared.astype("str") == assigned).groupby(assigned)
    }


def _divide(images: pd.DataFrame, fractions: Mapping[str, float], seed: object, memory: SplitMemory) -> pd.Series:
    """Divide images as they were before, and remember the new ones and their groups."""
    division = json.dumps([seed, fractions])
    parts = divide(images, fractions, seed, memory.recall(division))
    named = pd.concat([parts.set_axis(names) for names in (images["id"], group_keys(images))])
    memory.remember(division, named)
    return parts


def _require_every_class(images: pd.DataFrame, assigned: pd.Series, given: Collection[str]) -> None:
    counts = pd.crosstab(images["label"], assigned).reindex(columns=[*HELD_OUT, "train"], fill_value=0)
    lacking = counts[(counts == 0).any(axis=1)]
    if lacking.empty:
        return
    label, row = str(lacking.index[0]), lacking.iloc[0]
    split, of_class = str(row.idxmin()), images["label"] == lacking.index[0]
    groups = group_keys(images[of_class]).nunique()
    if split in given:
        mend = f"the source gives the {split} split: add images of the class to it, or remove the class"
    elif groups < len(counts.columns):
        mend = f"each split needs a group of its own, and it has {groups}: add images of it, or remove the class"
    else:
        mend = "what was assigned before never moves: add images of it, or divide all anew by another splits.seed"
    more = f" (and {len(lacking) - 1} more classes)" if len(lacking) > 1 else ""
    raise InputError(
        f"class '{label}' has {int(row.sum())} usable images and none of them falls in the {split} split{more}; {mend}"
    )


def list_views(images: pd.DataFrame, assigned: pd.Series, augmentation: Augmentation) -> pd.DataFrame:
    """Return one row per view to compute.

    Args:
        images: usable rows of a manifest.
        assigned: the split of each.
        augmentation: how many views there are, and their seed.

    Returns:
        Columns id, label, split (str), confidence (float64), view (int64; 0 is the plain image, -1 its mirror image);
        the views of an image follow each other, images stay in their order.
    """
    held_out = held_out_views(augmentation)
    counts = np.where(assigned == "train", augmentation.views, len(held_out))
    table = images[["id", "label", "confidence"]].assign(split=assigned)
    table = table.loc[table.index.repeat(counts)].reset_index(drop=True)
    table["view"] = np.arange(len(table)) - np.repeat(counts.cumsum() - counts, counts)
    if MIRRORED in held_out:
        table.loc[(table["split"] != "train") & (table["view"] == 1), "view"] = MIRRORED
    return table


def held_out_views(augmentation: Augmentation) -> list[int]:
    """Return the indices of the views of a validation or test image, in order; their predictions are averaged."""
    return [0, MIRRORED] if augmentation.test_views == "mirrored" else list(range(augmentation.test_views))
