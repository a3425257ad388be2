"""The classifier trained on the cached views of the frozen backbone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.artifacts import ArtifactStore, Materialized, Outcome
from tl_dagster.features.cache import SideBySide
from tl_dagster.stages.augmented_splits import read_views
from tl_dagster.stages.base import Stage, Work
from tl_dagster.stages.bottleneck_features import open_columns
from tl_dagster.stages.predictions import classes_of, numbers_of, targets_of, write_predictions

if TYPE_CHECKING:
    import numpy as np
    import torch

    from tl_dagster.artifacts import Artifact

__all__ = ["TopModel", "read_features", "read_head"]


class TopModel(Stage):
    """Train the top model first; fine-tuning starts from it."""

    name = "top_model"
    recipe = 1
    description = (
        "Multinomial logistic regression on the bottleneck features of all training views; validation chooses its L2."
    )
    kinds = frozenset({"pytorch"})
    reads = ("bottleneck_features",)

    def settings(self) -> dict[str, Any]:
        """The declared top model."""
        return self.declaration.top_model.model_dump(mode="json")

    def run(self, work: Work) -> Materialized:
        """Trained once for the same features and settings."""
        return self.find_or_build(work, self.fingerprint(work), lambda folder: self._train(work, folder))

    def _train(self, work: Work, folder: Path) -> Outcome:
        import numpy as np
        from safetensors.torch import save_file

        from tl_dagster.training.top_model import fit

        features = work.inputs["bottleneck_features"]
        table = read_views(features.path)
        classes = classes_of(table)
        labels = numbers_of(table["label"], classes)
        values = read_features(features, work.store)
        train = np.flatnonzero(table["split"] == "train")
        held_out = np.flatnonzero(table["split"] == "validation")
        images = np.unique(table["id"].to_numpy()[held_out], return_inverse=True)[1]
        work.progress.start("strengths")
        best = fit(
            (values[train], targets_of(table.iloc[train], classes)),
            (values[held_out], labels[held_out], images),
            self.declaration.top_model,
            work.progress.update,
        )
        state = {"weight": best.weight, "bias": best.bias, "mean": best.mean, "std": best.std}
        save_file(state, folder / "model.safetensors")
        (folder / "model.json").write_text(json.dumps({"classes": classes, "l2": best.l2, "path": best.path}, indent=1))
        standardised = (values - best.mean.numpy()) / best.std.numpy()
        logits = standardised @ best.weight.numpy().T + best.bias.numpy()
        metrics = write_predictions(folder, table, classes, logits)
        return Outcome(
            rows=len(train), computed=len(train), metrics={**metrics, "l2": best.l2}, facts={"classes": classes}
        )


def read_features(features: "Artifact", store: ArtifactStore, rows: "np.ndarray | None" = None) -> "np.ndarray":
    """The features of a bottleneck_features artifact's views, taps side by side: (views, D).

    Args:
        features: the artifact.
        store: where the feature cache is.
        rows: (views,) row numbers of the table of views; all when not given.
    """
    table = read_views(features.path)
    keys = (table if rows is None else table.iloc[rows])["key"].tolist()
    return SideBySide([column for _, column in open_columns(features.path, store)], keys)[:]


def read_head(path: Path) -> "dict[str, torch.Tensor]":
    """Weight (classes, D), bias (classes,), mean (D,) and std (D,) of a top_model artifact."""
    from safetensors.torch import load_file

    return load_file(path / "model.safetensors")
