"""Downloads of weights into the caches that other programs share: those of torch and of huggingface_hub.

Files of huggingface.co are fetched by :mod:`huggingface_hub`, so that HF_ENDPOINT, HF_TOKEN, HF_HOME and HF_HUB_OFFLINE
count; all others by fsspec, as images are. A file that is there is used without a network.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from tl_dagster.data.remote import filesystem
from tl_dagster.runtime.errors import InputError, printable, redact
from tl_dagster.runtime.retries import call_with_retries
from tl_dagster.store.digests import digest_file
from tl_dagster.store.files import replace_atomically, writing

__all__ = ["check_sha256", "download", "find_candidates", "get_announced_sha256", "remove_from_hub_cache"]

LOCAL_HOSTS = ("127.0.0.1", "localhost")  # may be asked without encryption
HUB_PATH = re.compile(r"/(?P<repository>(?:[^/]+/)?[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


class HubFile(NamedTuple):
    """A file of a model's repository on huggingface.co."""

    repository: str
    revision: str
    name: str


def download(url: str, sha256: str) -> Path:
    """Return the file of a URL from a cache on this machine, downloaded if it is not there yet.

    Args:
        url: https://, or http:// of this machine.
        sha256: (prefix of) the checksum that a file must have to be stored in torch's cache; "" accepts any.

    Raises:
        InputError: the file cannot be downloaded, or has another checksum.
    """
    path = _get_checkpoint_path(url)
    if path.is_file():
        return path
    if not _is_allowed(url):
        raise InputError(f"backbone.weights: {printable(url)}: only https:// is downloaded")
    try:
        hub_file = _parse_hub_url(url)
        return _fetch_url(url, path, sha256) if hub_file is None else _fetch_from_hub(hub_file)
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(redact(str(error)).split())[:300]
        raise InputError(
            f"backbone.weights: cannot download {printable(url)} ({type(error).__name__}: {reason}); "
            f"without a network, put the file at {path} yourself"
        ) from None  # its message may hold the URL's secrets


def check_sha256(origin: str, sha256: str, expected: str | None, hint: str) -> None:
    """Compare a checksum with a (prefix of) the expected one.

    Raises:
        InputError: they differ; with the origin of the file, and a hint.
    """
    if expected and not sha256.startswith(expected):
        raise InputError(f"backbone.weights: {origin} has SHA-256 {sha256[:16]}…, not {expected[:16]}…; {hint}")


def _is_allowed(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL_HOSTS)
    )


def _parse_hub_url(url: str) -> HubFile | None:
    """Return the file of huggingface.co that a URL names; None for other URLs."""
    parts = urlsplit(url)
    match = HUB_PATH.fullmatch(parts.path) if parts.hostname == "huggingface.co" else None
    return HubFile(*(unquote(part) for part in match.groups())) if match else None


def _get_checkpoint_path(url: str) -> Path:
    """Return where torch.hub would store a URL's file; the name of a hub's file begins with its repository."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]  # an encoded slash leads nowhere else either
    if hub_file := _parse_hub_url(url):  # they are all called model.safetensors
        name = "-".join([*hub_file.repository.split("/"), name])
    return _get_checkpoint_folder() / name


def _get_checkpoint_folder() -> Path:
    """Return the folder of :func:`torch.hub.load_state_dict_from_url`, without importing torch."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    return Path(os.environ.get("TORCH_HOME") or cache, "hub", "checkpoints").expanduser()


def _fetch_url(url: str, path: Path, sha256: str) -> Path:
    files, remote = filesystem(url)
    with replace_atomically(path) as partial:
        call_with_retries(lambda: files.get_file(remote, str(partial)))
        check_sha256(printable(url), digest_file(partial), sha256, "the server has another file than the expected one")
    return path


def _fetch_from_hub(file: HubFile) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE

    cached = try_to_load_from_cache(file.repository, file.name, revision=file.revision)
    if isinstance(cached, str):
        return Path(cached)
    with writing(Path(HF_HUB_CACHE)):
        return Path(hf_hub_download(file.repository, file.name, revision=file.revision))


def get_announced_sha256(path: Path) -> str | None:
    """Return the SHA-256 that huggingface.co announced for a file in its cache; None for other and for small files."""
    blob = path.readlink() if path.is_symlink() else path
    return blob.name if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name) else None


def remove_from_hub_cache(path: Path) -> None:
    """Delete a file from the cache of huggingface_hub, so that it is downloaded again."""
    (path.parent / path.readlink()).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def find_candidates(sha256: str) -> Iterator[Path]:
    """Yield the weights files in the caches of torch and huggingface_hub that may have a checksum, by their names.

    Args:
        sha256: 64 hex digits.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    for path in sorted(_get_checkpoint_folder().glob("*")):
        named = re.search("-([0-9a-f]{8,64})$", path.stem)  # both libraries write a prefix of it
        if path.suffix in SUFFIXES and (named is None or sha256.startswith(named[1])):
            yield path
    for path in sorted(Path(HF_HUB_CACHE).glob("models--*/snapshots/*/**/*")):
        if path.suffix in SUFFIXES and get_announced_sha256(path) in (sha256, None):
            yield path
