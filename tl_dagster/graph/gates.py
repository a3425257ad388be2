"""The gates between assets: what lies below a failed blocking check is not materialized, in no run."""

from tl_dagster.graph.stage import Stage
from tl_dagster.graph.stages import STAGES
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import ArtifactStore

__all__ = ["require_gates"]


def require_gates(store: ArtifactStore, stage: Stage) -> None:
    """Refuse to materialize an asset while one that it is made from, directly or not, fails a blocking check.

    Dagster stops the run in which the check failed; a later run may begin below the failed asset.

    Args:
        store: of the current artifacts, which have their failed checks.
        stage: of the asset.

    Raises:
        InputError: a blocking check failed.
    """
    for name in _find_ancestors(stage):
        held = store.get_current(stage.declaration.name, name)
        for check in held.failed_checks if held else ():
            if check.blocking:
                raise InputError(
                    f"{name} failed its check {check.name}, which stops what lies below: {check.description}; "
                    f"then materialize {name} again"
                )


def _find_ancestors(stage: Stage) -> list[str]:
    """Return the assets that an asset is made from, in graph order."""
    inputs = {each.name: each.inputs for each in STAGES} | {stage.name: stage.inputs}
    found: set[str] = set()
    waiting = [stage.name]
    while waiting:
        new = set(inputs[waiting.pop()]) - found
        found |= new
        waiting += new
    return [each.name for each in STAGES if each.name in found]
