"""A pipeline's run in the process of a command."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from tl_dagster.graph.history import open_instance
from tl_dagster.graph.project import find_project
from tl_dagster.graph.runs import cancel_runs_of_process, process_tags
from tl_dagster.graph.tags import TRIGGER, leaderboard_job
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import LEADERBOARD, ArtifactStore

__all__ = ["run_leaderboard", "run_pipeline"]


def run_pipeline(name: str) -> bool:
    """Run a pipeline's job in this process, and return whether it succeeded; DAGSTER_HOME has the run.

    Interrupted, the run is canceled.

    Args:
        name: of a pipeline of the project in the working folder.

    Raises:
        InputError: there is no project here, its definitions cannot be loaded, they have no such pipeline, or
            there is no instance.
    """
    return _execute(find_project().get_job(name), {})


def run_leaderboard(name: str) -> bool:
    """Run every partition of a pipeline's leaderboard in this process; see :func:`run_pipeline`.

    Raises:
        InputError: as there, or the pipeline declares no leaderboard.
    """
    project = find_project()
    if project.get_declaration(name).backbone_leaderboard is None:
        raise InputError(f"{name} declares no {LEADERBOARD}: add it to its YAML, such as backbone_leaderboard: {{}}")
    for asset in ("dataset", "augmented_splits"):
        if ArtifactStore().get_current(name, asset) is None:
            raise InputError(f"{name}/{asset} is not in the store: tl-dagster run {name} first")
    job = project.get_job(leaderboard_job(name))
    partitions = job.get_definition().partitions_def
    keys = partitions.get_partition_keys() if partitions else [""]
    return _execute(job, {ASSET_PARTITION_RANGE_START_TAG: keys[0], ASSET_PARTITION_RANGE_END_TAG: keys[-1]})


def _execute(job: ReconstructableJob, tags: Mapping[str, str]) -> bool:
    with open_instance() as instance:
        try:
            config: dict[str, Any] = {"loggers": {"progress": {}}}
            return dg.execute_job(job, instance, config, {**process_tags(), TRIGGER: "command", **tags}).success
        finally:
            cancel_runs_of_process(instance)  # interrupted before or after its steps: Dagster leaves it unfinished
