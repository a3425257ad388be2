"""The backbone's top blocks and the top model, trained on from the top model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.data.augmentation import Augmenter
from tl_dagster.data.labels import class_indices, class_names
from tl_dagster.data.splits import read_views
from tl_dagster.features.backbone_features import BackboneFeatures
from tl_dagster.graph.stage import Stage, StageContext, require_same
from tl_dagster.graph.stages.top_model import require_taps
from tl_dagster.graph.stages.transfer_strategy import Decision
from tl_dagster.models.heads import read_head
from tl_dagster.models.predictions import copy_predictions, write_predictions
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import ArtifactSummary, Materialization
from tl_dagster.strategy.decide import read_decision
from tl_dagster.training.feature_batches import build_targets
from tl_dagster.training.fine_tuning_setup import FineTuningSetup
from tl_dagster.training.settings import ResolvedFineTuning, resolve_fine_tuning

if TYPE_CHECKING:
    import pandas as pd

    from tl_dagster.training.checkpoints import Checkpoint
    from tl_dagster.training.fine_tuning import FineTuningData
    from tl_dagster.training.loop import TrainingResult


__all__ = ["FineTunedModel", "activations_used"]

MODEL, WEIGHTS = "model.json", "model.safetensors"


class FineTunedModel(Stage):
    """Upper blocks unfrozen, a very small learning rate, batch-norm statistics frozen."""

    name = "fine_tuned_model"
    version = 3
    description = (
        "The backbone's upper blocks and the classifier, trained on from the top model with a very small learning "
        "rate; the epoch with the lowest validation log-loss, never worse there than the top model."
    )
    kinds = frozenset({"pytorch"})
    inputs = ("dataset", "bottleneck_features", "transfer_strategy", "top_model")
    gpu = True

    def settings(self) -> dict[str, Any]:
        """The declared fine-tuning."""
        return self.declaration.fine_tuning.model_dump(mode="json")

    def versions(self, work: StageContext) -> dict[str, str]:
        """Where the images lie does not count, nor why the strategy is what it is."""
        return {name: work.inputs[name].data_version for name in ("bottleneck_features", "top_model")}

    def run(self, work: StageContext) -> Materialization:
        """Trained once for the same top model and settings."""
        for name in ("transfer_strategy", "top_model"):
            require_same(work.inputs[name], "bottleneck_features", work.inputs["bottleneck_features"])
        require_taps(work.inputs["top_model"], work.inputs["transfer_strategy"])
        decision = read_decision(work.inputs["transfer_strategy"].path)
        settings = resolve_fine_tuning(
            self.declaration.fine_tuning, decision.depth, decision.epochs, decision.learning_rate
        )
        frozen = BackboneFeatures(self.declaration, work.store)
        boundary, note = _boundary(frozen, decision.taps, settings.depth)
        if note:
            settings = settings.model_copy(update={"depth": "none"})
        fingerprint = self.fingerprint(work, self._used(frozen, settings, boundary, decision.taps))

        def write(folder: Path) -> ArtifactSummary:
            if settings.depth == "none":
                work.progress.log(f"{note or self._untuned(decision)}: the top model is handed on")
                return self._handed_on(work, folder, decision)
            return self._tuned(
                work, folder, FineTuningSetup(frozen, work, decision.taps, settings, boundary), fingerprint
            )

        held = self.find_or_build(work, fingerprint, write)
        work.store.checkpoint(fingerprint).unlink(missing_ok=True)
        return held

    def _used(
        self, frozen: BackboneFeatures, settings: ResolvedFineTuning, boundary: str | None, taps: list[str]
    ) -> dict[str, Any]:
        """What determines the model: another name of the same depth trains the same."""
        if settings.depth == "none":
            return {"depth": "none", "taps": taps}
        depth = frozen.info.module(boundary) if boundary else "all"
        used = {**settings.model_dump(mode="json"), "depth": depth, "taps": taps}
        if settings.fresh_augmentation:  # then views are drawn that are in no table
            augmentation = self.declaration.augmentation
            used["fresh"] = [Augmenter(augmentation).identity("", 1), augmentation.views]
        return used

    def _handed_on(self, work: StageContext, folder: Path, decision: Decision) -> ArtifactSummary:
        """The top model itself: nothing is trained."""
        from safetensors.torch import save_file

        metrics = copy_predictions(work.inputs["top_model"].path, folder)
        head = read_head(work.inputs["top_model"].path)
        save_file({f"head.{name}": value for name, value in head.items()}, folder / WEIGHTS)
        classes: list[str] = json.loads((work.inputs["top_model"].path / MODEL).read_text())["classes"]
        self._describe(
            folder, taps=decision.taps, depth="none", classes=classes, epoch=0, history=[{"epoch": 0.0, **metrics}]
        )
        rows = work.inputs["top_model"].outcome.rows
        told = {**metrics, "epoch": 0, "training_seconds": 0.0}
        return ArtifactSummary(rows=rows, computed=0, metrics=told, metadata={"depth": "none"})

    def _tuned(self, work: StageContext, folder: Path, part: FineTuningSetup, fingerprint: str) -> ArtifactSummary:
        from safetensors.torch import save_file

        from tl_dagster.backbones.inference import select_device
        from tl_dagster.training.checkpoints import Checkpoint
        from tl_dagster.training.fine_tuning import fine_tune, frozen_digest, predict

        table = read_views(work.inputs["bottleneck_features"].path)
        classes = class_names(table)
        checkpoint = Checkpoint(work.store.checkpoint(fingerprint), work.progress.log)
        with part:
            model = part.network(read_head(work.inputs["top_model"].path))
            model = model.to(select_device())
            data = _data(part, table, classes, self.declaration.augmentation.views, checkpoint)
            stage_depths = part.stage_depths(model)
            result = fine_tune(
                model, data, part.settings, stage_depths, part.frozen.precision, work.progress, checkpoint
            )
            if result.epoch == 0:  # the top model is handed on, and so are its predictions, to the last bit
                metrics = copy_predictions(work.inputs["top_model"].path, folder)
            else:
                held_out = (table["split"] != "train").to_numpy().nonzero()[0]
                logits = predict(model, data.inputs, held_out, part.frozen.precision).numpy()
                metrics = write_predictions(folder, table.iloc[held_out], classes, logits)
        metrics["training_seconds"] = round(result.seconds, 3)
        save_file({name: value.cpu().contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
        self._describe(
            folder,
            taps=part.taps,
            depth=part.settings.depth,
            classes=classes,
            epoch=result.epoch,
            history=result.history,
            frozen_through=part.boundary,
            frozen_sha256=frozen_digest(model),
            activations=part.column.name if part.column else None,
        )
        return _outcome(part, data, result, metrics)

    def _untuned(self, decision: Decision) -> str:
        if self.declaration.fine_tuning.depth == "none":
            return "fine_tuning.depth is none"
        return f"the transfer strategy is {decision.cell}"

    def _describe(self, folder: Path, **told: Any) -> None:
        nothing = dict.fromkeys(("frozen_through", "frozen_sha256", "activations"))
        described = {"backbone": self.declaration.backbone.model_dump(mode="json"), **nothing, **told}
        (folder / MODEL).write_text(json.dumps(described, indent=1))


def _boundary(frozen: BackboneFeatures, taps: list[str], depth: str) -> tuple[str | None, str | None]:
    """The tap up to which is frozen; or why nothing can be tuned."""
    if depth == "none":
        return None, None
    try:
        return frozen.info.frozen_through(taps, depth), None
    except InputError as error:  # the declared taps leave something to tune, those that the strategy chose do not
        return None, str(error)


def _data(
    part: FineTuningSetup, table: "pd.DataFrame", classes: list[str], views: int, checkpoint: "Checkpoint"
) -> "FineTuningData":
    import numpy as np

    from tl_dagster.training.fine_tuning import FineTuningData
    from tl_dagster.training.top_model import balanced_class_weights

    splits = table["split"].to_numpy()
    held_out = np.flatnonzero(splits == "validation")
    labels, train = class_indices(table["label"], classes), np.flatnonzero(splits == "train")
    balanced = part.frozen.declaration.top_model.balanced
    return FineTuningData(
        part.inputs(checkpoint),
        train.reshape(-1, views),
        held_out,
        np.unique(table["id"].to_numpy()[held_out], return_inverse=True)[1],
        labels,
        build_targets(table, classes),
        balanced_class_weights(labels[train], len(classes)) if balanced else None,
    )


def _outcome(
    part: FineTuningSetup, data: "FineTuningData", result: "TrainingResult", metrics: dict[str, float]
) -> ArtifactSummary:
    return ArtifactSummary(
        rows=data.train.size,
        computed=data.train.size,
        metrics={**metrics, "epoch": result.epoch, "epochs": len(result.history) - 1},
        metadata={"depth": part.settings.depth, "frozen_through": part.boundary or "nothing", "frozen_part": part.said},
    )


def activations_used(path: Path) -> list[str]:
    """The cache's column of activations that a fine_tuned_model artifact was trained on, if it was."""
    name = json.loads((path / MODEL).read_text()).get("activations")
    return [name] if name else []
