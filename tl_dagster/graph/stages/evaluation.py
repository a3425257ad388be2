"""What every model of the pipeline is worth on the test split."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tl_dagster.data.manifest import read_groups, read_manifest, shown_uris
from tl_dagster.declaration import Declaration
from tl_dagster.evaluation.evidence import accuracy_by_images, label_suspects
from tl_dagster.graph import checks
from tl_dagster.graph.stage import CheckResult, Stage, StageContext, require_same
from tl_dagster.graph.stages.top_model import require_taps
from tl_dagster.models.predictions import read_predictions
from tl_dagster.reporting import evaluation_report as evaluated
from tl_dagster.reporting.explained_mistakes import explain_mistakes
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import ArtifactSummary, Materialization
from tl_dagster.strategy.decide import read_decision

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


__all__ = ["Evaluation"]

MODELS = ("top_model", "fine_tuned_model")
SCRATCH, STRATEGY = "scratch_baseline", "strategy.png"
METRICS, REPORT, SUSPECTS = "metrics.json", "report.html", "label_suspects.parquet"
HEADLINES = ("accuracy", "macro_f1", "balanced_accuracy", "log_loss", "ece", "auc", "top5_error")
MOST_ROWS = 50  # of a table in the UI
PLAIN_ITERATIONS = 100  # of classifiers beside a top model that has none of its own


@dataclass(frozen=True)
class Tested:
    """The models' predictions of the test images.

    Attributes:
        rows: id, label, predicted … of the model handed on.
        truth: (n,) class numbers.
        probabilities: model → (n, classes), from the simplest to the one handed on.
        groups: (n,) group of each image.
        classes: class names.
    """

    rows: "pd.DataFrame"
    truth: "np.ndarray"
    probabilities: "Mapping[str, np.ndarray]"
    groups: "np.ndarray"
    classes: list[str]

    def titled(self) -> "dict[str, tuple[np.ndarray, np.ndarray]]":
        """Title → class numbers and probabilities."""
        from tl_dagster.reporting.findings import model_title

        return {model_title(name): (self.truth, each) for name, each in self.probabilities.items()}


class Evaluation(Stage):
    """Reads the models' own predictions and the cached features; a network runs for the mistakes' heat maps only."""

    name = "evaluation"
    version = 5
    description = (
        "What every model is worth on the test split, with 95 % intervals and paired tests; calibration, ROC and "
        "learning curves, the worst mistakes with their heat maps, label suspects, and the HTML report."
    )
    kinds = frozenset({"scikitlearn", "matplotlib"})
    inputs: ClassVar[tuple[str, ...]] = ("dataset", "bottleneck_features", "transfer_strategy", *MODELS)
    check_descriptions: ClassVar[Mapping[str, str]] = {
        "label_suspects": "Images whose held-out prediction on the cached features contradicts their label strongly.",
    }

    def __init__(self, declaration: Declaration, root: Path) -> None:
        super().__init__(declaration, root)
        if declaration.scratch_baseline is not None:
            self.inputs = (*type(self).inputs, SCRATCH)  # type: ignore[misc]

    def settings(self) -> dict[str, Any]:
        """What is evaluated is declared nowhere: every model, on the whole test split."""
        return {}

    def versions(self, work: StageContext) -> dict[str, str]:
        """The dataset's version holds the groups, that intervals and folds follow; not where images lie."""
        return {name: work.inputs[name].data_version for name in self.inputs}

    def run(self, work: StageContext) -> Materialization:
        """Evaluated once for the same models."""
        features = work.inputs["bottleneck_features"]
        for name in ("transfer_strategy", *MODELS):
            require_same(work.inputs[name], "bottleneck_features", features)
        require_same(work.inputs["fine_tuned_model"], "top_model", work.inputs["top_model"])
        require_taps(work.inputs["top_model"], work.inputs["transfer_strategy"])
        if SCRATCH in self.inputs and work.inputs[SCRATCH].inputs != features.inputs:
            raise InputError(f"{SCRATCH} and bottleneck_features were computed from two splits: materialize both first")
        return self.find_or_build(work, self.fingerprint(work), lambda folder: self._evaluate(work, folder))

    def _evaluate(self, work: StageContext, folder: Path) -> ArtifactSummary:
        top, tuned = (json.loads((work.inputs[name].path / "model.json").read_text()) for name in MODELS)
        tested = self._tested(work)
        found = self._found(work, tested, top)
        (folder / METRICS).write_text(json.dumps(found, indent=1))
        figures = _curves(folder, found, tested, top, tuned)
        suspects, labelled = label_suspects(
            work, tested.classes, top, getattr(self.declaration.top_model, "max_iterations", PLAIN_ITERATIONS)
        )
        suspects.to_parquet(folder / SUSPECTS)
        notes = {evaluated.SUSPECTS: f"{len(suspects):,} of {labelled:,} labels that were looked at are contradicted."}
        figures |= self._mistakes(work, folder, tested, notes) | _suspects_sheet(work, folder, suspects)
        self._report(work, folder, found, tuned, figures, notes)
        from tl_dagster.reporting.findings import class_rows, model_rows

        counts = {"label_suspects": len(suspects), "labels": labelled}
        return ArtifactSummary(
            rows=len(tested.truth),
            computed=len(tested.truth),
            metrics={**_headlines(found["models"]), **counts},
            metadata={"best": found["best"]},
            figures=figures,
            tables={"models": model_rows(found), "per_class": class_rows(found, MOST_ROWS)},
        )

    def _models(self, work: StageContext) -> dict[str, tuple[Path, float | None]]:
        """Name → its predictions and seconds of training, from the simplest to the one handed on."""
        models: dict[str, tuple[Path, float | None]] = {}
        if SCRATCH in self.inputs:
            path = work.inputs[SCRATCH].path
            told = json.loads((path / "scratch.json").read_text())
            models = {f"scratch_{name}": (path / name, each["seconds"]) for name, each in told.items()}
        for name in MODELS:
            artifact = work.inputs[name]
            models[name] = (artifact.path, artifact.outcome.metrics.get("training_seconds"))
        return models

    def _tested(self, work: StageContext) -> Tested:
        probabilities = {}
        for name, (path, _) in self._models(work).items():
            rows, truth, probabilities[name], classes = read_predictions(path, "test")
        if not len(rows):
            raise InputError("the test split has no image: declare a larger splits.test, or add images")
        return Tested(rows, truth, probabilities, read_groups(work.inputs["dataset"].path, rows["id"]), classes)

    def _found(self, work: StageContext, tested: Tested, top: Mapping[str, Any]) -> dict[str, Any]:
        """What metrics.json holds."""
        import numpy as np

        from tl_dagster.evaluation.comparison import assess, best_model
        from tl_dagster.evaluation.metrics import confusion, measure

        measured, compared = assess(tested.truth, tested.probabilities, tested.groups)
        for name, (path, seconds) in self._models(work).items():
            _, truth, probabilities, _ = read_predictions(path, "validation")
            loss = measure(truth, probabilities)["log_loss"] if len(truth) else None
            table = confusion(tested.truth, tested.probabilities[name])
            cells = [[int(row), int(column), int(table[row, column])] for row, column in np.argwhere(table)]
            measured[name] |= {"validation_log_loss": loss, "training_seconds": seconds, "confusion": cells}
        return {
            "classes": tested.classes,
            "images": len(tested.truth),
            "groups": len(np.unique(tested.groups)),
            "best": best_model({name: each["validation_log_loss"] for name, each in measured.items()}),
            "models": measured,
            "comparisons": compared,
            "learning_curve": accuracy_by_images(work, tested.classes, top),
        }

    def _mistakes(self, work: StageContext, folder: Path, tested: Tested, notes: dict[str, str]) -> dict[str, str]:
        """Draw the worst mistakes of the model handed on, and note what is to be said of them."""
        from tl_dagster.reporting.mistakes import mistakes_sheet, worst_mistakes

        probabilities = tested.probabilities[MODELS[-1]]
        worst = worst_mistakes(tested.truth, probabilities)
        if not len(worst):
            notes[evaluated.MISTAKES] = "The model handed on makes no mistake on the test images."
            return {}
        rows = tested.rows.iloc[worst].reset_index(drop=True)
        mistakes, note = explain_mistakes(self.declaration, work, rows, probabilities[worst], tested.classes)
        mistakes_sheet(folder / "mistakes.jpg", mistakes)
        notes[evaluated.MISTAKES] = note
        return {evaluated.MISTAKES: "mistakes.jpg"}

    def _report(
        self,
        work: StageContext,
        folder: Path,
        found: Mapping[str, Any],
        tuned: Mapping[str, Any],
        figures: Mapping[str, str],
        notes: Mapping[str, str],
    ) -> None:
        strategy = work.inputs["transfer_strategy"].path
        decision = read_decision(strategy)
        quadrants = strategy / STRATEGY
        told = evaluated.ReportContent(
            {title: folder / file for title, file in figures.items()},
            notes,
            f"{decision.cell}: {decision.quadrant}",
            quadrants if quadrants.exists() else None,
            [
                ("test split", f"{found['images']:,} images in {found['groups']:,} groups"),
                ("backbone", tuned["backbone"]["name"]),
                ("taps", ", ".join(tuned["taps"])),
                ("top_model", f"{self.declaration.top_model.kind}, chosen on validation"),
                ("fine_tuned_model", _tuning(tuned)),
                ("learning curve", "logistic regression on the plain images' features, no augmentation"),
            ],
        )
        evaluated.write_evaluation(folder / REPORT, "Evaluation", found, told)

    def run_checks(self, work: StageContext, held: Materialization) -> dict[str, CheckResult]:
        """The label suspects, by where the images lie now."""
        import pandas as pd

        suspects = pd.read_parquet(held.artifact.path / SUSPECTS)
        manifest = read_manifest(work.inputs["dataset"].path)
        rows = checks.table_rows(
            {
                "image": shown_uris(manifest, suspects["id"]),
                "label": suspects["label"],
                "looks like": suspects["predicted"],
                "p(label)": suspects["p_label"],
                "p(looks like)": suspects["p_predicted"],
                "split": suspects["split"],
            }
        )
        labels = int(held.artifact.outcome.metrics["labels"])
        return {"label_suspects": checks.label_suspects(rows, len(suspects), labels, evaluated.SUSPECTS)}


def _suspects_sheet(work: StageContext, folder: Path, suspects: "pd.DataFrame") -> dict[str, str]:
    from tl_dagster.reporting.sheets import MOST_TILES, contact_sheet

    if suspects.empty:
        return {}
    first = suspects.head(MOST_TILES)
    captions = first["label"] + ", looks like " + first["predicted"]
    uris = shown_uris(read_manifest(work.inputs["dataset"].path), first["id"])
    contact_sheet(folder / "label_suspects.jpg", list(zip(uris, captions, strict=True)))
    return {evaluated.SUSPECTS: "label_suspects.jpg"}


def _curves(
    folder: Path, found: Mapping[str, Any], tested: Tested, top: Mapping[str, Any], tuned: Mapping[str, Any]
) -> dict[str, str]:
    """Draw what the numbers show: title → file."""
    from tl_dagster.evaluation.metrics import confusion
    from tl_dagster.reporting.curves import learning_curves, reliability, roc, training_size
    from tl_dagster.reporting.figures import confusion_matrix
    from tl_dagster.reporting.findings import model_title

    titled = tested.titled()
    matrices = {title: confusion(*each) for title, each in titled.items()}
    confusion_matrix(folder / "confusion.png", matrices, tested.classes)
    reliability(folder / "reliability.png", titled)
    roc(folder / "roc.png", titled, tested.classes)
    learning_curves(folder / "learning_curves.png", top, tuned)
    reached = {model_title(name): found["models"][name]["accuracy"] for name in MODELS}
    training_size(folder / "training_size.png", found["learning_curve"], reached)
    return {
        evaluated.CONFUSION: "confusion.png",
        evaluated.RELIABILITY: "reliability.png",
        evaluated.ROC: "roc.png",
        evaluated.CURVES: "learning_curves.png",
        evaluated.SIZE: "training_size.png",
    }


def _headlines(models: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What Dagster plots over time."""
    metrics = {f"{name}_{key}": each[key] for name, each in models.items() for key in HEADLINES}
    for name, each in models.items():
        metrics[f"{name}_accuracy_low"], metrics[f"{name}_accuracy_high"] = each["intervals"]["accuracy"]
    return {name: value for name, value in metrics.items() if value is not None}


def _tuning(tuned: Mapping[str, Any]) -> str:
    if tuned["depth"] == "none":
        return "nothing tuned: the top model"
    frozen = f"frozen through {tuned['frozen_through']}" if tuned["frozen_through"] else "nothing frozen"
    return f"{tuned['depth']} ({frozen}), epoch {tuned['epoch']} chosen on validation (0: the top model itself)"
