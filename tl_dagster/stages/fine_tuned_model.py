"""The backbone's top blocks and the top model, trained on from the top model."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_dagster.artifacts import Materialized, Outcome
from tl_dagster.features.cache import Column, Rows
from tl_dagster.stages.augmented_splits import read_views
from tl_dagster.stages.base import Stage, Work, require_same
from tl_dagster.stages.bottleneck_features import open_columns
from tl_dagster.stages.dataset import read_manifest
from tl_dagster.stages.frozen import Frozen, views_to_draw
from tl_dagster.stages.predictions import classes_of, copy_predictions, numbers_of, targets_of, write_predictions
from tl_dagster.stages.top_model import read_features, read_head

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from tl_dagster.features.loading import Loader, View

__all__ = ["FineTunedModel", "activations_used"]


@dataclass(frozen=True)
class Activations:
    """Training inputs from the feature cache: boundary activations by row of the table of views.

    Attributes:
        rows: one flattened map per table row.
        shape: (C, H, W) of a map.
        below: (rows, D) features of the taps below the boundary.
    """

    rows: Rows
    shape: tuple[int, ...]
    below: "np.ndarray"

    def __call__(self, rows: "np.ndarray") -> "tuple[torch.Tensor, torch.Tensor]":
        """See :class:`tl_dagster.training.fine_tuning.Inputs`."""
        import torch

        maps = torch.from_numpy(self.rows[rows]).float().reshape(-1, *self.shape)
        return maps.contiguous(memory_format=torch.channels_last), torch.from_numpy(self.below[rows])


@dataclass(frozen=True)
class Images:
    """Training inputs drawn from the images themselves, for networks and disks that cannot do otherwise."""

    views: "list[View]"
    loader: "Loader"
    frozen: Frozen
    below: "np.ndarray"

    def __call__(self, rows: "np.ndarray") -> "tuple[torch.Tensor, torch.Tensor]":
        """See :class:`tl_dagster.training.fine_tuning.Inputs`."""
        import numpy as np
        import torch

        preprocess = self.frozen.info.preprocess
        drawn = [pixels.copy() for pixels in self.loader.batches([self.views[row] for row in rows])]
        pixels = torch.from_numpy(np.concatenate(drawn)).permute(0, 3, 1, 2).float()
        mean, std = (torch.tensor(preprocess[name]).view(1, 3, 1, 1) * 255 for name in ("mean", "std"))
        return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last), torch.from_numpy(self.below[rows])


class FineTunedModel(Stage):
    """Top blocks unfrozen, a very small learning rate, batch-norm statistics frozen."""

    name = "fine_tuned_model"
    recipe = 1
    description = (
        "The backbone's top blocks and the classifier, trained on from the top model with a very small learning rate; "
        "the epoch with the lowest validation log-loss, never worse there than the top model."
    )
    kinds = frozenset({"pytorch"})
    reads = ("dataset", "bottleneck_features", "top_model")
    gpu = True

    def settings(self) -> dict[str, Any]:
        """The declared fine-tuning."""
        return self.declaration.fine_tuning.model_dump(mode="json")

    def versions(self, work: Work) -> dict[str, str]:
        """Where the images lie does not count; what they are is in the features' version."""
        return {name: work.inputs[name].data_version for name in ("bottleneck_features", "top_model")}

    def run(self, work: Work) -> Materialized:
        """Trained once for the same top model and settings."""
        require_same(work.inputs["top_model"], "bottleneck_features", work.inputs["bottleneck_features"])
        frozen = Frozen(self.declaration, work.store)
        # Where the frozen part runs decides the numbers' precision and what is folded: it belongs to the identity.
        cached = frozen.boundary(work.inputs["bottleneck_features"].outcome.rows) is not None
        fingerprint = self.fingerprint(work, {**self.settings(), "cached_activations": cached})
        return self.find_or_build(work, fingerprint, lambda folder: self._train(work, frozen, folder))

    def _train(self, work: Work, frozen: Frozen, folder: Path) -> Outcome:
        with frozen.loader() as loader:
            return self._trained(work, frozen, loader, folder)

    def _trained(self, work: Work, frozen: Frozen, loader: "Loader", folder: Path) -> Outcome:
        import numpy as np
        import torch
        from safetensors.torch import save_file

        from tl_dagster.features.network import device
        from tl_dagster.training.fine_tuning import fine_tune, network, predict

        torch.manual_seed(self.declaration.fine_tuning.seed)
        table = read_views(work.inputs["bottleneck_features"].path)
        boundary = frozen.info.frozen_through(frozen.backbone, self.declaration.fine_tuning.freeze_through)
        columns = [column for _, column in open_columns(work.inputs["bottleneck_features"].path, work.store)]
        below = [frozen.info.is_below(column.recipe["tap"], boundary) for column in columns]
        widths = [column.read(table["key"][:1].tolist()).width for column in columns]
        is_frozen = np.repeat(below, widths)
        above = [
            (column.recipe["tap"], column.recipe["pooling"])
            for column, under in zip(columns, below, strict=True)
            if not under
        ]
        features = read_features(work.inputs["bottleneck_features"], work.store)[:, is_frozen].astype(np.float32)
        cached = frozen.boundary(len(table))
        upper, inputs = self._upper(frozen, loader, boundary, cached, above, table, features, work)
        model = network(upper, read_head(work.inputs["top_model"].path), is_frozen)
        model = model.to(device(), memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types lack it

        classes = classes_of(table)
        labels = numbers_of(table["label"], classes)
        targets = targets_of(table, classes)
        splits, identities = table["split"].to_numpy(), table["id"].to_numpy()
        train = np.flatnonzero(splits == "train").reshape(-1, self.declaration.augmentation.views)
        held_out = np.flatnonzero(splits == "validation")
        images = np.unique(identities[held_out], return_inverse=True)[1]
        result = fine_tune(
            model,
            inputs,
            train,
            (held_out, images),
            labels,
            targets,
            self.declaration.fine_tuning,
            frozen.precision,
            work.progress,
        )

        if result.epoch == 0:  # the top model is handed on, and so are its predictions, to the last bit
            metrics = copy_predictions(work.inputs["top_model"].path, folder)
        else:
            logits = np.zeros((len(table), len(classes)), dtype=np.float32)
            rows = np.flatnonzero(splits != "train")
            logits[rows] = predict(model, inputs, rows, frozen.precision).numpy()
            metrics = write_predictions(folder, table, classes, logits)
        save_file(
            {name: value.cpu().contiguous() for name, value in model.state_dict().items()}, folder / "model.safetensors"
        )
        described = {
            "backbone": frozen.backbone.model_dump(mode="json"),
            "frozen_through": boundary,
            "activations": cached.name if isinstance(inputs, Activations) and cached else None,
            "classes": classes,
            "epoch": result.epoch,
            "history": result.history,
        }
        (folder / "model.json").write_text(json.dumps(described, indent=1))
        return Outcome(
            rows=train.size,
            computed=train.size,
            metrics={**metrics, "epoch": result.epoch},
            facts={
                "frozen_through": boundary,
                "frozen_part": "from the feature cache"
                if isinstance(inputs, Activations)
                else "recomputed in each step",
            },
        )

    def _upper(
        self,
        frozen: Frozen,
        loader: "Loader",
        boundary: str,
        cached: Column | None,
        above: list[tuple[str, str]],
        table: "pd.DataFrame",
        below: "np.ndarray",
        work: Work,
    ) -> "tuple[torch.nn.Module, Activations | Images]":
        """The trainable part, and the inputs that fit it."""
        from tl_dagster.features.backbones import tail, tapped, unfreeze_above

        path = frozen.info.module(boundary)
        model = frozen.load()
        upper = tail(model, path, above) if cached else None
        if cached is None or upper is None:
            work.progress.say("the frozen part is recomputed in each step (see compute.activation_cache_gb)")
            unfreeze_above(model, path, frozen.resize.size)
            views = views_to_draw(table, read_manifest(work.inputs["dataset"].path))
            return tapped(model, above), Images(views, loader, frozen, below)
        frozen.fill(table, [cached], work)
        rows = cached.read(table["key"].tolist())
        return upper.requires_grad_(True), Activations(rows, frozen.info.map_shape(boundary, rows.width), below)


def activations_used(path: Path) -> list[str]:
    """The cache's column of activations that a fine_tuned_model artifact was trained on, if it was."""
    name = json.loads((path / "model.json").read_text()).get("activations")
    return [name] if name else []
