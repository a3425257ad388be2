"""The IO manager that passes artifacts from asset to asset by reference."""

from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.scoped_resources_builder import Resources

from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import Artifact, ArtifactStore, Materialization

__all__ = ["ArtifactIOManager", "get_store"]


class ArtifactIOManager(dg.ConfigurableIOManager):
    """Passes artifacts between assets by reference: the files stay in the store.

    Attributes:
        root: the store's folder; the default when empty (see :func:`default_root`).
    """

    root: str = ""

    @property
    def store(self) -> ArtifactStore:
        """The store that this manager reads and writes."""
        return ArtifactStore(Path(self.root) if self.root else None)

    def handle_output(self, context: dg.OutputContext, obj: Materialization) -> None:
        """Point the asset at its artifact."""
        pipeline, asset = context.asset_key.path
        try:
            self.store.set_current(pipeline, asset, obj)
        except InputError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None

    def load_input(self, context: dg.InputContext) -> Artifact:
        """The artifact that the upstream asset holds.

        Raises:
            Failure: the upstream asset has never been materialized, or its artifact was deleted or is damaged.
        """
        pipeline, asset = context.asset_key.path
        try:
            held = self.store.get_current(pipeline, asset)
        except InputError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from None
        if held is None:
            missing = f"{pipeline}/{asset} is not in the store {self.store.root}: materialize it first"
            raise dg.Failure(description=missing, allow_retries=False)
        return held.artifact


def get_store(resources: Resources) -> ArtifactStore:
    """Return the store of the resource ``artifacts``, of a step, a schedule or a sensor that requires it."""
    manager: Any = resources.original_resource_dict["artifacts"]
    store: ArtifactStore = manager.store
    return store
