"""The registry: appended to by one process at a time, never rewritten, exact about time."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tl_dagster.runtime.errors import InputError
from tl_dagster.store import registry as module
from tl_dagster.store.registry import ChampionRegistry, RegistryConflictError, Verdict, find_at, since_last_move


@pytest.fixture
def registry(tmp_path: Path) -> ChampionRegistry:
    return ChampionRegistry(tmp_path / "registry")


def decide(registry: ChampionRegistry, kind: str, champion: str | None) -> module.Decision:
    verdict = Verdict(kind=kind, champion=champion, challenger="x", reason="for a test")
    return registry.append(registry.decisions(), verdict)


def test_what_was_in_service_at_a_time_is_exact(registry: ChampionRegistry):
    kinds = [("kept", None), ("promoted", "a"), ("kept", "a"), ("promoted", "b"), ("rolled back", "a")]
    decided = [decide(registry, *each) for each in kinds]
    assert registry.decisions() == decided
    times = [datetime.fromisoformat(each.time) for each in decided]
    assert find_at(decided, times[1] - timedelta(microseconds=1)) is None
    served = [find_at(decided, time) for time in times[1:]]
    assert [each.champion for each in served] == ["a", "a", "b", "a"]
    assert find_at(decided, times[3] - timedelta(microseconds=1)).champion == "a"
    assert [each.number for each in since_last_move(decided)] == [5]
    assert [each.number for each in since_last_move(decided[:3])] == [2, 3]
    assert registry.champions() == {"a", "b"}


def test_a_later_decision_is_later_though_the_clock_was_set_back(
    registry: ChampionRegistry, monkeypatch: pytest.MonkeyPatch
):
    first = decide(registry, "promoted", "a")

    class Before(datetime):
        @classmethod
        def now(cls, tz=None) -> datetime:
            return datetime.fromisoformat(first.time) - timedelta(days=1)

    monkeypatch.setattr(module, "datetime", Before)
    assert decide(registry, "promoted", "b").time > first.time


def test_of_two_processes_one_is_first(registry: ChampionRegistry):
    decide(registry, "promoted", "a")
    known = registry.decisions()

    def append(name: str) -> str | None:
        try:
            return registry.append(known, Verdict(kind="promoted", champion=name, challenger=name, reason="")).champion
        except RegistryConflictError:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [each for each in pool.map(append, "bcdefghi") if each]
    assert [each.champion for each in registry.decisions()] == ["a", *won]
    assert len(won) == 1
    assert not list(registry.folder.glob(".*"))  # nothing half-written is left


@pytest.mark.parametrize("change", ["rewritten", "deleted", "truncated"])
def test_a_history_that_was_changed_is_refused(registry: ChampionRegistry, change: str):
    for name in "abc":
        decide(registry, "promoted", name)
    path = registry.folder / "00000002.json"
    if change == "rewritten":
        path.write_text(json.dumps({**json.loads(path.read_text()), "champion": "z"}))
    elif change == "deleted":
        path.unlink()
    else:
        path.write_text(path.read_text()[:30])
    with pytest.raises(InputError, match=r"0000000[23]\.json .*restore"):
        registry.decisions()
