"""What every model of the pipeline is worth on the test split."""

import json
from pathlib import Path
from typing import Any

from tl_dagster.artifacts import Materialized, Outcome
from tl_dagster.stages.base import Stage, Work, require_same
from tl_dagster.stages.predictions import read_predictions

__all__ = ["Evaluation"]

HEADLINES = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "balanced_accuracy", "log_loss")


class Evaluation(Stage):
    """Reads the models' own test predictions: no network runs here."""

    name = "evaluation"
    recipe = 1
    description = (
        "Test accuracy with its 95 % interval, macro-F1, confusion matrix and learning curves of every model, "
        "and the HTML report."
    )
    kinds = frozenset({"scikitlearn", "matplotlib"})
    reads = ("top_model", "fine_tuned_model")

    def settings(self) -> dict[str, Any]:
        """What is evaluated is declared nowhere: every model, on the whole test split."""
        return {}

    def run(self, work: Work) -> Materialized:
        """Evaluated once for the same models."""
        require_same(work.inputs["fine_tuned_model"], "top_model", work.inputs["top_model"])
        return self.find_or_build(work, self.fingerprint(work), lambda folder: self._evaluate(work, folder))

    def _evaluate(self, work: Work, folder: Path) -> Outcome:
        from tl_dagster.reporting.pictures import confusion_matrix, learning_curves
        from tl_dagster.reporting.report import write_report
        from tl_dagster.training.metrics import measure

        models, images = {}, 0
        classes: list[str] = []
        for name in self.reads:
            rows, truth, probabilities, classes = read_predictions(work.inputs[name].path, "test")
            models[name] = measure(truth, probabilities)
            images = len(rows)
        top = json.loads((work.inputs["top_model"].path / "model.json").read_text())
        tuned = json.loads((work.inputs["fine_tuned_model"].path / "model.json").read_text())
        confusion_matrix(folder / "confusion.png", {name: each["confusion"] for name, each in models.items()}, classes)
        learning_curves(folder / "learning_curves.png", top["path"], top["l2"], tuned["history"], tuned["epoch"])
        (folder / "metrics.json").write_text(json.dumps({"classes": classes, "models": models}, indent=1))
        pictures = {"Confusion matrices": "confusion.png", "Learning curves": "learning_curves.png"}
        write_report(
            folder / "report.html",
            "Evaluation",
            f"{images:,} test images of {len(classes)} classes, seen by no model in training or choosing.",
            models,
            {caption: folder / file for caption, file in pictures.items()},
            [
                ("backbone", tuned["backbone"]["name"]),
                ("taps", ", ".join(tuned["backbone"]["taps"])),
                ("frozen through", tuned["frozen_through"]),
                ("top model", f"L2 {top['l2']:g}, chosen on validation"),
                ("fine-tuned model", f"epoch {tuned['epoch']}, chosen on validation (0: the top model itself)"),
            ],
        )
        metrics = {f"{name}_{key}": each[key] for name, each in models.items() for key in HEADLINES}
        return Outcome(rows=images, computed=images, metrics=metrics, pictures=pictures)
