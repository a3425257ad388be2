"""What the doctor finds in a working place, and that it names what is broken, with the mend, and exits with 1."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from benchmarks.harness.projects import make_project
from tl_dagster.cli.main import group
from tl_dagster.graph import diagnosis
from tl_dagster.graph.runs import PROCESS_TAG


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project with an instance and a store of its own; hubs are not asked."""
    project = make_project(tmp_path, images=4)
    for name in ("DAGSTER_HOME", "TL_DAGSTER_STORE"):
        monkeypatch.setenv(name, project.environment[name])
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(diagnosis, "HUBS", ("http://127.0.0.1:9",))
    return tmp_path


def examine() -> tuple[int, dict[str, dict[str, str]]]:
    result = CliRunner().invoke(group, ["doctor", "--json"])
    return result.exit_code, {each["name"]: each for each in json.loads(result.output)}


def test_a_working_place(place: Path):
    code, found = examine()
    assert code == 0
    states = {name: each["state"] for name, each in found.items()}
    assert [name for name, state in states.items() if state == "failed"] == []
    assert [found["model hubs"]["state"], found["daemon"]["state"]] == ["warning", "warning"]
    assert "tl-dagster" in found["versions"]["description"]
    assert "gpu: 1 at a time" in found["pools"]["description"]
    assert "writable" in found["store"]["description"]


def test_what_is_broken_is_named_with_its_mend(place: Path):
    (place / "home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    (place / "assets" / "cells" / "defs.yaml").write_text("type: tl_dagster.TransferLearning\nattributes: {nam: x}\n")
    (place / "store").write_text("a file where the store should be")
    command = [str(Path(sys.executable).with_name("tl-dagster")), "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    found = {each["name"]: each for each in json.loads(done.stdout)}
    failed = {name: each for name, each in found.items() if each["state"] == "failed"}
    assert set(failed) == {"project", "store", "pools"}
    assert "did you mean 'name'" in failed["project"]["description"]
    assert str(place / "store") in failed["store"]["description"]
    assert "default_limit" in failed["pools"]["mend"]


def test_runs_that_died_unnoticed(place: Path):
    @dg.job
    def cells() -> None:
        pass

    here = socket.gethostname()
    with dg.DagsterInstance.get() as instance:
        for host in (here, "another-machine"):  # of which nothing is known
            tags = {PROCESS_TAG: f"{host} 1 12345"}
            instance.create_run_for_job(cells, status=dg.DagsterRunStatus.STARTED, tags=tags)
    assert examine()[1]["runs"]["description"].startswith("1 whose process is gone")


def test_without_an_instance_and_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(diagnosis, "HUBS", ())
    monkeypatch.chdir(tmp_path)
    for name in ("DAGSTER_HOME", "TL_DAGSTER_STORE"):
        monkeypatch.delenv(name, raising=False)
    code, found = examine()
    assert code == 1
    assert found["DAGSTER_HOME"]["state"] == "failed"
    assert found["store"]["state"] == "warning"
    assert list(tmp_path.iterdir()) == []  # nothing is left behind
