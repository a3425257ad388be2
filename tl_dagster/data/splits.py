"""Splits and views: which images train, validate and test, and how often each is seen.

An image's split is a hash of its group and the seed against the declared fractions. Nothing else enters, so adding,
removing, renaming or reordering images never moves another one.
"""

import hashlib
from typing import TYPE_CHECKING

from tl_dagster.errors import InputError
from tl_dagster.spec import Augmentation, Splits

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["assign", "unit_hash", "views"]


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone (the first 8 bytes of their SHA-256)."""
    content = "\0".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") / 2**64


def assign(images: "pd.DataFrame", splits: Splits) -> "pd.Series":
    """The split of each image: train, validation or test.

    Given splits are kept. A split that the source gives no image of is taken from its training images, and so are
    all of them when the source gives none.

    Args:
        images: usable rows of a manifest (columns id, label, group, split).
        splits: fractions and seed.

    Raises:
        InputError: a class has no image in one of the splits.
    """
    given = images["split"].astype(object).where(images["split"].notna(), None)
    present = set(given.dropna())
    test = 0.0 if "test" in present else splits.test
    validation = 0.0 if "validation" in present else splits.validation

    def one(group: object, identity: str, split: object) -> str:
        if split is not None and split != "train":
            return str(split)
        position = unit_hash(splits.seed, identity if group is None or group != group else group)
        if position < test:
            return "test"
        return "validation" if position < test + validation else "train"

    assigned = images["id"].copy()
    assigned[:] = [one(*row) for row in zip(images["group"], images["id"], given, strict=True)]
    _every_class_in_every_split(images["label"], assigned)
    return assigned


def _every_class_in_every_split(labels: "pd.Series", assigned: "pd.Series") -> None:
    for label, mine in assigned.groupby(labels):
        for split in ("train", "validation", "test"):
            if split not in set(mine):
                raise InputError(
                    f"class '{label}' has {len(mine)} usable images and none of them falls in the {split} split; "
                    "add images of it, remove the class, or (where splits are not given) raise the fraction "
                    "or change the seed"
                )


def views(images: "pd.DataFrame", assigned: "pd.Series", augmentation: Augmentation) -> "pd.DataFrame":
    """One row per view to compute.

    Args:
        images: usable rows of a manifest.
        assigned: the split of each.
        augmentation: how many views there are, and their seed.

    Returns:
        Columns id, label, confidence, split, view (index; 0 is the plain image), sorted by id and view.
    """
    counts = assigned.map(lambda split: augmentation.views if split == "train" else augmentation.test_views)
    table = images[["id", "label", "confidence"]].assign(split=assigned)
    table = table.loc[table.index.repeat(counts)].reset_index(drop=True)
    table["view"] = table.groupby("id").cumcount()
    return table
