"""A trained model as one network, from images to logits."""

import json
from collections.abc import Sequence

import torch
from safetensors.torch import load_file

from tl_dagster.backbones.inference import normalize, per_channel
from tl_dagster.backbones.splitting import frozen_feature_mask, split_backbone
from tl_dagster.backbones.taps import build_extractor
from tl_dagster.data.views import View
from tl_dagster.declaration import Declaration
from tl_dagster.features.backbone_features import BackboneFeatures
from tl_dagster.store.artifacts import Artifact, ArtifactStore
from tl_dagster.training.checkpoints import select_group
from tl_dagster.models.fine_tuned_network import build_tuned_network

__all__ = ["images_of", "network_of"]


def network_of(declaration: Declaration, store: ArtifactStore, tuned: Artifact) -> torch.nn.Module:
    """The network of a fine_tuned_model artifact.

    Args:
        declaration: of its pipeline.
        store: where weights and features are.
        tuned: the artifact.

    Returns:
        A module in evaluation mode: images (n, 3, size, size), float32, see :func:`images_of` → logits (n, classes).
        Gradients reach its upper part.
    """

    described = json.loads((tuned.path / "model.json").read_text())
    state = load_file(tuned.path / "model.safetensors")
    frozen = BackboneFeatures(declaration, store)
    # Where nothing was tuned, the whole backbone is "above".
    cut = split_backbone(frozen, described["taps"], described["frozen_through"])
    model = build_tuned_network(cut.upper, select_group(state, "head", "."), frozen_feature_mask(frozen, cut))
    model.load_state_dict(state, strict=described["depth"] != "none")
    boundary = [] if cut.reads_images or cut.boundary is None else [(cut.boundary, "none")]
    map_width = frozen.info.width(*boundary[0], frozen.resize.size) if boundary else 0
    lower = build_extractor(frozen.load(), [*cut.frozen_taps, *boundary]) if cut.frozen_taps or boundary else None

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lower, self.tuned = lower, model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features: list[torch.Tensor] = self.lower(images) if self.lower is not None else []
            inputs = images
            if boundary:
                *features, flat = features
                inputs = flat.reshape(-1, *frozen.info.map_shape(described["frozen_through"], map_width))
            logits: torch.Tensor = self.tuned(inputs, torch.cat([images.new_zeros(len(images), 0), *features], 1))
            return logits

    return Whole().eval()


def images_of(declaration: Declaration, store: ArtifactStore, views: Sequence[View]) -> torch.Tensor:
    """Views as :func:`network_of` reads them: float32 (n, 3, size, size).

    Raises:
        InputError: a file is gone or changed since ingestion.
    """

    frozen = BackboneFeatures(declaration, store)
    mean, std = (per_channel(frozen.info.preprocess[name]) for name in ("mean", "std"))
    with frozen.loader() as loader:
        drawn = [torch.from_numpy(pixels.copy()) for pixels in loader.batches(views)]
    return normalize(torch.cat(drawn), mean, std)
