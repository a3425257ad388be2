"""Near copies: images whose perceptual hashes differ in a few bits share a group, and a group is never cut.

The hash is ImageHash's 256-bit ``phash`` (the signs of an image's low DCT frequencies against their median; Zauner,
"Implementation and benchmarking of perceptual image hash functions", 2010). All pairs within a distance of d bits are
found without comparing all: cut into d + 1 bands, two such hashes agree in at least one band (the pigeonhole
principle; Norouzi et al., "Fast search in Hamming space with multi-index hashing", 2012).
"""

import itertools
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from tl_dagster.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["Memory", "group", "near_pairs"]

BITS = 256
FEWEST_BANDS = 5  # a band then fits 64 bits
FLAT = 1.0  # contrast below which a hash is but the noise of rounding


def near_pairs(hashes: "np.ndarray", fresh: "np.ndarray", distance: int) -> "np.ndarray":
    """All pairs within a distance that hold at least one fresh hash.

    Of hashes that are equal, each is paired with the first of them only.

    Args:
        hashes: uint8 (n, 32).
        fresh: bool (n,): those that were not compared before.
        distance: bits.

    Returns:
        int64 (pairs, 3): two row numbers, the lower first, and their distance in bits.
    """
    import numpy as np

    if not fresh.any():
        return np.empty((0, 3), dtype=np.int64)
    words = np.ascontiguousarray(hashes).view(np.uint64)
    _, first, inverse = np.unique(
        np.ascontiguousarray(hashes).view("V32").ravel(), return_index=True, return_inverse=True
    )
    twin = np.flatnonzero((first[inverse] != np.arange(len(hashes))) & (fresh | fresh[first[inverse]]))
    found = [np.column_stack([first[inverse[twin]], twin, np.zeros_like(twin)])]
    # A hash is fresh when one of its images is: the others were compared with the rest already.
    new = np.zeros(len(first), dtype=bool)
    np.logical_or.at(new, inverse, fresh)
    single = words[first]
    bits = np.unpackbits(hashes[first], axis=1)
    edges = np.linspace(0, BITS, max(distance + 1, FEWEST_BANDS) + 1).astype(int)
    for low, high in itertools.pairwise(edges):
        packed = np.zeros((len(single), 8), dtype=np.uint8)
        band = np.packbits(bits[:, low:high], axis=1)
        packed[:, : band.shape[1]] = band
        key = packed.view(np.uint64).ravel()
        order = np.argsort(key, kind="stable")
        key = key[order]
        left = np.arange(len(order) - 1)
        step = 1
        while len(left := left[left + step < len(order)]):
            left = left[key[left] == key[left + step]]  # runs of equal bands get shorter with each step
            a, b = order[left], order[left + step]
            chosen = new[a] | new[b]
            a, b = a[chosen], b[chosen]
            apart = np.bitwise_count(single[a] ^ single[b]).sum(axis=1, dtype=np.int64)
            close = apart <= distance
            found.append(np.column_stack([first[a[close]], first[b[close]], apart[close]]))
            step += 1
    pairs = np.concatenate(found)
    pairs[:, :2].sort(axis=1)
    unique: np.ndarray = np.unique(pairs, axis=0)
    return unique


class Memory:
    """Which images were compared, and the group that each was given.

    An image keeps its group for good: without a memory, adding a near copy of an old image could rename the old one's
    group, and so move it to another split.

    Args:
        folder: made when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> "tuple[pd.DataFrame, pd.DataFrame]":
        """Images (columns id, perceptual, group) and pairs (a, b, distance) so far."""
        import pandas as pd

        try:
            images, pairs = (pd.read_parquet(self.folder / f"{name}.parquet") for name in ("images", "pairs"))
        except FileNotFoundError:
            texts = pd.Series(dtype="str")
            images = pd.DataFrame({"id": texts, "perceptual": texts, "group": texts})
            pairs = pd.DataFrame({"a": texts, "b": texts, "distance": pd.Series(dtype="int64")})
        return images, pairs

    def write(self, images: "pd.DataFrame", pairs: "pd.DataFrame") -> None:
        """Replace both, the pairs first: an image that is remembered has all its pairs remembered.

        Raises:
            InputError: the store cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for name, rows in (("pairs", pairs), ("images", images)):
                partial = self.folder / f".{uuid.uuid4().hex}"
                rows.to_parquet(partial, index=False)
                partial.replace(self.folder / f"{name}.parquet")
        except OSError as error:
            raise InputError(f"cannot write {self.folder}: {error.strerror or error}; free some space") from error


def group(images: "pd.DataFrame", memory: Memory, distance: int) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Give near copies a group.

    A given group stays. An image that was ingested before keeps its group. New ones that are near copies of each
    other, or of images of one group, share it. New ones that would join two groups are not grouped but named.

    Args:
        images: usable images: columns id, uri, group, split, perceptual, contrast.
        memory: of earlier calls with this distance; brought up to date.
        distance: bits; 0 finds nothing.

    Returns:
        ``images`` with the columns ``group`` (None: alone) and ``problem`` (None, or which groups it would join), and
        the pairs of near copies among them: a, b (image ids), distance.
    """
    import numpy as np
    import pandas as pd

    known, pairs = memory.read()
    hashed = images.loc[(images["perceptual"] != "") & (images["contrast"] >= FLAT), ["id", "perceptual"]]
    added = hashed[~hashed["id"].isin(known["id"])]
    if distance and len(added):
        everything = pd.concat([known, added.assign(group=None)], ignore_index=True)
        raw = np.frombuffer(bytes.fromhex("".join(everything["perceptual"])), dtype=np.uint8).reshape(-1, BITS // 8)
        found = near_pairs(raw, np.arange(len(everything)) >= len(known), distance)
        ids = everything["id"].to_numpy()
        new = pd.DataFrame({"a": ids[found[:, 0]], "b": ids[found[:, 1]], "distance": found[:, 2]})
        pairs = pd.concat([pairs, new], ignore_index=True)
        known = everything
    present = pairs[pairs["a"].isin(images["id"]) & pairs["b"].isin(images["id"])].reset_index(drop=True)
    remembered = images["id"].map(known.dropna(subset=["group"]).set_index("id")["group"])
    fixed = images["group"].where(images["group"].notna(), remembered)
    grouped, problem = _join(images.assign(group=fixed), present)
    # What this call decided is remembered, but for given groups: those are the source's to say.
    decided = pd.Series(grouped.where(grouped.notna(), images["id"]).to_numpy(), index=images["id"].to_numpy())
    decided = decided[(problem.isna() & images["group"].isna()).to_numpy()]
    if distance and (len(added) or not decided.index.isin(known.loc[known["group"].notna(), "id"]).all()):
        known["group"] = known["group"].where(known["group"].notna(), known["id"].map(decided))
        memory.write(known, pairs)
    alone = grouped == images["id"]  # a group that is named after the image itself says nothing
    return images.assign(group=grouped.where(~alone & grouped.notna(), None).astype("str"), problem=problem), present


def _join(images: "pd.DataFrame", pairs: "pd.DataFrame") -> "tuple[pd.Series, pd.Series]":
    """Group and problem of each image: components of near copies among those that have no group yet."""
    import numpy as np
    import pandas as pd
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    grouped, problem = images["group"].copy(), pd.Series(None, index=images.index, dtype="str")
    if pairs.empty:
        return grouped, problem
    place = pd.Series(np.arange(len(images)), index=images["id"].to_numpy())
    ends = np.column_stack([place[pairs["a"]].to_numpy(), place[pairs["b"]].to_numpy()])
    free = grouped.isna().to_numpy()
    both = ends[free[ends].all(axis=1)]
    links = coo_array((np.ones(len(both), dtype=np.int8), (both[:, 0], both[:, 1])), shape=(len(images),) * 2)
    component = connected_components(links, directed=False)[1]
    # Which groups does each component of new images touch?
    mixed = ends[free[ends].sum(axis=1) == 1]
    new = np.where(free[mixed[:, 0]], mixed[:, 0], mixed[:, 1])
    old = np.where(free[mixed[:, 0]], mixed[:, 1], mixed[:, 0])
    touched = pd.DataFrame(
        {"component": component[new], "group": grouped.to_numpy()[old], "uri": images["uri"].to_numpy()[old]}
    )
    touched = touched.sort_values(["group", "uri"]).drop_duplicates(["component", "group"])
    counts = touched["component"].value_counts()
    of = pd.Series(component, index=images.index)
    members = pd.Series(free, index=images.index)
    one = touched[touched["component"].isin(counts[counts == 1].index)].set_index("component")["group"]
    grouped = grouped.mask(members & of.isin(one.index), of.map(one))
    several = (
        touched[~touched["component"].isin(one.index)]
        .groupby("component")["uri"]
        .agg(lambda uris: " and ".join(uris[:2]))
    )
    bridging = members & of.isin(several.index) & images["split"].isna()
    problem = problem.mask(bridging, "near copies of images in different groups: " + of.map(several))
    rest = members & ~of.isin(counts.index)
    names = images["id"][rest].groupby(of[rest]).transform("min")
    shared = of[rest].map(of[rest].value_counts()) > 1
    grouped.loc[names.index[shared]] = names[shared]
    return grouped, problem
