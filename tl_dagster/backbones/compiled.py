"""Networks compiled ahead of time for one processor and batch shape (AOTInductor), and their files on this machine.

The one place that uses a private class of torch: its loader of compiled networks, which saves a second of imports.
Where that class is missing or has changed, :func:`torch._inductor.aoti_load_package`, documented, loads the same file.
"""

import os
import platform
import shutil
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tl_dagster.runtime.hardware import cpu_flags
from tl_dagster.store.digests import digest
from tl_dagster.store.files import replace_atomically

__all__ = ["NETWORK_VERSION", "CompiledNetwork", "can_compile", "compile_network", "get_compiled_path", "load_compiled"]

NETWORK_VERSION = 2  # bumped by hand when the network is put together otherwise

CompiledNetwork = Callable[[torch.Tensor], Sequence[torch.Tensor]]  # a batch of the compiled shape → outputs


def can_compile(device_type: str) -> bool:
    """Return whether there is a compiler: Triton on CUDA, else g++ (or $CXX), which inductor calls."""
    return device_type == "cuda" or shutil.which(os.environ.get("CXX", "g++")) is not None


def get_compiled_path(key: Any, batch_size: int, device_type: str) -> Path:
    """Return the file of a compiled network: another one for each processor, library version and number of threads.

    Args:
        key: what determines the network's numbers; JSON-serialisable.
        batch_size: images in one forward pass.
        device_type: "cpu" or "cuda".
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser(), "tl-dagster")
    # Compiled code uses every instruction of the processor that it is made on.
    chip = torch.cuda.get_device_name() if device_type == "cuda" else sorted(cpu_flags())
    libraries = [NETWORK_VERSION, torch.__version__, version("timm"), version("torchvision")]
    made_for = [*libraries, platform.machine(), chip, torch.get_num_threads(), batch_size]
    return home / f"{digest([key, *made_for])}.pt2"


def compile_network(model: torch.nn.Module, images: torch.Tensor, path: Path) -> None:
    """Export a network, compile it with its weights as constants, and put the result at ``path`` in one step.

    Args:
        model: the network, in evaluation mode.
        images: a batch of the shape that it shall be compiled for.
        path: where the package goes.

    Raises:
        Exception: of any kind: networks that cannot be exported and compilers that do not work fail in many ways.
    """
    from torch._inductor import aoti_compile_and_package, config  # loads the compiler: seconds

    with torch.no_grad(), warnings.catch_warnings(), replace_atomically(path) as temporary:
        warnings.simplefilter("ignore")
        package = temporary.with_suffix(".pt2")
        exported = torch.export.export(model, (images,))
        with config.patch(freezing=True):  # weights become constants: batch norm is folded into convolutions
            aoti_compile_and_package(exported, package_path=str(package))
        package.rename(temporary)


def load_compiled(path: Path) -> CompiledNetwork:
    """Load what :func:`compile_network` has written.

    Raises:
        Exception: of any kind, for damaged files.
    """
    try:
        loader = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", False, 1, -1)
        run = loader.boxed_run
    except (AttributeError, TypeError):  # no such class, or one with other arguments
        from torch._inductor import aoti_load_package

        network: CompiledNetwork = aoti_load_package(str(path))
        return network
    return lambda images: run([images])
