"""The addresses of a table's images: URLs, and paths as people write them on their own machines."""

import os
import re
import stat
from urllib.parse import quote

import pandas as pd

from tl_dagster.data.files import local_uri, path_of, stamp_of
from tl_dagster.data.remote import is_remote, is_web, remote_stamps

__all__ = ["locate_images", "stamp_images", "with_slashes"]

OF_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
ELSEWHERE = "a path of a Windows machine; write it relative to the table, or to source.root"


def with_slashes(paths: pd.Series, base: str) -> pd.Series:
    r"""Return a table's paths with folders that Windows separates by ``\`` separated by ``/``.

    Args:
        paths: (n,) str. A path stays as it is where it names a file, or is one of Windows with a drive.
        base: folder or URL that they are relative to.
    """
    swapped = paths.str.contains("\\", regex=False) & ~paths.str.match(OF_WINDOWS)
    if is_remote(base):
        swapped &= is_web(base)  # in a bucket any character may be part of a name
    else:
        named = {path for path in paths[swapped] if os.path.lexists(path_of(_absolute(path, base)))}
        swapped &= ~paths.isin(named)
    return paths.where(~swapped, paths.str.replace("\\", "/", regex=False))


def locate_images(paths: pd.Series, base: str) -> pd.Series:
    """Return the address of each of a table's paths and URLs: (n,) str.

    Args:
        paths: (n,) str.
        base: folder or URL that paths are relative to.
    """
    return pd.Series([_absolute(path, base) for path in paths], index=paths.index, dtype="str")


def stamp_images(uris: pd.Series, paths: pd.Series) -> pd.DataFrame:
    """Return stamp and problem (str) of each of a table's images.

    Args:
        uris: (n,) str, see :func:`locate_images`.
        paths: as the table has them.

    Raises:
        UnreachableError: a server did not answer for many files in a row.
    """
    remote = list(dict.fromkeys(uri for uri in uris if is_remote(uri)))
    stamps = dict(zip(remote, remote_stamps(remote), strict=True))
    rows = [stamps[uri] if uri in stamps else _local_stamp(uri) for uri in uris]
    stamped = pd.DataFrame(rows, columns=["stamp", "problem"], index=uris.index).astype("str")
    elsewhere = paths.str.match(OF_WINDOWS) & stamped["problem"].notna()
    return stamped.assign(problem=stamped["problem"].mask(elsewhere, ELSEWHERE))


def _absolute(path: str, base: str) -> str:
    """Return the address of a table's entry: a URL, or a path relative to a folder or URL."""
    if is_remote(path):
        return path
    if path.startswith("~") and not is_remote(base):
        path = os.path.expanduser(path)  # noqa: PTH111  (a million times: without a Path)
    if is_remote(base):
        return f"{base.rstrip('/')}/{quote(path) if is_web(base) else path}"
    path = path_of(path)
    return local_uri(os.path.normpath(path if path[:1] == "/" else f"{path_of(base)}/{path}"))


def _local_stamp(uri: str) -> tuple[str | None, str | None]:
    try:
        status = os.stat(path_of(uri))  # noqa: PTH116  (a million times: without a Path)
    except (OSError, ValueError) as error:
        return None, f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if not stat.S_ISREG(status.st_mode):
        return None, "cannot be read: not a file"
    return stamp_of(status), None
