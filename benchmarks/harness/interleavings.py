"""A pipeline of tiny stages, and what can happen to it in any order: data, settings, code and checks change, runs die.

Used by the benchmark `operations` and by the tests of gates. The stages compute nothing: an order takes seconds.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest import mock

import dagster as dg
import pandas as pd
from hypothesis import strategies
from hypothesis.stateful import RuleBasedStateMachine, rule

from benchmarks.harness.configuration import QUIET
from tl_dagster import ArtifactIOManager, ArtifactStore, Declaration, build_definitions
from tl_dagster.graph import automation, gates
from tl_dagster.graph.runs import DIED_TAG
from tl_dagster.graph.stage import CheckResult, Stage, StageContext
from tl_dagster.store.artifacts import MANIFEST, ArtifactSummary, Materialization

__all__ = ["Interleaving"]

NAME = "tiny"
BELOW = ("middle", "last")  # the gate
ENOUGH = 6  # ticks after the last change
MOST_DEATHS = 2  # in turn
DETERMINING = "determining.json"


class Tiny(Stage):
    """A stage that computes nothing, and counts how often it did."""

    version = 1
    description = "Computes nothing."
    kinds: ClassVar[frozenset[str]] = frozenset()
    computed: ClassVar[Counter[tuple[str, str]]] = Counter()

    def settings(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def run(self, context: StageContext) -> Materialization:
        """Write the inputs' versions once."""
        fingerprint = self.fingerprint(context, self.determining())

        def write(folder: Path) -> ArtifactSummary:
            Tiny.computed[self.name, fingerprint] += 1
            (folder / DETERMINING).write_text(json.dumps(self.determining()))
            self.write_table(folder)
            return ArtifactSummary(rows=1, computed=1)

        return self.find_or_build(context, fingerprint, write)

    def determining(self) -> dict[str, Any]:
        """Return what determines the output beside the inputs."""
        return self.settings()

    def write_table(self, folder: Path) -> None:
        """Write what other stages' code reads of the artifact; most have nothing."""


class First(Tiny):
    """The names of the files; its check fails where nothing may be set aside."""

    name = "dataset"
    check_descriptions: ClassVar[Mapping[str, str]] = {"gate": "Fails where checks.set_aside is 0."}
    blocking_checks = frozenset({"gate"})

    def determining(self) -> dict[str, Any]:
        """Return the names of the files."""
        folder = Path(self.declaration.source.path)  # type: ignore[union-attr]
        return {"files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))}

    def write_table(self, folder: Path) -> None:
        """Write the manifest, from which the answer to "why" names files."""
        files = [Path(file).name for file in self.determining()["files"]]
        columns = {"id": files, "uri": files, "label": "class", "problem": None}
        pd.DataFrame(columns).astype("str").assign(problem=pd.Series(dtype="str")).to_parquet(folder / MANIFEST)

    def run_checks(self, context: StageContext, materialization: Materialization) -> dict[str, CheckResult]:
        """Fail as declared."""
        return {"gate": CheckResult(self.declaration.checks.set_aside > 0, "as declared", blocking=True)}


class Middle(Tiny):
    """Has a setting, and a version that changes."""

    name = "middle"
    inputs = ("dataset",)

    def settings(self) -> dict[str, Any]:
        """Return the number of views."""
        return {"views": self.declaration.augmentation.views}


class Last(Tiny):
    """Only follows."""

    name = "last"
    inputs = ("middle",)


KINDS = (First, Middle, Last)


class Interleaving(RuleBasedStateMachine):
    """One order of what can happen; what must never be seen is asserted after each event and at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.photos, self.store = folder / "photos", ArtifactStore(folder / "store")
        self.instance = self.stack.enter_context(dg.DagsterInstance.ephemeral())
        for module in (automation, gates):
            self.stack.enter_context(mock.patch.object(module, "STAGES", KINDS))
        self.stack.enter_context(mock.patch("tl_dagster.data.files.SETTLED_SECONDS", -1.0))
        self.stack.enter_context(mock.patch.object(Middle, "version", 1))
        self.views, self.set_aside, self.cursor, self.deaths = 2, 0.5, "", 0
        Tiny.computed.clear()
        self.new_data(0)

    @rule(number=strategies.integers(0, 3))
    def new_data(self, number: int) -> None:
        """A file arrives; or the same again."""
        file = self.photos / "class" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")

    @rule(number=strategies.integers(1, 3))
    def lost_data(self, number: int) -> None:
        """A file goes, so that the data may be as before."""
        (self.photos / "class" / f"{number}.png").unlink(missing_ok=True)

    @rule(views=strategies.integers(1, 3))
    def change_setting(self, views: int) -> None:
        """A setting changes, also back."""
        self.views = views

    @rule(version=strategies.integers(1, 3))
    def change_code(self, version: int) -> None:
        """The code of a stage changes, also back."""
        Middle.version = version

    @rule(passes=strategies.booleans())
    def change_check(self, passes: bool) -> None:
        """The gate fails, or passes, from now on."""
        self.set_aside = 0.5 if passes else 0.0

    @rule(dies=strategies.sampled_from([False, False, True]))
    def tick(self, dies: bool) -> None:
        """The sensor looks; the run that it asks for ends, or dies: not three times in turn, when it is given up."""
        dies = dies and self.deaths < MOST_DEATHS
        if self.look(dies=dies):
            self.deaths = self.deaths + 1 if dies else 0

    def look(self, *, dies: bool = False) -> bool:
        """Let the sensor look, execute the run that it asks for, and return whether it asked for one."""
        context: Any = SimpleNamespace(instance=self.instance, cursor=self.cursor)
        result = automation.look(context, self.declaration, self.store.root.parent, self.store)
        self.cursor = result.cursor or self.cursor
        for request in result.run_requests or ():
            self.execute(request.tags, dies=dies)
        return bool(result.run_requests)

    @rule()
    def cron_tick(self) -> None:
        """The schedule looks; the run that it asks for ends."""
        result = automation.decide(self.instance, self.declaration, self.store.root.parent, self.store)
        if isinstance(result, dg.RunRequest):
            self.execute(result.tags)

    @rule(asset=strategies.sampled_from(BELOW))
    def run_below_the_gate(self, asset: str) -> None:
        """Somebody materializes an asset below the gate alone."""
        self.execute({}, only=asset)

    @property
    def declaration(self) -> Declaration:
        """The pipeline as it is declared now."""
        return Declaration.model_validate(
            {
                "name": NAME,
                "source": {"kind": "folder", "path": str(self.photos)},
                "augmentation": {"views": self.views},
                "checks": {"set_aside": self.set_aside},
                "runs": {"quiet_seconds": 0},
            }
        )

    def execute(self, tags: Mapping[str, str], *, dies: bool = False, only: str | None = None) -> None:
        """Execute the job, or one asset of it, and look whether anything below a failed gate was materialized."""
        resources = {"artifacts": ArtifactIOManager(root=str(self.store.root))}
        shared = dg.Definitions(resources=resources)
        definitions = dg.Definitions.merge(build_definitions(self.declaration, self.store.root.parent), shared)
        job = definitions.resolve_job_def(NAME)
        if dies:
            run = self.instance.create_run_for_job(job, tags={**tags, DIED_TAG: "true"})
            self.instance.report_run_failed(run)
            return
        result = job.execute_in_process(
            instance=self.instance,
            tags=dict(tags),
            run_config=QUIET,
            raise_on_error=False,
            asset_selection=[dg.AssetKey([NAME, only])] if only else None,
        )
        first = self.store.get_current(NAME, "dataset")
        gated = only or self.set_aside == 0 or (first and first.failed_checks)
        assert result.success or gated, "a run failed without a reason"
        if first is None or first.failed_checks:
            materialized = {event.asset_key.path[-1] for event in result.get_asset_materialization_events()}
            assert not materialized & set(BELOW), f"{materialized} below a failed gate"

    def teardown(self) -> None:
        """After the last event everything is up to date after a few ticks, nothing was done twice, nothing is to do."""
        try:
            self.change_check(True)
            asked = [self.look() for _ in range(ENOUGH)]
            assert not asked[-1], "the sensor does not come to rest"
            done = dict(Tiny.computed)
            self.look()
            assert dict(Tiny.computed) == done
            twice = {key: times for key, times in done.items() if times > 1}
            assert not twice, f"computed more than once: {twice}"
            current = self.store.list_current(NAME)
            assert set(current) == {"dataset", *BELOW}
            for above, below in (("dataset", "middle"), ("middle", "last")):
                assert current[below].artifact.inputs[above] == current[above].artifact.data_version
            present = {kind.name: kind(self.declaration, self.store.root.parent).determining() for kind in KINDS}
            written = {name: json.loads((current[name].artifact.path / DETERMINING).read_text()) for name in present}
            assert written == present, "a change was not handled"
        finally:
            self.stack.close()
