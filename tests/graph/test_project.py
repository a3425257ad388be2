"""The project is found from any folder in it, however it says where its definitions are."""

import pytest

from tests.cli.test_cli import call
from tl_dagster import InputError
from tl_dagster.graph.project import find_project

DG = '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "photos_project"\n'
MODULE = '[tool.dagster]\nmodule_name = "photos_project.definitions"\n'
WORKSPACE = "load_from:\n  - python_module: photos_project.definitions\n"
FILE = "load_from:\n  - python_file: {relative_path: definitions.py}\n  - grpc_server: {port: 4266}\n"
DECLARED = {
    "tool.dg": ({"pyproject.toml": DG}, "photos_project.definitions"),
    "dg.toml": (
        {"dg.toml": 'directory_type = "project"\n[project]\nroot_module = "photos_project"\n'},
        "photos_project.definitions",
    ),
    "tool.dagster": ({"pyproject.toml": MODULE}, "photos_project.definitions"),
    "a module of a workspace": (
        {"pyproject.toml": "[project]\n", "workspace.yaml": WORKSPACE},
        "photos_project.definitions",
    ),
    "a file of a workspace": ({"workspace.yaml": FILE}, "definitions.py"),
    "declarations alone": ({"assets/cells/defs.yaml": ""}, "tl_dagster.definitions"),
}


@pytest.mark.parametrize(("files", "definitions"), DECLARED.values(), ids=DECLARED)
def test_where_the_definitions_are(tmp_path, files, definitions):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    below = tmp_path / "notebooks" / "old"
    below.mkdir(parents=True)
    project = find_project(below)
    (location,) = project.locations
    target = location.loadable_target_origin
    assert project.root == tmp_path and target.working_directory == str(tmp_path)
    assert (target.module_name or target.python_file).endswith(definitions)


REFUSED = {
    "nothing": ({}, "no project in .* or above it: go to a folder with assets/<pipeline>/defs.yaml"),
    "a pyproject.toml that is not TOML": ({"pyproject.toml": "[tool"}, "pyproject.toml cannot be read: "),
    "a workspace that is not YAML": ({"workspace.yaml": "a: ["}, "workspace.yaml cannot be used: "),
    "servers alone": ({"workspace.yaml": "load_from: [grpc_server: {port: 4266}]"}, "no code location of this Python"),
}


@pytest.mark.parametrize(("files", "words"), REFUSED.values(), ids=REFUSED)
def test_no_project_is_refused_in_one_line(tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        find_project(tmp_path)
    assert "\n" not in str(caught.value)


def test_definitions_that_cannot_be_imported_are_refused_in_one_line(tmp_path):
    (tmp_path / "workspace.yaml").write_text("load_from:\n  - python_file: definitions.py\n")
    (tmp_path / "definitions.py").write_text("import nowhere\n")
    with pytest.raises(InputError, match="No module named 'nowhere'") as caught:
        find_project(tmp_path).get_job("cells")
    assert "\n" not in str(caught.value)


def test_definitions_that_are_built_when_their_module_is_imported(project_here):
    path = project_here / "assets" / "first" / "defs.yaml"
    path.write_text(path.read_text() + "  fine_tunning: {}\n")
    (project_here / "pyproject.toml").unlink()
    (project_here / "workspace.yaml").write_text("load_from:\n  - python_file: definitions.py\n")
    text = "from pathlib import Path\nimport tl_dagster\ndefs = tl_dagster.load_definitions(Path(__file__).parent)\n"
    (project_here / "definitions.py").write_text(text)
    project = find_project()
    assert project.get_job("second").repository.repository_load_data.reconstruction_metadata
    with pytest.raises(InputError, match=r"^assets/first/defs\.yaml:10: unknown field 'fine_tunning'"):
        project.get_job("first")


def test_a_command_outside_of_projects_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    said = call(tmp_path, "tl-dagster", "run", "cells", check=False)
    assert said.startswith("tl-dagster: no project in") and len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_project_is_used_from_any_folder(project, tmp_path_factory):
    below = project / "assets" / "first"
    said = call(below, "tl-dagster", "run", "frist", check=False)
    assert "did you mean 'first'" in said and len(said.splitlines()) == 1
    outside = tmp_path_factory.mktemp("elsewhere")
    checked = call(outside, "dagster", "definitions", "validate", "-w", str(project / "workspace.yaml"))
    assert "Validation successful" in checked, checked
