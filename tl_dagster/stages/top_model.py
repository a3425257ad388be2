"""The classifier trained on the cached views of the frozen backbone."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.artifacts import ArtifactStore, Materialized, Outcome
from tl_dagster.errors import InputError
from tl_dagster.features.cache import SideBySide
from tl_dagster.stages.augmented_splits import read_views
from tl_dagster.stages.base import Stage, Work, require_same
from tl_dagster.stages.bottleneck_features import open_columns
from tl_dagster.stages.predictions import classes_of, confidence_of, numbers_of, write_predictions
from tl_dagster.stages.transfer_strategy import read_decision

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from tl_dagster.artifacts import Artifact
    from tl_dagster.training.top_model import Fit, Views

__all__ = ["TopModel", "open_features", "read_features", "read_head", "require_taps"]


class TopModel(Stage):
    """Train the top model first; fine-tuning starts from it."""

    name = "top_model"
    recipe = 3
    description = (
        "Logistic regression, or a small network, on the bottleneck features of all training views, at the taps that "
        "the transfer strategy chose; validation chooses its L2 or epoch, and its temperature."
    )
    kinds = frozenset({"pytorch"})
    reads = ("bottleneck_features", "transfer_strategy")

    def settings(self) -> dict[str, Any]:
        """The declared top model."""
        return self.declaration.top_model.model_dump(mode="json")

    def versions(self, work: Work) -> dict[str, str]:
        """Of the strategy only the taps count, and they are in the fingerprint."""
        return {"bottleneck_features": work.inputs["bottleneck_features"].data_version}

    def run(self, work: Work) -> Materialized:
        """Trained once for the same features, taps and settings."""
        require_same(work.inputs["transfer_strategy"], "bottleneck_features", work.inputs["bottleneck_features"])
        taps = list(read_decision(work.inputs["transfer_strategy"].path).taps)
        fingerprint = self.fingerprint(work, {**self.settings(), "taps": taps})
        return self.find_or_build(work, fingerprint, lambda folder: self._train(work, taps, folder))

    def _train(self, work: Work, taps: list[str], folder: Path) -> Outcome:
        import numpy as np
        from safetensors.torch import save_file

        from tl_dagster.training.top_model import classifier, fit, logits_of

        features, settings = work.inputs["bottleneck_features"], self.declaration.top_model
        table = read_views(features.path)
        classes = classes_of(table)

        def of(split: str) -> "Views":
            return _views(features, work.store, table, np.flatnonzero(table["split"] == split), taps)

        train = of("train")
        begun = time.monotonic()
        fitted = fit(train, of("validation"), len(classes), settings, work.progress)
        seconds = time.monotonic() - begun
        save_file(fitted.state, folder / "model.safetensors")
        described = {"kind": settings.kind, "classes": classes, "taps": taps, **_described(fitted)}
        (folder / "model.json").write_text(json.dumps(described, indent=1))
        held_out = np.flatnonzero(table["split"] != "train")
        rows = open_features(features, work.store, held_out, taps)
        logits = logits_of(classifier(fitted.state), rows, len(classes))
        chosen: dict[str, float] = {name: fitted.told[name] for name in ("l2", "epoch") if name in fitted.told}
        return Outcome(
            rows=len(train.labels),
            computed=len(train.labels),
            metrics={
                **write_predictions(folder, table.iloc[held_out], classes, logits),
                "validation_log_loss_uncalibrated": fitted.log_losses[0],
                "temperature": fitted.temperature,
                "training_seconds": round(seconds, 3),
                **chosen,
            },
            facts={"classes": classes, "taps": taps, "kind": settings.kind},
        )


def _views(
    features: "Artifact", store: ArtifactStore, table: "pd.DataFrame", rows: "np.ndarray", taps: Sequence[str]
) -> "Views":
    """Labelled views of a bottleneck_features artifact: rows of its table."""
    import numpy as np

    from tl_dagster.training.top_model import Views

    part = table.iloc[rows]
    images = np.unique(part["id"].to_numpy(), return_inverse=True)[1]
    labels = numbers_of(part["label"], classes_of(table))
    return Views(open_features(features, store, rows, taps), labels, images, confidence_of(part))


def _described(fitted: "Fit") -> dict[str, Any]:
    before, after = fitted.log_losses
    calibration = {"validation_log_loss_uncalibrated": before, "validation_log_loss": after}
    return {**fitted.told, "temperature": fitted.temperature, **calibration}


def open_features(
    features: "Artifact", store: ArtifactStore, rows: "np.ndarray | None" = None, taps: Sequence[str] | None = None
) -> SideBySide:
    """The features of a bottleneck_features artifact's views, taps side by side, read when they are indexed.

    Args:
        features: the artifact.
        store: where the feature cache is.
        rows: (views,) row numbers of the table of views; all when not given.
        taps: declared names, in any order; all when not given.
    """
    table = read_views(features.path)
    keys = (table if rows is None else table.iloc[rows])["key"].tolist()
    columns = open_columns(features.path, store)
    return SideBySide([column for tap, column in columns if taps is None or tap in taps], keys)


def read_features(
    features: "Artifact", store: ArtifactStore, rows: "np.ndarray | None" = None, taps: Sequence[str] | None = None
) -> "np.ndarray":
    """The same in memory: (views, D); see :func:`open_features`."""
    return open_features(features, store, rows, taps)[:]


def require_taps(top_model: "Artifact", strategy: "Artifact") -> None:
    """Refuse a top model that reads other taps than the strategy says now.

    Raises:
        InputError: the strategy was materialized anew, and the top model was not.
    """
    if json.loads((top_model.path / "model.json").read_text())["taps"] != read_decision(strategy.path).taps:
        raise InputError("top_model reads other taps than transfer_strategy says now: materialize it first")


def read_head(path: Path) -> "dict[str, torch.Tensor]":
    """The state of a top_model artifact, as :func:`tl_dagster.training.top_model.classifier` takes it."""
    from safetensors.torch import load_file

    return load_file(path / "model.safetensors")
