"""The classifier trained on the cached views of the frozen backbone."""

from pathlib import Path
from typing import Any

from tl_dagster.graph.engine import open_features
from tl_dagster.graph.stage import Stage, StageContext, describe_validation, require_same
from tl_dagster.graph.stages.prediction_columns import prediction_columns
from tl_dagster.models.spec import read_spec
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import Artifact, ArtifactSummary, Materialization
from tl_dagster.strategy.decision import read_decision

__all__ = ["TopModel", "require_taps"]


class TopModel(Stage):
    """Train the top model first; fine-tuning starts from it."""

    name = "top_model"
    version = 4
    description = (
        "Logistic regression, or a small network, on the bottleneck features of all training views, at the taps that "
        "the transfer strategy chose; validation chooses its L2 or epoch, and its temperature."
    )
    kinds = frozenset({"pytorch"})
    inputs = ("bottleneck_features", "transfer_strategy")
    columns = prediction_columns(("bottleneck_features", "key"), ("bottleneck_features", "label"))

    def settings(self) -> dict[str, Any]:
        """Return the declared top model."""
        return self.declaration.top_model.model_dump(mode="json")

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return its kind, and how good it is on the validation images."""
        kind, taps = summary.metadata["kind"], ", ".join(summary.metadata["taps"])
        return f"{kind} on {taps}; {describe_validation(summary.metrics)}"

    def versions(self, context: StageContext) -> dict[str, str]:
        """Of the strategy only the taps count, and they are in the fingerprint."""
        return {"bottleneck_features": context.inputs["bottleneck_features"].data_version}

    def run(self, context: StageContext) -> Materialization:
        """Train once for the same features, taps and settings."""
        require_same(context.inputs["transfer_strategy"], "bottleneck_features", context.inputs["bottleneck_features"])
        taps = list(read_decision(context.inputs["transfer_strategy"].path).taps)
        fingerprint = self.fingerprint(context, {**self.settings(), "taps": taps})
        return self.find_or_build(context, fingerprint, lambda folder: self._train(context, taps, folder))

    def _train(self, context: StageContext, taps: list[str], folder: Path) -> ArtifactSummary:
        from tl_dagster.models.bundle import describe_model, save_model
        from tl_dagster.models.predictions import write_predictions
        from tl_dagster.training.top_model_training import train_top_model

        engine, table = open_features(self.declaration, context)
        trained = train_top_model(table, taps, self.declaration.top_model, context.progress)
        columns = [column for tap, column in table.columns.items() if tap in taps]
        spec = describe_model(
            engine,
            columns,
            taps,
            stage=self.name,
            version=self.version,
            classes=trained.classes,
            head=trained.head,
            inputs=self.versions(context),
            training=trained.record,
            tag=self.declaration.backbone.tag,
        )
        save_model(folder, spec, {f"head.{name}": value for name, value in trained.state.items()})
        predicted = write_predictions(folder, table.views.iloc[trained.held_out], trained.classes, trained.logits)
        return ArtifactSummary(
            rows=trained.rows,
            computed=trained.rows,
            metrics={**predicted, **trained.metrics},
            metadata={"classes": trained.classes, "taps": taps, "kind": trained.head.kind},
        )


def require_taps(top_model: Artifact, strategy: Artifact) -> None:
    """Refuse a top model that reads other taps than the strategy has chosen.

    Raises:
        InputError: the strategy was materialized again, and the top model was not.
    """
    if read_spec(top_model.path).tap_names != read_decision(strategy.path).taps:
        raise InputError("top_model reads other taps than transfer_strategy has chosen: materialize it first")
