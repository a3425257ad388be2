"""kill -9 at any moment: the next run finishes, keeps what was flushed, and gives the same rows."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import Pipeline
from tl_dagster.training.checkpoints import Checkpoint

CODE = """
import sys, dagster as dg
from pathlib import Path
from tl_dagster import ArtifactIOManager, Declaration, build_definitions
from tl_dagster.data import files, ingestion
from tl_dagster.features import extraction, loading
files.SETTLED_SECONDS = -1.0
ingestion.FLUSH_SECONDS = 0.0
ingestion.PART = 2
extraction.FLUSH_SECONDS = 0.0
loading.PROCESSES_FROM = 0
defs = dg.Definitions.merge(
    build_definitions(Declaration.model_validate({settings!r}), Path(".")),
    dg.Definitions(resources={{"artifacts": ArtifactIOManager(root={root!r})}}),
)
with dg.DagsterInstance.ephemeral() as instance:
    defs.resolve_job_def("cells").execute_in_process(instance=instance)
"""


def kill_when(pipeline: Pipeline, pattern: str, count: int) -> None:
    """Run the pipeline in a process of its own and kill it as soon as the store holds so many files."""
    code = CODE.format(settings=pipeline.settings, root=str(pipeline.store.root))
    running = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL, start_new_session=True)
    while len(list(pipeline.store.root.glob(pattern))) < count:
        assert running.poll() is None
        time.sleep(0.001)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    for _ in range(100):  # its workers end by themselves
        if not (left := processes_of(running.pid)):
            return
        time.sleep(0.1)
    raise AssertionError(left)


def processes_of(session: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
            if number == str(session) and state != "Z":
                found.append(stat.parent.name)
    return found


def test_killed_while_reading(pipeline: Pipeline, monkeypatch):
    monkeypatch.setattr("tl_dagster.data.files.SETTLED_SECONDS", -1.0)
    pipeline.settings["compute"] = {"workers": 1}
    kill_when(pipeline, "index/*/*.parquet", 3)
    assert not pipeline.held()
    assert pipeline.run().success
    assert 0 < pipeline.held()["dataset"].computed < 58


def test_killed_while_extracting(pipeline: Pipeline, tmp_path):
    pipeline.settings["compute"] = {"batch_size": 4}
    kill_when(pipeline, "features/*/*.arrow", 20)
    assert not pipeline.held().get("bottleneck_features")

    assert pipeline.run().success
    resumed = pipeline.held()["bottleneck_features"]
    assert 0 < resumed.computed < resumed.artifact.summary.rows
    undisturbed = Pipeline(type(pipeline.store)(tmp_path / "other"), pipeline.instance, tmp_path / "photos")
    undisturbed.settings["compute"] = {"batch_size": 4}
    assert undisturbed.run().success
    other = undisturbed.held()["bottleneck_features"]
    assert other.computed == other.artifact.summary.rows
    assert (pipeline.features().features()[:] == undisturbed.features().features()[:]).all()


def test_killed_while_fine_tuning(pipeline: Pipeline, tmp_path):
    pipeline.settings["fine_tuning"] = {"depth": "top", "epochs": 12, "learning_rate": 1e-3, "patience": None}
    kill_when(pipeline, "checkpoints/*.safetensors", 1)
    assert "top_model" in pipeline.held() and "fine_tuned_model" not in pipeline.held()
    said: list[str] = []
    (checkpoint,) = pipeline.store.layout.checkpoints.glob("*.safetensors")
    assert len(Checkpoint(checkpoint, said.append).metadata()["history"]) > 1 and not said
    undisturbed = Pipeline(type(pipeline.store)(tmp_path / "other"), pipeline.instance, tmp_path / "photos")
    undisturbed.settings["fine_tuning"] = pipeline.settings["fine_tuning"]
    models = []
    for each in (pipeline, undisturbed):
        assert each.run(upto="fine_tuned_model").success
        models.append(each.held()["fine_tuned_model"].artifact.path)
    for file in ("model.safetensors", "predictions.parquet"):
        assert (models[0] / file).read_bytes() == (models[1] / file).read_bytes()
