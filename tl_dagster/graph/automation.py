"""Automation of pipelines: a schedule, and a sensor that refreshes one when its data, settings or code changed."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from tl_dagster.declaration import Declaration
from tl_dagster.graph.champions import is_behind
from tl_dagster.graph.io_manager import get_store
from tl_dagster.graph.runs import end_dead_runs, find_runs, find_unfinished_run, is_to_retry
from tl_dagster.graph.stage import Stage
from tl_dagster.graph.stages import STAGES
from tl_dagster.graph.stages.backbone_leaderboard import BackboneLeaderboard
from tl_dagster.graph.stages.dataset import source_context
from tl_dagster.graph.tags import TRIGGER
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import CHAMPION, ArtifactStore
from tl_dagster.store.digests import digest

__all__ = ["build_schedules", "build_sensor", "describe_source", "enabled_stages", "ended_runs", "stages_beside"]

STATE_TAG = "tl_dagster/state"  # of a run that the sensor asked for: what had changed
NOTHING = "nothing to do"
LOOK_SECONDS = 30
PATIENCE_SECONDS = 600.0  # a source that never stops changing is read all the same


def enabled_stages(declaration: Declaration, root: Path) -> list[Stage]:
    """Return the stages that a pipeline has."""
    return [stage(declaration, root) for stage in STAGES if stage.is_enabled(declaration)]


def stages_beside(declaration: Declaration, root: Path) -> list[Stage]:
    """Return the stages beside a pipeline, which its job does not run."""
    return [BackboneLeaderboard(declaration, root)] if BackboneLeaderboard.is_enabled(declaration) else []


def build_schedules(declaration: Declaration, root: Path, job: Any) -> list[dg.ScheduleDefinition]:
    """Return the declared schedule of a pipeline's job: a tick with nothing new starts no run."""
    if declaration.schedule is None:
        return []

    @dg.schedule(
        name=f"{declaration.name}_schedule",
        job=job,
        cron_schedule=declaration.schedule.cron,
        execution_timezone=declaration.schedule.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        required_resource_keys={"artifacts"},
        description="Refreshes the pipeline on each tick, when its data, settings or code changed since it succeeded.",
    )
    def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return decide(context.instance, declaration, root, get_store(context.resources))

    return [tick]


def decide(
    instance: dg.DagsterInstance, declaration: Declaration, root: Path, store: ArtifactStore
) -> dg.RunRequest | dg.SkipReason:
    """Return a request for a run, unless one is at work or the last one for the same state succeeded.

    Args:
        instance: where runs are.
        declaration: the pipeline.
        root: the folder that relative paths in it start from.
        store: where its artifacts are.
    """
    try:
        state = _observe(instance, declaration, root, store)
    except InputError as error:
        return dg.SkipReason(str(error))
    runs = _runs_for(instance, declaration.name, state)
    if runs and runs[0].status is dg.DagsterRunStatus.SUCCESS and not state.missing:
        return dg.SkipReason(NOTHING)
    return dg.RunRequest(tags={STATE_TAG: state.digest, TRIGGER: "schedule"})


def describe_source(declaration: Declaration) -> dg.AssetSpec:
    """Return the asset that stands for the source; each change of it is an observation."""
    return dg.AssetSpec(
        key=[declaration.name, "source"],
        group_name=declaration.name,
        description="The declared source: names, sizes and times of its files.",
    )


def build_sensor(declaration: Declaration, root: Path, job: Any) -> dg.SensorDefinition:
    """Return the sensor that starts a pipeline's job, once for each change; it runs unless switched off.

    It looks by itself: a look that finds nothing new leaves no run and no event. The whole job is run, since what
    did not change is reused, and a failed check stops it as it stops any other run.
    """

    @dg.sensor(
        name=f"{declaration.name}_on_change",
        job=job,
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={"artifacts"},
        description="Refreshes the pipeline when its data, settings or code changed.",
    )
    def on_change(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return look(context, declaration, root, get_store(context.resources))

    return on_change


@dg.sensor(
    minimum_interval_seconds=LOOK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Marks runs whose process is gone as failed, and frees the slots of pools that ended runs hold.",
)
def ended_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """End runs that died; see :func:`tl_dagster.graph.runs.end_dead_runs`."""
    end_dead_runs(context.instance)
    return dg.SkipReason("no run is started by this sensor")


@dataclass(frozen=True)
class _Seen:
    """The cursor of the sensor.

    Attributes:
        state: what was seen last: data, settings, code.
        changing_since: when the first of the changes was seen that no run was for; seconds since 1970, or 0.
        changed_at: when the last of them was seen.
        source: the data version that was observed last.
    """

    state: str = ""
    changing_since: float = 0.0
    changed_at: float = 0.0
    source: str = ""

    def to_json(self) -> str:
        """Return the text that Dagster keeps."""
        return json.dumps(asdict(self))


def look(
    context: dg.SensorEvaluationContext, declaration: Declaration, root: Path, store: ArtifactStore
) -> dg.SensorResult:
    """Return a request for a run if there is something new, and no run is at work.

    Args:
        context: of the sensor.
        declaration: the pipeline.
        root: the folder that relative paths in it start from.
        store: where its artifacts are.
    """
    instance, seen = context.instance, _Seen(**json.loads(context.cursor or "{}"))
    try:
        state = _observe(instance, declaration, root, store)
    except InputError as error:
        return dg.SensorResult(skip_reason=str(error))
    settled = _Seen(state.digest, source=seen.source)
    if _is_done(instance, declaration.name, state):
        return dg.SensorResult(skip_reason=NOTHING, cursor=settled.to_json())
    now = time.time()
    changing_since = seen.changing_since or now
    changed_at = seen.changed_at if state.digest == seen.state else now
    quiet = now - changed_at >= declaration.runs.quiet_seconds or now - changing_since > PATIENCE_SECONDS
    if seen.state and not quiet:  # files may be arriving: one run for all of them
        waiting = replace(settled, changing_since=changing_since, changed_at=changed_at)
        return dg.SensorResult(skip_reason="something changed: waiting for more", cursor=waiting.to_json())
    key, tags = dg.AssetKey([declaration.name, "source"]), {DATA_VERSION_TAG: state.source}
    return dg.SensorResult(
        run_requests=[dg.RunRequest(tags={STATE_TAG: state.digest, TRIGGER: "on_change"})],
        asset_events=[] if state.source == seen.source else [dg.AssetObservation(key, tags=tags)],
        cursor=replace(settled, source=state.source).to_json(),
    )


@dataclass(frozen=True)
class _State:
    """What a run would be for.

    Attributes:
        digest: of data, settings, code and checks.
        source: of the data alone.
        missing: assets that the store does not have.
    """

    digest: str
    source: str
    missing: Sequence[str]


def _observe(instance: dg.DagsterInstance, declaration: Declaration, root: Path, store: ArtifactStore) -> _State:
    """Look at the names, sizes and times of the source's files, at the settings and at the versions of the stages.

    Raises:
        InputError: a run is at work, or the source cannot be listed.
    """
    end_dead_runs(instance)
    if run := find_unfinished_run(instance, declaration.name, beside=False):
        raise InputError(f"run {run.run_id[:8]} works on {declaration.name}")
    source = digest(declaration.source.signature(source_context(store, root)))
    stages = enabled_stages(declaration, root)
    checks = declaration.checks.model_dump(mode="json")
    state = digest([source, {stage.name: stage.code_version() for stage in stages}, checks])[:32]
    missing = [stage.name for stage in stages if store.get_current(declaration.name, stage.name) is None]
    if is_behind(store, declaration.name):  # somebody's decision was not carried out to its end
        missing.append(CHAMPION)
    return _State(state, source, missing)


def _runs_for(instance: dg.DagsterInstance, pipeline: str, state: _State) -> list[dg.DagsterRun]:
    """Return the last runs, as far as all were for this state."""
    return [*takewhile(lambda run: run.tags.get(STATE_TAG) == state.digest, find_runs(instance, pipeline))]


def _is_done(instance: dg.DagsterInstance, pipeline: str, state: _State) -> bool:
    """Return whether the last run was for this state, and ended, well or badly.

    It is repeated where it died, where artifacts were lost, and where somebody else's run came after it.
    """
    runs = _runs_for(instance, pipeline, state)
    if not runs or is_to_retry(runs):
        return False
    return not (state.missing and runs[0].status is dg.DagsterRunStatus.SUCCESS)
