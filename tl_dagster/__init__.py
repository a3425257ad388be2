"""Transfer learning as a graph of Dagster assets, declared in YAML."""

from tl_dagster.declaration import Declaration
from tl_dagster.graph.component import TransferLearning, build_definitions
from tl_dagster.graph.io_manager import ArtifactIOManager
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import ArtifactStore

__all__ = ["ArtifactIOManager", "ArtifactStore", "Declaration", "InputError", "TransferLearning", "build_definitions"]
