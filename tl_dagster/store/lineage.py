"""The graph of a store's artifacts: what each was computed from, and what was computed from it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import zip_longest

from tl_dagster.store.artifacts import CHAMPION, MODEL, Artifact, ArtifactStore
from tl_dagster.store.registry import ChampionRegistry, Decision

__all__ = ["find_above", "find_below", "find_holders", "list_artifacts", "list_service"]


def list_artifacts(store: ArtifactStore) -> list[Artifact]:
    """Return every artifact of a store."""
    found = [store.find(path.parent.parent.name, path.parent.name) for path in store.layout.all_artifacts()]
    return [artifact for artifact in found if artifact]


def find_below(every: Sequence[Artifact], origins: Collection[Artifact]) -> list[Artifact]:
    """Return the artifacts that were computed from some, directly or not, and these; what is above comes first.

    Args:
        every: all artifacts of the store.
        origins: where to begin.
    """
    return _follow(origins, lambda above: [each for each in every if _is_made_from(each, above)])


def find_above(every: Sequence[Artifact], artifact: Artifact) -> list[Artifact]:
    """Return the artifacts that one was computed from, directly or not, and it; what is above comes first.

    Where several have the same data version, and so the same content, all are returned.
    """
    return _follow([artifact], lambda below: [each for each in every if _is_made_from(below, each)])


def _follow(origins: Collection[Artifact], step: Callable[[Artifact], list[Artifact]]) -> list[Artifact]:
    """Return some artifacts and all that steps from them lead to."""
    found: dict[tuple[str, str], Artifact] = {}
    waiting = list(origins)
    while waiting:
        artifact = waiting.pop()
        if _key(artifact) not in found:
            found[_key(artifact)] = artifact
            waiting += step(artifact)
    return _sorted(found.values())


def _is_made_from(below: Artifact, above: Artifact) -> bool:
    return _made_from(below).get(above.stage) == above.data_version


def _made_from(artifact: Artifact) -> Mapping[str, str]:
    """Return asset → data version; a champion is the model in service, not the one that challenged it."""
    return {MODEL: artifact.data_version} if artifact.stage == CHAMPION else artifact.inputs


def _key(artifact: Artifact) -> tuple[str, str]:
    return artifact.stage, artifact.fingerprint


def _sorted(artifacts: Collection[Artifact]) -> list[Artifact]:
    """Return artifacts so that none comes before what it was computed from."""
    inputs = {each.stage: set(_made_from(each)) for each in artifacts}

    def depth(stage: str) -> int:
        return 1 + max((depth(name) for name in inputs.get(stage, ()) if name in inputs), default=0)

    return sorted(artifacts, key=lambda each: (depth(each.stage), *_key(each)))


def find_holders(store: ArtifactStore) -> dict[tuple[str, str], list[str]]:
    """Return (stage, fingerprint) → the pipelines whose current artifact it is."""
    holders: dict[tuple[str, str], list[str]] = {}
    for pipeline in store.layout.pipelines():
        for stage, held in store.list_current(pipeline).items():
            holders.setdefault((stage, held.artifact.fingerprint), []).append(pipeline)
    return holders


def list_service(store: ArtifactStore, models: Collection[str]) -> list[tuple[str, Decision, Decision | None]]:
    """Return when some models were in service: the pipeline, the decision that put it there, and the one that ended it.

    Args:
        store: of the registries.
        models: their fingerprints.
    """
    periods = []
    for pipeline in store.layout.pipelines():
        moves = [each for each in ChampionRegistry(store.layout.registry(pipeline)).decisions() if each.moved]
        for begin, end in zip_longest(moves, moves[1:]):
            if begin.champion in models:
                periods.append((pipeline, begin, end))
    return periods
