"""Splits and views: the images that train, validate and test, and the number of views of each.

An image's split is a hash of its group and the seed against the declared fractions. Nothing else enters, so adding,
removing, renaming or reordering images never moves another one.

``views.parquet`` of an augmented_splits artifact holds one row per view, those of an image together, images in the
order of their ids: id, label, split (str), confidence (float64), view (int64) and key (str, 64 hex digits: the view's
identity).
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from tl_dagster.data.augmentation import MIRRORED
from tl_dagster.data.settings import Augmentation, Splits
from tl_dagster.runtime.errors import InputError

__all__ = ["assign_splits", "held_out_views", "list_views", "read_views", "split_origins", "unit_hash", "write_views"]

VIEWS = "views.parquet"


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


def assign_splits(images: pd.DataFrame, splits: Splits) -> pd.Series:
    """Return the split of each image (str, index of ``images``): train, validation or test.

    Splits that the source declares stay. A split for which the source declares no image is taken from its training
    images, and so are all of them when the source declares none. With folds, the test split is one of them.

    Args:
        images: usable rows of a manifest (columns id, label, group, split).
        splits: fractions and seed.

    Raises:
        InputError: a class has no image in one of the splits.
    """
    declared = images["split"].astype("str")
    present = set(declared.dropna().unique())
    keys = images["group"].where(images["group"].notna(), images["id"])
    position = _unit_hashes(splits.seed, keys)
    if splits.folds is not None:
        if "test" in present:
            raise InputError("splits.folds: the source gives a test split already; remove `folds`, or that split")
        # A fold is a slice of the positions; what is left is divided by a hash of its own.
        test = np.floor(position * splits.folds) == splits.fold
        rest = _unit_hashes(f"{splits.seed}/validation", keys)
        validation = rest < (0.0 if "validation" in present else splits.validation)
    else:
        share = 0.0 if "test" in present else splits.test
        test = position < share
        validation = position < share + (0.0 if "validation" in present else splits.validation)
    hashed = pd.Series(np.where(test, "test", np.where(validation, "validation", "train")), images.index, dtype="str")
    assigned: pd.Series = declared.where(declared.isin(["test", "validation"]), hashed)
    _require_every_class(images["label"], assigned)
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


def _unit_hashes(seed: object, keys: pd.Series) -> np.ndarray:
    """Return :func:`unit_hash` of the seed and each key: float64 (n,)."""
    prefix, sha256 = f"{seed}\0".encode(), hashlib.sha256
    heads = b"".join(sha256(prefix + key.encode()).digest()[:8] for key in keys)
    hashed: np.ndarray = np.frombuffer(heads, dtype=">u8") / 2**64
    return hashed


def _require_every_class(labels: pd.Series, assigned: pd.Series) -> None:
    counts = pd.crosstab(labels, assigned).reindex(columns=["train", "validation", "test"], fill_value=0)
    lacking = counts[(counts == 0).any(axis=1)]
    if len(lacking):
        label, row = str(lacking.index[0]), lacking.iloc[0]
        more = f" (and {len(lacking) - 1} more classes)" if len(lacking) > 1 else ""
        raise InputError(
            f"class '{label}' has {int(row.sum())} usable images and none of them falls in the {row.idxmin()} "
            f"split{more}; add images of it, remove the class, or (where the source gives no splits) raise the "
            "fraction or change the seed"
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
