"""The main job on solar cells, as a user first meets it: the time of a first run.

`--fresh` also times `make demo` twice in a fresh clone with a fresh virtual environment. What the models are worth is
the benchmark `accuracy`'s matter.
"""

import argparse
import importlib.util
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from benchmarks.common import apart, finish, fresh, is_smallest, parse
from tl_dagster import ArtifactIOManager, Declaration, build_definitions
from tl_dagster.graph.logging import run_logger

ROOT = Path(__file__).parent.parent
FEW = 120  # images, in the smallest form
TARGETS = {
    "pipeline_seconds": {"at_most": 300.0},
    "fresh_clone_make_demo_seconds": {"at_most": 480.0},
    "second_make_demo_seconds": {"at_most": 30.0},
}


def reduce(declared: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The declared pipeline with a few of the images, small, with fewer views and less training."""
    source = declared["source"]
    package = importlib.util.find_spec(source["package"])
    if package is None or package.origin is None:
        raise ModuleNotFoundError(source["package"])
    table = Path(package.origin).parent / source["path"]
    lines = table.read_text().splitlines(keepends=True)
    (folder / table.name).write_text("".join(lines[:: len(lines) // FEW]))
    here = {"package": None, "path": str(folder / table.name), "root": str(table.parent)}
    return {
        **declared,
        "source": {**source, **here},
        "augmentation": {**declared["augmentation"], "views": 2, "test_views": 1},
        "backbone": {**declared["backbone"], "image_size": 64},
        "fine_tuning": {**declared["fine_tuning"], "epochs": 1},
    }


def pipeline() -> dict[str, float]:
    """Seconds of the declared pipeline's first run, in an empty store and nothing compiled before."""
    declared = yaml.safe_load((ROOT / "assets/solar_cells/defs.yaml").read_text())["attributes"]
    with tempfile.TemporaryDirectory() as folder, dg.instance_for_test() as instance:
        declared = reduce(declared, Path(folder)) if is_smallest() else declared
        store = ArtifactIOManager(root=str(Path(folder, "store")))
        shared = dg.Definitions(resources={"artifacts": store}, loggers={"progress": run_logger})
        defs = dg.Definitions.merge(build_definitions(Declaration.model_validate(declared), ROOT), shared)
        job = defs.resolve_job_def(declared["name"])
        begun = time.monotonic()
        job.execute_in_process(instance=instance, run_config={"loggers": {"progress": {}}})
        return {"seconds": time.monotonic() - begun}


def fresh_clone(folder: Path) -> tuple[float, float]:
    """Seconds of `make demo` in a fresh clone, and of `make demo` again."""
    subprocess.run(["git", "clone", "-q", str(ROOT), folder / "clone"], check=True)
    caches = {name: path for name, path in fresh(folder).items() if "CACHE" in name}
    seconds = []
    for _ in range(2):
        begun = time.monotonic()
        subprocess.run(["make", "demo"], cwd=folder / "clone", check=True, env={**os.environ, **caches})
        seconds.append(time.monotonic() - begun)
    return seconds[0], seconds[1]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true")
    cloned = parse(parser).fresh
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first, second = fresh_clone(Path(one)) if cloned else (None, None)
        alone = apart(pipeline, environment=fresh(Path(other)))
    figures: dict[str, float | None] = {
        "pipeline_seconds": alone["seconds"],
        "fresh_clone_make_demo_seconds": first,
        "second_make_demo_seconds": second,
    }
    finish("demo", figures, TARGETS, part=not cloned)


if __name__ == "__main__":
    main()
