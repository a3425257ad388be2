"""Ingestion: a source's list becomes one row per image, with its identity, its size and its problems."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tl_dagster.data.decoding import Probe, image_id, probe, read_verified
from tl_dagster.errors import InputError
from tl_dagster.identity import digest

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")

__all__ = ["content_digest", "identify", "ingest", "usable"]


def identify(
    listing: "pd.DataFrame", workers: int = 2, progress: Callable[[int], None] = lambda done: None
) -> "pd.DataFrame":
    """Read and hash every file of a listing.

    Args:
        listing: columns uri, label, group, split, confidence (see :func:`tl_dagster.data.sources.list_images`).
        workers: threads that read.
        progress: told the number of files done.

    Returns:
        The listing with the columns ``id`` ("" for a file that cannot be read) and ``problem`` (None: readable).
    """
    with ThreadPoolExecutor(workers) as pool:
        read = list(_counted(pool.map(_identity, listing["uri"]), progress))
    identified = listing.copy()
    identified.insert(0, "id", [identity for identity, _ in read])
    identified["problem"] = [problem for _, problem in read]
    return identified


def ingest(
    identified: "pd.DataFrame",
    known: "pd.DataFrame | None" = None,
    workers: int = 2,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple["pd.DataFrame", int]:
    """Decode once each image that was not seen before, and set aside what cannot be used.

    Set aside are: a file that cannot be read or decoded, a copy of an image that is already there, and every copy
    of an image that carries two labels; each with its reason.

    Args:
        identified: see :func:`identify`.
        known: an earlier manifest, whose images are not decoded again.
        workers: threads that decode.
        progress: told the number of files done.

    Returns:
        The manifest (columns id, uri, label, group, split, confidence, width, height, format, problem; sorted by uri)
        and the number of images that were decoded.

    Raises:
        InputError: no image, or images of a single class, can be used.
    """
    seen = {} if known is None else _probes(known)
    fresh = identified[~identified["id"].isin([*seen, ""])].drop_duplicates("id")
    with ThreadPoolExecutor(workers) as pool:
        looked = _counted(pool.map(_probe, fresh["uri"], fresh["id"]), progress)
        seen.update(zip(fresh["id"], looked, strict=True))
    manifest = identified.drop(columns="problem")
    found = [
        seen.get(identity, Probe(0, 0, "", problem))
        for identity, problem in zip(identified["id"], identified["problem"], strict=True)
    ]
    for field in ("width", "height", "format", "problem"):
        manifest[field] = [getattr(each, field) for each in found]
    _set_copies_aside(manifest)
    classes = sorted(usable(manifest)["label"].unique())
    if len(classes) < 2:
        broken = manifest[manifest["problem"].notna()].iloc[0]
        raise InputError(
            f"only {len(classes)} class has usable images ({', '.join(classes) or 'none'}); "
            f"{int(manifest['problem'].notna().sum())} files were set aside, "
            f"the first: {broken['uri']}: {broken['problem']}"
        )
    return manifest, len(fresh)


def usable(manifest: "pd.DataFrame") -> "pd.DataFrame":
    """The rows that may be trained and tested on, sorted by image id."""
    return manifest[manifest["problem"].isna()].sort_values("id", ignore_index=True)


def content_digest(manifest: "pd.DataFrame") -> str:
    """The data version: a digest of the usable images' ids, labels, groups, given splits and soft targets.

    Their names do not count.
    """
    rows = usable(manifest)[["id", "label", "group", "split", "confidence"]]
    running = hashlib.sha256()
    for row in rows.astype(object).where(rows.notna(), None).itertuples(index=False):
        running.update(digest(list(row)).encode())
    return running.hexdigest()


def _probes(known: "pd.DataFrame") -> dict[str, Probe]:
    rows = known[known["width"] > 0]  # only what decoded: a broken file is looked at again
    columns = (rows[name].tolist() for name in ("id", "width", "height", "format"))
    return {identity: Probe(width, height, kind, None) for identity, width, height, kind in zip(*columns, strict=True)}


def _probe(uri: str, identity: str) -> Probe:
    try:
        return probe(read_verified(uri, identity))
    except InputError as error:  # changed or gone since it was hashed, a moment ago
        return Probe(0, 0, "", str(error))


def _identity(uri: str) -> tuple[str, str | None]:
    try:
        return image_id(Path(uri).read_bytes()), None
    except OSError as error:
        return "", f"cannot be read: {error.strerror or error}"


def _counted(items: Iterable[T], progress: Callable[[int], None]) -> Iterator[T]:
    for done, item in enumerate(items, 1):
        yield item
        progress(done)


def _set_copies_aside(manifest: "pd.DataFrame") -> None:
    whole = manifest[manifest["problem"].isna()]
    for _, copies in whole[whole["id"].duplicated(keep=False)].groupby("id"):
        if copies["label"].nunique() > 1:
            labels = " and ".join(sorted(copies["label"].unique()))
            manifest.loc[copies.index, "problem"] = f"the same image is labelled {labels}"
        else:
            manifest.loc[copies.index[1:], "problem"] = f"a copy of {copies['uri'].iloc[0]}"
