"""What every model of the pipeline is worth on the test split."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tl_dagster.artifacts import Materialized, Outcome
from tl_dagster.data.manifest import places_of, usable
from tl_dagster.data.splits import unit_hash
from tl_dagster.stages import checks
from tl_dagster.stages.augmented_splits import read_views
from tl_dagster.stages.base import Stage, Verdict, Work, require_same
from tl_dagster.stages.dataset import read_manifest
from tl_dagster.stages.predictions import numbers_of, read_predictions, targets_of
from tl_dagster.stages.top_model import read_features

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Evaluation"]

MODELS = ("top_model", "fine_tuned_model")
SUSPECTS, SHEET = "label_suspects.parquet", "Label suspects"
HEADLINES = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1", "balanced_accuracy", "log_loss")


class Evaluation(Stage):
    """Reads the models' own test predictions and the cached features: no network runs here."""

    name = "evaluation"
    recipe = 2
    description = (
        "Test accuracy with its 95 % interval, macro-F1, confusion matrix and learning curves of every model, "
        "and the HTML report."
    )
    kinds = frozenset({"scikitlearn", "matplotlib"})
    reads = ("dataset", "bottleneck_features", "top_model", "fine_tuned_model")
    checks: ClassVar[Mapping[str, str]] = {
        "label_suspects": "Images whose held-out prediction on the cached features contradicts their label strongly.",
    }

    def settings(self) -> dict[str, Any]:
        """What is evaluated is declared nowhere: every model, on the whole test split."""
        return {}

    def versions(self, work: Work) -> dict[str, str]:
        """The dataset's version holds the groups, that the folds of the label suspects follow; not where images lie."""
        return {name: work.inputs[name].data_version for name in self.reads}

    def run(self, work: Work) -> Materialized:
        """Evaluated once for the same models."""
        for model in MODELS:
            require_same(work.inputs[model], "bottleneck_features", work.inputs["bottleneck_features"])
        require_same(work.inputs["fine_tuned_model"], "top_model", work.inputs["top_model"])
        return self.find_or_build(work, self.fingerprint(work), lambda folder: self._evaluate(work, folder))

    def _evaluate(self, work: Work, folder: Path) -> Outcome:
        from tl_dagster.reporting.pictures import confusion_matrix, learning_curves
        from tl_dagster.reporting.report import write_report
        from tl_dagster.reporting.sheets import MOST_TILES, contact_sheet
        from tl_dagster.training.metrics import measure

        models, images = {}, 0
        classes: list[str] = []
        for name in MODELS:
            rows, truth, probabilities, classes = read_predictions(work.inputs[name].path, "test")
            models[name] = measure(truth, probabilities)
            images = len(rows)
        top = json.loads((work.inputs["top_model"].path / "model.json").read_text())
        tuned = json.loads((work.inputs["fine_tuned_model"].path / "model.json").read_text())
        confusion_matrix(folder / "confusion.png", {name: each["confusion"] for name, each in models.items()}, classes)
        learning_curves(folder / "learning_curves.png", top["path"], top["l2"], tuned["history"], tuned["epoch"])
        (folder / "metrics.json").write_text(json.dumps({"classes": classes, "models": models}, indent=1))
        pictures = {"Confusion matrices": "confusion.png", "Learning curves": "learning_curves.png"}
        suspects, labelled = self._suspects(work, classes, top["l2"])
        suspects.to_parquet(folder / SUSPECTS)
        if len(suspects):
            first = suspects.head(MOST_TILES)
            captions = first["label"] + ", looks like " + first["predicted"]
            uris = places_of(read_manifest(work.inputs["dataset"].path), first["id"])
            contact_sheet(folder / "label_suspects.jpg", list(zip(uris, captions, strict=True)))
            pictures[SHEET] = "label_suspects.jpg"
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
        counts = {"label_suspects": len(suspects), "labels": labelled}
        metrics = {f"{name}_{key}": each[key] for name, each in models.items() for key in HEADLINES}
        return Outcome(rows=images, computed=images, metrics={**metrics, **counts}, pictures=pictures)

    def _suspects(self, work: Work, classes: list[str], l2: float) -> "tuple[pd.DataFrame, int]":
        """Images whose label is contradicted, with both probabilities, and how many labels were looked at."""
        import numpy as np
        import pandas as pd

        from tl_dagster.training.label_suspects import FOLDS, contradicted, held_out_probabilities

        features = work.inputs["bottleneck_features"]
        views = read_views(features.path)
        plain = np.flatnonzero(views["view"] == 0)
        table = views.iloc[plain].reset_index(drop=True)
        groups = usable(read_manifest(work.inputs["dataset"].path)).set_index("id")["group"]
        keys = table["id"].map(groups).fillna(table["id"])
        folds = np.array([int(unit_hash("label suspects", key) * FOLDS) for key in keys])
        probabilities = held_out_probabilities(
            read_features(features, work.store, plain),
            targets_of(table, classes),
            folds,
            l2,
            self.declaration.top_model.max_iterations,
        )
        labels = numbers_of(table["label"], classes)
        found = contradicted(probabilities, labels)
        predicted = probabilities.argmax(1)[found]
        suspects = pd.DataFrame(
            {
                "id": table["id"].to_numpy()[found],
                "split": table["split"].to_numpy()[found],
                "label": table["label"].to_numpy()[found],
                "predicted": np.array(classes, dtype=object)[predicted],
                "p_label": probabilities[found, labels[found]].round(4),
                "p_predicted": probabilities[found, predicted].round(4),
            }
        )
        return suspects.astype({"predicted": "str"}), int((~np.isnan(probabilities[:, 0])).sum())

    def verdicts(self, work: Work, held: Materialized) -> dict[str, Verdict]:
        """The label suspects, by where the images lie now."""
        import pandas as pd

        suspects = pd.read_parquet(held.artifact.path / SUSPECTS)
        manifest = read_manifest(work.inputs["dataset"].path)
        rows = checks.rows_of(
            {
                "image": places_of(manifest, suspects["id"]),
                "label": suspects["label"],
                "looks like": suspects["predicted"],
                "p(label)": suspects["p_label"],
                "p(looks like)": suspects["p_predicted"],
                "split": suspects["split"],
            }
        )
        return {
            "label_suspects": checks.label_suspects(
                rows, len(suspects), int(held.artifact.outcome.metrics["labels"]), SHEET
            )
        }
