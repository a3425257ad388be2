"""Imports of torchvision that also work beside a CPU build of torch.

PyPI's torchvision is linked to CUDA. Beside a CPU torch its operators are missing, and importing it fails with
"operator torchvision::nms does not exist". Its models need none of them: their schemas are enough.
"""

from functools import cache
from types import ModuleType
from typing import Any

__all__ = ["import_timm", "import_torchvision"]

_kept: list[Any] = []  # a Library's definitions live as long as it does


@cache
def import_torchvision() -> ModuleType:
    """The torchvision module, whichever build of torch stands beside it."""
    import torch

    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(library)
        _forget("torchvision")  # the failed import left half of it behind
        import torchvision
    module: ModuleType = torchvision
    return module


@cache
def import_timm() -> ModuleType:
    """The timm module (it imports torchvision)."""
    import_torchvision()
    import timm

    return timm


def _forget(package: str) -> None:
    import sys

    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]
