"""Decisions that were taken outside of runs, as Dagster shows them."""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from tl_dagster.graph.champions import is_behind, materialize_decision, open_registry
from tl_dagster.graph.metadata import artifact_metadata
from tl_dagster.store.artifacts import CHAMPION, MODEL, ArtifactStore
from tl_dagster.store.registry import Decision

__all__ = ["finish_decision", "record_decision"]


def finish_decision(instance: dg.DagsterInstance, store: ArtifactStore, pipeline: str) -> str:
    """Make the last decision the asset's current artifact where a process died before it did; return a line on it.

    Returns:
        "" where nothing is left to do.
    """
    if not is_behind(store, pipeline):
        return ""
    line = record_decision(instance, store, pipeline, open_registry(store, pipeline).decisions())
    return (
        f"finished the decision before, whose process had ended: {line}; look, then repeat yours if it is still wanted"
    )


def record_decision(
    instance: dg.DagsterInstance, store: ArtifactStore, pipeline: str, decisions: Sequence[Decision]
) -> str:
    """Make the last of some decisions the asset's current artifact, in the store and in Dagster; return a line on it.

    Raises:
        DiskError: the store cannot be written.
    """
    materialization, last = materialize_decision(store, decisions), decisions[-1]
    store.set_current(pipeline, CHAMPION, materialization)
    artifact, key = materialization.artifact, dg.AssetKey([pipeline, CHAMPION])
    event = instance.get_latest_materialization_event(key)
    before = (event.asset_materialization if event else None) or dg.AssetMaterialization(key)
    kept = {name: before.metadata[name] for name in ("settings", "inputs") if name in before.metadata}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            key,
            metadata={
                "result": last.reason,
                **artifact_metadata(artifact),
                **kept,
                "path": dg.MetadataValue.path(artifact.path),
            },
            tags={**(before.tags or {}), DATA_VERSION_TAG: artifact.data_version},
        )
    )
    model = store.layout.artifact(MODEL, last.champion) if last.champion else "no model"
    return f"in service: {model} (decision {last.number}: {last.kind} {last.reason})"
