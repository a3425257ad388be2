"""Shared parts of the tests: real solar-cell photographs, a store, and a real Dagster instance to run pipelines on."""

import os
import shutil
import signal
import sys
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from benchmarks.harness.configuration import QUIET as QUIET
from benchmarks.harness.configuration import ROOT as ROOT
from benchmarks.harness.configuration import copy_configuration
from benchmarks.harness.postgresql import postgresql
from benchmarks.harness.projects import elpv as elpv
from tl_dagster import ArtifactIOManager, ArtifactStore, Declaration, build_definitions
from tl_dagster.features.engine import LocalEngine
from tl_dagster.features.feature_table import FeatureTable
from tl_dagster.graph.engine import build_engine
from tl_dagster.graph.stage import StageContext
from tl_dagster.graph.stages import STAGES
from tl_dagster.runtime.progress import Progress
from tl_dagster.store.artifacts import Materialization
from tl_dagster.training.settings import MlpTopModel

# A process that nohup or a shell's "&" began ignores these, and so do its children; the tests send them.
for number in (signal.SIGHUP, signal.SIGINT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)

# Tests run on all processors side by side; threads beside that would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def labels() -> pd.DataFrame:
    """image, probability, module of every ELPV cell."""
    return pd.read_csv(elpv() / "labels.csv", sep=r"\s+", names=["image", "probability", "module"])


def copy_photos(folder: Path, labels: pd.DataFrame, count: int) -> Path:
    """A folder of functional and defective cells, ``count`` of each, one sub-folder per class."""
    for name, value in (("functional", 0.0), ("defective", 1.0)):
        (folder / name).mkdir(parents=True)
        for image in labels[labels["probability"] == value]["image"].head(count):
            shutil.copy(elpv() / image, folder / name)
    return folder


@pytest.fixture
def photos(tmp_path: Path, labels: pd.DataFrame) -> Path:
    return copy_photos(tmp_path / "photos", labels, 30)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is shared by all tests of this run, those of other workers too."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def share_backbones(root: Path, shared: Path) -> dict[str, str]:
    """Let a store share what is known of backbones with all tests; return the environment of its processes."""
    root.mkdir()
    (shared / "backbones").mkdir(exist_ok=True)
    (root / "backbones").symlink_to(shared / "backbones")
    # Networks that were compiled outside of the tests would give rows with other last bits.
    return {"TL_DAGSTER_STORE": str(root), "XDG_CACHE_HOME": str(shared / "cache")}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: Path) -> ArtifactStore:
    """An empty store; what is known of backbones is shared by all tests."""
    for name, value in share_backbones(tmp_path / "store", shared).items():
        monkeypatch.setenv(name, value)
    return ArtifactStore(tmp_path / "store")


POOR = {"top_model": MlpTopModel(kind="mlp", epochs=1, learning_rate=1e-5)}  # fine-tuning is better than that


class Pipeline:
    """Runs declarations as Dagster jobs in one instance and one store."""

    def __init__(self, store: ArtifactStore, instance: dg.DagsterInstance, source: Path) -> None:
        self.store, self.instance, self.photos = store, instance, source
        self.settings: dict = {
            "name": "cells",
            "source": {"kind": "folder", "path": str(source)},
            "splits": {"test": 0.3, "validation": 0.3},
            "augmentation": {"views": 3},
            "backbone": {"image_size": 64, "taps": ["penultimate"]},
            "fine_tuning": {"depth": "top", "epochs": 1, "learning_rate": 1e-4},
            "top_model": {"l2": [0.1]},
        }

    def declaration(self, **changes) -> Declaration:
        merged = {**self.settings}
        for section, change in changes.items():
            merged[section] = {**merged.get(section, {}), **change} if isinstance(change, dict) else change
        return Declaration.model_validate(merged)

    def definitions(self, **changes) -> dg.Definitions:
        shared = dg.Definitions(resources={"artifacts": ArtifactIOManager(root=str(self.store.root))})
        return dg.Definitions.merge(build_definitions(self.declaration(**changes), self.store.root.parent), shared)

    def run(self, *, raise_on_error: bool = True, upto: str | None = None, **changes) -> dg.ExecuteInProcessResult:
        """Run the pipeline, or only an asset with all that it is made from."""
        name = changes.get("name", "cells")
        job = self.definitions(**changes).resolve_job_def(name)
        names = [each.name for each in STAGES]
        wanted = upto and [dg.AssetKey([name, each]) for each in names[: names.index(upto) + 1]]
        return job.execute_in_process(
            instance=self.instance, raise_on_error=raise_on_error, run_config=QUIET, asset_selection=wanted
        )

    def engine(self, progress: Progress | None = None, **changes) -> LocalEngine:
        """The engine of the declared features; it reads the current dataset."""
        declaration, current = self.declaration(**changes), self.held()
        inputs = {each: current[each].artifact for each in ("dataset",) if each in current}
        return build_engine(declaration, StageContext(self.store, inputs, progress or Progress(print), None))

    def features(self, name: str = "cells") -> FeatureTable:
        """The features that a pipeline has now."""
        return FeatureTable.open(self.held(name)["bottleneck_features"].artifact.path, self.store.layout.features)

    def tick(self, cursor: str | None, **changes) -> SensorExecutionData:
        """Evaluate the pipeline's only sensor."""
        defs = self.definitions(**changes)
        (sensor,) = defs.sensors
        with dg.build_sensor_context(
            self.instance, cursor, definitions=defs, resources=dict(defs.resources)
        ) as context:
            return sensor.evaluate_tick(context)

    def held(self, name: str = "cells") -> dict[str, Materialization]:
        return {each.name: held for each in STAGES if (held := self.store.get_current(name, each.name))}


@pytest.fixture
def pipeline(store: ArtifactStore, photos: Path):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Pipeline(store, instance, photos)


DECLARED = """
type: tl_dagster.TransferLearning
attributes:
  name: {name}
  source: {{kind: folder, path: {photos}}}
  splits: {{test: 0.3, validation: 0.3}}
  backbone: {{image_size: 64, taps: [penultimate]}}
  top_model: {{l2: [{l2}]}}
  fine_tuning: {{depth: top, epochs: 1, learning_rate: 1.0e-4}}
"""


@pytest.fixture
def project(tmp_path, photos, store, monkeypatch):
    """A folder with the project's own configuration and two declared pipelines."""
    copy_configuration(tmp_path)
    for name, l2 in (("first", 0.1), ("second", 0.2)):
        folder = tmp_path / "assets" / name
        folder.mkdir()
        (folder / "defs.yaml").write_text(DECLARED.format(name=name, photos=photos, l2=l2))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture(scope="session", name="postgresql")
def postgresql_server():
    """The address of a PostgreSQL server of the tests' own."""
    with postgresql() as address:
        yield address


@pytest.fixture
def project_here(project, monkeypatch):
    """The project as the working folder of this process, which imports the packages of no other project."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "assets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(project)
    yield project
    for name in [name for name in sys.modules if name.partition(".")[0] == "assets"]:
        del sys.modules[name]
