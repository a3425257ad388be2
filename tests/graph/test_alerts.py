"""Alerts: what happened is sent once, to a real server; one that does not answer fails nothing and is tried again."""

import json
import threading
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.conftest import Pipeline
from tl_dagster.graph import alerts
from tl_dagster.graph.champions import open_registry, promote
from tl_dagster.graph.runs import DIED_TAG


class Hook:
    """A webhook on this machine."""

    def __init__(self) -> None:
        self.received: list[dict] = []
        self.status = 200
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if hook.status == 200:
                    hook.received.append(content)
                self.send_response(hook.status)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self) -> list[tuple[str, str]]:
        """What came since the last time: kind and text."""
        taken, self.received = self.received, []
        return [(each["kind"], each["text"]) for each in taken]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch):
    hook = Hook()
    monkeypatch.setenv("ALERTS_URL", f"http://127.0.0.1:{hook.server.server_port}/secret-path")
    yield hook
    hook.server.shutdown()
    hook.server.server_close()


class Ticks:
    """The sensor of a pipeline, tick after tick."""

    def __init__(self, pipeline: Pipeline, **changes) -> None:
        self.pipeline, self.changes, self.cursor = pipeline, {"alerts": {"webhook_env": "ALERTS_URL"}, **changes}, None

    def tick(self) -> str:
        result = self.pipeline.tick(self.cursor, **self.changes)
        self.cursor = result.cursor
        return result.skip_message


def test_each_cause_is_said_once(pipeline: Pipeline, hook: Hook):
    ticks = Ticks(pipeline)
    assert ticks.tick() == "nothing to say"
    pipeline.run()
    ticks.tick()
    ((kind, text),) = hook.take()
    assert kind == "promotion" and text.startswith("*cells* promotion: decision 1 (promoted): the first champion")
    (pipeline.photos / "functional" / "<!channel> & co.png").write_bytes(b"no image")
    pipeline.run(raise_on_error=False, checks={"set_aside": 0.0})
    ticks.tick()
    ((kind, text),) = hook.take()
    assert kind == "failure" and "cells/dataset: a check failed" in text and "readable" in text
    pipeline.run(raise_on_error=False, source={"path": "<nowhere>"})
    ticks.tick()
    ((kind, text),) = hook.take()
    assert "cannot be used" in text and "&lt;nowhere&gt;" in text and "<nowhere>" not in text
    job = pipeline.definitions().resolve_job_def("cells")
    died = pipeline.instance.create_run_for_job(job, tags={DIED_TAG: "true"})
    pipeline.instance.report_run_failed(died)
    ticks.tick()
    ((kind, text),) = hook.take()
    assert "was killed" in text
    for _ in range(3):
        assert ticks.tick() == "nothing to say"
    assert hook.take() == []


def test_a_webhook_that_does_not_answer(pipeline: Pipeline, hook: Hook, monkeypatch: pytest.MonkeyPatch):
    ticks = Ticks(pipeline)
    ticks.tick()
    pipeline.run(upto="fine_tuned_model")
    promote(pipeline.store, "cells", "a test")
    hook.status = 500
    assert "does not take alerts" in ticks.tick()
    hook.status = 200
    ticks.tick()
    assert [kind for kind, _ in hook.take()] == ["promotion"]  # late, and once

    pipeline.run(upto="fine_tuned_model", fine_tuning={"learning_rate": 1e-3})
    promote(pipeline.store, "cells", "another")
    hook.status = 500
    said = [ticks.tick() for _ in range(alerts.ATTEMPTS)]
    assert not any("secret-path" in each for each in said)
    hook.status = 200
    assert ticks.tick() == "nothing to say"  # not for ever
    for url in ("http://example.com/x", "file:///etc/passwd", "", "ftp://127.0.0.1/"):
        monkeypatch.setenv("ALERTS_URL", url)
        with pytest.raises(alerts.InputError, match="ALERTS_URL holds no https"):
            alerts.send(url, alerts.Alert("drift", "cells", "x"), "ALERTS_URL")


def test_a_stale_champion(pipeline: Pipeline, hook: Hook, monkeypatch: pytest.MonkeyPatch):
    ticks = Ticks(pipeline, promotion={"freshness_days": 7})
    pipeline.run(upto="fine_tuned_model")
    promote(pipeline.store, "cells", "a test")
    ticks.tick()
    assert hook.take() == []
    (decision,) = open_registry(pipeline.store, "cells").decisions()
    later = datetime.fromisoformat(decision.time) + timedelta(days=8)
    monkeypatch.setattr(alerts.time, "time", lambda: later.timestamp())
    ticks.tick()
    assert [kind for kind, _ in hook.take()] == ["stale"]
    assert ticks.tick() == "nothing to say"


def test_only_the_declared_kinds_are_sent(pipeline: Pipeline, hook: Hook):
    ticks = Ticks(pipeline, alerts={"webhook_env": "ALERTS_URL", "on": ["drift"]})
    ticks.tick()
    pipeline.run(upto="fine_tuned_model")
    promote(pipeline.store, "cells", "a test")
    assert ticks.tick() == "nothing to say"
    assert hook.take() == []
