"""How often promotion is wrong, how often it is right, and what a rollback costs.

Models are simulated by which test images they predict correctly, with errors that are partly the same (a latent normal
variable for each image and model, correlated by half), on 2,000 images at an accuracy of 0.9. "Equal" challengers have
the champion's accuracy; better ones three points more. A year is 52 weekly challengers of one champion, none better,
on the same test images; the declared budget is 0.05. The rollback is the command, in a project of solar cells, from its
start to its end.

- ``equal_promoted_share``: of 1,000 equal challengers, each the first of its champion.
- ``year_of_equals_promoted_share``: of 1,000 years, those in which any was promoted.
- ``better_promoted_share``: of 1,000 challengers that are better by three points.
- ``rollback_seconds``: median of three.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.stats import norm

from benchmarks.common import finish, is_smallest, parse
from benchmarks.harness.projects import Project, make_project
from tl_dagster.evaluation.promotion import level_of_comparison, measure_gain
from tl_dagster.evaluation.settings import Promotion

ACCURACY, BETTER, IMAGES, WEEKS, TIMES = 0.9, 0.03, 2000, 52, 1000
CONFIDENCE: float = Promotion().confidence
TARGETS = {
    "equal_promoted_share": {"at_most": 0.05},
    "year_of_equals_promoted_share": {"at_most": 1 - CONFIDENCE},
    "better_promoted_share": {"at_least": 0.8},
    "rollback_seconds": {"at_most": 2.0},
}


class Comparison:
    """A test split on which models with partly the same errors are drawn.

    Args:
        seed: of all that is random.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.hardness = self.random.normal(size=IMAGES)
        self.champion = self.draw(ACCURACY)

    def draw(self, accuracy: float) -> np.ndarray:
        """Return which images a model of this accuracy predicts correctly: bool (IMAGES,)."""
        own = self.random.normal(size=IMAGES)
        right: np.ndarray = (self.hardness + own) / 2**0.5 < norm.ppf(accuracy)
        return right

    def is_promoted(self, accuracy: float, number: int) -> bool:
        """Return whether a challenger takes the champion's place in their ``number``-th comparison."""
        level = level_of_comparison(CONFIDENCE, number)
        return measure_gain(self.draw(accuracy), self.champion, np.arange(IMAGES), level).exceeds(0)


def is_any_promoted(seed: int) -> bool:
    """Return whether in a year of weekly challengers, none better, any takes the champion's place."""
    year = Comparison(seed)
    return any(year.is_promoted(ACCURACY, week) for week in range(1, WEEKS + 1))


def rollback_seconds(project: Project) -> float:
    """Put the other one of two models in service by the command, and return what that takes."""
    begun = time.perf_counter()
    project.call("rollback", project.pipeline, "--to", "1")
    seconds = time.perf_counter() - begun
    project.call("promote", project.pipeline, "--reason", "for the benchmark")
    return seconds


def measure_rollback(times: int) -> float:
    """Return the median of some rollbacks between two models of one pipeline."""
    with tempfile.TemporaryDirectory() as temporary:
        project = make_project(Path(temporary), images=200)
        project.run()
        declared = project.folder / "assets" / "cells" / "defs.yaml"
        declared.write_text(declared.read_text().replace("epochs: 2", "epochs: 1"))
        project.run()
        project.call("promote", project.pipeline, "--reason", "first")
        return statistics.median(rollback_seconds(project) for _ in range(times))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=TIMES, help="challengers, and years")
    options = parse(parser, times=3)
    seeds = range(options.times)
    figures: dict[str, float | None] = {
        "equal_promoted_share": statistics.mean(Comparison(seed).is_promoted(ACCURACY, 1) for seed in seeds),
        "year_of_equals_promoted_share": statistics.mean(map(is_any_promoted, seeds)),
        "better_promoted_share": statistics.mean(Comparison(seed).is_promoted(ACCURACY + BETTER, 1) for seed in seeds),
        "rollback_seconds": measure_rollback(1 if is_smallest() else 3),
    }
    finish("promotion", figures, TARGETS)


if __name__ == "__main__":
    main()
