"""The wheel, installed in an environment of its own, in projects that know nothing of this one."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import DECLARED, ROOT, copy_photos

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


def build_project(folder, files, declarations, photos):
    declared = {name: DECLARED.format(name=name, photos=photos, l2=0.1) for name in ("first", "second")}
    declared = {f"{declarations}/{name}/defs.yaml": text for name, text in declared.items()}
    for name, text in {**files, **declared}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_the_wheel_in_foreign_projects(environment, tmp_path, labels, store, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    photos = copy_photos(tmp_path / "photos", labels, 20)
    where = run(environment / "python", "-c", "import tl_dagster; print(tl_dagster.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(environment.parent)
    for kind, (files, declarations) in PROJECTS.items():  # the second reuses what the first computed
        project = build_project(tmp_path / kind, files, declarations, photos)
        path = project / declarations / "second" / "defs.yaml"
        said = run(environment / "tl-dagster", "run", "first", folder=path.parent)
        assert "fine_tuned_model" in said and "_model (best)" in said
        assert "/reports/first/" in said and "Warning" not in said
        assert (project / ".dagster_home").is_dir()
        path.write_text(path.read_text() + "  fine_tunning: {}\n")
        said = run(environment / "tl-dagster", "run", "second", folder=project, check=False)
        assert said.startswith(f"tl-dagster: {declarations}/second/defs.yaml:10: unknown field 'fine_tunning': did you")
        assert len(said.splitlines()) == 1
        path.write_text("type: [")
        said = run(environment / "tl-dagster", "run", "second", folder=project, check=False)
        assert (
            said.startswith(f"tl-dagster: {declarations}/second/defs.yaml:2: not YAML") and len(said.splitlines()) == 1
        )
