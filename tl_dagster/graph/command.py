"""A pipeline's run in the process of a command."""

import dagster as dg

from tl_dagster.graph.history import open_instance
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
        InputError: there is no project here, its definitions cannot be loaded, they have no such pipeline, or
            there is no instance.
    """
    job = find_project().get_job(name)
    with open_instance() as instance:
        try:
            return dg.execute_job(
                job, instance, {"loggers": {"progress": {}}}, {**process_tags(), TRIGGER: "command"}
            ).success
        finally:
            cancel_runs_of_process(instance)  # interrupted before or after its steps: Dagster leaves it unfinished
