"""Near copies: images whose perceptual hashes differ in a few bits share a group, and a group is never cut.

The hash is ImageHash's 256-bit ``phash`` (the signs of an image's low DCT frequencies against their median; Zauner,
"Implementation and benchmarking of perceptual image hash functions", 2010). All pairs within a distance of d bits are
found without comparing all: cut into d + 1 bands, two such hashes agree in at least one band (the pigeonhole
principle; Norouzi et al., "Fast search in Hamming space with multi-index hashing", 2012).
"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import BaseFileLock, FileLock

from tl_dagster.data.manifest import COPY, image_uris, usable
from tl_dagster.runtime.errors import printable
from tl_dagster.store.files import replace_atomically, writing

__all__ = ["GroupRegistry", "find_leaks", "group_near_copies", "near_pairs"]

BITS = 256
FEWEST_BANDS = 5  # a band then fits 64 bits
FLAT = 1.0  # contrast below which a hash is only rounding noise


def near_pairs(hashes: np.ndarray, fresh: np.ndarray, distance: int) -> np.ndarray:
    """Return all pairs within a distance that contain at least one fresh hash.

    Args:
        hashes: uint8 (n, 32), distinct.
        fresh: bool (n,), True for hashes that were not compared before.
        distance: bits.

    Returns:
        int64 (pairs, 3): two row numbers, the lower first, and their distance in bits.
    """
    words = np.ascontiguousarray(hashes).view(np.uint64)
    bits = np.unpackbits(hashes, axis=1)
    edges = np.linspace(0, BITS, max(distance + 1, FEWEST_BANDS) + 1).astype(int)
    pairs = [np.empty((0, 3), dtype=np.int64)]
    for low, high in itertools.pairwise(edges):
        packed = np.zeros((len(hashes), 8), dtype=np.uint8)
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
            compare = fresh[a] | fresh[b]
            a, b = a[compare], b[compare]
            apart = np.bitwise_count(words[a] ^ words[b]).sum(axis=1, dtype=np.int64)
            close = apart <= distance
            pairs.append(np.column_stack([np.minimum(a, b)[close], np.maximum(a, b)[close], apart[close]]))
            step += 1
    distinct: np.ndarray = np.unique(np.concatenate(pairs), axis=0)
    return distinct


class GroupRegistry:
    """The images that were compared, and the group of each, on disk.

    An image keeps its group for good: without a registry, adding a near copy of an old image could rename the old
    one's group, and so move it to another split.

    Args:
        folder: made when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lock(self) -> BaseFileLock:
        """Return the lock to take from reading to writing, so that no other run's decisions are lost."""
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "lock")

    def read(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the images (id, perceptual, group: str) and pairs of near hashes (a, b: str; distance: int64)."""
        try:
            images, pairs = (pd.read_parquet(self.folder / f"{name}.parquet") for name in ("images", "pairs"))
        except FileNotFoundError:
            texts = pd.Series(dtype="str")
            images = pd.DataFrame({"id": texts, "perceptual": texts, "group": texts})
            pairs = pd.DataFrame({"a": texts, "b": texts, "distance": pd.Series(dtype="int64")})
        return images, pairs

    def write(self, images: pd.DataFrame, pairs: pd.DataFrame) -> None:
        """Replace both tables, the pairs first: a registered image has all its pairs registered.

        Raises:
            DiskError: the store cannot be written.
        """
        for name, rows in (("pairs", pairs), ("images", images)):
            with replace_atomically(self.folder / f"{name}.parquet") as temporary:
                rows.to_parquet(temporary, index=False)


def group_near_copies(
    images: pd.DataFrame, registry: GroupRegistry, distance: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Assign a group to near copies.

    A group that the source declares stays. An image that was ingested before keeps its group, also while it is away.
    New ones that are near copies of each other, or of images of one group, share it. New ones that would join two
    groups get none and are rejected: whichever group they took, near copies would lie in two.

    Args:
        images: usable images: columns id, uri, group, split, perceptual, contrast.
        registry: of earlier calls with this distance; brought up to date.
        distance: bits; with 0 there are no near copies.

    Returns:
        ``images`` with the columns ``group`` (missing: alone) and ``problem`` (missing, or the images it would join),
        and the pairs of near copies among those without a problem: a, b (image ids, a < b), distance.

    Raises:
        DiskError: the registry cannot be written.
    """
    with writing(registry.folder), registry.lock():
        return _group(images, registry, distance)


def _group(images: pd.DataFrame, registry: GroupRegistry, distance: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    known, near = registry.read()
    hashed = images[(images["perceptual"] != "") & (images["contrast"] >= FLAT) & bool(distance)]
    row = _rows_of_ids(known, images)
    added = hashed.loc[row[hashed.index] < 0, ["id", "perceptual"]]
    if len(added):
        near = pd.concat([near, _compare(known["perceptual"], added["perceptual"], distance)])
        near = near.drop_duplicates(["a", "b"])  # of a call that was killed before it registered its images
        known = pd.concat([known, added.assign(group=None)], ignore_index=True)
        row = _rows_of_ids(known, images)
    registered = known["group"].reindex(row.to_numpy()).set_axis(images.index)
    grouped = images["group"].where(images["group"].notna(), registered)
    problem = pd.Series(None, index=images.index, dtype="str")
    new = hashed.index[grouped[hashed.index].isna()]
    if len(new):
        away = known[known["group"].notna() & ~known["id"].isin(hashed["id"])]
        present = hashed[["id", "perceptual"]].assign(group=grouped[hashed.index])
        nodes = pd.concat([present, away], ignore_index=True)
        decided, conflicts = _decide_groups(nodes, _pairs_of_images(nodes, near))
        has_split = images["split"].notna()  # a declared split is not ours to doubt: the leakage check names the pair
        rejected = images["id"].isin(conflicts.index) & ~has_split
        problem = problem.mask(rejected, _describe_conflicts(images, conflicts))
        grouped = grouped.where(grouped.notna(), images["id"].map(decided).astype("str"))
        known["group"] = known["group"].where(known["group"].notna(), known["id"].map(decided).astype("str"))
    if len(added) or len(new):
        registry.write(known, near)
    alone = grouped == images["id"]  # a group that is named after the image itself says nothing
    result = images.assign(group=grouped.where(~alone & grouped.notna(), None).astype("str"), problem=problem)
    return result, _pairs_of_images(hashed[problem[hashed.index].isna()], near)


def _rows_of_ids(known: pd.DataFrame, images: pd.DataFrame) -> pd.Series:
    """Return the row of each image in a table of images: int64, -1 where it has none."""
    return pd.Series(pd.Index(known["id"]).get_indexer(images["id"]), images.index)


def _compare(known: pd.Series, added: pd.Series, distance: int) -> pd.DataFrame:
    """Return pairs of near hashes of which one at least is added: a, b (hexadecimal, a < b), distance."""
    old = known.unique()
    distinct = pd.Index(pd.concat([known, added]).unique())
    raw = np.frombuffer(bytes.fromhex("".join(distinct)), dtype=np.uint8).reshape(-1, BITS // 8)
    pairs = near_pairs(raw, np.arange(len(distinct)) >= len(old), distance)
    ends = np.sort(distinct.to_numpy()[pairs[:, :2]].reshape(-1, 2), axis=1)
    return pd.DataFrame({"a": ends[:, 0], "b": ends[:, 1], "distance": pairs[:, 2]})


def _pairs_of_images(images: pd.DataFrame, near: pd.DataFrame) -> pd.DataFrame:
    """Return near copies among images: each image of a hash with the first one, and the first ones of near hashes.

    The result depends on the images alone, not on when each was added.
    """
    close = pd.concat([near["a"], near["b"]])
    images = images[images["perceptual"].duplicated(keep=False) | images["perceptual"].isin(close)]
    first = images.groupby("perceptual")["id"].min()
    twin = images["perceptual"].map(first)
    same = pd.DataFrame({"a": twin, "b": images["id"], "distance": 0})[twin != images["id"]]
    between = near.assign(a=near["a"].map(first), b=near["b"].map(first)).dropna()
    both = pd.concat([same, between.astype({"a": "str", "b": "str"})], ignore_index=True)
    swapped = both["a"] > both["b"]
    both.loc[swapped, ["a", "b"]] = both.loc[swapped, ["b", "a"]].to_numpy()
    return both.sort_values(["a", "b"], ignore_index=True)


def _decide_groups(nodes: pd.DataFrame, pairs: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Decide on the nodes that have no group yet, by the connected components of near copies among them.

    Args:
        nodes: columns id and group (missing: to be decided).
        pairs: near copies among them: a, b (ids).

    Returns:
        By id, the group of each node that can have one (its own id: alone); and by id of each that would join several
        groups, the ids of two nodes of different groups, one a line.
    """
    from scipy.sparse import coo_array, csgraph

    ids_of_nodes = pd.Index(nodes["id"])
    ends = np.column_stack([ids_of_nodes.get_indexer(pairs["a"]), ids_of_nodes.get_indexer(pairs["b"])])
    free = nodes["group"].isna().to_numpy()
    both = ends[free[ends].all(axis=1)]
    links = coo_array((np.ones(len(both), dtype=np.int8), (both[:, 0], both[:, 1])), shape=(len(nodes),) * 2)
    component = csgraph.connected_components(links, directed=False)[1]
    # The groups that each component of new images touches.
    mixed = ends[free[ends].sum(axis=1) == 1]
    new = np.where(free[mixed[:, 0]], mixed[:, 0], mixed[:, 1])
    old = nodes.iloc[mixed.sum(axis=1) - new].assign(component=component[new]).sort_values(["group", "id"])
    touched = old.drop_duplicates(["component", "group"]).groupby("component")
    undecided = nodes[free].assign(component=component[free])
    count = undecided["component"].map(touched.size()).fillna(0)
    least = undecided.groupby("component")["id"].transform("min")
    names = least.mask(count == 1, undecided["component"].map(touched["group"].first()).astype("str"))
    between = undecided["component"].map(touched["id"].agg(lambda ids: "\n".join(ids[:2])))
    ids = undecided["id"].to_numpy()
    decided = pd.Series(names.to_numpy(), index=ids)[(count <= 1).to_numpy()]
    return decided, pd.Series(between.to_numpy(), index=ids)[(count > 1).to_numpy()]


def _describe_conflicts(images: pd.DataFrame, conflicts: pd.Series) -> pd.Series:
    """Return the problem of each image that would join two groups; missing for the others."""
    uris = images.set_index("id")["uri"]
    named = {
        identity: " and ".join(printable(uris.get(other, "an image that was removed")) for other in others.split("\n"))
        for identity, others in conflicts.items()
    }
    return "near copies of images in different groups: " + images["id"].map(named).astype("str")


def find_leaks(manifest: pd.DataFrame, pairs: pd.DataFrame, assigned: pd.Series) -> pd.DataFrame:
    """Return near copies across splits, and exact copies that the source gives in several, of which one is used.

    Args:
        manifest: the dataset.
        pairs: its near copies: a, b (image ids), distance (bits).
        assigned: the split of each usable image, indexed by image id.

    Returns:
        Columns split_a, uri_a, split_b, uri_b (str), distance (int64; 0 for exact copies) and used (bool: whether both
        images are; b is left out otherwise), those first of which both are, the nearest first.
    """
    used = image_uris(manifest).to_frame().assign(split=assigned)
    given = usable(manifest).set_index("id")["split"]
    near = pd.DataFrame(
        {
            **{f"{name}_a": pairs["a"].map(used[name]) for name in ("split", "uri")},
            **{f"{name}_b": pairs["b"].map(used[name]) for name in ("split", "uri")},
            "distance": pairs["distance"],
            "used": True,
        }
    )
    copies = manifest[manifest["problem"].str.startswith(COPY).fillna(False) & manifest["split"].notna()]
    exact = pd.DataFrame(
        {
            "split_a": copies["id"].map(given),
            "uri_a": copies["id"].map(used["uri"]),
            "split_b": copies["split"],
            "uri_b": copies["uri"],
            "distance": 0,
            "used": False,
        }
    )
    both = pd.concat([near, exact], ignore_index=True)
    across = both[both["split_a"] != both["split_b"]]
    return across.sort_values(
        ["used", "distance", "uri_a", "uri_b"], ascending=[False, True, True, True], ignore_index=True
    )
