"""The differences of two states of pipelines: settings, data, versions and results."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.runtime.settings import flatten
from tl_dagster.store.artifacts import DATASET

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "AssetState",
    "Difference",
    "PipelineState",
    "find_differences",
    "list_changed_images",
    "list_changed_values",
]

DATA_ASSETS = (DATASET, "augmented_splits")
# Of a materialization's metadata what tells nothing of the result, or is compared otherwise.
NOT_RESULTS = {
    "result", "reused", "rows_computed", "rows_reused", "seconds", "dagster/row_count", "settings", "inputs", "path",
    "report", "why", "training_seconds", "views_per_second", "images_decoded", "seconds_by_step", "compiled",
}  # fmt: skip


@dataclass(frozen=True)
class AssetState:
    """One materialization of an asset.

    Attributes:
        data_version: of its artifact.
        stage_version: of the stage that made it.
        settings: of the stage; None: they were not recorded.
        values: name → number, text or mapping, of its metadata.
        path: the folder of its artifact, which may be gone.
        run_id: of the run that it comes from; "" outside of one.
        time: in seconds since 1970.
    """

    data_version: str
    stage_version: str
    settings: Mapping[str, Any] | None
    values: Mapping[str, Any]
    path: str
    run_id: str = ""
    time: float = 0.0

    @property
    def inputs(self) -> Mapping[str, str]:
        """Asset → data version that the artifact was computed from."""
        return dict(self.values.get("inputs", {}))

    @property
    def computed(self) -> bool:
        """Whether something was computed for it."""
        return not self.values.get("reused", False)


@dataclass(frozen=True)
class PipelineState:
    """A pipeline at one time.

    Attributes:
        title: its name, and the time.
        run_id: of the last run that it comes from.
        commit: of the project in that run, where it is known.
        assets: name → its last materialization until then.
    """

    title: str
    run_id: str | None
    commit: str | None
    assets: Mapping[str, AssetState]


@dataclass(frozen=True)
class Difference:
    """A value that differs.

    Attributes:
        asset: where; "" where it is the whole pipeline.
        kind: "settings", "data", "version" or "result".
        name: of the value.
        a: in the first state; None where it is not there.
        b: in the second.
    """

    asset: str
    kind: str
    name: str
    a: Any
    b: Any


def find_differences(a: PipelineState, b: PipelineState) -> list[Difference]:
    """Return what differs, in the order of the assets; the path of the same file counts as a setting like any other."""
    from tl_dagster.graph.stages import STAGES  # only to compare, not to read a history

    found = [] if a.commit == b.commit else [Difference("", "version", "commit", a.commit, b.commit)]
    for name in [stage.name for stage in STAGES]:
        first, second = a.assets.get(name), b.assets.get(name)
        if first and second:
            found += _compare(name, first, second)
        elif first or second:
            words = ["there" if state else None for state in (first, second)]
            found.append(Difference(name, "data", "asset", *words))
    return found


def _compare(asset: str, a: AssetState, b: AssetState) -> Iterator[Difference]:
    if a.settings is not None and b.settings is not None:
        yield from _compare_values(asset, "settings", a.settings, b.settings)
    if a.data_version != b.data_version:
        yield Difference(asset, "data", "data_version", a.data_version, b.data_version)
        if asset == DATASET:
            yield from _compare_images(a, b)
    if a.stage_version != b.stage_version:
        yield Difference(asset, "version", "stage", a.stage_version, b.stage_version)
    results = [{name: state.values[name] for name in _result_names(state)} for state in (a, b)]
    yield from _compare_values(asset, "data" if asset in DATA_ASSETS else "result", *results)


def _result_names(state: AssetState) -> list[str]:
    pictures = {name for name, value in state.values.items() if isinstance(value, str) and value.startswith("![")}
    return [name for name in state.values if name not in NOT_RESULTS | pictures]


def _compare_values(asset: str, kind: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    for name, before, after in list_changed_values(a, b):
        yield Difference(asset, kind, name, before, after)


def list_changed_values(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted name of each value that differs in nested mappings, with both; None where it is not there."""
    before, after = dict(flatten(a)), dict(flatten(b))
    for name in [*before, *(name for name in after if name not in before)]:
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)


def _compare_images(a: AssetState, b: AssetState) -> Iterator[Difference]:
    for name, uris in list_changed_images(a, b).items():
        yield Difference(asset=DATASET, kind="data", name=f"images {name}", a=None, b=len(uris))


def list_changed_images(a: AssetState, b: AssetState) -> "dict[str, pd.Series]":
    """Return the addresses of the images that were added, removed, relabelled or renamed, by kind; see `list_changes`.

    Nothing where a manifest is not there any more.
    """
    if not (Path(a.path).is_dir() and Path(b.path).is_dir()):
        return {}
    from tl_dagster.data.manifest import list_changes, read_manifest

    changes = list_changes(read_manifest(Path(a.path)), read_manifest(Path(b.path)))
    return {name: uris for name, uris in changes.items() if len(uris)}
