"""The executor of pipelines: one process by default; it says what it waits for, and ends runs that died.

Steps of a pipeline follow each other, and a process of its own for each costs more than a second; so they run in one
process, unless ``multiprocess`` is configured, which keeps a step's crash away from the others.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._core.definitions.executor_definition import IN_PROC_CONFIG, MULTI_PROC_CONFIG
from dagster._core.errors import DagsterExecutionInterruptedError, raise_execution_interrupts
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.execute_plan import inner_plan_execution_iterator
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.executor.base import Executor
from dagster._core.executor.in_process import InProcessExecutor

from tl_dagster.graph.runs import PROCESS_TAG, describe_wait, end_dead_runs, find_earlier_run, process_tags
from tl_dagster.runtime.processes import end_with_parent, identify_process, interrupts_blocked

__all__ = ["EXECUTORS", "end_with_run", "pipeline_executor"]

WATCH_SECONDS = 2.0
RUN_PROCESS = "TL_DAGSTER_RUN_PROCESS"


class WatchedExecutor(Executor):
    """An executor that waits for earlier runs of the same pipeline, says what it waits for, and ends dead runs.

    Args:
        inner: executes the steps.
    """

    def __init__(self, inner: Executor) -> None:
        self._inner = inner

    @property
    def retries(self) -> RetryMode:
        """The retry mode of the inner executor."""
        return self._inner.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """The dependency configuration of the inner executor."""
        return self._inner.step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Yield the events of the steps."""
        instance, run = plan_context.instance, plan_context.dagster_run
        os.environ[RUN_PROCESS] = str(os.getpid())  # inherited by the processes of steps
        ours = run.tags.get(PROCESS_TAG) == identify_process()  # a command made the run, in this process
        if not ours:
            instance.add_run_tags(run.run_id, process_tags())
        try:
            _wait_for_turn(instance, run.run_id, plan_context.log.info)
            with _watch(instance, run.run_id, plan_context.log.info):
                yield from self._inner.execute(plan_context, execution_plan)
        except (KeyboardInterrupt, DagsterExecutionInterruptedError):
            if ours:  # its user stopped it: without this word Dagster takes that for a failure
                instance.report_run_canceling(run)
            raise


def _wait_for_turn(instance: dg.DagsterInstance, run_id: str, log: Callable[[str], None]) -> None:
    logged = None
    while True:
        end_dead_runs(instance)
        run = instance.get_run_by_id(run_id)
        earlier = find_earlier_run(instance, run) if run else None
        if earlier is None:
            return
        if earlier.run_id != logged:
            log(f"waiting for run {earlier.run_id[:8]}, which works on the same pipeline")
            logged = earlier.run_id
        _sleep(WATCH_SECONDS)


def _sleep(seconds: float) -> None:
    with raise_execution_interrupts():  # which are only noted outside of steps
        time.sleep(seconds)


@contextmanager
def _watch(instance: dg.DagsterInstance, run_id: str, log: Callable[[str], None]) -> Iterator[None]:
    """While the steps are executed, end runs that died, and log what this one waits for."""
    finished = threading.Event()

    def watch() -> None:
        logged: set[str] = set()
        while not finished.wait(WATCH_SECONDS):
            waits = set(describe_wait(instance, run_id))
            if waits:
                end_dead_runs(instance)
            for line in sorted(waits - logged):
                log(line)
            logged |= waits

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


class _Slots(InstanceConcurrencyContext):
    """Dagster's claims of slots, asked for once a second: its executor in one process asks without a pause."""

    def interval_to_next_pending_claim_check(self) -> float:
        _sleep(1.0)
        return 0.0


def _iterate(job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Iterator[dg.DagsterEvent]:
    with _Slots(job_context.instance, job_context.dagster_run) as slots:
        events = inner_plan_execution_iterator(job_context, execution_plan, slots)
        with interrupts_blocked():  # in the processes that copy the output of steps to files, too
            first = next(events)
        yield first
        yield from events


class OneProcessExecutor(InProcessExecutor):
    """Dagster's executor in one process, which neither works nor is deaf to interrupts while it waits for a slot."""

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Yield the events of the steps."""
        yield from ExecuteRunWithPlanIterable(
            execution_plan=plan_context.execution_plan,
            iterator=_iterate,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=plan_context.retry_mode,
                execution_plan=plan_context.execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
                step_dependency_config=self.step_dependency_config,
            ),
        )


@dg.executor(
    name="pipeline",
    config_schema=dg.Field(
        dg.Selector({"in_process": IN_PROC_CONFIG, "multiprocess": MULTI_PROC_CONFIG}),  # type: ignore[no-untyped-call]
        default_value={"in_process": {}},
    ),
)
def pipeline_executor(context: dg.InitExecutorContext) -> Executor:
    """Return the executor of a run: all steps in its process, or each in one of its own."""
    create = dg.multi_or_in_process_executor.executor_creation_fn
    if create is None:
        raise TypeError("Dagster's executor cannot be created")
    inner = create(context)
    if isinstance(inner, InProcessExecutor):
        inner = OneProcessExecutor(inner.retries, inner.step_dependency_config)
    return WatchedExecutor(inner)


# compute.executor → the executor of a pipeline's job; None: whatever the project's definitions say.
EXECUTORS = {
    "in_process": pipeline_executor,
    "multiprocess": pipeline_executor.configured(
        {"multiprocess": {"start_method": {"forkserver": {"preload_modules": ["tl_dagster.definitions", "pandas"]}}}}
    ),
    "project": None,
}


def end_with_run() -> None:
    """In a process of a single step, end when the run's process ends: nobody would take the results."""
    if os.environ.get(RUN_PROCESS, str(os.getpid())) != str(os.getpid()):
        end_with_parent()
