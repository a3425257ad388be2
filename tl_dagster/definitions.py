"""The code location: every pipeline declared under ``assets/``."""

from pathlib import Path

import dagster as dg

from tl_dagster.graph.automation import ended_runs
from tl_dagster.graph.executor import pipeline_executor
from tl_dagster.graph.io_manager import ArtifactIOManager
from tl_dagster.graph.logging import run_logger

__all__ = ["defs"]


@dg.definitions
def defs() -> dg.Definitions:
    """Return the declared pipelines of the project in the working folder, with the artifact store they share."""
    declared = dg.load_from_defs_folder(path_within_project=Path.cwd())
    shared = dg.Definitions(
        resources={"artifacts": ArtifactIOManager()},
        loggers={"progress": run_logger},
        executor=pipeline_executor,
        sensors=[ended_runs],
    )
    return dg.Definitions.merge(declared, shared)
