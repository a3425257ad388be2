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

from tl_dagster.data.manifest import COPY, image_uris
from tl_dagster.runtime.errors import InputError, printable
from tl_dagster.store.files import replace_atomically

__all__ = ["GroupRegistry", "group_near_copies", "near_pairs"]

BITS = 256
FEWEST_BANDS = 5  # a band then fits 64 bits
FLAT = 1.0  # contrast below which a hash is but the noise of rounding


def near_pairs(hashes: np.ndarray, fresh: np.ndarray, distance: int) -> np.ndarray:
    """All pairs within a distance that hold at least one fresh hash.

    Args:
        hashes: uint8 (n, 32), distinct.
        fresh: bool (n,): those that were not compared before.
        distance: bits.

    Returns:
        int64 (pairs, 3): two row numbers, the lower first, and their distance in bits.
    """

    words = np.ascontiguousarray(hashes).view(np.uint64)
    bits = np.unpackbits(hashes, axis=1)
    edges = np.linspace(0, BITS, max(distance + 1, FEWEST_BANDS) + 1).astype(int)
    found = [np.empty((0, 3), dtype=np.int64)]
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
            chosen = fresh[a] | fresh[b]
            a, b = a[chosen], b[chosen]
            apart = np.bitwise_count(words[a] ^ words[b]).sum(axis=1, dtype=np.int64)
            close = apart <= distance
            found.append(np.column_stack([np.minimum(a, b)[close], np.maximum(a, b)[close], apart[close]]))
            step += 1
    pairs: np.ndarray = np.unique(np.concatenate(found), axis=0)
    return pairs


class GroupRegistry:
    """Which images were compared, and the group that each was given.

    An image keeps its group for good: without a memory, adding a near copy of an old image could rename the old one's
    group, and so move it to another split.

    Args:
        folder: made when first written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lock(self) -> BaseFileLock:
        """Held from reading to writing, so that what another run decides meanwhile is not lost."""

        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / "lock")

    def read(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Images (columns id, perceptual, group) and pairs of near hashes (a, b, distance) so far."""

        try:
            images, pairs = (pd.read_parquet(self.folder / f"{name}.parquet") for name in ("images", "pairs"))
        except FileNotFoundError:
            texts = pd.Series(dtype="str")
            images = pd.DataFrame({"id": texts, "perceptual": texts, "group": texts})
            pairs = pd.DataFrame({"a": texts, "b": texts, "distance": pd.Series(dtype="int64")})
        return images, pairs

    def write(self, images: pd.DataFrame, pairs: pd.DataFrame) -> None:
        """Replace both, the pairs first: an image that is remembered has all its pairs remembered.

        Raises:
            InputError: the store cannot be written.
        """
        try:
            for name, rows in (("pairs", pairs), ("images", images)):
                with replace_atomically(self.folder / f"{name}.parquet") as temporary:
                    rows.to_parquet(temporary, index=False)
        except OSError as error:
            raise InputError(f"cannot write {self.folder}: {error.strerror or error}; free some space") from error


def group_near_copies(images: pd.DataFrame, memory: GroupRegistry, distance: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give near copies a group.

    A given group stays. An image that was ingested before keeps its group, also while it is away. New ones that are
    near copies of each other, or of images of one group, share it. New ones that would join two groups get none and
    are named: whichever group they took, near copies would lie in two.

    Args:
        images: usable images: columns id, uri, group, split, perceptual, contrast.
        memory: of earlier calls with this distance; brought up to date.
        distance: bits; 0 finds nothing.

    Returns:
        ``images`` with the columns ``group`` (None: alone) and ``problem`` (None, or which images it would join), and
        the pairs of near copies among those without a problem: a, b (image ids, a < b), distance.
    """
    with memory.lock():
        return _group(images, memory, distance)


def _group(images: pd.DataFrame, memory: GroupRegistry, distance: int) -> tuple[pd.DataFrame, pd.DataFrame]:

    known, near = memory.read()
    hashed = images[(images["perceptual"] != "") & (images["contrast"] >= FLAT) & bool(distance)]
    place = pd.Series(pd.Index(known["id"]).get_indexer(images["id"]), images.index)
    added = hashed.loc[place[hashed.index] < 0, ["id", "perceptual"]]
    if len(added):
        near = pd.concat([near, _compared(known["perceptual"], added["perceptual"], distance)])
        near = near.drop_duplicates(["a", "b"])  # of a call that was killed before it remembered its images
        known = pd.concat([known, added.assign(group=None)], ignore_index=True)
        place = pd.Series(pd.Index(known["id"]).get_indexer(images["id"]), images.index)
    remembered = known["group"].reindex(place.to_numpy()).set_axis(images.index)
    grouped = images["group"].where(images["group"].notna(), remembered)
    problem = pd.Series(None, index=images.index, dtype="str")
    new = hashed.index[grouped[hashed.index].isna()]
    if len(new):
        away = known[known["group"].notna() & ~known["id"].isin(hashed["id"])]
        here = hashed[["id", "perceptual"]].assign(group=grouped[hashed.index])
        nodes = pd.concat([here, away], ignore_index=True)
        decided, joins = _join(nodes, _pairs_of_images(nodes, near))
        kept = images["split"].notna()  # a given split is not ours to doubt: the leakage check names the pair
        problem = problem.mask(images["id"].isin(joins.index) & ~kept, _reason(images, joins))
        grouped = grouped.where(grouped.notna(), images["id"].map(decided).astype("str"))
        known["group"] = known["group"].where(known["group"].notna(), known["id"].map(decided).astype("str"))
    if len(added) or len(new):
        memory.write(known, near)
    alone = grouped == images["id"]  # a group that is named after the image itself says nothing
    found = images.assign(group=grouped.where(~alone & grouped.notna(), None).astype("str"), problem=problem)
    return found, _pairs_of_images(hashed[problem[hashed.index].isna()], near)


def _compared(known: pd.Series, added: pd.Series, distance: int) -> pd.DataFrame:
    """Pairs of near hashes of which one at least is added: a, b (hexadecimal, a < b), distance."""

    old = known.unique()
    distinct = pd.Index(pd.concat([known, added]).unique())
    raw = np.frombuffer(bytes.fromhex("".join(distinct)), dtype=np.uint8).reshape(-1, BITS // 8)
    found = near_pairs(raw, np.arange(len(distinct)) >= len(old), distance)
    ends = np.sort(distinct.to_numpy()[found[:, :2]].reshape(-1, 2), axis=1)
    return pd.DataFrame({"a": ends[:, 0], "b": ends[:, 1], "distance": found[:, 2]})


def _pairs_of_images(images: pd.DataFrame, near: pd.DataFrame) -> pd.DataFrame:
    """Near copies among images: each image of a hash with the first one, and the first ones of near hashes.

    What it returns depends on the images alone, not on when each was added.
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


def _join(nodes: pd.DataFrame, pairs: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Decide on the nodes that have no group yet, by the components of near copies among them.

    Args:
        nodes: columns id and group (None: to be decided).
        pairs: near copies among them: a, b (ids).

    Returns:
        By id, the group of each node that can have one (its own id: alone); and by id of each that would join several
        groups, two of the nodes that it lies between.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    place = pd.Index(nodes["id"])
    ends = np.column_stack([place.get_indexer(pairs["a"]), place.get_indexer(pairs["b"])])
    free = nodes["group"].isna().to_numpy()
    both = ends[free[ends].all(axis=1)]
    links = coo_array((np.ones(len(both), dtype=np.int8), (both[:, 0], both[:, 1])), shape=(len(nodes),) * 2)
    component = connected_components(links, directed=False)[1]
    # Which groups does each component of new images touch?
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


def _reason(images: pd.DataFrame, joins: pd.Series) -> pd.Series:
    """Why an image is set aside that would join two groups."""
    uris = images.set_index("id")["uri"]
    said = {
        identity: " and ".join(printable(uris.get(other, "an image that was removed")) for other in others.split("\n"))
        for identity, others in joins.items()
    }
    return "near copies of images in different groups: " + images["id"].map(said).astype("str")


def find_leaks(manifest: pd.DataFrame, pairs: pd.DataFrame, assigned: pd.Series) -> pd.DataFrame:
    """Near copies across splits, and copies that given splits repeat: split_a, uri_a, split_b, uri_b, distance."""

    known = image_uris(manifest).to_frame().assign(split=assigned)
    near = pd.DataFrame(
        {
            **{f"{name}_a": pairs["a"].map(known[name]) for name in ("split", "uri")},
            **{f"{name}_b": pairs["b"].map(known[name]) for name in ("split", "uri")},
            "distance": pairs["distance"],
        }
    )
    copies = manifest[manifest["problem"].str.startswith(COPY).fillna(False) & manifest["split"].notna()]
    exact = pd.DataFrame(
        {
            "split_a": copies["id"].map(known["split"]),
            "uri_a": copies["id"].map(known["uri"]),
            "split_b": copies["split"],
            "uri_b": copies["uri"],
            "distance": 0,
        }
    )
    both = pd.concat([exact, near], ignore_index=True)
    # Validation is drawn from given training images where the source gives none: that is not its leak.
    return both[both["split_a"] != both["split_b"]].sort_values(["distance", "uri_a", "uri_b"], ignore_index=True)
