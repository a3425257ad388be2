"""Division of images into parts: in each class by rank of a hash, with a memory of what was divided before.

A rule without a memory can keep old images where they are, or put every class into every part, not both: where an
image's part depends on nothing else, all images of a small class may fall into one part. So an image that has a part
keeps it, and the new ones of each class fill up what the class lacks, in the order of their groups' hashes.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

__all__ = ["divide", "group_keys"]


def group_keys(images: pd.DataFrame) -> pd.Series:
    """Return the name of each image's group (str); an image without one is its own, named by its id."""
    return images["group"].where(images["group"].notna(), images["id"])


def divide(images: pd.DataFrame, fractions: Mapping[str, float], seed: object, before: pd.Series) -> pd.Series:
    """Return the part of each image (str, index of ``images``).

    A group is never cut. One that was divided before keeps its part; else it takes that of an image in it that was
    (of several parts the first). Of each class, the new groups fill up what the parts lack of their fractions of its
    images: those with the lowest hashes the first part, and so on. A part without an image of the class comes first,
    where the class has new groups enough.

    Args:
        images: columns id, label, group (str; missing: alone).
        fractions: part → its share of the images of each class; they add up to 1.
        seed: another one gives another division.
        before: group or image id → its part; others than those in ``fractions`` do not count.
    """
    shares = np.array(list(fractions.values()))
    groups, names = pd.factorize(group_keys(images))
    parts = _recall(images["id"], groups, names, list(fractions), before)
    classes = pd.factorize(images["label"], sort=True)[0]
    pairs, sizes = np.unique(np.stack([classes, groups]), axis=1, return_counts=True)
    order = np.lexsort((_hash(seed, names)[pairs[1]], pairs[0]))
    starts = np.flatnonzero(np.diff(pairs[0][order], prepend=-1))
    members = [pairs[1][rows] for rows in np.split(order, starts[1:])]
    counts = [sizes[rows] for rows in np.split(order, starts[1:])]
    for number in sorted(range(len(members)), key=lambda number: len(members[number])):  # the least free one first
        chosen = parts[members[number]]
        free = chosen < 0
        held = np.bincount(chosen[~free], counts[number][~free], len(shares))
        parts[members[number][free]] = _fill(counts[number][free], held, shares)
    return pd.Series(np.array(list(fractions))[parts[groups]], images.index, dtype="str")


def _hash(seed: object, names: pd.Index) -> np.ndarray:
    """Return the first 8 bytes of the SHA-256 of the seed and each name: uint64 (n,)."""
    prefix, sha256 = f"{seed}\0".encode(), hashlib.sha256
    hashed: np.ndarray = np.frombuffer(b"".join(sha256(prefix + name.encode()).digest()[:8] for name in names), ">u8")
    return hashed


def _recall(ids: pd.Series, groups: np.ndarray, names: pd.Index, parts: Sequence[str], before: pd.Series) -> np.ndarray:
    """Return the number of each group's part, int64 (groups,); -1 where neither it nor an image in it had one."""
    numbers = before.map({part: number for number, part in enumerate(parts)}).dropna().astype("int64")
    of_groups = numbers.reindex(names).fillna(-1).to_numpy().astype(np.int64)
    of_images = numbers.reindex(ids).fillna(len(parts)).to_numpy().astype(np.int64)
    least = np.full(len(names), len(parts))
    np.minimum.at(least, groups, of_images)
    recalled: np.ndarray = np.where(of_groups >= 0, of_groups, np.where(least < len(parts), least, -1))
    return recalled


def _fill(sizes: np.ndarray, counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the part of each new group of a class: int64 (groups,).

    Args:
        sizes: (groups,) its images of the class, in the order of the hashes.
        counts: (parts,) images of the class that each part has.
        shares: (parts,) of the class that each part shall have.
    """
    lacks = _apportion(int(sizes.sum()), len(sizes), counts, shares)
    if (sizes == 1).all():
        ranked: np.ndarray = np.repeat(np.arange(len(shares)), lacks)
        return ranked
    chosen = np.full(len(sizes), len(shares) - 1)
    left = list(range(len(sizes)))
    empty = (counts == 0) & (lacks > 0)
    for part in range(len(shares) - 1):
        taken = _take(sizes, left, int(lacks[part]), spare=int(empty[part + 1 :].sum()))
        if not taken and empty[part] and left:
            taken = [min(left, key=lambda group: sizes[group])]
        chosen[taken] = part
        left = [group for group in left if group not in set(taken)]
    return chosen


def _take(sizes: np.ndarray, left: Sequence[int], lacks: int, spare: int) -> list[int]:
    """Return the groups, in their order, that bring a part nearer to what it lacks; so many are spared."""
    taken: list[int] = []
    for group in left:
        if lacks <= 0 or len(left) - len(taken) <= spare:
            break
        if sizes[group] < 2 * lacks:
            taken.append(group)
            lacks -= int(sizes[group])
    return taken


def _apportion(images: int, groups: int, counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return how many new images each part gets: int64 (parts,).

    Each goes to the part that lacks most: from nothing, that is the method of the largest remainder, and each part
    ends within one image of its share.
    """
    lacks = np.round((counts.sum() + images) * shares - counts, 9)
    empty = counts == 0
    least = empty.astype(np.int64) if empty.sum() <= groups else np.zeros(len(shares), np.int64)
    gets = np.maximum(least, np.floor(lacks).astype(np.int64))
    while gets.sum() > images:  # some parts have more than their share
        gets[np.argmin(np.where(gets > least, lacks - gets, np.inf))] -= 1
    while gets.sum() < images:
        gets[np.argmax(lacks - gets)] += 1
    values: np.ndarray = gets
    return values
