"""Why an asset ran the last time, and why it would run now: the settings, versions, files and inputs that changed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from tl_dagster.declaration import Declaration
from tl_dagster.graph.automation import enabled_stages
from tl_dagster.graph.champions import BY_HAND
from tl_dagster.graph.differences import AssetState, list_changed_images, list_changed_values
from tl_dagster.graph.history import read_history
from tl_dagster.graph.stage import Stage
from tl_dagster.runtime.errors import InputError, printable, redact_settings
from tl_dagster.store.artifacts import DATASET, ArtifactStore, Materialization

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Cause", "Explanation", "describe_causes", "explain_last", "explain_materialization", "explain_now"]

MOST_FILES = 5  # that are named of each kind of change
LETTERS = 60  # of a value in a line


@dataclass(frozen=True)
class Cause:
    """Something that changed.

    Attributes:
        kind: "setting", "version", "files", "input", "first" (there was nothing before), "lost" (what had been computed
            was gone), "hand" (somebody decided so) or "work" (nothing of these: such as weights that are others under
            the same name).
        name: of the setting, of the kind of change of files, or of the input.
        a: before; of files, how many.
        b: after; of files, the first few.
        causes: of an input: why that changed.
    """

    kind: str
    name: str = ""
    a: Any = None
    b: Any = None
    causes: Sequence["Cause"] = field(default_factory=tuple)


@dataclass(frozen=True)
class Explanation:
    """Why an asset ran, or would run.

    Attributes:
        asset: its name.
        run_id: of the run that computed something; "" where it would run now, or never ran.
        time: of the materialization, in seconds since 1970; 0 where it would run now, or never ran.
        causes: none where it would not run, or never ran.
    """

    asset: str
    run_id: str
    time: float
    causes: Sequence[Cause]


def describe_causes(causes: Sequence[Cause], depth: int = 0) -> Iterator[str]:
    """Yield a line for each cause, and, further to the right, for the causes of that."""
    for each in causes:
        yield "  " * depth + _describe(each)
        yield from describe_causes(each.causes, depth + 1)


def _describe(cause: Cause) -> str:
    if cause.kind == "files":
        names = ", ".join(printable(str(each)) for each in cause.b)
        return f"files {cause.name}: {names}" + (f", … ({cause.a:,} in all)" if (cause.a or 0) > len(cause.b) else "")
    words = {
        "setting": f"setting {cause.name}: {_show(cause.a)} → {_show(cause.b)}",
        "version": f"the code: version {cause.a} → {cause.b}",
        "input": f"{cause.name} {'changed' if cause.b else 'would change'}",
        "first": "nothing was there before",
        "lost": "what had been computed was gone",
        "hand": "somebody decided so",
        "work": "its content changed",
    }
    return words[cause.kind]


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"


def explain_materialization(
    instance: dg.DagsterInstance, stage: Stage, materialization: Materialization
) -> Sequence[Cause]:
    """Explain a materialization that Dagster does not know yet; nothing where it only reused."""
    if materialization.reused:
        return ()
    artifact, pipeline = materialization.artifact, stage.declaration.name
    state = AssetState(
        data_version=artifact.data_version,
        stage_version=str(stage.version),
        settings=redact_settings(stage.settings()),
        values={**artifact.summary.metadata, "inputs": artifact.inputs},
        path=str(artifact.path),
        run_id="now",
    )
    before = next(read_history(instance, pipeline, stage.name), None)
    return _compare(instance, pipeline, stage.name, before, state) if before else [Cause("first")]


def explain_last(instance: dg.DagsterInstance, pipeline: str, asset: str) -> Explanation:
    """Explain the last materialization of an asset for which something was computed."""
    for state, before in pairwise(chain(read_history(instance, pipeline, asset), [None])):
        if state and state.computed:
            causes = _compare(instance, pipeline, asset, before, state) if before else [Cause("first")]
            return Explanation(asset, state.run_id, state.time, causes)
    return Explanation(asset, "", 0.0, ())


def explain_now(
    instance: dg.DagsterInstance, store: ArtifactStore, declaration: Declaration, root: Path
) -> list[Explanation]:
    """Explain, for each asset of a pipeline in order, what a run would compute it for now; nothing is computed.

    Args:
        instance: where the runs are.
        store: where the artifacts are.
        declaration: the pipeline as it is declared now.
        root: the folder that relative paths in it start from.
    """
    explained: dict[str, Explanation] = {}
    for stage in enabled_stages(declaration, root):
        state = next(read_history(instance, declaration.name, stage.name), None)
        causes = [*_changes(store, stage, state)]
        known = {cause.name for cause in causes if cause.kind == "input"}
        causes += [cause for cause in _changes_of_inputs(stage, explained) if cause.name not in known]
        explained[stage.name] = Explanation(stage.name, "", 0.0, causes)
    return [*explained.values()]


def _changes(store: ArtifactStore, stage: Stage, state: AssetState | None) -> Iterator[Cause]:
    """Yield what changed of a stage itself since its last materialization."""
    if state is None:
        yield Cause("first")
        return
    if store.get_current(stage.declaration.name, stage.name) is None:
        yield Cause("lost")
    yield from _compare_settings(state.settings or {}, redact_settings(stage.settings()))
    if state.stage_version != str(stage.version):
        yield Cause("version", "", state.stage_version, str(stage.version))
    for name, version in state.inputs.items():
        present = store.get_current(stage.declaration.name, name)
        if present and present.artifact.data_version != version:
            yield Cause("input", name, version, present.artifact.data_version)
    if stage.name == DATASET:
        yield from _list_new_files(store, stage, state)


def _changes_of_inputs(stage: Stage, explained: Mapping[str, Explanation]) -> Iterator[Cause]:
    for name in stage.inputs:
        if explained[name].causes:
            yield Cause("input", name)


def _list_new_files(store: ArtifactStore, stage: Stage, state: AssetState) -> Iterator[Cause]:
    """Yield the files of the source that are new or gone since, by their names; none is read."""
    from tl_dagster.data.manifest import read_manifest
    from tl_dagster.data.sources import list_images
    from tl_dagster.graph.stages.dataset import source_context

    if not Path(state.path).is_dir():
        return
    try:
        listing = list_images(stage.declaration.source, source_context(store, stage.root))
    except InputError as error:
        yield Cause("files", "cannot be listed", None, [str(error)])
        return
    known = read_manifest(Path(state.path))
    yield from _name_files(
        {
            "new": listing.loc[~listing["uri"].isin(known["uri"]), "uri"],
            "gone": known.loc[~known["uri"].isin(listing["uri"]), "uri"],
        }
    )


def _compare(
    instance: dg.DagsterInstance, pipeline: str, asset: str, before: AssetState, after: AssetState
) -> list[Cause]:
    """Return what changed between two materializations of an asset."""
    if not after.run_id or str(after.values.get("reason", "")).startswith(BY_HAND):
        return [Cause("hand")]
    causes = [*_compare_settings(before.settings or {}, after.settings or {})]
    if before.stage_version != after.stage_version:
        causes.append(Cause("version", "", before.stage_version, after.stage_version))
    if asset == DATASET:
        causes += _name_files(list_changed_images(before, after))
    for name, version in after.inputs.items():
        if before.inputs.get(name) != version:
            causes.append(_explain_input(instance, pipeline, name, before.inputs.get(name), version))
    same = before.data_version == after.data_version and before.values.get("decision") == after.values.get("decision")
    return causes or [Cause("lost" if same else "work")]


def _explain_input(instance: dg.DagsterInstance, pipeline: str, asset: str, before: str | None, after: str) -> Cause:
    """Return why an input has another data version, from the materializations that first had the two."""
    states: dict[str, AssetState] = {}
    for state in read_history(instance, pipeline, asset):
        states[state.data_version] = state  # the first of a version comes last
    old, new = states.get(before or ""), states.get(after)
    causes = _compare(instance, pipeline, asset, old, new) if old and new else ()
    return Cause("input", asset, before, after, causes)


def _compare_settings(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Cause]:
    return (Cause("setting", *change) for change in list_changed_values(before, after))


def _name_files(changes: "Mapping[str, pd.Series]") -> Iterator[Cause]:
    """Yield the files of each kind of change, given by their addresses."""
    for name, uris in changes.items():
        if len(uris):
            yield Cause("files", name, len(uris), uris.head(MOST_FILES).tolist())
