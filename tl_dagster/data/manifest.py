"""Ingestion: a source's list becomes one row per image, with its identity, what decoding told, and its problems."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tl_dagster.data.decoding import image_id, inspect_image
from tl_dagster.data.file_index import INFO_COLUMNS, NUMBERS, FileIndex, FileRecord
from tl_dagster.data.files import read
from tl_dagster.data.remote import REQUESTS, is_remote
from tl_dagster.runtime.errors import InputError, printable
from tl_dagster.store.digests import digest, digest_columns

__all__ = [
    "content_digest",
    "diff_manifests",
    "identify",
    "image_uris",
    "read_groups",
    "read_manifest",
    "read_pairs",
    "reject_copies",
    "shown_uris",
    "usable",
]

FLUSH_SECONDS = 5.0
COPY, CONFLICT = "a copy of ", "the same image is labelled "  # how the reasons begin
PROCESSES_FROM = 3000  # files
# Files read by one call: few where each may take long, many where handing them over takes longer than reading.
PART, PROCESS_PART = 32, 512
CONTENT = ["id", "label", "group", "split", "confidence"]


def identify(
    listing: pd.DataFrame,
    index: FileIndex,
    workers: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[pd.DataFrame, int, int]:
    """Read and hash every file that is new or changed, and decode once each image whose bytes are new.

    Args:
        listing: see :meth:`tl_dagster.data.sources.ImageSource.listing`.
        index: what is known of the source's files; brought up to date every few seconds.
        workers: threads, or processes when there is much to read.
        progress: told the number of files read, and how many there are to read.

    Returns:
        The listing with the columns id ("" for a file that cannot be read), bytes, and the fields of
        :class:`tl_dagster.data.decoding.ImageInfo`; the number of files read; the number of images decoded.

    Raises:
        InputError: the source vanished, or a server stopped answering; what was read until then is kept.
    """

    known = index.read()
    joined = _joined(listing, known)
    unread = joined.loc[joined["id"].isna() & joined["problem"].isna(), ["uri", "stamp"]].drop_duplicates("uri")
    decoded = 0
    if len(unread):
        fresh, failed, decoded = _read_all(unread, known, index, workers, progress)
        known = pd.concat([known, *fresh], ignore_index=True).drop_duplicates("uri", keep="last")
        joined = _joined(listing, known, unread.loc[~unread["uri"].isin(list(failed)), "uri"])
        joined["problem"] = joined["problem"].where(joined["problem"].notna(), joined["uri"].map(failed).astype("str"))
        index.compact()
    return joined.assign(id=joined["id"].fillna("")), len(unread), decoded


def _joined(listing: pd.DataFrame, known: pd.DataFrame, just_read: pd.Series | None = None) -> pd.DataFrame:
    """The listing beside what is known of its files; nothing where the stamp differs, unless just read."""
    told = listing.rename(columns={"problem": "told"})
    joined = told.merge(known.rename(columns={"stamp": "stamp_then"}), on="uri", how="left")
    same = (joined["stamp"] == joined["stamp_then"]) & joined["stamp"].notna()
    if just_read is not None:
        same |= joined["uri"].isin(just_read)
    for column in ("id", "problem", "format", "perceptual"):
        joined[column] = joined[column].where(same, None)
    for column in NUMBERS:
        joined[column] = joined[column].where(same, 0).fillna(0).astype(known[column].dtype)
    joined["problem"] = joined["told"].where(joined["told"].notna(), joined["problem"])
    for column in ("format", "perceptual"):
        joined[column] = joined[column].fillna("")
    return joined[["id", "uri", *listing.columns.drop(["uri", "stamp", "problem"]), "stamp", "bytes", *INFO_COLUMNS]]


def _read_all(
    unread: pd.DataFrame, known: pd.DataFrame, index: FileIndex, workers: int, progress: Callable[[int, int], None]
) -> tuple[list[pd.DataFrame], dict[str, str], int]:
    """Rows that were added to the index, why others could not be read, and the number of images decoded."""
    import joblib

    by_id = known.drop_duplicates("id").set_index("id")
    seen = np.sort(by_id.index.to_numpy().astype("S64"))
    stamps = unread["stamp"].astype(object).where(unread["stamp"].notna(), None)
    files = list(zip(unread["uri"], stamps, strict=True))
    failed: dict[str, str] = {}
    rows: list[pd.DataFrame] = []
    pending: list[FileRecord] = []
    decoded: set[str] = set()

    def flush() -> None:
        if pending:
            rows.append(index.append(pending, by_id))
            decoded.update(identity for _, _, identity, _, seen_now in pending if seen_now is not None)
            pending.clear()

    # Threads start at once, and servers are waited for by many; processes are not held up by each other's Python, and
    # repay their start when there is much to decode.
    remote = any(is_remote(uri) for uri, _ in files)
    apart = len(files) >= PROCESSES_FROM and not remote
    part = PROCESS_PART if apart else PART
    pool = joblib.Parallel(
        n_jobs=max(workers, REQUESTS) if remote else workers,
        backend="loky" if apart else "threading",
        return_as="generator",
        batch_size=1,
    )
    calls = (joblib.delayed(_read_part)(files[start : start + part], seen) for start in range(0, len(files), part))
    flushed, done = time.monotonic(), 0
    try:
        for result in pool(calls):
            for file in result:
                if not isinstance(file[1], Exception):
                    pending.append(file)
                elif isinstance(file[1], OSError):
                    failed[file[0]] = f"cannot be read: {file[1].strerror or file[1]}"
                else:
                    raise file[1]
            done += len(result)
            progress(done, len(files))
            if time.monotonic() - flushed > FLUSH_SECONDS:
                flush()
                flushed = time.monotonic()
    finally:
        flush()
    return rows, failed, len(decoded)


def _read_part(files: list[tuple[str, str | None]], seen: np.ndarray) -> list[FileRecord | tuple[str, Exception]]:
    """Read and hash files, and look at those whose bytes are not among the ids seen before (sorted, S64).

    A server that does not answer ends the part: what was read before is handed over with the error.
    """

    found: list[FileRecord | tuple[str, Exception]] = []
    for uri, stamp in files:
        try:
            content = read(uri)
        except OSError as error:
            found.append((uri, error))
            continue
        except InputError as error:
            return [*found, (uri, error)]
        identity = image_id(content)
        place = np.searchsorted(seen, identity.encode())
        known = place < len(seen) and seen[place] == identity.encode()
        found.append((uri, stamp, identity, len(content), None if known else inspect_image(content)))
    return found


def reject_copies(identified: pd.DataFrame) -> pd.DataFrame:
    """Keep one of several copies of the same bytes, and none of an image that carries two labels.

    Where copies lie in different given splits, the one in the test split is kept, else the one in validation: an
    image that is held out must not be trained on.

    Args:
        identified: see :func:`identify`.

    Returns:
        The same rows with each copy's ``problem``.
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
        kept = copies["id"].map(by_id["uri"].first().map(printable))
        reason = (COPY + kept).where(~conflict, CONFLICT + copies["id"].map(labels))
        aside = conflict | copies["id"].duplicated()
        problem.loc[copies.index[aside]] = reason[aside]
    return identified.assign(problem=problem)


def usable(manifest: pd.DataFrame) -> pd.DataFrame:
    """The rows that may be trained and tested on."""
    return manifest[manifest["problem"].isna()]


def image_uris(manifest: pd.DataFrame) -> pd.Series:
    """Where each usable image is, by image id."""
    return usable(manifest).set_index("id")["uri"]


def shown_uris(manifest: pd.DataFrame, ids: pd.Series) -> pd.Series:
    """Where images are, to be shown: also of one that has left the dataset since."""
    return ids.map(image_uris(manifest)).astype("str").fillna("no longer in the dataset")


def content_digest(manifest: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """The data version: a digest of the usable images' ids, labels, groups, given splits and soft targets.

    Their names and their order do not count.

    Args:
        manifest: the dataset.
        pairs: its near copies (columns a, b, distance).
    """
    return digest(
        [digest_columns(usable(manifest).sort_values("id")[CONTENT]), digest_columns(pairs.sort_values(["a", "b"]))]
    )


def diff_manifests(before: pd.DataFrame, now: pd.DataFrame) -> dict[str, int]:
    """How many usable images were added, removed, relabelled and renamed between two manifests."""

    old, new = usable(before), usable(now)
    # Where each new image is among the old ones; a join of the tables would sort and copy them.
    place = pc.index_in(pa.array(new["id"]), value_set=pa.array(old["id"]))
    place = place.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    stayed = place >= 0
    then, since = old.iloc[place[stayed]], new[stayed]
    return {
        "added": int((~stayed).sum()),
        "removed": len(old) - int(stayed.sum()),
        "relabelled": int((then["label"].to_numpy() != since["label"].to_numpy()).sum()),
        "renamed": int((then["uri"].to_numpy() != since["uri"].to_numpy()).sum()),
    }


MANIFEST, PAIRS = "images.parquet", "near_copies.parquet"


def read_manifest(path: Path) -> pd.DataFrame:
    """The manifest of a dataset artifact: a DataFrame with the columns of :class:`Dataset`."""

    return pd.read_parquet(path / MANIFEST)


def read_groups(path: Path, ids: pd.Series) -> np.ndarray:
    """The group of each image, in the order of ``ids``: (n,) str; an image without one is its own."""
    groups = usable(read_manifest(path)).set_index("id")["group"]
    keys: np.ndarray = ids.map(groups).fillna(ids).to_numpy().astype(str)
    return keys


def read_pairs(path: Path) -> pd.DataFrame:
    """The near copies of a dataset artifact: columns a, b (image ids) and distance (bits)."""

    return pd.read_parquet(path / PAIRS)
