"""Automation of pipelines: a schedule, and a refresh when data, settings or code changed."""

from pathlib import Path
from typing import Any

import dagster as dg

from tl_dagster.declaration import Declaration
from tl_dagster.graph.stages.dataset import source_context
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import ArtifactStore
from tl_dagster.store.digests import digest

__all__ = ["on_change", "schedule", "sensor", "source_asset"]


def schedule(declaration: Declaration, job: Any) -> list[dg.ScheduleDefinition]:
    """Return the declared schedule of a pipeline's job; what did not change since the last tick is reused."""
    if declaration.schedule is None:
        return []
    return [
        dg.ScheduleDefinition(
            name=f"{declaration.name}_schedule",
            job=job,
            cron_schedule=declaration.schedule.cron,
            execution_timezone=declaration.schedule.timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
    ]


def on_change() -> dg.AutomationCondition[Any]:
    """Return the condition that materializes what is missing, and what a change reached; once for each change.

    A change is one of code, settings or inputs.

    `will_be_requested` carries a change through the whole chain in one tick; staleness alone would refresh one
    layer at a time.
    """
    changed_upstream = dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
    )
    changed: dg.AutomationCondition[Any] = (
        dg.AutomationCondition.newly_missing() | dg.AutomationCondition.code_version_changed() | changed_upstream
    )
    # `since_last_handled` starts counting at the first evaluation, when all of a new pipeline is missing.
    new: dg.AutomationCondition[Any] = dg.AutomationCondition.initial_evaluation() & dg.AutomationCondition.missing()
    return changed.since_last_handled() | new


def source_asset(declaration: Declaration, root: Path) -> dg.SourceAsset:
    """Return the asset that observes the source every minute: names, sizes and times of its files."""

    @dg.observable_source_asset(
        key=[declaration.name, "source"],
        group_name=declaration.name,
        description="The declared source: names, sizes and times of its files. A change of any starts the chain.",
        automation_condition=dg.AutomationCondition.on_cron("* * * * *"),
        required_resource_keys={"artifacts"},
    )
    def source(context: dg.OpExecutionContext) -> dg.DataVersion:
        store: ArtifactStore = context.resources.original_resource_dict["artifacts"].store
        try:
            return dg.DataVersion(digest(declaration.source.signature(source_context(store, root))))
        except InputError:
            return dg.DataVersion("missing")

    return source


def sensor(declaration: Declaration) -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that evaluates the pipeline's conditions; it runs unless switched off."""
    return dg.AutomationConditionSensorDefinition(
        name=f"{declaration.name}_on_change",
        target=dg.AssetSelection.groups(declaration.name, include_sources=True),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
    )
