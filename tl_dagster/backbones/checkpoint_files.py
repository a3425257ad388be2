"""Reading of weights files: safetensors, or what torch.save wrote; recognised by their content, not by their names."""

import argparse
import codecs
import contextlib
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tl_dagster.runtime.errors import InputError, first_line

__all__ = ["read_checkpoint"]

# Where checkpoints hold their weights. Averaged weights come first, as in timm: they are the ones that were evaluated.
WRAPPERS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema", "teacher"),
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "student"),
    *("backbone", "encoder", "params", "weights", "state"),
)
# Beginnings of files that are often taken for weights: (what they are, the mend).
OTHERS = {
    b"version https://git-lfs": ("a Git LFS pointer, not the weights", "fetch them: git lfs pull"),
    b"<": ("a web page, not weights", "download the file itself"),
    b"\x89HDF": ("an HDF5 file (of Keras or TensorFlow)", "convert it to PyTorch"),
    b"\x1f\x8b": ("compressed with gzip", "unpack it"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it"),
}
SAVE = "save the weights alone: torch.save(model.state_dict(), path)"
AGAIN = "copy or download it again"
# Harmless values that training scripts store beside the weights; torch itself refuses them.
HARMLESS: list[Any] = [
    argparse.Namespace,
    codecs.encode,
    np.dtype,
    np.ndarray,
    *(each for name, each in vars(np.dtypes).items() if name.endswith("DType") and isinstance(each, type)),
    *((getattr(pathlib, name), f"pathlib.{name}") for name in ("PosixPath", "PurePosixPath")),
    *(
        (getattr(np._core.multiarray, name), f"numpy.{core}.multiarray.{name}")  # type: ignore[attr-defined]
        for name in ("scalar", "_reconstruct")
        for core in ("core", "_core")
    ),
]


def read_checkpoint(path: Path, *, mapped: bool = False) -> dict[str, torch.Tensor]:
    """Return the tensors of a weights file by name, on the CPU.

    Args:
        path: the file.
        mapped: leave their values on the disk where the format admits it, for a look at names and shapes.

    Raises:
        InputError: it is empty, cut short, another kind of file, or does not hold tensors by name.
    """
    try:
        kind = _recognise(path)
        content: Any = load_file(path) if kind == "safetensors" else _load_pickle(path, mapped=mapped)
    except (SafetensorError, EOFError, OSError, RuntimeError) as error:
        raise InputError(f"backbone.weights: {path} is cut short or damaged ({_describe(error)}); {AGAIN}") from error
    state = _unwrap(content)
    if not state:
        held = f"a {type(content).__name__}" if not isinstance(content, Mapping) else f"only {_names(content)}"
        raise InputError(f"backbone.weights: {path} holds {held}, not tensors by name; {SAVE}")
    return state


def _recognise(path: Path) -> str:
    """Return "safetensors" or "torch", by the first bytes."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise InputError(f"backbone.weights: {path} is empty; {AGAIN}")
    for begin, (kind, mend) in OTHERS.items():
        if head.lstrip().startswith(begin):
            raise InputError(f"backbone.weights: {path} is {kind}; {mend}")
    if head[8:9] == b"{":  # after the length of a JSON header
        return "safetensors"
    if head.startswith(b"PK\x03\x04"):
        _check_archive(path)
        return "torch"
    if head.startswith(b"\x80\x02"):  # as torch wrote it before 1.6
        return "torch"
    raise InputError(
        f"backbone.weights: {path} is neither a safetensors file nor one that torch.save wrote; give such a file"
    )


def _check_archive(path: Path) -> None:
    """Refuse a whole zip archive that torch.save did not write."""
    if not zipfile.is_zipfile(path):  # cut short: the list of its files is at the end
        return
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any("/code/" in name for name in names):
        raise InputError(
            f"backbone.weights: {path} is a TorchScript archive; "
            "save its weights alone: torch.save(torch.jit.load(path).state_dict(), …)"
        )
    if not any(name.endswith("data.pkl") for name in names):
        raise InputError(f"backbone.weights: {path} is a zip archive of other files; unpack it, and give the weights")


def _load_pickle(path: Path, *, mapped: bool) -> Any:
    try:
        with torch.serialization.safe_globals(HARMLESS):
            if mapped and path.suffix != ".safetensors":
                with contextlib.suppress(RuntimeError):  # files of before torch 1.6
                    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with path.open("rb") as file:  # torch would believe the name's suffix
                return torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, AttributeError, KeyError, TypeError, ValueError) as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise InputError(
                f"backbone.weights: {path} is damaged, or torch.save did not write it ({_describe(error)}); {AGAIN}"
            ) from error
        raise InputError(
            f"backbone.weights: {path} holds an object of {found[1]}, such as a whole model: to read it would run code "
            f"from the file; {SAVE}"
        ) from error


def _unwrap(content: Any) -> dict[str, torch.Tensor]:
    """Return the tensors by name that a checkpoint holds, under whichever of the usual names; empty: none."""
    if not isinstance(content, Mapping):
        return {}
    state = {
        name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if any("." in name for name in state):
        return state
    inner = [_unwrap(content[name]) for name in WRAPPERS if name in content]
    return next(filter(None, inner), state)


def _names(content: Mapping[Any, Any]) -> str:
    return ", ".join(str(name) for name in [*content][:8]) or "an empty dictionary"


def _describe(error: Exception) -> str:
    return (first_line(error) or type(error).__name__)[:120]
