"""The command line, on a project of its own with two pipelines side by side."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def call(project, *command, check=True):
    paths = os.pathsep.join([str(project), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"}
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


def test_two_pipelines_side_by_side(project):
    assert "validated successfully" in call(project, "dg", "check", "yaml")
    assert "loaded successfully" in call(project, "dg", "check", "defs")
    listed = call(project, "dg", "list", "defs", "--json")
    assert "first/evaluation" in listed and "second/evaluation" in listed

    said = call(project, "tl-dagster", "run", "first")
    assert "fine_tuned_model" in said and "report.html" in said
    call(project, "dg", "launch", "--job", "second")
    shown = json.loads(call(project, "tl-dagster", "show", "second", "--json"))
    assert shown["pipeline"] == "second"
    assert set(shown["assets"]) == {
        "dataset", "augmented_splits", "bottleneck_features", "transfer_strategy", "top_model", "fine_tuned_model",
        "evaluation",
    }  # fmt: skip
    features, top = shown["assets"]["bottleneck_features"], shown["assets"]["top_model"]
    assert features["reused"] and features["computed"] == 0 and features["reused_rows"] > 0  # first computed them
    assert not top["reused"] and top["metrics"]["l2"] == 0.2
    assert Path(top["path"], "model.safetensors").exists() and top["seconds"] > 0 and top["data_version"]

    for command in ("show", "run"):
        assert "did you mean 'first'" in call(project, "tl-dagster", command, "frist", check=False)


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
