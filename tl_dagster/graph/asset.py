"""The Dagster asset of a stage."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import dagster as dg

from tl_dagster.graph.causes import Cause, describe_causes, explain_materialization
from tl_dagster.graph.cluster import step_tags
from tl_dagster.graph.device import choose_device
from tl_dagster.graph.executor import end_with_run
from tl_dagster.graph.gates import require_gates
from tl_dagster.graph.io_manager import get_store
from tl_dagster.graph.metadata import check_result, materialization_metadata, round_number, static_metadata
from tl_dagster.graph.stage import RunInfo, Stage, StageContext
from tl_dagster.graph.tags import COMMIT, GPU_TAG
from tl_dagster.runtime.devices import use_device
from tl_dagster.runtime.errors import InputError, first_line
from tl_dagster.runtime.interrupts import SafeInterrupts
from tl_dagster.runtime.progress import Progress
from tl_dagster.runtime.retries import is_passing_fault
from tl_dagster.store.artifacts import Artifact, FailedCheck, Materialization

__all__ = ["build_asset"]

FIRST_WAIT = 30.0  # seconds before a stage begins again; four times as many each time


def build_asset(stage: Stage, upstream: list[dg.AssetKey]) -> dg.AssetsDefinition:
    """The Dagster asset of a stage.

    Args:
        stage: what runs.
        upstream: assets it follows without reading them.
    """
    pipeline = stage.declaration.name

    @dg.asset(
        key=[pipeline, stage.name],
        ins={name: dg.AssetIn(key=[pipeline, name]) for name in stage.inputs},
        deps=upstream,
        io_manager_key="artifacts",
        group_name=stage.group,
        description=stage.description,
        kinds=set(stage.kinds),
        code_version=stage.code_version(),
        pool="gpu" if stage.gpu else None,
        owners=stage.declaration.owners,
        tags={**stage.declaration.tags, **(GPU_TAG if stage.gpu else {})},
        op_tags=step_tags(stage),
        metadata=static_metadata(stage),
        check_specs=[
            dg.AssetCheckSpec(
                name, asset=[pipeline, stage.name], description=description, blocking=name in stage.blocking_checks
            )
            for name, description in stage.check_descriptions.items()
        ],
        config_schema=_config_schema(stage.run_config),
        freshness_policy=_freshness_policy(stage.freshness_days()),
        output_required=True,
        partitions_def=_partitions(stage),
        backfill_policy=dg.BackfillPolicy.single_run() if stage.partitions() else None,
    )
    # Without a return type: beside checks, Dagster reads any as the type of several outputs.
    def materialize(context: dg.AssetExecutionContext, **inputs: Artifact):  # type: ignore[no-untyped-def]  # noqa: ANN202
        end_with_run()
        store = get_store(context.resources)
        progress = Progress(lambda line: context.log.info(f"{stage.name}: {line}"))
        try:
            with SafeInterrupts(), use_device(choose_device(stage, progress.log)):
                store.check_writable()
                run = RunInfo(context.run.run_id, context.run.tags.get(COMMIT))
                current = store.get_current(pipeline, stage.name)
                config = context.op_execution_context.op_config or {}
                work = StageContext(store, inputs, progress, current, run, config, _chosen(context, stage))
                if stage.is_gated(work):
                    require_gates(store, pipeline, stage.name, stage.inputs)
                begun = time.monotonic()
                held = replace(stage.run(work), seconds=time.monotonic() - begun)
                results = stage.run_checks(work, held)
                files = stage.publish(work, held)
                causes = _explain(context, stage, held)
        except Exception as error:
            if is_passing_fault(error) and context.retry_number < stage.declaration.runs.retries:
                wait = FIRST_WAIT * 4**context.retry_number
                context.log.warning(f"{stage.name}: {error}; again in {wait:.0f} s")
                raise dg.RetryRequested(stage.declaration.runs.retries, wait) from error
            if not isinstance(error, InputError):
                raise
            context.log.error(f"{stage.name}: {error}")
            raise dg.Failure(
                description=str(error), allow_retries=False
            ) from None  # the user's matter, not a traceback's
        context.log.info(
            f"{stage.name}: {'reused' if held.reused else 'computed'} · {held.computed:,} rows computed, "
            f"{held.reused_rows:,} reused · {held.seconds:.1f} s"
        )
        failed = {name: result for name, result in results.items() if not result.passed}
        for name, result in failed.items():
            log = context.log.error if result.blocking else context.log.warning
            log(f"{stage.name}: {name}: {result.description}")
        held = replace(
            held, failed_checks=[FailedCheck(name, each.description, each.blocking) for name, each in failed.items()]
        )
        for key in work.partitions:
            numbers = {name: round_number(value) for name, value in stage.partition_metadata(held, key).items()}
            context.add_asset_metadata(numbers, partition_key=dg.MultiPartitionKey(key))
        return dg.MaterializeResult(
            value=held,
            metadata=materialization_metadata(stage, held, files, [*describe_causes(causes)]),
            data_version=dg.DataVersion(held.artifact.data_version),
            check_results=[check_result(name, result, held) for name, result in results.items()],
        )

    return materialize


def _explain(context: dg.AssetExecutionContext, stage: Stage, held: Materialization) -> Sequence[Cause]:
    """Return why a stage computed something; an answer that cannot be given fails no run."""
    try:
        return explain_materialization(context.instance, stage, held)
    except Exception as error:  # of files of earlier versions, of other people's metadata
        context.log.warning(f"{stage.name}: why it ran cannot be told: {type(error).__name__}: {first_line(error)}")
        return ()


def _partitions(stage: Stage) -> dg.MultiPartitionsDefinition | None:
    dimensions = {name: dg.StaticPartitionsDefinition([*keys]) for name, keys in stage.partitions().items()}
    return dg.MultiPartitionsDefinition(dimensions) if dimensions else None


def _chosen(context: dg.AssetExecutionContext, stage: Stage) -> list[dict[str, str]]:
    """Return dimension → key of each partition that the run materializes."""
    if not stage.partitions():
        return []
    return [dict(key.keys_by_dimension) for key in context.partition_keys if isinstance(key, dg.MultiPartitionKey)]


def _config_schema(texts: Mapping[str, str]) -> dict[str, dg.Field] | None:
    return {
        name: dg.Field(str, default_value="", description=description) for name, description in texts.items()
    } or None


def _freshness_policy(days: float | None) -> dg.FreshnessPolicy | None:
    return None if days is None else dg.FreshnessPolicy.time_window(fail_window=timedelta(days=days))
