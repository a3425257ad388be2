"""What 24 configurations of one backbone cost over one: the command ``tl-dagster leaderboard``, from start to end.

A project of solar cells at the backbone's own size; its images and splits are there, no feature is. The 24 are eight
layers of EfficientNet-lite0 with three poolings each; the one is its highest layer, averaged. Each command begins with
an empty feature cache.

- ``cost_of_24_over_one``: ratio of the medians of some runs of each, in turn.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.common import finish, parse
from benchmarks.harness.projects import Project, make_project

TARGETS = {"cost_of_24_over_one": {"at_most": 1.5}}
ONE = {"taps": ["higher"], "poolings": ["avg"]}
MANY = {"taps": [*(f"blocks.{number}" for number in range(7)), "higher"], "poolings": ["avg", "max", "grid2x2"]}


def prepare(folder: Path, images: int, size: int) -> Project:
    """Return a project whose dataset and splits are there."""
    project = make_project(folder, images, backbone={"image_size": size}, splits={"test": 0.25, "validation": 0.15})
    subprocess.run(
        [
            *(str(Path(sys.executable).with_name("dagster")), "asset", "materialize", "-m", "tl_dagster.definitions"),
            *("--select", f'key:"{project.pipeline}/dataset" or key:"{project.pipeline}/augmented_splits"'),
        ],
        cwd=folder,
        env=project.environment,
        check=True,
        capture_output=True,
    )
    return project


def measure_seconds(project: Project, size: int, declared: dict[str, list[str]]) -> tuple[float, int]:
    """Return the seconds of the command with a leaderboard, and how many configurations it compared."""
    file = project.folder / "assets" / "cells" / "defs.yaml"
    component = yaml.safe_load(file.read_text())
    backbone = {"name": "timm/tf_efficientnet_lite0", "image_size": size}
    component["attributes"]["backbone_leaderboard"] = {"backbones": [backbone], **declared}
    file.write_text(yaml.safe_dump(component))
    for name in ("features", "artifacts/leaderboard_entry", "artifacts/backbone_leaderboard"):
        shutil.rmtree(project.store / name, ignore_errors=True)
    begun = time.perf_counter()
    project.call("leaderboard", project.pipeline)
    seconds = time.perf_counter() - begun
    (described,) = (project.store / "artifacts" / "backbone_leaderboard").glob("*/artifact.json")
    return seconds, json.loads(described.read_text())["outcome"]["rows"]


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1430)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parse(parser, images=40, size=64, repeats=1)
    with tempfile.TemporaryDirectory() as temporary:
        project = prepare(Path(temporary), arguments.images, arguments.size)
        one, many = [], []
        for _ in range(arguments.repeats):
            for seconds, declared, configurations in ((one, ONE, 1), (many, MANY, 24)):
                elapsed, compared = measure_seconds(project, arguments.size, declared)
                if compared != configurations:
                    raise RuntimeError(f"{compared} configurations instead of {configurations}")
                seconds.append(round(elapsed, 2))
    ratio = statistics.median(many) / statistics.median(one)
    print(f"one {one} s, 24 {many} s")
    finish("leaderboard", {"cost_of_24_over_one": ratio}, TARGETS)


if __name__ == "__main__":
    main()
