"""The code location: every pipeline declared in the project around the working folder."""

from pathlib import Path

import dagster as dg
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from tl_dagster.graph.executor import pipeline_executor
from tl_dagster.graph.records import record_root, recorded_root
from tl_dagster.graph.root import require_root
from tl_dagster.graph.tree import load_definitions

__all__ = ["defs"]


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the project; those of a run are its own, from whatever folder its processes start."""
    root = recorded_root() or require_root(_get_working_directory())
    record_root(root)
    return dg.Definitions.merge(load_definitions(root), dg.Definitions(executor=pipeline_executor))


def _get_working_directory() -> Path:
    """Return the folder that a workspace.yaml or Dagster's command names, else the working folder."""
    try:
        return Path(LoadableTargetOrigin.get().working_directory or "").absolute()
    except dg.DagsterInvariantViolationError:  # none is being loaded
        return Path.cwd()
