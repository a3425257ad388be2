"""The backbone's top blocks and the top model, trained on from the top model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.graph.engine import open_features
from tl_dagster.graph.stage import Stage, StageContext, describe_validation, require_same
from tl_dagster.graph.stages.prediction_columns import prediction_columns
from tl_dagster.graph.stages.top_model import require_taps
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import ArtifactSummary, Materialization
from tl_dagster.strategy.decision import Decision, read_decision
from tl_dagster.training.settings import ResolvedFineTuning, resolve_fine_tuning

if TYPE_CHECKING:
    from tl_dagster.features.engine import LocalEngine
    from tl_dagster.features.feature_table import FeatureTable

__all__ = ["FineTunedModel"]


class FineTunedModel(Stage):
    """Upper blocks unfrozen, a very small learning rate, batch-norm statistics frozen."""

    name = "fine_tuned_model"
    version = 5
    description = (
        "The backbone's upper blocks and the classifier, trained on from the top model with a very small learning "
        "rate; the epoch with the lowest calibrated validation log-loss, or the top model itself."
    )
    kinds = frozenset({"pytorch"})
    inputs = ("dataset", "bottleneck_features", "transfer_strategy", "top_model")
    gpu = True
    columns = prediction_columns(
        ("bottleneck_features", "key"), ("bottleneck_features", "label"), ("top_model", "p0 …")
    )

    def settings(self) -> dict[str, Any]:
        """Return the declared fine-tuning."""
        return self.declaration.fine_tuning.model_dump(mode="json")

    @classmethod
    def describe_result(cls, summary: ArtifactSummary) -> str:
        """Return what was tuned, and how good the selected epoch is on the validation images."""
        metrics, depth = summary.metrics, summary.metadata["depth"]
        if not metrics["epoch"]:
            return f"the top model{'' if depth == 'none' else ', which no epoch surpassed'}"
        epochs = f"epoch {metrics['epoch']:.0f} of {metrics['epochs']:.0f}"
        return f"depth {depth}, {epochs}; {describe_validation(metrics)}"

    def versions(self, context: StageContext) -> dict[str, str]:
        """Where the images lie does not count, nor why the strategy is what it is."""
        return {name: context.inputs[name].data_version for name in ("bottleneck_features", "top_model")}

    def run(self, context: StageContext) -> Materialization:
        """Train once for the same top model and settings."""
        for name in ("transfer_strategy", "top_model"):
            require_same(context.inputs[name], "bottleneck_features", context.inputs["bottleneck_features"])
        require_taps(context.inputs["top_model"], context.inputs["transfer_strategy"])
        decision = read_decision(context.inputs["transfer_strategy"].path)
        engine, table = open_features(self.declaration, context)
        settings, boundary, reason = self._resolved(engine, decision)
        fingerprint = self.fingerprint(context, self._determining(engine, settings, boundary, decision.taps))

        def write(folder: Path) -> ArtifactSummary:
            if settings.depth == "none":
                context.progress.log(f"{reason}: the top model is selected")
            return self._train(context, folder, engine, table, settings, boundary, decision.taps, fingerprint)

        materialization = self.find_or_build(context, fingerprint, write)
        context.store.layout.checkpoint(fingerprint).unlink(missing_ok=True)
        return materialization

    def _resolved(self, engine: "LocalEngine", decision: Decision) -> "tuple[ResolvedFineTuning, str | None, str]":
        """Return the settings without gaps, the tap up to which is frozen, and why nothing can be tuned."""
        declared = self.declaration.fine_tuning
        settings = resolve_fine_tuning(declared, decision.depth, decision.epochs, decision.learning_rate)
        if settings.depth == "none":
            named = declared.depth == "none"
            return settings, None, "fine_tuning.depth is none" if named else f"the transfer strategy is {decision.cell}"
        try:
            return settings, engine.features.backbone.info.frozen_through(decision.taps, settings.depth), ""
        except InputError as error:  # the declared taps leave something to tune, those that the strategy chose do not
            return settings.model_copy(update={"depth": "none"}), None, str(error)

    def _determining(
        self, engine: "LocalEngine", settings: ResolvedFineTuning, boundary: str | None, taps: list[str]
    ) -> dict[str, Any]:
        """Return what determines the model: another name of the same depth trains the same."""
        if settings.depth == "none":
            return {"depth": "none", "taps": taps}
        depth = engine.features.backbone.info.module(boundary) if boundary else "all"
        used = {**settings.model_dump(mode="json"), "depth": depth, "taps": taps}
        if settings.fresh_augmentation:  # then views are drawn that are in no table
            from tl_dagster.data.augmentation import Augmenter

            augmentation = self.declaration.augmentation
            used["fresh"] = [Augmenter(augmentation).identity("", 1), augmentation.views]
        return used

    def _train(
        self,
        context: StageContext,
        folder: Path,
        engine: "LocalEngine",
        table: "FeatureTable",
        settings: ResolvedFineTuning,
        boundary: str | None,
        taps: list[str],
        fingerprint: str,
    ) -> ArtifactSummary:
        from tl_dagster.training.checkpoints import Checkpoint
        from tl_dagster.training.fine_tuned_model import FineTuningJob, tune_model

        job = FineTuningJob(
            engine,
            table,
            taps,
            settings,
            boundary,
            top_model=context.inputs["top_model"].path,
            balanced=self.declaration.top_model.balanced,
            stage=self.name,
            version=self.version,
            inputs=self.versions(context),
        )
        return tune_model(job, folder, Checkpoint(context.store.layout.checkpoint(fingerprint), context.progress.log))
