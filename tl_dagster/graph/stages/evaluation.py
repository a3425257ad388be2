"""Evaluation of every model of the pipeline on the test split."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tl_dagster.declaration import Declaration
from tl_dagster.evaluation.results import LABEL_SUSPECTS, METRICS, EvaluationResults
from tl_dagster.graph.engine import open_features
from tl_dagster.graph.model_checks import DESCRIPTIONS, check_model
from tl_dagster.graph.stage import CheckResult, Column, Stage, StageContext, require_same
from tl_dagster.graph.stages.top_model import require_taps
from tl_dagster.models.spec import read_spec
from tl_dagster.reporting.evaluation_report import SUSPECTS
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import ArtifactSummary, Materialization

if TYPE_CHECKING:
    from tl_dagster.evaluation.evaluate import TrainedModel

__all__ = ["Evaluation"]

MODELS, SCRATCH = ("top_model", "fine_tuned_model"), "scratch_baseline"
PLAIN_ITERATIONS = 100  # of the classifiers that find label suspects, where the top model has no such setting


def _read(*names: str) -> list[tuple[str, str]]:
    return [("bottleneck_features", name) for name in names]


class Evaluation(Stage):
    """Reads the models' own predictions and the cached features; a network runs for the mistakes' heat maps only."""

    name = "evaluation"
    version = 8
    description = (
        "The test accuracy of every model, with 95 % intervals and paired tests; calibration, ROC and learning curves, "
        "the worst mistakes with their heat maps, label suspects, and the HTML report."
    )
    kinds = frozenset({"scikitlearn", "matplotlib"})
    inputs: ClassVar[tuple[str, ...]] = ("dataset", "bottleneck_features", "transfer_strategy", *MODELS)
    columns: ClassVar[Mapping[str, Column]] = {
        "id": Column("string", "SHA-256 of the bytes of an image whose label is doubtful.", _read("id")),
        "split": Column("string", "train, validation or test.", _read("split")),
        "label": Column("string", "Its class.", _read("label")),
        "predicted": Column("string", "What a model that has not seen it says.", _read("key", "label")),
        "p_label": Column("float", "Probability of the label.", _read("key", "label")),
        "p_predicted": Column("float", "Probability of what is predicted.", _read("key", "label")),
    }
    check_descriptions: ClassVar[Mapping[str, str]] = {
        "label_suspects": "Images whose held-out prediction on the cached features contradicts their label strongly.",
        **DESCRIPTIONS,
    }

    def __init__(self, declaration: Declaration, root: Path) -> None:
        super().__init__(declaration, root)
        if declaration.scratch_baseline is not None:
            self.inputs = (*type(self).inputs, SCRATCH)  # type: ignore[misc]

    def settings(self) -> dict[str, Any]:
        """Return nothing: every model is evaluated on the whole test split."""
        return {}

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return the best model and its test accuracy."""
        from tl_dagster.reporting.findings import model_title

        best, metrics = summary.metadata["best"], summary.metrics
        accuracy, low, high = (metrics[f"{best}_accuracy{end}"] for end in ("", "_low", "_high"))
        return f"best: {model_title(best)}, test accuracy {accuracy:.3f} ({low:.3f} – {high:.3f})"

    def versions(self, context: StageContext) -> dict[str, str]:
        """Return the inputs' versions; the dataset's holds the groups that intervals and folds follow, not the URIs."""
        return {name: context.inputs[name].data_version for name in self.inputs}

    def run(self, context: StageContext) -> Materialization:
        """Evaluate the same models once."""
        features = context.inputs["bottleneck_features"]
        for name in ("transfer_strategy", *MODELS):
            require_same(context.inputs[name], "bottleneck_features", features)
        require_same(context.inputs["fine_tuned_model"], "top_model", context.inputs["top_model"])
        require_taps(context.inputs["top_model"], context.inputs["transfer_strategy"])
        if SCRATCH in self.inputs and context.inputs[SCRATCH].inputs != features.inputs:
            raise InputError(f"{SCRATCH} and bottleneck_features were computed from two splits: materialize both first")
        return self.find_or_build(context, self.fingerprint(context), lambda folder: self._evaluate(context, folder))

    def _evaluate(self, context: StageContext, folder: Path) -> ArtifactSummary:
        from tl_dagster.data.manifest import read_groups, read_manifest
        from tl_dagster.evaluation.evaluate import evaluate, read_model_predictions
        from tl_dagster.evaluation.evidence import accuracy_by_images, find_label_suspects
        from tl_dagster.reporting.evaluation_files import EvaluationFiles

        dataset, settings = context.inputs["dataset"].path, self.declaration.top_model
        top, tuned = (read_spec(context.inputs[name].path) for name in MODELS)
        models, manifest = self._models(context), read_manifest(dataset)
        predictions = read_model_predictions(models, dataset)
        table, taps, l2 = open_features(self.declaration, context)[1], top.tap_names, top.training.l2
        curve = accuracy_by_images(table, taps, predictions.classes, l2)
        iterations = getattr(settings, "max_iterations", PLAIN_ITERATIONS)
        suspects, labels = find_label_suspects(
            table, lambda ids: read_groups(dataset, ids), taps, predictions.classes, l2, iterations
        )
        files = EvaluationFiles(folder, predictions, evaluate(models, predictions, curve))
        files.write_results()
        files.draw_curves(top, tuned)
        files.write_suspects(suspects, labels, manifest)
        files.draw_mistakes(context.inputs[MODELS[-1]].path, context.store.root, manifest)
        files.write_content(context.inputs["transfer_strategy"].path, tuned, settings.kind)
        return files.summarize(len(suspects), labels)

    def publish(self, context: StageContext, materialization: Materialization) -> Mapping[str, Path]:
        """Write this pipeline's report; another pipeline may have the same evaluation."""
        from tl_dagster.graph.report import write_report

        inputs = {name: artifact.path for name, artifact in context.inputs.items()}
        return {"report": write_report(self.declaration, context.store, materialization.artifact, inputs, context.run)}

    def _models(self, context: StageContext) -> "dict[str, TrainedModel]":
        """Return the models by name, from the simplest to the selected one."""
        from tl_dagster.evaluation.evaluate import TrainedModel, read_scratch_models

        models = read_scratch_models(context.inputs[SCRATCH].path) if SCRATCH in self.inputs else {}
        for name in MODELS:
            artifact = context.inputs[name]
            models[name] = TrainedModel(artifact.path, artifact.summary.metrics.get("training_seconds"))
        return models

    def run_checks(self, context: StageContext, held: Materialization) -> dict[str, CheckResult]:
        """List the label suspects, with the present places of the images, and check the selected model."""
        import pandas as pd

        from tl_dagster.data.manifest import read_manifest, shown_uris
        from tl_dagster.graph import checks
        from tl_dagster.reporting.tables import table_rows

        suspects, settings = pd.read_parquet(held.artifact.path / LABEL_SUSPECTS), self.declaration.checks
        uris = shown_uris(read_manifest(context.inputs["dataset"].path), suspects["id"])
        suspects = suspects[~checks.are_acknowledged(suspects["id"], uris, settings.acknowledged)]
        columns = {
            "image": uris[suspects.index],
            "label": suspects["label"],
            "looks like": suspects["predicted"],
            "p(label)": suspects["p_label"],
            "p(looks like)": suspects["p_predicted"],
            "split": suspects["split"],
        }
        labels = int(held.artifact.summary.metrics["labels"])
        rows = table_rows(columns)
        results = EvaluationResults.from_json(json.loads((held.artifact.path / METRICS).read_text()))
        return {
            "label_suspects": checks.label_suspects(rows, len(suspects), labels, settings, SUSPECTS),
            **check_model(results, settings),
        }
