"""Files in buckets and on servers, through fsspec. Its own configuration holds credentials and endpoints.

Failures that may pass are retried; a server that does not answer in the end is one clear error.
"""

import html
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from tl_dagster.data.limits import MAX_BYTES, TooLargeError, check_size
from tl_dagster.data.source_files import as_text
from tl_dagster.runtime import retries
from tl_dagster.runtime.errors import InputError, TransientError, printable, redact

__all__ = [
    "REQUESTS",
    "Servers",
    "UnreachableError",
    "filesystem",
    "find",
    "is_remote",
    "is_web",
    "read_remote",
    "read_remote_head",
    "remote_stamp",
    "remote_stamps",
    "retrying",
]

T = TypeVar("T")
CONNECT_SECONDS, READ_SECONDS = 10, 30  # without an answer; fsspec alone would hold a thread for five minutes
REQUESTS = 16  # at once, where a server has to be asked for each file
MOST_UNANSWERED = 16  # files in a row: more are the server's fault, not a file's


class UnreachableError(TransientError):
    """A server or bucket did not answer, after several attempts.

    Attributes:
        reason: the part of the message that says so, without the address and the mend.
    """

    reason = ""


class Servers:
    """The servers that are asked for many files, by threads, and how many files in a row each did not answer for."""

    def __init__(self) -> None:
        self._unanswered: Counter[str] = Counter()
        self._lock = threading.Lock()

    def ask(self, uri: str, request: Callable[[], T]) -> T:
        """Return the result of a request for a file.

        Raises:
            OSError: the file cannot be read; also where its server does not answer for this one.
            UnreachableError: its server does not answer any more.
        """
        server = urlsplit(uri).netloc
        try:
            result = request()
        except UnreachableError as error:
            with self._lock:
                self._unanswered[server] += 1
                silent = self._unanswered[server] >= MOST_UNANSWERED
            if silent:
                raise
            raise OSError(error.reason) from None
        with self._lock:
            self._unanswered[server] = 0
        return result


def is_remote(uri: str) -> bool:
    """Return whether fsspec reads an address."""
    return "://" in uri and not uri.startswith(("file://", "zip://", "tar://"))


def is_web(uri: str) -> bool:
    """Return whether an address is a URL of the web, where names are percent-encoded."""
    return uri.startswith(("http://", "https://"))


def remote_stamp(info: Mapping[str, Any]) -> str | None:
    """Return a text that changes when a remote file does (size, and etag, generation or time); None without those."""
    for field in ("ETag", "etag", "generation", "LastModified", "Last-Modified", "mtime", "updated"):
        if info.get(field):
            return f"{info.get('size')}:{info[field]}"
    return None


def remote_stamps(urls: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
    """Yield (stamp, problem) of each remote file, in order.

    Raises:
        UnreachableError: a server did not answer for many files in a row.
    """
    servers = Servers()
    with ThreadPoolExecutor(REQUESTS) as pool:
        yield from pool.map(partial(_stamp_and_problem, servers), urls)


def read_remote(uri: str, limit: int = MAX_BYTES) -> bytes:
    """Return the bytes at an address that fsspec reads.

    Raises:
        OSError: it is not there, not allowed, or larger than the limit (bytes).
        UnreachableError: the server did not answer.
    """
    files, path = filesystem(uri)
    return bytes(retrying(lambda: _cat(files, path, limit, web=is_web(uri)), uri))


def read_remote_head(uri: str, size: int) -> bytes:
    """Return the first bytes at an address that fsspec reads, at most ``size``; see :func:`read_remote`."""
    files, path = filesystem(uri)
    # A server of the web need not know of parts of files.
    part = {"trace_request_ctx": (size, True)} if is_web(uri) else {"start": 0, "end": size}
    return bytes(retrying(lambda: files.cat_file(path, **part), uri))


def _cat(files: Any, path: str, limit: int, *, web: bool) -> bytes:
    if web:
        content: bytes = files.cat_file(path, trace_request_ctx=(limit, False))
        return content
    try:
        content = files.cat_file(path, start=0, end=limit + 1)
    except Exception:
        if files.info(path).get("size") == 0:  # buckets refuse every range of an empty file
            return b""
        raise
    check_size(len(content), limit)
    return content


def find(url: str) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return (path below it, address, fsspec's info) of all files under a remote folder, sorted.

    A path that ends with a slash is an empty folder, or the placeholder that consoles of buckets write for a folder.

    Raises:
        OSError: the folder is not there, or not allowed.
        UnreachableError: a server did not answer.
    """
    files, top = filesystem(url)
    top = top.rstrip("/")
    infos = _crawl(files, top) if is_web(url) else retrying(lambda: files.find(top, detail=True), url).values()
    below = [(info["name"].removeprefix(f"{top}/"), info) for info in infos if info["name"].startswith(f"{top}/")]
    rows = [
        (as_text(unquote_to_bytes(path)) if is_web(url) else path, files.unstrip_protocol(info["name"]), info)
        for path, info in below
        if path
    ]
    return sorted(rows, key=lambda row: row[:2])


def _crawl(files: Any, top: str) -> Collection[Mapping[str, Any]]:
    """Return the files that a web server's index pages link to; fsspec's own walk skips pages that do not answer."""
    linked: dict[str, Mapping[str, Any]] = {}
    folders, visited = [top], {unquote_to_bytes(top)}
    while folders:
        folder = f"{folders.pop()}/"
        before = len(visited)
        for info in retrying(partial(files.ls, folder), folder):
            name = html.unescape(info["name"]).rstrip("/")
            path = unquote_to_bytes(name)
            if path in visited or "?" in name or {b".", b".."} & set(path.split(b"/")):
                continue  # a page's links to itself, to its other orders and to the folders above it
            visited.add(path)
            if info["type"] == "directory":
                folders.append(name)
            else:
                linked[name] = {**info, "name": name}
        if len(visited) == before and folder != f"{top}/":
            linked[folder] = {"name": folder, "type": "directory"}
    return linked.values()


def _stamp_and_problem(servers: Servers, url: str) -> tuple[str | None, str | None]:
    files, path = filesystem(url)
    try:
        return remote_stamp(servers.ask(url, lambda: retrying(lambda: files.info(path), url))), None
    except OSError as error:
        return None, f"cannot be read: {error}"


def filesystem(url: str) -> tuple[Any, str]:
    """Return fsspec's filesystem for a URL, and the path in it.

    Raises:
        InputError: the protocol is unknown, or the package for it is not installed.
    """
    import fsspec

    protocol = url.partition("://")[0]
    try:
        kind = fsspec.get_filesystem_class(protocol)
        options = fsspec.config.apply_config(kind, kind._get_kwargs_from_urls(url))
        for name, limits in _limits(protocol).items():
            options[name] = {**limits, **options.get(name, {})}
        files = kind(**options)
    except ImportError as error:
        extra = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}.get(protocol)
        install = f"pip install 'tl-dagster[{extra}]'" if extra else str(error)
        raise InputError(f"{printable(url)}: {protocol}:// needs another package: {install}") from error
    except ValueError as error:
        raise InputError(f"{printable(url)}: {error}; use a path, https://, s3:// or gs://") from error
    files.invalidate_cache()  # a process may live for weeks, and the bucket change
    # Not fsspec's url_to_fs: it would take "::" in a name for a chain of addresses.
    return files, kind._strip_protocol(url)


def _limits(protocol: str) -> dict[str, dict[str, Any]]:
    """Return the timeouts of a filesystem's client, under the names of its options."""
    if protocol in ("http", "https"):
        import aiohttp

        from tl_dagster.data.web_client import BoundedResponse, build_trace

        client = {
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
            "trust_env": True,  # HTTPS_PROXY and so on count
            "response_class": BoundedResponse,
            "trace_configs": [build_trace()],
        }
        return {"client_kwargs": client}
    if protocol in ("s3", "s3a"):
        waits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}
        return {"config_kwargs": {**waits, "retries": {"max_attempts": 1}}}
    return {}


def retrying(ask: Callable[[], T], url: str) -> T:
    """Return the result of a request, retried after 0.5, 1, 2 and 4 s (with jitter) when its failure may pass.

    Args:
        ask: the request.
        url: its address, for messages.

    Raises:
        OSError: the server refuses (not there, not allowed).
        UnreachableError: the fifth attempt fails too.
    """
    try:
        return retries.call_with_retries(ask)
    except (TooLargeError, InputError):
        raise
    except Exception as error:
        # The errors themselves are left out of the chain: their messages hold the whole URL.
        if not retries.is_transient(error):
            raise OSError(_describe(error)) from None
        reason = f"did not answer in {retries.ATTEMPTS} attempts ({_describe(error)})"
        unreachable = UnreachableError(
            f"{printable(url)} {reason}; what was read before is kept: check the network and the server, and run again"
        )
        unreachable.reason = reason
        raise unreachable from None


def _describe(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and "://" in str(error) else None
    if cause is not None and getattr(cause, "status", None) != 404:
        return _describe(cause)  # fsspec says "not found" of a URL whatever the reason
    return redact(f"{type(error).__name__}: {error}")
