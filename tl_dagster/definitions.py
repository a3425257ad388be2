"""The code location: every pipeline declared in the project around the working folder."""

import dagster as dg

from tl_dagster.graph.project import find_project, get_working_directory
from tl_dagster.graph.records import record_root, recorded_root
from tl_dagster.graph.tree import load_definitions

__all__ = ["defs"]


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the project; those of a run are its own, from whatever folder its processes start."""
    root = recorded_root() or find_project(get_working_directory()).root
    record_root(root)
    return load_definitions(root)
