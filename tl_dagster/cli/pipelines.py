"""The pipelines that a command may name."""

from typing import TYPE_CHECKING

from tl_dagster.runtime.errors import InputError, suggest

if TYPE_CHECKING:
    from tl_dagster.store.artifacts import ArtifactStore

__all__ = ["nothing_of", "require_pipeline"]


def require_pipeline(pipeline: str, otherwise: str | None = None) -> "ArtifactStore":
    """Return the store, which has something of a pipeline.

    Args:
        pipeline: its name.
        otherwise: the hint where the store has no pipeline at all; how to run it, when None.

    Raises:
        InputError: it has nothing of it.
    """
    from tl_dagster.store.artifacts import ArtifactStore

    store = ArtifactStore()
    if pipeline not in store.layout.pipelines():
        raise nothing_of(store, pipeline, otherwise)
    return store


def nothing_of(store: "ArtifactStore", pipeline: str, otherwise: str | None = None) -> InputError:
    """Return the error that a store has nothing of a pipeline, with the nearest name; see :func:`require_pipeline`."""
    known = store.layout.pipelines()
    hint = suggest(pipeline, known) if known else otherwise or f"run it first: tl-dagster run {pipeline}"
    return InputError(f"nothing of '{pipeline}' is in the store {store.root}: {hint}")
