"""A pipeline that cannot be used: an asset in its place says why, and the other pipelines go on."""

import os
import re
from collections.abc import Sequence

import dagster as dg

from tl_dagster.graph.records import Problem

__all__ = ["CHECKING", "build_broken"]

# Dagster sets it while it only checks definitions: then a mistake is an error.
CHECKING = "DAGSTER_IS_DEFS_VALIDATION_CLI"


def build_broken(problem: Problem, folder: Sequence[str], index: int = 0) -> dg.Definitions:
    """Return the definitions of a pipeline that cannot be used: one asset, with the problem, that fails.

    Args:
        problem: what is wrong.
        folder: of the file, from the folder of all declarations.
        index: which document of the file it is.

    Raises:
        DagsterInvalidDefinitionError: Dagster only checks definitions (``dg check defs``); the problem is its message.
    """
    if CHECKING in os.environ:
        raise dg.DagsterInvalidDefinitionError(problem.description)

    @dg.asset(
        key=[*folder, f"broken_{index + 1}" if index else "broken"],
        group_name=re.sub(r"\W", "_", problem.name, flags=re.ASCII) or None,
        description=problem.description,
        metadata={"problem": problem.description},
        kinds={"yaml"},
    )
    def broken() -> None:
        raise dg.Failure(description=problem.description, allow_retries=False)

    return dg.Definitions(assets=[broken])
