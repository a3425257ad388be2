"""The gates between assets: what lies below a failed blocking check is not materialized, in no run."""

from collections.abc import Sequence

from tl_dagster.graph.stages import STAGES
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import ArtifactStore

__all__ = ["require_gates"]


def require_gates(store: ArtifactStore, pipeline: str, asset: str, inputs: Sequence[str]) -> None:
    """Refuse to materialize an asset while one that it is made from, directly or not, fails a blocking check.

    Dagster stops the run in which the check failed; a later run may begin below the failed asset.

    Args:
        store: of the current artifacts, which have their failed checks.
        pipeline: its name.
        asset: the asset's name.
        inputs: the assets that it reads.

    Raises:
        InputError: a blocking check failed.
    """
    for name in _find_ancestors(asset, inputs):
        held = store.get_current(pipeline, name)
        for check in held.failed_checks if held else ():
            if check.blocking:
                raise InputError(
                    f"{name} failed its check {check.name}, which stops what lies below: {check.description}; "
                    f"then materialize {name} again"
                )


def _find_ancestors(asset: str, read: Sequence[str]) -> list[str]:
    """Return the assets that an asset is made from, in graph order."""
    inputs = {each.name: each.inputs for each in STAGES} | {asset: tuple(read)}
    found: set[str] = set()
    waiting = [asset]
    while waiting:
        new = set(inputs[waiting.pop()]) - found
        found |= new
        waiting += new
    return [each.name for each in STAGES if each.name in found]
