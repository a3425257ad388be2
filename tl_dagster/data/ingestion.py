"""Ingestion: a source's listing becomes one row per image, with its identity, its statistics and its problems."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import repeat

import numpy as np
import pandas as pd

from tl_dagster.data.decoding import ImageInfo, image_id, inspect_image
from tl_dagster.data.file_index import INFO_COLUMNS, NUMBERS, FileIndex, FileRecord
from tl_dagster.data.files import read
from tl_dagster.data.limits import TooLargeError
from tl_dagster.data.remote import REQUESTS, Servers, is_remote
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.processes import ProcessPool, explain_ended_workers

__all__ = ["identify"]

FLUSH_SECONDS = 5.0
PROCESSES_FROM = 3000  # files
# Files read by one call: few where each may take long, many where pickling them takes longer than reading.
PART, PROCESS_PART = 32, 512
SMALL = 32 * 2**20  # bytes: of larger files a process reads and decodes one at a time, or its threads fill the memory
ONE_LARGE = threading.Lock()

File = tuple[str, str | None]  # uri and stamp
Failure = tuple[str, Exception]  # uri, and why it cannot be read
ProgressCallback = Callable[[int, int], None]


def identify(
    listing: pd.DataFrame,
    index: FileIndex,
    workers: int = 2,
    progress: ProgressCallback = lambda done, total: None,
) -> tuple[pd.DataFrame, int, int]:
    """Read and hash every file that is new or changed, and decode once each image whose bytes are new.

    Args:
        listing: see :meth:`tl_dagster.data.sources.ImageSource.listing`.
        index: what is known of the source's files; brought up to date every few seconds.
        workers: threads, or processes when there is much to read.
        progress: called with the number of files read, and how many there are to read.

    Returns:
        The listing with the columns id (str; "" for a file that cannot be read), bytes (int64), and the fields of
        :class:`tl_dagster.data.decoding.ImageInfo`; the number of files read; the number of images decoded.

    Raises:
        InputError: the source vanished, or a server stopped answering; what was read until then stays in the index.
    """
    known = index.read()
    joined = _join_known(listing, known)
    unread = joined.loc[joined["id"].isna() & joined["problem"].isna(), ["uri", "stamp"]].drop_duplicates("uri")
    decoded = 0
    if len(unread):
        fresh = _read_all(unread, known, index, workers, progress)
        decoded = len(fresh.decoded)
        known = pd.concat([known, *fresh.rows], ignore_index=True)
        joined = _join_known(listing, known, unread.loc[~unread["uri"].isin(list(fresh.failed)), "uri"])
        reasons = joined["uri"].map(fresh.failed).astype("str")
        joined["problem"] = joined["problem"].where(joined["problem"].notna(), reasons)
        index.compact()
    return joined.assign(id=joined["id"].fillna("")), len(unread), decoded


def _join_known(listing: pd.DataFrame, known: pd.DataFrame, just_read: pd.Series | None = None) -> pd.DataFrame:
    """Return the listing beside what is known of its files; nothing where the stamp differs, unless just read."""
    listed = listing.rename(columns={"problem": "listed_problem"})
    newest = known.drop_duplicates("uri", keep="last").rename(columns={"stamp": "known_stamp"})
    joined = listed.merge(newest, on="uri", how="left")
    unchanged = (joined["stamp"] == joined["known_stamp"]) & joined["stamp"].notna()
    if just_read is not None:
        unchanged |= joined["uri"].isin(just_read)
    for column in ("id", "problem", "format", "perceptual"):
        joined[column] = joined[column].where(unchanged, None)
    for column in NUMBERS:
        joined[column] = joined[column].where(unchanged, 0).fillna(0).astype(known[column].dtype)
    joined["problem"] = joined["listed_problem"].where(joined["listed_problem"].notna(), joined["problem"])
    for column in ("format", "perceptual"):
        joined[column] = joined[column].fillna("")
    return joined[["id", "uri", *listing.columns.drop(["uri", "stamp", "problem"]), "stamp", "bytes", *INFO_COLUMNS]]


@dataclass
class _Reading:
    """The records that were read so far, written to the index from time to time.

    Attributes:
        index: receives the records.
        known: the index's rows by image id, from before.
        rows: tables added to the index.
        failed: by uri, why a file could not be read.
        decoded: ids of the images decoded.
        pending: records that the index lacks yet.
    """

    index: FileIndex
    known: pd.DataFrame
    rows: list[pd.DataFrame] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    decoded: set[str] = field(default_factory=set)
    pending: list[FileRecord] = field(default_factory=list)

    def add(self, results: list[FileRecord | Failure]) -> None:
        """Take over the results of one call; raise an error that is not a file's own."""
        for result in results:
            if isinstance(result, FileRecord):
                self.pending.append(result)
                continue
            uri, error = result
            if not isinstance(error, OSError):
                raise error
            self.failed[uri] = f"cannot be read: {error}"

    def flush(self) -> None:
        """Write the pending records to the index."""
        if self.pending:
            self.rows.append(self.index.append(self.pending, self.known))
            self.decoded.update(record.id for record in self.pending if record.info is not None)
            self.pending.clear()


def _read_all(
    unread: pd.DataFrame, known: pd.DataFrame, index: FileIndex, workers: int, progress: ProgressCallback
) -> _Reading:
    """Read the files (columns uri, stamp); whatever ends it, what was read is in the index."""
    stamps = unread["stamp"].astype(object).where(unread["stamp"].notna(), None)
    files = list(zip(unread["uri"], stamps, strict=True))
    reading = _Reading(index, known.drop_duplicates("id").set_index("id"))
    flushed, done = time.monotonic(), 0
    try:
        for results in _read_parts(files, np.sort(reading.known.index.to_numpy().astype("S64")), workers):
            reading.add(results)
            done += len(results)
            progress(done, len(files))
            if time.monotonic() - flushed > FLUSH_SECONDS:
                reading.flush()
                flushed = time.monotonic()
    finally:
        reading.flush()
    return reading


def _read_parts(files: list[File], known_ids: np.ndarray, workers: int) -> Iterator[list[FileRecord | Failure]]:
    """Yield the results of files, some at a time, in their order.

    Threads start at once, and many of them wait for servers; processes do not contend for one interpreter, and repay
    their start when there is much to decode.
    """
    remote = any(is_remote(uri) for uri, _ in files)
    in_processes = len(files) >= PROCESSES_FROM and not remote
    size = PROCESS_PART if in_processes else PART
    servers = Servers()
    parts = [files[i : i + size] for i in range(0, len(files), size)]
    pool: Executor
    if in_processes:
        pool = ProcessPool(workers, _keep_known_ids, (known_ids,))
        results = pool.map(_read_part_here, parts)
    else:
        pool = ThreadPoolExecutor(max(workers, REQUESTS) if remote else workers)
        results = pool.map(_read_part, parts, repeat(known_ids), repeat(servers))
    try:
        with explain_ended_workers():
            yield from results
    finally:  # the step that reads ends without them
        pool.shutdown(cancel_futures=True)


_known_here: list[np.ndarray] = []  # of a worker process


def _keep_known_ids(known_ids: np.ndarray) -> None:
    _known_here.append(known_ids)


def _read_part_here(files: list[File]) -> list[FileRecord | Failure]:
    return _read_part(files, _known_here[0], Servers())


def _read_part(files: list[File], known_ids: np.ndarray, servers: Servers) -> list[FileRecord | Failure]:
    """Read and hash files, and decode those whose bytes are not among the known ids (sorted, S64).

    A server that does not answer any more ends the part: what was read before is returned with the error.
    """
    results: list[FileRecord | Failure] = []
    decoded: dict[str, ImageInfo] = {}
    for file in files:
        uri = file[0]
        try:
            read_file = partial(_read_file, file, known_ids, decoded)
            results.append(servers.ask(uri, read_file) if is_remote(uri) else read_file())
        except OSError as error:
            results.append((uri, OSError(str(error.strerror or error))))  # without what it was raised from: its bytes
        except InputError as error:
            return [*results, (uri, error)]
    return results


def _read_file(file: File, known_ids: np.ndarray, decoded: dict[str, ImageInfo]) -> FileRecord:
    try:
        return _describe(file, read(file[0], SMALL), known_ids, decoded)
    except TooLargeError:
        with ONE_LARGE:
            return _describe(file, read(file[0]), known_ids, decoded)


def _describe(file: File, content: bytes, known_ids: np.ndarray, decoded: dict[str, ImageInfo]) -> FileRecord:
    """Return the record of a file; of bytes that were decoded before, in this part too, nothing is decoded again."""
    identity = image_id(content)
    position = np.searchsorted(known_ids, identity.encode())
    known = position < len(known_ids) and known_ids[position] == identity.encode()
    if not known and identity not in decoded:
        decoded[identity] = inspect_image(content)
    return FileRecord(*file, identity, len(content), None if known else decoded[identity])
