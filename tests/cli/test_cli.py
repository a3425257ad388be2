"""The command line, on a project of its own with two pipelines side by side."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from benchmarks.harness.daemon import free_port
from tests.conftest import ROOT


def call(project, *command, check=True):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(project), str(ROOT)]), "COLUMNS": "200"}
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [program, *command[1:]],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout if check else done.stdout + done.stderr


def test_two_pipelines_side_by_side(project, photos):
    assert "validated successfully" in call(project, "dg", "check", "yaml")
    assert "loaded successfully" in call(project, "dg", "check", "defs")
    listed = call(project, "dg", "list", "defs", "--json")
    assert "first/evaluation" in listed and "second/evaluation" in listed

    (photos / "functional" / "broken.png").write_bytes(b"no image")
    said = call(project, "tl-dagster", "run", "first")
    for words in (
        "fine_tuned_model", "60 images of 2 classes; 1 file not used", "(best)", "train (by a hash)", "strategy  ",
        "best      ", "failed    dataset: readable: files that cannot be used: 1 of 61",
    ):  # fmt: skip
        assert words in said, words
    assert Path(next(line for line in said.splitlines() if line.startswith("report ")).split()[1]).exists()
    call(project, "dg", "launch", "--job", "second")
    shown = json.loads(call(project, "tl-dagster", "show", "second", "--json"))
    assert shown["pipeline"] == "second"
    assert set(shown["assets"]) == {
        "dataset", "augmented_splits", "bottleneck_features", "transfer_strategy", "top_model", "fine_tuned_model",
        "evaluation", "champion",
    }  # fmt: skip
    features, top = shown["assets"]["bottleneck_features"], shown["assets"]["top_model"]
    assert features["reused"] and features["computed"] == 0 and features["reused_rows"] > 0  # first computed them
    assert not top["reused"] and top["metrics"]["l2"] == 0.2
    assert Path(top["path"], "model.safetensors").exists() and top["seconds"] > 0 and top["data_version"]

    assert shown["best"] in shown["models"] and set(shown["models"]) == {"top_model", "fine_tuned_model"}
    assert shown["splits"]["test"]["origin"] == "hashed" and shown["splits"]["test"]["images"] > 10
    assert next((check["asset"], check["name"]) for check in shown["failed_checks"]) == ("dataset", "readable")
    assert shown["reasons"] and shown["strategy"].startswith("f") and not shown["outdated"]

    for command in ("show", "run"):
        assert "did you mean 'first'" in call(project, "tl-dagster", command, "frist", check=False)


@pytest.fixture
def elsewhere(project):
    """A shell in another folder, that knows nothing of the project."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "TL_"))}
    return {"cwd": "/", "env": {**environment, "PYTHONPATH": str(ROOT)}, "shell": True, "executable": "/bin/bash"}


def test_the_commands_of_the_last_lines_work_in_another_shell(project, elsewhere):
    from tl_dagster.graph.stages import STAGES

    call(project, "dg", "launch", "--assets", "key:first/dataset")
    lines = call(project, "tl-dagster", "show", "first").splitlines()
    commands = {line.split()[0]: line[10:] for line in lines if line.startswith(("JSON ", "UI "))}
    shown = subprocess.run(commands["JSON"], capture_output=True, text=True, check=True, **elsewhere).stdout
    assert set(json.loads(shown)["assets"]) == {STAGES[0].name}
    assert f"DAGSTER_HOME={project / 'home'} " in commands["UI"]
    port = free_port()
    interface = subprocess.Popen(f"exec 2>&1; {commands['UI']} -p {port}", start_new_session=True, **elsewhere)
    try:
        assert len(runs_of(port)) == 1
    finally:
        os.killpg(interface.pid, signal.SIGTERM)
        interface.wait(60)


def runs_of(port: int) -> list:
    """The runs that a UI lists, when it has started."""
    query = json.dumps({"query": "{ runsOrError { ... on Runs { results { runId } } } }"}).encode()
    address = f"http://127.0.0.1:{port}/graphql"
    request = urllib.request.Request(address, query, {"Content-Type": "application/json"})
    for _ in range(240):
        try:
            answer = urllib.request.urlopen(request, timeout=10).read()  # noqa: S310
            return json.loads(answer)["data"]["runsOrError"]["results"]
        except OSError:
            time.sleep(0.5)
    raise TimeoutError(address)


@pytest.mark.parametrize("command", [["run", "first"], ["show", "first"], ["diff", "first"], ["run", "--help"]])
def test_outside_of_a_project_no_folder_is_left(tmp_path, monkeypatch, command):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("TL_DAGSTER_STORE", raising=False)
    said = call(tmp_path, "tl-dagster", *command, check=False)
    assert list(tmp_path.iterdir()) == [] and "Traceback" not in said


def test_a_failed_run_says_one_clear_thing(project, photos):
    photos.rename(photos.with_name("elsewhere"))
    said = call(project, "tl-dagster", "run", "first", check=False)
    assert said.count("no folder") == 1 and "Traceback" not in said and "Stack Trace" not in said


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("  splits: {tets: 0.3}", ["unknown field 'tets'", "did you mean 'test'", "splits"]),
        ("  backbone: {taps: [stage9]}", ["has no tap 'stage9'", "allowed: stage1"]),
        ("  splits: {test: 1.5}", ["less than 1"]),
    ],
)
def test_a_bad_declaration_is_refused_with_its_line(project, line, words):
    path = project / "assets" / "first" / "defs.yaml"
    head = "type: tl_dagster.TransferLearning\nattributes:\n  name: first\n  source: {kind: folder, path: photos}\n"
    path.write_text(f"{head}{line}\n")
    said = call(project, "dg", "check", "defs", check=False)
    for word in [*words, "defs.yaml:5"]:
        assert word in " ".join(said.split()), said
