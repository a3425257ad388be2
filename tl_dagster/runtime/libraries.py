"""Imports of torchvision and timm that also work beside a CPU build of torch.

PyPI's torchvision is linked to CUDA. Beside a CPU torch its operators are missing, and importing it fails with
"operator torchvision::nms does not exist". Its models need none of them: their schemas are enough.
"""

import importlib
import sys
from functools import cache
from types import ModuleType
from typing import Any

__all__ = ["import_timm", "import_torchvision"]

SCHEMAS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))
_libraries: list[Any] = []  # the definitions of a torch.library.Library live as long as the object does


@cache
def import_torchvision(submodule: str = "") -> ModuleType:
    """Return torchvision, or one of its submodules, whichever build of torch is installed.

    Args:
        submodule: dotted path below the package, such as "models.feature_extraction".
    """
    name = ".".join(filter(None, ("torchvision", submodule)))
    try:
        return importlib.import_module(name)
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    _define_operators()
    _remove_partial_import("torchvision")
    return importlib.import_module(name)


@cache
def import_timm() -> ModuleType:
    """Return timm, which imports torchvision."""
    import_torchvision()
    return importlib.import_module("timm")


def _define_operators() -> None:
    """Define the schemas of the operators that torchvision registers kernels for while it is imported."""
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    _libraries.append(library)


def _remove_partial_import(package: str) -> None:
    """Remove the modules that a failed import has left in ``sys.modules``."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]
