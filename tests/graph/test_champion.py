"""The model in service in a real graph: who gets there, who stays, and how people change it."""

import json
from contextlib import nullcontext

import dagster as dg
import pytest
from click.testing import CliRunner

from tests.conftest import QUIET, Pipeline
from tl_dagster.cli.main import group
from tl_dagster.graph.champion_events import finish_decision
from tl_dagster.graph.champions import _list_served, is_behind, open_registry, promote, roll_back
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import ArtifactSummary, Materialization
from tl_dagster.store.registry import Decision

OTHER = {"fine_tuning": {"learning_rate": 1e-3}}  # another model


def decisions(pipeline: Pipeline) -> list[Decision]:
    return open_registry(pipeline.store, "cells").decisions()


def materialize_champion(pipeline: Pipeline, config: dict | None = None, **changes) -> dg.ExecuteInProcessResult:
    """Materialize the champion alone, as a person does in the UI."""
    configured = QUIET | ({"ops": {"cells__champion": {"config": config}}} if config else {})
    return (
        pipeline.definitions(**changes)
        .resolve_job_def("cells")
        .execute_in_process(
            instance=pipeline.instance,
            run_config=configured,
            asset_selection=[dg.AssetKey(["cells", "champion"])],
            raise_on_error=False,
        )
    )


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    (failure,) = result.filter_events(lambda event: event.is_step_failure)
    return failure.step_failure_data.error.message + str(failure.step_failure_data.user_failure_data)


def served(pipeline: Pipeline) -> str:
    """The fingerprint of the model in service, as the asset below sees it."""
    return pipeline.held()["champion"].artifact.data_version


def test_one_model_after_another(pipeline: Pipeline):
    """The first is promoted; the same again is no news; an equal one stays out; back and forth compares nothing."""
    pipeline.run()
    first = pipeline.held()["fine_tuned_model"].artifact.fingerprint
    assert served(pipeline) == first
    assert [each.kind for each in decisions(pipeline)] == ["promoted"]

    pipeline.run()
    assert pipeline.held()["champion"].reused

    pipeline.run(**OTHER)
    assert pipeline.held()["fine_tuned_model"].artifact.fingerprint != first
    assert served(pipeline) == first
    assert [each.kind for each in decisions(pipeline)] == ["promoted", "kept"]
    assert pipeline.held()["champion"].artifact.summary.metadata["reason"].startswith("the champion stays: accuracy")

    pipeline.run()
    pipeline.run(**OTHER)
    assert pipeline.held()["champion"].reused
    assert len(decisions(pipeline)) == 2

    promote(pipeline.store, "cells", "for the test")
    second = decisions(pipeline)[-1].champion
    assert pipeline.run(**OTHER).success
    assert served(pipeline) == second
    materialize_champion(pipeline, {"put_in_service": "previous", "reason": "it forgets"}, **OTHER)
    assert served(pipeline) == first
    assert decisions(pipeline)[-1].reason == "by hand: it forgets"

    pipeline.run(**OTHER)  # a model that people took out of service does not come back by itself
    assert served(pipeline) == first
    assert "taken out of service by decision 4 (by hand: it forgets)" in decisions(pipeline)[-1].reason
    materialize_champion(pipeline, {"put_in_service": "new", "reason": "on second thoughts"}, **OTHER)
    assert served(pipeline) == second

    pipeline.store.layout.artifact("fine_tuned_model", first).rename(pipeline.store.root / "moved away")
    with pytest.raises(InputError, match="restore it from a backup"):
        roll_back(pipeline.store, "cells", "1", "")


@pytest.mark.parametrize(
    ("moves", "served"),
    [
        ("ABC", "ABC"),
        ("ABCb", "AB"),
        ("ABCbB", "AB"),
        ("ABCB", "ABCB"),  # put back by hand: before it was C
        ("AB-", "A"),  # withdrawn
        ("A-", ""),
        ("A-C", "C"),
    ],
)
def test_models_that_were_in_service_before(moves: str, served: str):
    """A capital letter: promoted; a small one: rolled back to it; -: withdrawn."""
    known, present = [], None
    for number, letter in enumerate(moves, 1):
        kind = "promoted" if letter.isupper() else "rolled back"
        champion = None if letter == "-" else letter.upper()
        if letter != present:
            verdict = {"kind": kind, "champion": champion, "challenger": present, "reason": ""}
            known.append(Decision(**verdict, number=number, time="", before=""))
        present = champion
    assert "".join(_list_served(known)) == served


def test_a_repeated_run_decides_once_and_a_dead_one_is_finished(pipeline: Pipeline):
    for model in "ab":
        built = pipeline.store.build("fine_tuned_model", model * 64, lambda folder: ArtifactSummary(rows=1, computed=1))
        pipeline.store.set_current("cells", "fine_tuned_model", Materialization(built, False, 1, 0))
        promote(pipeline.store, "cells", "a test")
    first = roll_back(pipeline.store, "cells", "previous", "", run="run-1")
    assert roll_back(pipeline.store, "cells", "previous", "", run="run-1") == first  # a retry of the same run
    assert is_behind(pipeline.store, "cells")  # killed before it was recorded
    assert "finished the decision before" in finish_decision(pipeline.instance, pipeline.store, "cells")
    assert served(pipeline) == "a" * 64
    assert finish_decision(pipeline.instance, pipeline.store, "cells") == ""


def test_commands(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tl_dagster.graph.history.open_instance", lambda: nullcontext(pipeline.instance))
    pipeline.run()
    pipeline.run(**OTHER)
    first = served(pipeline)

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(group, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    between = decisions(pipeline)[-1].time
    assert "promoted by hand: a test" in call("promote", "cells", "--reason", "a test")
    second = served(pipeline)
    assert second != first
    event = pipeline.instance.get_latest_materialization_event(dg.AssetKey(["cells", "champion"]))
    assert event.asset_materialization.tags["dagster/data_version"] == second
    assert "rolled back by hand" in call("rollback", "cells")
    assert served(pipeline) == first
    assert second in call("rollback", "cells", "--to", "3")

    now = json.loads(call("champion", "cells", "--json"))
    assert now["in_service"]["model"].endswith(second)
    then = json.loads(call("champion", "cells", "--at", between, "--json"))
    assert then["in_service"]["model"].endswith(first)
    assert [each["kind"] for each in then["decisions"]] == ["promoted", "kept"]
    assert "no model" in call("champion", "cells", "--at", "2020-01-01")
    for arguments, words in (
        (["rollback", "cells", "--to", "9"], "no decision '9'"),
        (["promote", "cells", "--reason", "x"], "is in service already"),
        (["champion", "cells", "--at", "noon"], "is no time"),
        (["champion", "sells"], "did you mean 'cells'"),
    ):
        with pytest.raises(InputError, match=words):
            CliRunner().invoke(group, arguments, catch_exceptions=False)


def test_nothing_is_materialized_below_a_failed_gate(pipeline: Pipeline):
    pipeline.run()
    broken = {"checks": {"set_aside": 0.0}}
    (pipeline.photos / "functional" / "broken.png").write_bytes(b"no image")
    assert not pipeline.run(raise_on_error=False, **broken).success
    result = materialize_champion(pipeline, **broken)
    assert "dataset failed its check readable" in failure_of(result)
    decided = materialize_champion(pipeline, {"put_in_service": "1"}, **broken)  # people decide all the same
    assert "is in service already" in failure_of(decided)
