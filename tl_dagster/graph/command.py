"""A pipeline's run in the process of a command."""

import dagster as dg

from tl_dagster.graph.executor import COMMAND_TAG
from tl_dagster.graph.project import find_project
from tl_dagster.graph.runs import cancel_runs_of_process, process_tags
from tl_dagster.graph.tags import TRIGGER

__all__ = ["run_pipeline"]


def run_pipeline(name: str) -> bool:
    """Run a pipeline's job in this process, and return whether it succeeded; DAGSTER_HOME has the run.

    Interrupted, the run is canceled.

    Args:
        name: of a pipeline of the project in the working folder.

    Raises:
        InputError: there is no project here, its definitions cannot be loaded, or they have no such pipeline.
    """
    job = find_project().get_job(name)
    instance = dg.DagsterInstance.get()
    tags = {**process_tags(), COMMAND_TAG: "run", TRIGGER: "command"}
    try:
        return dg.execute_job(job, instance, {"loggers": {"progress": {}}}, tags).success
    finally:
        cancel_runs_of_process(instance)  # interrupted before or after its steps, where Dagster leaves it unfinished
