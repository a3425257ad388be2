"""The manifest: one row per image of the source, usable or with its problem; and its near copies.

``images.parquet`` of a dataset artifact holds the columns id (str, SHA-256 of the bytes; "" where they cannot be
read), uri, label, group, split (str; missing where the source says nothing), confidence (float64, probability of the
label; NaN where the source says nothing), bytes, width, height (int64; 0 where unknown), format (str), brightness,
contrast (float64, of the luma, 0 to 255), perceptual (str, 64 hex digits) and problem (str; missing: usable).
``near_copies.parquet`` holds a, b (str, image ids, a < b) and distance (int64, bits).
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tl_dagster.runtime.errors import printable
from tl_dagster.store.artifacts import MANIFEST
from tl_dagster.store.digests import digest, digest_columns

__all__ = [
    "CONFLICT",
    "COPY",
    "REJECTED_SHEET",
    "content_digest",
    "diff_manifests",
    "group_names",
    "image_groups",
    "image_uris",
    "list_changes",
    "read_groups",
    "read_manifest",
    "read_pairs",
    "reject_copies",
    "shown_uris",
    "usable",
    "write_manifest",
]

PAIRS = "near_copies.parquet"
COPY, CONFLICT = "a copy of ", "the same image is labelled "  # how the reasons begin
REJECTED_SHEET = "Set aside"  # title of the picture of rejected files
CONTENT = ["id", "label", "group", "split", "confidence"]


def write_manifest(folder: Path, manifest: pd.DataFrame, pairs: pd.DataFrame) -> None:
    """Write a dataset artifact's tables.

    Args:
        folder: the artifact's folder.
        manifest: one row per image, with the columns described in :mod:`tl_dagster.data.manifest`.
        pairs: near copies: a, b (image ids), distance (bits).
    """
    manifest.to_parquet(folder / MANIFEST)
    pairs.to_parquet(folder / PAIRS)


def read_manifest(path: Path) -> pd.DataFrame:
    """Return the manifest of a dataset artifact; :mod:`tl_dagster.data.manifest` describes the columns."""
    return pd.read_parquet(path / MANIFEST)


def read_pairs(path: Path) -> pd.DataFrame:
    """Return the near copies of a dataset artifact: a, b (str, image ids, a < b) and distance (int64, bits)."""
    return pd.read_parquet(path / PAIRS)


def read_groups(path: Path, ids: pd.Series) -> np.ndarray:
    """Return the group of each image, in the order of ``ids``: (n,) str; an image without one is its own group."""
    return group_names(image_groups(read_manifest(path)), ids)


def group_names(groups: pd.Series, ids: pd.Series) -> np.ndarray:
    """Return the group of each image, in the order of ``ids``: (n,) str; an image without one is its own group.

    Args:
        groups: see :func:`image_groups`.
        ids: image ids.
    """
    names: np.ndarray = ids.map(groups).fillna(ids).to_numpy().astype(str)
    return names


def usable(manifest: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of images that may be trained and tested on."""
    return manifest[manifest["problem"].isna()]


def image_groups(manifest: pd.DataFrame) -> pd.Series:
    """Return the group of each usable image (str), indexed by image id; missing where it has none."""
    return usable(manifest).set_index("id")["group"]


def image_uris(manifest: pd.DataFrame) -> pd.Series:
    """Return the address of each usable image (str), indexed by image id."""
    return usable(manifest).set_index("id")["uri"]


def shown_uris(manifest: pd.DataFrame, ids: pd.Series) -> pd.Series:
    """Return the address of each image for display (str, index of ``ids``), also of one that left the dataset."""
    return ids.map(image_uris(manifest)).astype("str").fillna("no longer in the dataset")


def reject_copies(identified: pd.DataFrame) -> pd.DataFrame:
    """Use one of several copies of the same bytes, and none of an image that carries two labels.

    Where copies lie in different given splits, the one in the test split is used, else the one in validation: a
    test image must not be trained on.

    Args:
        identified: see :func:`tl_dagster.data.ingestion.identify`.

    Returns:
        The same rows with the ``problem`` of each rejected copy.
    """
    whole = identified[identified["problem"].isna()]
    copies = whole[whole["id"].duplicated(keep=False)]
    problem = identified["problem"].copy()
    if len(copies):
        rank = copies["split"].map({"test": 0, "validation": 1, "train": 2}).fillna(3)
        copies = copies.assign(rank=rank).sort_values(["rank", "group", "uri"])  # a name decides last: it may change
        by_id = copies.groupby("id")
        labels = by_id["label"].agg(lambda labels: " and ".join(sorted(set(labels))))
        conflict = by_id["label"].transform("nunique") > 1
        used = copies["id"].map(by_id["uri"].first().map(printable))
        reason = (COPY + used).where(~conflict, CONFLICT + copies["id"].map(labels))
        rejected = conflict | copies["id"].duplicated()
        problem.loc[copies.index[rejected]] = reason[rejected]
    return identified.assign(problem=problem)


def content_digest(manifest: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """Return the data version: a digest of the usable images' ids, labels, groups, given splits and soft targets.

    Their names and their order do not count.

    Args:
        manifest: the dataset.
        pairs: its near copies (columns a, b, distance).
    """
    return digest(
        [digest_columns(usable(manifest).sort_values("id")[CONTENT]), digest_columns(pairs.sort_values(["a", "b"]))]
    )


def list_changes(before: pd.DataFrame, now: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the addresses of the usable images that were added, removed, relabelled and renamed between two manifests.

    Those that were removed have their former address, the others their present one.
    """
    old, new = usable(before), usable(now)
    # The row of each new image among the old ones; a join of the tables would sort and copy them.
    rows = pc.index_in(pa.array(new["id"]), value_set=pa.array(old["id"]))
    rows = rows.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    stayed = rows >= 0
    then, since = old.iloc[rows[stayed]], new[stayed]
    gone = np.ones(len(old), bool)
    gone[rows[stayed]] = False
    return {
        "added": new.loc[~stayed, "uri"],
        "removed": old.loc[gone, "uri"],
        "relabelled": since.loc[then["label"].to_numpy() != since["label"].to_numpy(), "uri"],
        "renamed": since.loc[then["uri"].to_numpy() != since["uri"].to_numpy(), "uri"],
    }


def diff_manifests(before: pd.DataFrame, now: pd.DataFrame) -> dict[str, int]:
    """Count the usable images that were added, removed, relabelled and renamed between two manifests."""
    return {name: len(uris) for name, uris in list_changes(before, now).items()}
