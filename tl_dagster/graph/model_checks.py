"""Results of the checks of the selected model on the test split: the least that a model must do."""

from tl_dagster.declaration import Checks
from tl_dagster.evaluation.results import EvaluationResults
from tl_dagster.graph.stage import CheckResult
from tl_dagster.reporting.tables import MOST_ROWS

__all__ = ["DESCRIPTIONS", "check_model"]

FEWEST = 5  # test images of a class; with fewer, that none is predicted correctly may be chance

DESCRIPTIONS = {
    "better_than_majority": "The selected model's accuracy is surely more than that of always answering one class.",
    "no_worse_than_top_model": "The selected model is not surely worse than the top model that it was trained on from.",
    "calibrated": "The selected model's confidence is as large as its accuracy.",
    "every_class_predicted": f"Of each class with {FEWEST} test images or more, some are predicted correctly.",
}


def check_model(results: EvaluationResults, settings: Checks) -> dict[str, CheckResult]:
    """Return check → its result on the selected model; :data:`DESCRIPTIONS` has the same checks."""
    return {
        "better_than_majority": _better_than_majority(results),
        "no_worse_than_top_model": _no_worse_than_top_model(results),
        "calibrated": _calibrated(results, settings),
        "every_class_predicted": _every_class_predicted(results),
    }


def _better_than_majority(results: EvaluationResults) -> CheckResult:
    """Check that the lower end of the accuracy's 95 % interval lies above the share of the largest class."""
    supports = {name: each.support for name, each in zip(results.classes, results.selected.per_class, strict=True)}
    largest = max(supports, key=supports.__getitem__)
    share, low = supports[largest] / results.images, results.selected.intervals["accuracy"][0]
    passed = low > share
    description = (
        f"accuracy {results.selected.accuracy:.3f}, at least {low:.3f}; always answering '{largest}': {share:.3f}"
    )
    if not passed:
        description += "; look at the mistakes in the report, or add images"
    return CheckResult(passed, description, metrics={"accuracy_at_least": low, "majority_share": share})


def _no_worse_than_top_model(results: EvaluationResults) -> CheckResult:
    """Check that the paired 95 % interval of the selected model's gain over the top model does not lie below 0."""
    last = [*results.models][-1]
    pair = next(each for each in results.comparisons if (each.first, each.second) == (last, "top_model"))
    gain = f"{100 * pair.difference:+.1f} points ({100 * pair.low:+.1f} to {100 * pair.high:+.1f})"
    passed = pair.high >= 0
    description = f"the selected model's accuracy less the top model's: {gain}"
    if not passed:
        description += "; declare fine_tuning.depth: none, or a smaller fine_tuning.learning_rate"
    return CheckResult(passed, description, metrics={"gain_over_top_model": pair.difference})


def _calibrated(results: EvaluationResults, settings: Checks) -> CheckResult:
    """Check that the expected calibration error is no larger than chance and the declared bound allow."""
    error, chance = results.selected.ece, results.selected.ece_by_chance
    passed = error <= max(chance, settings.calibration)
    description = f"expected calibration error {error:.3f}; by chance up to {chance:.3f} on {results.images:,} images"
    if not passed:
        description += f"; more than checks.calibration = {settings.calibration:g}: add validation images"
    return CheckResult(passed, description, metrics={"calibration_error": error, "calibration_error_by_chance": chance})


def _every_class_predicted(results: EvaluationResults) -> CheckResult:
    """Check that no class is forgotten: recall 0 on enough test images."""
    scores = zip(results.classes, results.selected.per_class, strict=True)
    forgotten = [(name, each.support) for name, each in scores if each.recall == 0 and each.support >= FEWEST]
    table = [{"class": name, "test images": support} for name, support in forgotten[:MOST_ROWS]]
    named = ", ".join(f"'{name}'" for name, _ in forgotten[:3])
    description = (
        f"classes of which no test image is predicted correctly: {len(forgotten):,} ({named}); declare "
        "top_model.balanced: true, or add images of them"
        if forgotten
        else "of every class some test images are predicted correctly"
    )
    return CheckResult(not forgotten, description, table=table, metrics={"forgotten_classes": len(forgotten)})
