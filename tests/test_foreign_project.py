"""The wheel, installed in an environment of its own, in projects that know nothing of this one."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import DECLARED, ROOT

WITH_DG = {
    "pyproject.toml": '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "quality"\n',
    "quality/definitions.py": """
from pathlib import Path
import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
""",
    "quality/defs/own.py": "import dagster as dg\n\n@dg.asset\ndef own(): ...\n",
}
WITH_WORKSPACE = {
    "workspace.yaml": "load_from:\n  - python_file: definitions.py\n",
    "definitions.py": """
from pathlib import Path
import dagster as dg
import tl_dagster

@dg.asset
def own(): ...

defs = dg.Definitions.merge(dg.Definitions(assets=[own]), tl_dagster.load_definitions(Path(__file__).parent))
""",
}
PROJECTS = {"dg": (WITH_DG, "quality/defs"), "workspace.yaml": (WITH_WORKSPACE, "assets")}


def run(*command, folder=None, check=True):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The folder of the programs of an environment with the wheel, on top of the libraries of this one."""
    pytest.importorskip("hatchling")  # of the extra `dev`
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env")
    run(*pip, "--python", folder / "env" / "bin" / "python", "install", "-q", "--no-deps", "--no-index", wheel)
    (packages,) = (folder / "env" / "lib").glob("*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "env" / "bin"


@pytest.mark.parametrize(("files", "declarations"), PROJECTS.values(), ids=PROJECTS)
def test_the_wheel_in_a_foreign_project(environment, files, declarations, tmp_path, photos, store, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    project = tmp_path / "project"
    declared = {
        f"{declarations}/{name}/defs.yaml": DECLARED.format(name=name, photos=photos, l2=0.1)
        for name in ("first", "second")
    }
    for name, text in {**files, **declared}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    where = run(environment / "python", "-c", "import tl_dagster; print(tl_dagster.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(environment.parent)
    below = project / declarations / "first"
    said = run(environment / "tl-dagster", "run", "first", folder=below)
    assert "fine_tuned_model" in said and "report.html" in said and "Warning" not in said
    shown = json.loads(run(environment / "tl-dagster", "show", "first", "--json", folder=below))
    assert "evaluation" in shown["assets"] and (project / ".dagster_home").is_dir()
    assert "did you mean 'second'" in run(environment / "tl-dagster", "run", "secnd", folder=project, check=False)
    path = project / declarations / "second" / "defs.yaml"
    path.write_text(path.read_text() + "  fine_tunning: {}\n")
    said = run(environment / "tl-dagster", "run", "second", folder=project, check=False)
    assert f"{declarations}/second/defs.yaml:10: unknown field 'fine_tunning': did you mean" in said
    assert len(said.splitlines()) == 1
    path.write_text("type: [")
    said = run(environment / "tl-dagster", "run", "second", folder=project, check=False)
    assert said.startswith(f"tl-dagster: {declarations}/second/defs.yaml:1: not YAML") and len(said.splitlines()) == 1
