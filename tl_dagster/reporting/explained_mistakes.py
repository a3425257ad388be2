"""The worst mistakes of the model handed on, with what its network looked at."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from tl_dagster.data.manifest import image_uris, read_manifest, shown_uris
from tl_dagster.data.splits import read_views
from tl_dagster.data.views import View, views_to_draw
from tl_dagster.declaration import Declaration
from tl_dagster.graph.stage import StageContext
from tl_dagster.models.classifier import images_of, network_of
from tl_dagster.reporting.grad_cam import heat_maps
from tl_dagster.reporting.mistakes import Mistake
from tl_dagster.runtime.errors import InputError

__all__ = ["explain_mistakes"]


def explain_mistakes(
    declaration: Declaration,
    work: StageContext,
    rows: pd.DataFrame,
    probabilities: np.ndarray,
    classes: list[str],
) -> tuple[list[Mistake], str]:
    """Mistakes with their heat maps, and a sentence that says what the maps show or why there are none.

    Args:
        declaration: of the pipeline.
        work: holds dataset, bottleneck_features and fine_tuned_model.
        rows: the mistaken images' rows of predictions (id, label, predicted …).
        probabilities: (rows, classes).
        classes: class names.
    """

    manifest = read_manifest(work.inputs["dataset"].path)
    likely = probabilities.max(1).tolist()
    mistakes = [
        Mistake(uri, label, predicted, probability)
        for uri, label, predicted, probability in zip(
            shown_uris(manifest, rows["id"]), rows["label"], rows["predicted"], likely, strict=True
        )
    ]
    views = read_views(work.inputs["bottleneck_features"].path)
    plain = views[(views["view"] == 0) & views["id"].isin(set(rows["id"]) & set(image_uris(manifest).index))]
    seen = _pictures(declaration, work, {view.image_id: view for view in views_to_draw(plain, manifest)})
    known = [number for number, identity in enumerate(rows["id"]) if identity in seen]
    if not known:
        return mistakes, "The images could not be read again."

    images = torch.stack([seen[rows["id"].iloc[number]] for number in known])
    network = network_of(declaration, work.store, work.inputs["fine_tuned_model"])
    heat = heat_maps(network, images, probabilities.argmax(1)[known])
    if heat is None:
        return mistakes, f"{declaration.backbone.name} works on tokens, not on maps: Grad-CAM has nothing to show."
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    pixels = ((images - low) / (high - low).clamp_min(1e-6) * 255).byte().permute(0, 2, 3, 1).numpy().astype(np.uint8)
    for number, picture, each in zip(known, pixels, heat, strict=True):
        mistakes[number] = replace(mistakes[number], seen=picture, heat=each)
    return mistakes, "Beside each image, bright: what spoke for the wrong class (Grad-CAM, Selvaraju et al. 2017)."


def _pictures(declaration: Declaration, work: StageContext, views: dict[str, View]) -> dict[str, torch.Tensor]:
    """The network's input by image id; without images that cannot be read any more."""

    if not views:
        return {}
    try:
        return dict(zip(views, images_of(declaration, work.store, list(views.values())), strict=True))
    except (InputError, OSError):  # which of them is gone is found out one by one
        if len(views) == 1:
            return {}
        parts = [_pictures(declaration, work, {name: view}) for name, view in views.items()]
        return {name: image for part in parts for name, image in part.items()}
