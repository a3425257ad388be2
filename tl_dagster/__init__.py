"""Transfer learning as a graph of Dagster assets, declared in YAML."""

from tl_dagster.artifacts import ArtifactIOManager, ArtifactStore
from tl_dagster.component import TransferLearning, build_definitions
from tl_dagster.errors import InputError
from tl_dagster.spec import Declaration

__all__ = ["ArtifactIOManager", "ArtifactStore", "Declaration", "InputError", "TransferLearning", "build_definitions"]
