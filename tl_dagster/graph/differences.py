"""The differences of two states of pipelines: settings, data, versions and results."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_dagster.runtime.settings import flatten

__all__ = ["AssetState", "Difference", "PipelineState", "find_differences"]

DATA_ASSETS = ("dataset", "augmented_splits")
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
        yield from _compare_values(asset, "settings", dict(flatten(a.settings)), dict(flatten(b.settings)))
    if a.data_version != b.data_version:
        yield Difference(asset, "data", "data_version", a.data_version, b.data_version)
        if asset == "dataset":
            yield from _compare_images(a, b)
    if a.stage_version != b.stage_version:
        yield Difference(asset, "version", "stage", a.stage_version, b.stage_version)
    results = [dict(flatten({name: state.values[name] for name in _result_names(state)})) for state in (a, b)]
    yield from _compare_values(asset, "data" if asset in DATA_ASSETS else "result", *results)


def _result_names(state: AssetState) -> list[str]:
    pictures = {name for name, value in state.values.items() if isinstance(value, str) and value.startswith("![")}
    return [name for name in state.values if name not in NOT_RESULTS | pictures]


def _compare_values(asset: str, kind: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    for name in [*a, *(name for name in b if name not in a)]:
        if a.get(name) != b.get(name):
            yield Difference(asset, kind, name, a.get(name), b.get(name))


def _compare_images(a: AssetState, b: AssetState) -> Iterator[Difference]:
    """Yield how many images came, went, changed their label or moved, where both manifests are still there."""
    if not (Path(a.path).is_dir() and Path(b.path).is_dir()):
        return
    from tl_dagster.data.manifest import diff_manifests, read_manifest

    counts = diff_manifests(read_manifest(Path(a.path)), read_manifest(Path(b.path)))
    for name, count in counts.items():
        if count:
            yield Difference(asset="dataset", kind="data", name=f"images {name}", a=None, b=count)
