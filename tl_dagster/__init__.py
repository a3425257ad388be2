"""Transfer learning as a graph of Dagster assets, declared in YAML.

The public names are imported when they are first used: ``import tl_dagster`` loads neither Dagster nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_dagster.declaration import Declaration
    from tl_dagster.graph.component import TransferLearning, build_definitions
    from tl_dagster.graph.io_manager import ArtifactIOManager
    from tl_dagster.graph.tree import load_definitions
    from tl_dagster.models.classifier import ImageClassifier
    from tl_dagster.runtime.errors import InputError
    from tl_dagster.store.artifacts import ArtifactStore

__all__ = [
    "ArtifactIOManager",
    "ArtifactStore",
    "Declaration",
    "ImageClassifier",
    "InputError",
    "TransferLearning",
    "__version__",
    "build_definitions",
    "load_definitions",
]

__version__ = "0.1.0"

LOAD_TORCH = {"ImageClassifier"}
_HOMES = {
    "ArtifactIOManager": "graph.io_manager",
    "ArtifactStore": "store.artifacts",
    "Declaration": "declaration",
    "ImageClassifier": "models.classifier",
    "InputError": "runtime.errors",
    "TransferLearning": "graph.component",
    "build_definitions": "graph.component",
    "load_definitions": "graph.tree",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tl_dagster' has no attribute '{name}'")
    value = getattr(import_module(f"tl_dagster.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    # Dagster's registry of components gets every name listed here: what loads torch is left out.
    return sorted({*globals(), *__all__} - LOAD_TORCH)
