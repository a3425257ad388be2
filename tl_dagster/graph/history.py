"""The pipelines that the Dagster instance remembers: their states after runs, and before the last change."""

from collections.abc import Iterator, Mapping, Sequence

import dagster as dg
from dagster import AssetRecordsFilter
from dagster._core.definitions.data_version import CODE_VERSION_TAG, DATA_VERSION_TAG

from tl_dagster.graph.differences import AssetState, PipelineState
from tl_dagster.graph.runs import end_dead_runs, find_unfinished_run
from tl_dagster.graph.tags import COMMIT
from tl_dagster.runtime.errors import InputError, first_line, suggest

__all__ = ["find_state", "find_states", "forget_assets", "open_instance", "read_history", "require_no_runs"]

PAGE, MOST_EVENTS = 10, 200  # materializations of an asset that are looked through for a change
SHORTEST = 6  # letters of a run's id


def open_instance() -> dg.DagsterInstance:
    """Return the instance of DAGSTER_HOME.

    Raises:
        InputError: the folder is not there, or cannot be used.
    """
    try:
        return dg.DagsterInstance.get()
    except (dg.DagsterError, OSError) as error:
        raise InputError(f"no Dagster instance: {first_line(error)}; set DAGSTER_HOME") from error


def find_states(instance: dg.DagsterInstance, pipeline: str) -> tuple[PipelineState, PipelineState]:
    """Return a pipeline before the last run that changed something, and now.

    Raises:
        InputError: there is no such pipeline, or it never changed.
    """
    keys = _find_keys(instance, pipeline)
    if not keys:
        raise InputError(_describe_unknown(instance, pipeline))
    changes = [change for key in keys if (change := _find_last_change(instance, key))]
    last = max(changes, key=lambda change: change.timestamp, default=None)
    begin = _begin_of(instance, last) if last else None
    before = _read_state(instance, f"{pipeline} before", keys, begin)
    if last is None or not before.assets:
        raise InputError(f"'{pipeline}' has not changed since it was first run: there is no earlier state to compare")
    return before, _read_state(instance, f"{pipeline} now", keys, None)


def find_state(instance: dg.DagsterInstance, reference: str) -> PipelineState:
    """Return a pipeline as it is now, or as it was after a run.

    Args:
        instance: where the runs are.
        reference: the pipeline's name, or the id of a run (its first six letters at least).

    Raises:
        InputError: there is neither, or the run materialized nothing, or several pipelines.
    """
    if keys := _find_keys(instance, reference):
        return _read_state(instance, reference, keys, None)
    run_id = _find_run(instance, reference)
    pipelines = sorted({key.path[0] for key in instance.get_asset_keys_for_run(run_id) if len(key.path) == 2})
    if len(pipelines) != 1:
        named = f"several pipelines ({', '.join(pipelines)})" if pipelines else "nothing"
        raise InputError(f"run {reference} materialized {named}: name a run of one pipeline")
    record = instance.get_run_record_by_id(run_id)
    end = record.end_time if record else None
    keys = _find_keys(instance, pipelines[0])
    return _read_state(instance, f"{pipelines[0]} after run {run_id[:8]}", keys, end and end + 1e-3)


def forget_assets(instance: dg.DagsterInstance, pipeline: str, *, dry_run: bool) -> int:
    """Delete what the instance remembers of a pipeline's assets, and return how many there are; runs stay."""
    keys = _find_keys(instance, pipeline)
    if keys and not dry_run:
        instance.wipe_assets(keys)
    return len(keys)


def require_no_runs(instance: dg.DagsterInstance, pipeline: str | None = None) -> None:
    """Refuse while a run is at work, of one pipeline or of any.

    Raises:
        InputError: one is; the message has its id.
    """
    end_dead_runs(instance)
    if run := find_unfinished_run(instance, pipeline):
        raise InputError(f"run {run.run_id[:8]} of {run.job_name} is at work: wait for its end, or terminate it")


def read_history(instance: dg.DagsterInstance, pipeline: str, asset: str) -> Iterator[AssetState]:
    """Yield the materializations of an asset, the last one first: at most the last two hundred."""
    for record in _fetch(instance, dg.AssetKey([pipeline, asset])):
        if record.asset_materialization:
            yield _read_asset(record, record.asset_materialization)


def _fetch(instance: dg.DagsterInstance, key: dg.AssetKey) -> Iterator[dg.EventLogRecord]:
    """Yield the records of the last materializations of an asset, page by page, the last one first."""
    cursor = None
    for _ in range(MOST_EVENTS // PAGE):
        page = instance.fetch_materializations(key, limit=PAGE, cursor=cursor)
        yield from page.records
        cursor = page.cursor
        if not page.has_more:
            return


def _find_keys(instance: dg.DagsterInstance, pipeline: str) -> Sequence[dg.AssetKey]:
    return [key for key in instance.get_asset_keys(prefix=[pipeline]) if len(key.path) == 2]


def _find_run(instance: dg.DagsterInstance, reference: str) -> str:
    found = [] if len(reference) < SHORTEST else [each for each in instance.get_run_ids() if each.startswith(reference)]
    if len(found) > 1:
        raise InputError(f"{len(found)} runs begin with '{reference}': give more letters of the id")
    if not found:
        raise InputError(_describe_unknown(instance, reference))
    return found[0]


def _describe_unknown(instance: dg.DagsterInstance, reference: str) -> str:
    known = sorted({key.path[0] for key in instance.get_asset_keys() if len(key.path) == 2})
    hint = suggest(reference, known) if known else "nothing was run yet"
    return f"no pipeline or run '{reference}' in the instance {instance.root_directory}: {hint}"


def _find_last_change(instance: dg.DagsterInstance, key: dg.AssetKey) -> dg.EventLogRecord | None:
    """Return the first materialization of an asset with its present data and code version."""
    first, versions = None, None
    for record in _fetch(instance, key):
        tags = (record.asset_materialization.tags if record.asset_materialization else None) or {}
        found = tags.get(DATA_VERSION_TAG), tags.get(CODE_VERSION_TAG)
        if versions not in (None, found):
            return first
        first, versions = record, found
    return first


def _begin_of(instance: dg.DagsterInstance, change: dg.EventLogRecord) -> float:
    """Return when the run of a materialization began, in seconds since 1970."""
    run = instance.get_run_record_by_id(change.run_id)
    return run.start_time if run and run.start_time else change.timestamp


def _read_state(
    instance: dg.DagsterInstance, title: str, keys: Sequence[dg.AssetKey], before: float | None
) -> PipelineState:
    """Return the last materialization of each asset before a time (seconds since 1970)."""
    assets, last = {}, None
    for key in keys:
        chosen = AssetRecordsFilter(asset_key=key, before_timestamp=before)
        records = instance.fetch_materializations(chosen, limit=1).records
        if records and records[0].asset_materialization:
            assets[key.path[1]] = _read_asset(records[0], records[0].asset_materialization)
            last = max(records[0], last or records[0], key=lambda record: record.timestamp)
    run = instance.get_run_by_id(last.run_id) if last else None
    return PipelineState(title, run.run_id if run else None, run.tags.get(COMMIT) if run else None, assets)


def _read_asset(record: dg.EventLogRecord, materialization: dg.AssetMaterialization) -> AssetState:
    tags = materialization.tags or {}
    values = {name: value.value for name, value in materialization.metadata.items()}
    settings = values.get("settings")
    return AssetState(
        data_version=tags.get(DATA_VERSION_TAG, ""),
        stage_version=tags.get(CODE_VERSION_TAG, "").partition("-")[0],
        settings=settings if isinstance(settings, Mapping) else None,
        values={name: value for name, value in values.items() if isinstance(value, int | float | str | Mapping)},
        path=str(values.get("path", "")),
        run_id=record.run_id,
        time=record.timestamp,
    )
