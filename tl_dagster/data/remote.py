"""Files in buckets and on servers, through fsspec. Its own configuration holds credentials and endpoints.

Failures that may pass are retried; a server that does not answer in the end is one clear error.
"""

import html
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from tl_dagster.data.source_files import as_text
from tl_dagster.runtime import retries
from tl_dagster.runtime.errors import InputError, printable

__all__ = [
    "REQUESTS",
    "UnreachableError",
    "filesystem",
    "find",
    "is_remote",
    "is_web",
    "remote_stamp",
    "remote_stamps",
    "retrying",
]

T = TypeVar("T")
CONNECT_SECONDS, READ_SECONDS = 10, 30  # without an answer; fsspec alone would hold a thread for five minutes
REQUESTS = 16  # at once, where a server has to be asked for each file


class UnreachableError(InputError):
    """A server or bucket did not answer, after several attempts."""


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
        UnreachableError: a server did not answer.
    """
    with ThreadPoolExecutor(REQUESTS) as pool:
        yield from pool.map(_stamp_and_problem, urls)


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


def _stamp_and_problem(url: str) -> tuple[str | None, str | None]:
    files, path = filesystem(url)
    try:
        return remote_stamp(retrying(lambda: files.info(path), url)), None
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

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}  # trust_env: HTTPS_PROXY and so on count
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
    except Exception as error:
        if retries.is_transient(error):
            raise UnreachableError(
                f"{printable(url)} did not answer in {retries.ATTEMPTS} attempts ({type(error).__name__}: {error}); "
                "what was read before is kept: check the network and the server, and run again"
            ) from error
        raise OSError(f"{type(error).__name__}: {error}") from error
