"""Which model of a pipeline is in service: what a run decides, what people decide, and the artifact of a decision."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import CHAMPION, MODEL, Artifact, ArtifactStore, ArtifactSummary, Materialization
from tl_dagster.store.digests import digest
from tl_dagster.store.registry import (
    ChampionRegistry,
    Decision,
    RegistryConflictError,
    Verdict,
    get_champion,
    since_last_move,
)

if TYPE_CHECKING:
    from tl_dagster.evaluation.challenger import Challenger, Judgement
    from tl_dagster.evaluation.settings import Promotion

__all__ = [
    "BY_HAND",
    "VERSION",
    "describe_decisions",
    "find_champion",
    "find_in_service",
    "is_behind",
    "judge",
    "materialize_decision",
    "open_registry",
    "promote",
    "roll_back",
    "withdraw",
]

VERSION = 1
BY_HAND = "by hand"  # how the reasons of decisions that people took begin
DECISION = "decision.json"
NOBODY = "none"  # the data version while no model is in service
SHOWN = 20  # decisions in the table
PREVIOUS = "previous"


def open_registry(store: ArtifactStore, pipeline: str) -> ChampionRegistry:
    """Return the registry of a pipeline's champions."""
    return ChampionRegistry(store.layout.registry(pipeline))


def find_champion(store: ArtifactStore, fingerprint: str) -> Artifact:
    """Return the artifact of a model that is, or was, in service.

    Raises:
        InputError: it was deleted.
    """
    artifact = store.find(MODEL, fingerprint)
    if artifact is None:
        raise InputError(
            f"the champion {store.layout.artifact(MODEL, fingerprint)} is gone: restore it from a backup, or put "
            "another in service with tl-dagster rollback or tl-dagster promote"
        )
    return artifact


def find_in_service(store: ArtifactStore, pipeline: str) -> Artifact | None:
    """Return the artifact of the model in service; None: none is, or it was deleted."""
    return store.find(MODEL, get_champion(open_registry(store, pipeline).decisions()) or "")


def judge(
    store: ArtifactStore, pipeline: str, artifacts: Mapping[str, Artifact], settings: "Promotion", run: str
) -> list[Decision]:
    """Judge a newly trained model, unless that was done, and return all decisions, the one on it last.

    Args:
        store: of the champion's artifact, and of the registry.
        pipeline: its name.
        artifacts: dataset, top_model and fine_tuned_model.
        settings: of the promotion.
        run: id of the run.

    Raises:
        InputError: the champion's artifact is gone, or the test split has no image.
    """
    from tl_dagster.evaluation.challenger import Challenger

    new = artifacts[MODEL]
    challenger = Challenger(new.path, artifacts["dataset"].path, settings)
    challenge = challenger.identify(new.fingerprint)

    def decide(known: Sequence[Decision]) -> Verdict:
        champion, faced = get_champion(known), since_last_move(known)
        if champion == new.fingerprint:
            return faced[0]
        if answered := [each for each in faced if each.challenge == challenge]:
            return answered[0]
        judgement = _judge(store, challenger, artifacts, known)
        return Verdict(
            kind="promoted" if judgement.promoted else "kept",
            champion=new.fingerprint if judgement.promoted else champion,
            challenger=new.fingerprint,
            challenge=challenge,
            reason=judgement.reason,
            numbers=judgement.numbers,
            run=run,
        )

    return _settle(open_registry(store, pipeline), decide)


def _judge(
    store: ArtifactStore, challenger: "Challenger", artifacts: Mapping[str, Artifact], known: Sequence[Decision]
) -> "Judgement":
    from tl_dagster.evaluation.challenger import Judgement

    if left := _find_rollback(known, artifacts[MODEL].fingerprint):
        return Judgement(
            False,
            f"the champion stays: this model was taken out of service by decision {left.number} ({left.reason}); to "
            "put it back: tl-dagster promote",
        )
    compared = 1 + sum(bool(each.numbers) for each in since_last_move(known) if not each.moved)
    champion = get_champion(known)
    if champion is None:
        return challenger.as_first(artifacts["top_model"].path, compared)
    return challenger.against_champion(find_champion(store, champion).path, compared)


def _find_rollback(known: Sequence[Decision], fingerprint: str) -> Decision | None:
    """Return the decision that took a model out of service for another; None: there is none, or it was put back."""
    moves = [each for each in known if each.moved and fingerprint in (each.champion, each.challenger)]
    return moves[-1] if moves and moves[-1].champion not in (fingerprint, None) else None


def is_behind(store: ArtifactStore, pipeline: str) -> bool:
    """Return whether the asset's current artifact has another model than the registry: a process died between."""
    decisions, held = open_registry(store, pipeline).decisions(), store.get_current(pipeline, CHAMPION)
    return bool(decisions) and (held is None or held.artifact.data_version != (get_champion(decisions) or NOBODY))


def promote(store: ArtifactStore, pipeline: str, reason: str, run: str = "") -> list[Decision]:
    """Put the newly trained model in service, unproved, and return all decisions.

    Raises:
        InputError: there is none, or it is in service.
    """
    new = store.get_current(pipeline, MODEL)
    if new is None:
        raise InputError(f"{pipeline}/{MODEL} is not in the store {store.root}: run the pipeline first")
    fingerprint = new.artifact.fingerprint

    def decide(known: Sequence[Decision]) -> Verdict:
        if done := _find_by_run(known, run):
            return done
        if get_champion(known) == fingerprint:
            raise InputError(f"the newly trained model of {pipeline} is in service already")
        return Verdict(kind="promoted", champion=fingerprint, challenger=fingerprint, reason=_by_hand(reason), run=run)

    return _settle(open_registry(store, pipeline), decide, by_hand=True)


def roll_back(store: ArtifactStore, pipeline: str, to: str, reason: str, run: str = "") -> list[Decision]:
    """Put a model in service that was there before, and return all decisions.

    Args:
        store: where it is.
        pipeline: its name.
        to: "previous", or the number of the decision after which it was in service.
        reason: why, in a sentence; may be empty.
        run: id of the run; empty outside of one.

    Raises:
        InputError: there is no such decision, no model before, or its artifact is gone.
    """

    def decide(known: Sequence[Decision]) -> Verdict:
        if done := _find_by_run(known, run):
            return done
        target = _find_target(store, known, pipeline, to)
        present = get_champion(known)
        if target == present:
            raise InputError(f"the model of {to} is in service already")
        find_champion(store, target)
        return Verdict(kind="rolled back", champion=target, challenger=present, reason=_by_hand(reason), run=run)

    return _settle(open_registry(store, pipeline), decide, by_hand=True)


def withdraw(store: ArtifactStore, pipeline: str, reason: str) -> list[Decision]:
    """Take the model in service out of it, with none in its place, and return all decisions."""

    def decide(known: Sequence[Decision]) -> Verdict:
        present = get_champion(known)
        if present is None:
            raise InputError(f"no model of {pipeline} is in service")
        return Verdict(kind="rolled back", champion=None, challenger=present, reason=reason)

    return _settle(open_registry(store, pipeline), decide)


def _find_by_run(known: Sequence[Decision], run: str) -> Decision | None:
    """Return what a run decided before it was repeated: it must not roll back twice."""
    return next((each for each in known if run and each.run == run), None)


def _find_target(store: ArtifactStore, known: Sequence[Decision], pipeline: str, to: str) -> str:
    """Return the fingerprint of the model to roll back to."""
    if to == PREVIOUS:
        served = _list_served(known)
        before = served[:-1] if get_champion(known) else served
        there = [each for each in before if store.find(MODEL, each)]
        if not there:
            raise InputError(f"no model of {pipeline} was in service before that is still there")
        return there[-1]
    chosen = next((each for each in known if str(each.number) == to), None)
    if chosen is None or chosen.champion is None:
        raise InputError(
            f"no decision '{to}' with a model in service: give '{PREVIOUS}', or a number of tl-dagster champion "
            f"{pipeline} (1 to {len(known)})"
        )
    return chosen.champion


def _list_served(known: Sequence[Decision]) -> list[str]:
    """Return the models that were in service one after the other, without those that were rolled back from."""
    served: list[str] = []
    for each in known:
        if each.kind == "promoted" and each.champion:
            served.append(each.champion)
        elif each.kind == "rolled back":
            while served and served[-1] != each.champion:
                left = served.pop()
                if each.champion is None and left == each.challenger:
                    break
            if each.champion and not served:
                served.append(each.champion)
    return served


def _by_hand(reason: str) -> str:
    return f"{BY_HAND}: {reason}" if reason else BY_HAND


def _settle(
    registry: ChampionRegistry, decide: Callable[[Sequence[Decision]], Verdict], *, by_hand: bool = False
) -> list[Decision]:
    """Return all decisions until the one that counts now.

    Args:
        registry: a new verdict is appended to it.
        decide: returns a verdict in view of all decisions, or one of these; called again when another process was
            first.
        by_hand: people decided in view of what they saw: then it is not called again.

    Raises:
        InputError: another process was first, and people decided.
    """
    while True:
        known = registry.decisions()
        verdict = decide(known)
        if isinstance(verdict, Decision):
            return [each for each in known if each.number <= verdict.number]
        try:
            return [*known, registry.append(known, verdict)]
        except RegistryConflictError:
            if by_hand:
                raise InputError("another decision was taken meanwhile: look at it, then repeat yours") from None


def materialize_decision(store: ArtifactStore, decisions: Sequence[Decision]) -> Materialization:
    """Return the artifact of the last of some decisions; its data version is the model in service.

    Raises:
        DiskError: the store cannot be written.
    """
    decision = decisions[-1]
    fingerprint = digest({"stage": CHAMPION, "recipe": VERSION, "decision": decision.digest})
    if found := store.find(CHAMPION, fingerprint):
        return Materialization(found, reused=True, computed=0, reused_rows=found.summary.rows)

    def write(folder: Path) -> ArtifactSummary:
        (folder / DECISION).write_text(json.dumps(asdict(decision), indent=1))
        return ArtifactSummary(
            rows=len(decisions),
            computed=1,
            metrics=decision.numbers,
            metadata={
                "in_service": decision.champion or NOBODY,
                "in_service_since": since_last_move(decisions)[0].time if decision.champion else NOBODY,
                "decision": decision.number,
                "kind": decision.kind,
                "reason": decision.reason,
            },
            tables={"Decisions": describe_decisions(decisions)[:SHOWN]},
            data_version=decision.champion or NOBODY,
        )

    judged = {MODEL: decision.challenger} if decision.challenger and decision.kind != "rolled back" else {}
    built = store.build(CHAMPION, fingerprint, write, inputs=judged)
    return Materialization(built, reused=False, computed=1, reused_rows=len(decisions) - 1)


def describe_decisions(decisions: Sequence[Decision]) -> list[dict[str, str | int]]:
    """Return a row for each decision, the last one first."""
    return [
        {
            "decision": each.number,
            "time": datetime.fromisoformat(each.time).strftime("%Y-%m-%d %H:%M:%S UTC"),
            "kind": each.kind,
            "in service": (each.champion or NOBODY)[:12],
            "reason": each.reason,
        }
        for each in reversed(decisions)
    ]
