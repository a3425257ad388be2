"""Projects that are made up: a small pipeline on solar cells, run by the command as a user runs it."""

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import yaml

from benchmarks.harness.configuration import ROOT, copy_configuration
from tl_dagster import Declaration
from tl_dagster.graph import stages as graph_stages

__all__ = ["MARK", "STAGES", "Project", "add_image", "declare_again", "elpv", "make_project", "solar_cells"]

PLAIN = Declaration.model_validate({"name": "plain", "source": {"kind": "folder", "path": "photos"}})
STAGES = tuple(stage.name for stage in graph_stages.STAGES if stage.is_enabled(PLAIN))
MARK = "TL_STOPPED_RUN"  # an environment variable that all processes of a run inherit
PROGRAM = str(Path(sys.executable).with_name("tl-dagster"))
LABELS = {"functional": 0.0, "defective": 1.0}


@dataclass(frozen=True)
class Project:
    """A project whose pipeline is run.

    Attributes:
        folder: the working folder.
        pipeline: name of the pipeline.
        environment: of the commands; holds DAGSTER_HOME and TL_DAGSTER_STORE.
    """

    folder: Path
    pipeline: str
    environment: dict[str, str]

    @property
    def store(self) -> Path:
        """The folder of artifacts."""
        return Path(self.environment["TL_DAGSTER_STORE"])

    def instance(self) -> dg.DagsterInstance:
        """Open the instance that the commands use."""
        return dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"])

    def on_postgresql(self, server: str) -> "Project":
        """Return the same project with another instance, which lies in a PostgreSQL server (its address)."""
        home = Path(self.environment["DAGSTER_HOME"])
        other = home.with_name(f"{home.name}_on_postgresql")
        other.mkdir()
        settings = yaml.safe_load((home / "dagster.yaml").read_text())
        storage = {"postgres": {"postgres_url": server}}
        (other / "dagster.yaml").write_text(yaml.safe_dump({**settings, "storage": storage}))
        return replace(self, environment={**self.environment, "DAGSTER_HOME": str(other)})

    def start(self, mark: str = "") -> subprocess.Popen[str]:
        """Start `tl-dagster run` in a session of its own, as a terminal does; processes are found by the mark."""
        return subprocess.Popen(
            [PROGRAM, "run", self.pipeline],
            cwd=self.folder,
            env={**self.environment, MARK: mark},
            start_new_session=True,
            preexec_fn=_heed_interrupts,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def call(self, *arguments: str) -> None:
        """Run a command of tl-dagster to its end."""
        subprocess.run(
            [PROGRAM, *arguments], cwd=self.folder, env=self.environment, check=True, stdout=subprocess.DEVNULL
        )

    def run(self) -> None:
        """Run the pipeline by the command, to its end."""
        running = self.start()
        output, _ = running.communicate()
        if running.returncode:
            raise RuntimeError(output)

    def forget(self, stage: str) -> None:
        """Delete the artifacts of a stage and of those below it: the next run computes them again."""
        gone = [Path("artifacts", name) for name in STAGES[STAGES.index(stage) :]]
        gone += [Path("features")] if stage in STAGES[:3] else []
        gone += [Path("index"), Path("groups")] if stage == "dataset" else []
        for folder in gone:
            shutil.rmtree(self.store / folder, ignore_errors=True)


def _heed_interrupts() -> None:
    """Ctrl-C counts, also where this process was started in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def make_project(folder: Path, images: int, **declared: object) -> Project:
    """Return a project with one small pipeline on solar cells.

    Args:
        folder: of the project, its instance, its store and its images; empty.
        images: how many, of two classes in turn.
        declared: further sections of the declaration.
    """
    copy_configuration(folder)
    (folder / "assets" / "cells").mkdir()
    for number, (label, file) in enumerate(itertools.islice(solar_cells(), images)):
        add_image(folder, number, label, file)
    attributes = {
        "name": "cells",
        "source": {"kind": "folder", "path": str(folder / "photos")},
        "splits": {"test": 0.3, "validation": 0.3},
        "augmentation": {"views": 2},
        "backbone": {"image_size": 64, "taps": ["penultimate"]},
        "fine_tuning": {"depth": "top", "epochs": 2, "learning_rate": 1e-4},
        **declared,
    }
    definition = {"type": "tl_dagster.TransferLearning", "attributes": attributes}
    (folder / "assets" / "cells" / "defs.yaml").write_text(yaml.safe_dump(definition))
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(folder / "home"),
        "TL_DAGSTER_STORE": str(folder / "store"),
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
    return Project(folder, "cells", environment)


def declare_again(project: Project, name: str, **declared: object) -> None:
    """Declare another pipeline on the same images, with changes."""
    first = yaml.safe_load((project.folder / "assets" / project.pipeline / "defs.yaml").read_text())
    first["attributes"] |= {"name": name, **declared}
    folder = project.folder / "assets" / name
    folder.mkdir()
    (folder / "defs.yaml").write_text(yaml.safe_dump(first))


def elpv() -> Path:
    """Return the folder of the solar cells that the package elpv_dataset ships, and of their labels.csv."""
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("elpv_dataset")
    return Path(package.origin).parent / "data"


def solar_cells() -> Iterator[tuple[str, Path]]:
    """Yield label and file of functional and defective cells in turn."""
    data = elpv()
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    by_label = [[(name, data / row[0]) for row in rows if float(row[1]) == value] for name, value in LABELS.items()]
    yield from itertools.chain.from_iterable(zip(*by_label, strict=False))


def add_image(folder: Path, number: int, label: str, file: Path) -> None:
    """Put an image into the project's folder, whole at once."""
    target = folder / "photos" / label / f"{number:04d}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, target.with_suffix(".part"))
    target.with_suffix(".part").rename(target)
