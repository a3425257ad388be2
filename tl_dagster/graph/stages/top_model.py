"""The classifier trained on the cached views of the frozen backbone."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.data.labels import class_indices, class_names, label_confidence
from tl_dagster.data.splits import read_views
from tl_dagster.features.backbone_features import open_features
from tl_dagster.graph.stage import Stage, StageContext, require_same
from tl_dagster.models.predictions import write_predictions
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.artifacts import ArtifactStore, ArtifactSummary, Materialization
from tl_dagster.strategy.decide import read_decision

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tl_dagster.store.artifacts import Artifact
    from tl_dagster.training.feature_batches import LabelledFeatures
    from tl_dagster.training.top_model import FittedTopModel


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

    def settings(self) -> dict[str, Any]:
        """The declared top model."""
        return self.declaration.top_model.model_dump(mode="json")

    def versions(self, work: StageContext) -> dict[str, str]:
        """Of the strategy only the taps count, and they are in the fingerprint."""
        return {"bottleneck_features": work.inputs["bottleneck_features"].data_version}

    def run(self, work: StageContext) -> Materialization:
        """Trained once for the same features, taps and settings."""
        require_same(work.inputs["transfer_strategy"], "bottleneck_features", work.inputs["bottleneck_features"])
        taps = list(read_decision(work.inputs["transfer_strategy"].path).taps)
        fingerprint = self.fingerprint(work, {**self.settings(), "taps": taps})
        return self.find_or_build(work, fingerprint, lambda folder: self._train(work, taps, folder))

    def _train(self, work: StageContext, taps: list[str], folder: Path) -> ArtifactSummary:
        import numpy as np
        from safetensors.torch import save_file

        from tl_dagster.models.heads import build_head, compute_logits
        from tl_dagster.training.top_model import fit_top_model

        features, settings = work.inputs["bottleneck_features"], self.declaration.top_model
        table = read_views(features.path)
        classes = class_names(table)

        def of(split: str) -> "LabelledFeatures":
            return _views(features, work.store, table, np.flatnonzero(table["split"] == split), taps)

        train = of("train")
        begun = time.monotonic()
        fitted = fit_top_model(train, of("validation"), len(classes), settings, work.progress)
        seconds = time.monotonic() - begun
        save_file(fitted.state, folder / "model.safetensors")
        described = {"kind": settings.kind, "classes": classes, "taps": taps, **_described(fitted)}
        (folder / "model.json").write_text(json.dumps(described, indent=1))
        held_out = np.flatnonzero(table["split"] != "train")
        rows = open_features(features, work.store, held_out, taps)
        logits = compute_logits(build_head(fitted.state), rows, len(classes))
        chosen: dict[str, float] = {name: fitted.metadata[name] for name in ("l2", "epoch") if name in fitted.metadata}
        return ArtifactSummary(
            rows=len(train.labels),
            computed=len(train.labels),
            metrics={
                **write_predictions(folder, table.iloc[held_out], classes, logits),
                "validation_log_loss_uncalibrated": fitted.log_losses[0],
                "temperature": fitted.temperature,
                "training_seconds": round(seconds, 3),
                **chosen,
            },
            metadata={"classes": classes, "taps": taps, "kind": settings.kind},
        )


def _views(
    features: "Artifact", store: ArtifactStore, table: "pd.DataFrame", rows: "np.ndarray", taps: Sequence[str]
) -> "LabelledFeatures":
    """Labelled views of a bottleneck_features artifact: rows of its table."""
    import numpy as np

    from tl_dagster.training.feature_batches import LabelledFeatures

    part = table.iloc[rows]
    images = np.unique(part["id"].to_numpy(), return_inverse=True)[1]
    labels = class_indices(part["label"], class_names(table))
    return LabelledFeatures(open_features(features, store, rows, taps), labels, images, label_confidence(part))


def _described(fitted: "FittedTopModel") -> dict[str, Any]:
    before, after = fitted.log_losses
    calibration = {"validation_log_loss_uncalibrated": before, "validation_log_loss": after}
    return {**fitted.metadata, "temperature": fitted.temperature, **calibration}


def require_taps(top_model: "Artifact", strategy: "Artifact") -> None:
    """Refuse a top model that reads other taps than the strategy says now.

    Raises:
        InputError: the strategy was materialized anew, and the top model was not.
    """
    if json.loads((top_model.path / "model.json").read_text())["taps"] != read_decision(strategy.path).taps:
        raise InputError("top_model reads other taps than transfer_strategy says now: materialize it first")
