"""Alerts: what happened to a pipeline that somebody should know, sent to a webhook, once for each cause.

A sensor looks every half minute, so that a webhook which does not answer fails no run. Its cursor says what was sent.
"""

import json
import os
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus, RunsFilter

from tl_dagster.declaration import Declaration
from tl_dagster.graph.champions import open_registry
from tl_dagster.graph.io_manager import get_store
from tl_dagster.graph.runs import DIED_TAG, pipelines_of_run
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import DATASET, FEATURES, ArtifactStore
from tl_dagster.store.registry import Decision, get_champion, since_last_move

__all__ = ["Alert", "build_alerts", "send"]

LOOK_SECONDS = 30
ANSWER_SECONDS = 5.0
ATTEMPTS = 5  # to send one alert, at one look each
DAY = 86_400.0
DRIFT = ("drift", "feature_drift")  # checks
MOST_RUNS, REMEMBERED = 500, 500
MOST_LETTERS = 300  # of an error
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MEMORY = ("outofmemory", "out of memory", "memoryerror", "cannot allocate memory")


@dataclass(frozen=True)
class Alert:
    """Something that somebody should know.

    Attributes:
        kind: "failure", "promotion", "kept" (a challenger was turned down), "stale" or "drift".
        pipeline: its name.
        text: one or two lines.
        tries: how often it could not be sent.
    """

    kind: str
    pipeline: str
    text: str
    tries: int = 0


@dataclass(frozen=True)
class _Seen:
    """The cursor of the sensor.

    Attributes:
        since: the time up to which runs were looked at, in seconds since 1970.
        runs: ids of the runs that were looked at last: a tag that a run gets later is no second end.
        decision: number of the last decision that was looked at.
        stale: number of the decision whose champion was said to be stale.
        drift: the data version of which drift was said.
        waiting: alerts that could not be sent.
    """

    since: float = 0.0
    runs: tuple[str, ...] = ()
    decision: int = 0
    stale: str = ""
    drift: str = ""
    waiting: tuple[Alert, ...] = ()


def build_alerts(declaration: Declaration) -> list[dg.SensorDefinition]:
    """Return the sensor that sends a pipeline's alerts, where they are declared."""
    alerts = declaration.alerts
    if alerts is None:
        return []

    @dg.sensor(
        name=f"{declaration.name}_alerts",
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={"artifacts"},
        description="Sends what happened to the pipeline to the declared webhook, once.",
    )
    def tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        found, seen = _collect(context.instance, get_store(context.resources), declaration, context.cursor)
        wanted = [alert for alert in found if alert.kind in alerts.on]
        for alert in wanted:
            context.log.warning(f"{alert.kind}: {alert.text}")
        left, problem = _send_all(alerts.webhook_env, wanted)
        kept = [each for each in (replace(alert, tries=alert.tries + 1) for alert in left) if each.tries < ATTEMPTS]
        if len(kept) < len(left):
            context.log.error(f"{len(left) - len(kept)} alerts are dropped after {ATTEMPTS} attempts: {problem}")
        said = f"{len(wanted) - len(left)} alerts sent" if wanted else "nothing to say"
        seen = replace(seen, waiting=tuple(kept))
        return dg.SensorResult(skip_reason=problem or said, cursor=json.dumps(asdict(seen)))

    return [tick]


def _collect(
    instance: dg.DagsterInstance, store: ArtifactStore, declaration: Declaration, cursor: str | None
) -> tuple[list[Alert], _Seen]:
    """Return the alerts that were not sent yet, and what is seen now; the first look sends nothing old.

    Args:
        instance: where the runs are.
        store: where artifacts and decisions are.
        declaration: the pipeline.
        cursor: of the last look; None: this is the first one.
    """
    seen, pipeline = _load(cursor), declaration.name
    decisions = open_registry(store, pipeline).decisions()
    if not cursor:
        seen = replace(seen, since=time.time(), decision=len(decisions))
    found = [*seen.waiting]
    for record in _ended_runs(instance, pipeline, seen):
        run, ended = record.dagster_run, record.update_timestamp.timestamp()
        seen = replace(seen, since=max(ended, seen.since), runs=(*seen.runs, run.run_id)[-REMEMBERED:])
        if run.status is DagsterRunStatus.FAILURE:
            found.append(Alert("failure", pipeline, _describe_failure(instance, run)))
    found += [_describe_decision(pipeline, each) for each in decisions[seen.decision :]]
    seen = replace(seen, decision=len(decisions), waiting=())
    if text := _describe_stale(declaration, decisions, seen):
        found.append(Alert("stale", pipeline, text))
        seen = replace(seen, stale=str(since_last_move(decisions)[0].number))
    if drifted := _find_drift(store, pipeline):
        version, text = drifted
        if version != seen.drift:
            found.append(Alert("drift", pipeline, text))
            seen = replace(seen, drift=version)
    return found, seen


def _load(cursor: str | None) -> _Seen:
    values = json.loads(cursor or "{}")
    waiting = tuple(Alert(**each) for each in values.pop("waiting", ()))
    return _Seen(**{**values, "runs": tuple(values.get("runs", ())), "waiting": waiting})


def _ended_runs(instance: dg.DagsterInstance, pipeline: str, seen: _Seen) -> Iterator[dg.RunRecord]:
    """Yield the runs of a pipeline that ended since the last look, the first one first."""
    ended = RunsFilter(
        statuses=[DagsterRunStatus.FAILURE, DagsterRunStatus.SUCCESS, DagsterRunStatus.CANCELED],
        updated_after=datetime.fromtimestamp(seen.since - 1, UTC),
    )
    for record in instance.get_run_records(ended, limit=MOST_RUNS, order_by="update_timestamp", ascending=True):
        if record.dagster_run.run_id not in seen.runs and pipeline in pipelines_of_run(record.dagster_run):
            yield record


def _describe_failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Return what ended a run: its kind, the step, and the message."""
    if DIED_TAG in run.tags:
        return f"run {run.run_id[:8]} was killed: its process is gone; the next run goes on with what it computed"
    for record in instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_FAILURE):
        event = record.dagster_event
        if event is None or event.step_failure_data.error is None:
            continue
        error, failure = event.step_failure_data.error, event.step_failure_data.user_failure_data
        name = error.cls_name or ""
        whole = " ".join(error.message.rpartition(f"{name}: ")[2].split())
        message = (failure.description if failure else None) or whole[:MOST_LETTERS]
        kind = _classify(name, message, bad_input=failure is not None)
        return f"run {run.run_id[:8]}, {(event.step_key or '').replace('__', '/')}: {kind}: {message}"
    return f"run {run.run_id[:8]} failed outside of its steps"


def _classify(name: str, message: str, *, bad_input: bool) -> str:
    if any(word in f"{name} {message}".lower() for word in MEMORY):
        return "out of memory"
    if name == "DagsterAssetCheckFailedError":
        return "a check failed"
    return "cannot be used" if bad_input else f"error {name}"


def _describe_decision(pipeline: str, decision: Decision) -> Alert:
    kind = "kept" if decision.kind == "kept" else "promotion"
    return Alert(kind, pipeline, f"decision {decision.number} ({decision.kind}): {decision.reason}")


def _describe_stale(declaration: Declaration, decisions: list[Decision], seen: _Seen) -> str | None:
    days = declaration.promotion.freshness_days
    if days is None or get_champion(decisions) is None:
        return None
    moved = since_last_move(decisions)[0]
    age = (time.time() - datetime.fromisoformat(moved.time).timestamp()) / DAY
    if age <= days or str(moved.number) == seen.stale:
        return None
    return f"the champion is {age:.0f} days in service, more than promotion.freshness_days = {days:g}"


def _find_drift(store: ArtifactStore, pipeline: str) -> tuple[str, str] | None:
    """Return the data versions whose checks for drift failed, and their descriptions."""
    held = [each for stage in (DATASET, FEATURES) if (each := store.get_current(pipeline, stage))]
    failed = [(each, check) for each in held for check in each.failed_checks if check.name in DRIFT]
    versions = "+".join(each.artifact.data_version for each, _ in failed)
    return (versions, f"the data moved: {'; '.join(check.description for _, check in failed)}") if failed else None


def _send_all(variable: str, alerts: list[Alert]) -> tuple[list[Alert], str]:
    """Send alerts; return those that are left when one cannot be sent, and why."""
    for number, alert in enumerate(alerts):
        try:
            send(os.environ.get(variable, ""), alert, variable)
        except InputError as error:
            return alerts[number:], str(error)
    return [], ""


def send(url: str, alert: Alert, variable: str) -> None:
    """Post an alert to a webhook, as JSON that Slack understands; the URL, which is a secret, is in no message.

    Args:
        url: https, or http on this machine.
        alert: what is sent.
        variable: the environment variable that holds the URL.

    Raises:
        InputError: there is no such URL, or it does not answer.
    """
    if not _is_allowed(url):
        raise InputError(f"alerts.webhook_env: the variable {variable} holds no https:// URL")
    content = {
        "kind": alert.kind,
        "pipeline": alert.pipeline,
        "text": f"*{alert.pipeline}* {alert.kind}: {_escape(alert.text)}",
    }
    request = urllib.request.Request(  # noqa: S310  (https, or this machine)
        url, json.dumps(content).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with OPENER.open(request, timeout=ANSWER_SECONDS):
            pass
    except HTTPError as error:
        raise InputError(f"the webhook of {variable} does not take alerts: it answers {error.code}") from None
    except (OSError, HTTPException, ValueError) as error:  # whose texts may have the URL
        raise InputError(f"the webhook of {variable} does not take alerts: {type(error).__name__}") from None


def _is_allowed(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (parts.scheme == "https" and bool(parts.hostname)) or (
            parts.scheme == "http" and parts.hostname in LOOPBACK
        )
    except ValueError:
        return False


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A page elsewhere that answers is no webhook that took an alert."""

    def redirect_request(self, *arguments: Any, **more: Any) -> None:
        """Follow no redirect: it is an error."""
        return


OPENER = urllib.request.build_opener(_NoRedirects)


def _escape(text: str) -> str:
    """Return a text as Slack shows it: its own signs for links and mentions are escaped."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
