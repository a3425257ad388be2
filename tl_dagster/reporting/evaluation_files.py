"""The files of an evaluation artifact: metrics.json, figures, label suspects and the report; and its metrics."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from tl_dagster.data.manifest import shown_uris
from tl_dagster.evaluation.evaluate import ModelPredictions
from tl_dagster.evaluation.metrics import confusion
from tl_dagster.evaluation.results import LABEL_SUSPECTS, METRICS, EvaluationResults
from tl_dagster.models.classifier import ImageClassifier
from tl_dagster.models.spec import ModelSpec, TrainingRecord
from tl_dagster.reporting import evaluation_report as report
from tl_dagster.reporting.curves import EpochHistory, L2Path, learning_curves, reliability, roc, training_size
from tl_dagster.reporting.explained_mistakes import explain_mistakes
from tl_dagster.reporting.figures import confusion_matrix
from tl_dagster.reporting.findings import TITLES, class_rows, joint_title, model_rows, reasons
from tl_dagster.reporting.mistakes import mistakes_sheet, worst_mistakes
from tl_dagster.reporting.sheets import MOST_TILES, contact_sheet
from tl_dagster.store.artifacts import ArtifactSummary
from tl_dagster.strategy.decision import read_decision

__all__ = ["EvaluationFiles"]

STRATEGY = "strategy.png"
HEADLINES = ("macro_f1", "balanced_accuracy", "log_loss", "ece", "auc", "top5_error")
MOST_ROWS = 50  # of a table in the UI


@dataclass
class EvaluationFiles:
    """Writes the files of an evaluation into a folder.

    Attributes:
        folder: the artifact's.
        predictions: of the test images.
        results: of evaluating them.
        figures: title → file in the folder, of those drawn so far.
        notes: title → a sentence for the report.
        reasons: sentences that say why the other models were not taken.
    """

    folder: Path
    predictions: ModelPredictions
    results: EvaluationResults
    figures: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def write_results(self) -> None:
        """Write ``metrics.json``."""
        (self.folder / METRICS).write_text(json.dumps(self.results.to_json(), indent=1))

    def draw_curves(self, top: ModelSpec, tuned: ModelSpec) -> None:
        """Draw confusion matrices, calibration, ROC and learning curves; a model that equals another is not repeated.

        Args:
            top: the top model.
            tuned: the fine-tuned model.
        """
        results, truth, classes = self.results, self.predictions.truth, self.predictions.classes
        equal = _group_equal(self.predictions.probabilities)
        titled = {joint_title(names): (truth, self.predictions.probabilities[names[0]]) for names in equal}
        matrices = {title: confusion(*model) for title, model in titled.items()}
        transfer = [names for names in equal if names[0] in TITLES]
        accuracies = {joint_title(names): results.models[names[0]].accuracy for names in transfer}
        confusion_matrix(self._figure(report.CONFUSION, "confusion.png"), matrices, classes)
        reliability(self._figure(report.RELIABILITY, "reliability.png"), titled)
        roc(self._figure(report.ROC, "roc.png"), titled, classes)
        tuning = None if tuned.depth == "none" else _epoch_history(tuned.training)
        learning_curves(self._figure(report.CURVES, "learning_curves.png"), _training_curve(top.training), tuning)
        training_size(self._figure(report.SIZE, "training_size.png"), results.learning_curve, accuracies)

    def write_suspects(self, suspects: pd.DataFrame, labels: int, manifest: pd.DataFrame) -> None:
        """Write the label suspects, and draw the first of them.

        Args:
            suspects: id, split, label, predicted, p_label and p_predicted, the strongest contradiction first.
            labels: number of labels that were examined.
            manifest: the dataset's, for the images' URIs.
        """
        suspects.to_parquet(self.folder / LABEL_SUSPECTS)
        self.notes[report.SUSPECTS] = f"{len(suspects):,} of {labels:,} examined labels are contradicted."
        if suspects.empty:
            return
        first = suspects.head(MOST_TILES)
        captions = first["label"] + ", looks like " + first["predicted"]
        tiles = list(zip(shown_uris(manifest, first["id"]), captions, strict=True))
        contact_sheet(self._figure(report.SUSPECTS, "label_suspects.jpg"), tiles)

    def draw_mistakes(self, model: Path, store: Path, manifest: pd.DataFrame) -> None:
        """Draw the selected model's worst mistakes, with heat maps where the images can be read.

        Args:
            model: the artifact of the selected model.
            store: root of the artifact store.
            manifest: the dataset's, for the images' URIs.
        """
        probabilities = list(self.predictions.probabilities.values())[-1]
        worst = worst_mistakes(self.predictions.truth, probabilities)
        if not len(worst):
            self.notes[report.MISTAKES] = "The selected model makes no mistake on the test images."
            return
        rows = self.predictions.rows.iloc[worst].reset_index(drop=True)
        classifier = ImageClassifier.load(model, store)
        mistakes, self.notes[report.MISTAKES] = explain_mistakes(classifier, manifest, rows, probabilities[worst])
        mistakes_sheet(self._figure(report.MISTAKES, "mistakes.jpg"), mistakes)

    def write_content(self, strategy: Path, tuned: ModelSpec, top_kind: str) -> None:
        """Write the content of the report, with all figures and notes so far.

        Args:
            strategy: the artifact of the transfer strategy.
            tuned: the fine-tuned model.
            top_kind: declared kind of the top model.
        """
        decision, quadrants = read_decision(strategy), strategy / STRATEGY
        if quadrants.exists():
            shutil.copyfile(quadrants, self.folder / STRATEGY)
        self.reasons = reasons(self.results, tuned, decision)
        content = report.ReportContent(
            figures=self.figures,
            notes=self.notes,
            reasons=self.reasons,
            strategy=f"{decision.cell}: {decision.quadrant}",
            quadrants=STRATEGY if quadrants.exists() else None,
            provenance=[
                ("test split", f"{self.results.images:,} images in {self.results.groups:,} groups"),
                ("backbone", tuned.backbone.name if tuned.backbone else ""),
                ("taps", ", ".join(tuned.tap_names)),
                ("top model", f"{top_kind}, selected on validation"),
                ("fine-tuned model", _describe_tuning(tuned)),
                ("learning curve", "logistic regression on the plain images' features, no augmentation"),
            ],
        )
        report.write_content(self.folder, content)

    def summarize(self, suspects: int, labels: int) -> ArtifactSummary:
        """Return the artifact's summary.

        Args:
            suspects: number of label suspects.
            labels: number of labels that were examined.
        """
        return ArtifactSummary(
            rows=self.results.images,
            computed=self.results.images,
            metrics={**_headlines(self.results), "label_suspects": suspects, "labels": labels},
            metadata={"best": self.results.best, "reasons": self.reasons},
            figures=self.figures,
            tables={"models": model_rows(self.results), "per_class": class_rows(self.results, MOST_ROWS)},
        )

    def _figure(self, title: str, file: str) -> Path:
        self.figures[title] = file
        return self.folder / file


def _group_equal(probabilities: Mapping[str, np.ndarray]) -> list[list[str]]:
    """Return the names of the models; those with the same probabilities (n, classes) stand together."""
    groups: list[list[str]] = []
    for name, scores in probabilities.items():
        equal = (names for names in groups if np.array_equal(probabilities[names[0]], scores))
        if group := next(equal, None):
            group.append(name)
        else:
            groups.append([name])
    return groups


def _training_curve(record: TrainingRecord) -> EpochHistory | L2Path:
    if record.l2 is not None:
        return L2Path(record.path, record.l2)
    return _epoch_history(record)


def _epoch_history(record: TrainingRecord) -> EpochHistory:
    return EpochHistory(record.history, record.epoch or 0)


def _describe_tuning(tuned: ModelSpec) -> str:
    if tuned.depth == "none":
        return "nothing tuned: the top model"
    frozen = f"frozen through {tuned.frozen_through}" if tuned.frozen_through else "nothing frozen"
    return f"{tuned.depth} ({frozen}), epoch {tuned.training.epoch} selected on validation (0: the top model itself)"


def _headlines(results: EvaluationResults) -> dict[str, float]:
    """Return the metrics of every model that are plotted over time, the best model's first; without those of None."""
    names = sorted(results.models, key=lambda name: name != results.best)
    values: dict[str, float | None] = {}
    for name in names:
        model = results.models[name]
        low, high = model.intervals["accuracy"]
        values |= {f"{name}_accuracy": model.accuracy, f"{name}_accuracy_low": low, f"{name}_accuracy_high": high}
        values |= {f"{name}_{key}": model.metric(key) for key in HEADLINES}
    return {name: value for name, value in values.items() if value is not None}
