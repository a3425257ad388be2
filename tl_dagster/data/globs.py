"""Files under one declared path: a folder, a glob, or braces as WebDataset writes them."""

from fnmatch import fnmatchcase
from pathlib import Path

import braceexpand

from tl_dagster.data.files import local_uri, name_of, path_of
from tl_dagster.data.remote import filesystem, find, is_remote, retrying
from tl_dagster.data.source_files import is_visible
from tl_dagster.runtime.errors import InputError, printable

__all__ = ["expand"]


def expand(uri: str, suffixes: tuple[str, ...]) -> list[str]:
    """Return the addresses of the files that a declared address stands for, in order.

    Args:
        uri: a file, a folder (its files with one of the suffixes), a glob (``*``), or braces (``{000..012}``).
        suffixes: of the files in a folder, lower case.

    Raises:
        InputError: there is no such file.
    """
    try:
        literal = not is_remote(uri) and Path(path_of(uri)).exists()
        parts = [uri] if literal else list(braceexpand.braceexpand(uri, escape=False))
    except ValueError as error:
        raise InputError(f"source.path: {printable(uri)}: {error}") from error
    files = [file for part in parts for file in (_remote if is_remote(part) else _local)(part, suffixes)]
    if not files:
        raise InputError(f"source.path: {printable(uri)} holds no {' or '.join(suffixes)} files")
    return files


def _local(uri: str, suffixes: tuple[str, ...]) -> list[str]:
    path = Path(path_of(uri))
    if path.is_dir():
        children = [child for child in sorted(path.rglob("*")) if is_visible(child.name)]
        return [local_uri(child) for child in children if child.name.lower().endswith(suffixes)]
    if "*" in path.name:
        return [local_uri(child) for child in sorted(path.parent.glob(path.name))]
    if not path.is_file():
        raise InputError(f"source.path: no file or folder {printable(uri)}")
    return [uri]


def _remote(uri: str, suffixes: tuple[str, ...]) -> list[str]:
    name = name_of(uri)
    try:
        if "*" in name:
            files, path = filesystem(uri)
            children = retrying(lambda: files.ls(path.rpartition("/")[0], detail=False), uri)
            return [files.unstrip_protocol(child) for child in sorted(children) if fnmatchcase(name_of(child), name)]
        if name.lower().endswith(suffixes):
            return [uri]
        return [address for path, address, _ in find(uri) if is_visible(path) and path.lower().endswith(suffixes)]
    except OSError as error:
        raise InputError(f"source.path: {printable(uri)} cannot be listed: {error}") from error
