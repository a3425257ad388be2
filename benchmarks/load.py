"""The time until Dagster can use the package: importing it, and loading the definitions of one pipeline and of fifty.

Each load is a process of its own, and the two sides of a comparison run in turn.

- ``import_seconds_over_python``: ``import tl_dagster``, beyond the start of the interpreter.
- ``definitions_over_empty_project``: a project of one pipeline over one without any, both by
  ``dagster.load_from_defs_folder``. Dagster imports every installed package with components; in the empty project an
  empty module stands for this one, as if it were not installed.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import finish, parse

ROUNDS, MANY = 5, 50
PYPROJECT = '[tool.dg]\ndirectory_type = "project"\n[tool.dg.project]\nroot_module = "assets"\ndefs_module = "assets"\n'
EMPTY_DEFINITIONS = """
import sys, types
sys.modules["tl_dagster"] = types.ModuleType("tl_dagster")
from pathlib import Path
import dagster as dg
dg.load_from_defs_folder(path_within_project=Path.cwd()).get_repository_def()
"""
DEFINITIONS = """
from tl_dagster.definitions import defs
repository = defs().get_repository_def()
assert len(repository.assets_defs_by_key) >= {pipelines} * 7
"""
DECLARATION = """
type: tl_dagster.TransferLearning
attributes:
  name: pipeline_{number}
  source: {{kind: folder, path: photos}}
"""
TARGETS = {
    "import_seconds_over_python": {"at_most": 0.1},
    "definitions_over_empty_project": {"at_most": 1.5},
    f"definitions_{MANY}_pipelines_seconds": {"at_most": 10.0},
}


def build_project(folder: Path, pipelines: int) -> Path:
    """Write a Dagster project with so many declared pipelines."""
    assets = folder / "assets"
    assets.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (assets / "__init__.py").touch()
    for number in range(pipelines):
        (assets / f"pipeline_{number}").mkdir()
        (assets / f"pipeline_{number}" / "defs.yaml").write_text(DECLARATION.format(number=number))
    return folder


def seconds(code: str, folder: Path) -> float:
    """Return the time of a process that runs code in a folder, from its start to its end."""
    paths = os.pathsep.join([str(folder), str(Path(__file__).parent.parent)])
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        check=True,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": paths, "TL_DAGSTER_STORE": str(folder.parent / "store")},
    )
    return time.perf_counter() - begun


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--pipelines", type=int, default=MANY, help="of the second project")
    options = parse(parser, rounds=1, pipelines=2)
    count = options.pipelines
    with tempfile.TemporaryDirectory() as name:
        empty, one, many = (build_project(Path(name, f"project{each}"), each) for each in (0, 1, count))
        seconds(DEFINITIONS.format(pipelines=1), one)  # bytecode, and what is known of the backbone
        rounds = [
            (
                seconds("", empty),
                seconds("import tl_dagster", empty),
                seconds(EMPTY_DEFINITIONS, empty),
                seconds(DEFINITIONS.format(pipelines=1), one),
                seconds(DEFINITIONS.format(pipelines=count), many),
            )
            for _ in range(options.rounds)
        ]
    figures: dict[str, float | None] = {
        "import_seconds_over_python": statistics.median(imported - python for python, imported, *_ in rounds),
        "empty_project_seconds": statistics.median(nothing for _, _, nothing, _, _ in rounds),
        "definitions_over_empty_project": statistics.median(loaded / nothing for _, _, nothing, loaded, _ in rounds),
        f"definitions_{count}_pipelines_seconds": statistics.median(loaded for *_, loaded in rounds),
    }
    finish("load", figures, TARGETS)


if __name__ == "__main__":
    main()
