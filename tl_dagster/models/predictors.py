"""From pixels to logits, as each kind of model does it: with the same steps, batches and rounding as in training."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tl_dagster.backbones.description import BackboneInfo, describe_backbone
from tl_dagster.backbones.frozen import FrozenBackbone
from tl_dagster.backbones.inference import InferenceRunner, normalize, per_channel
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.splitting import BackboneSplit, split_backbone
from tl_dagster.backbones.taps import build_extractor
from tl_dagster.backbones.weights import Weights
from tl_dagster.data.decoding import Resize
from tl_dagster.models.bundle import locate_backbone
from tl_dagster.models.heads import build_head, compute_logits
from tl_dagster.models.networks import (
    PREDICTION_BATCH,
    TunedNetwork,
    WholeNetwork,
    build_tuned_network,
    predict_batches,
    to_maps,
)
from tl_dagster.models.scratch_networks import NormalizedNetwork, UntrainedBackbone, build_convnet
from tl_dagster.models.spec import MODEL, ModelSpec, NetworkSpec
from tl_dagster.runtime.devices import open_device
from tl_dagster.runtime.errors import InputError
from tl_dagster.store.layout import StoreLayout

__all__ = ["FeaturePredictor", "Predictor", "build_predictor"]

State = Mapping[str, torch.Tensor]


class Predictor(ABC):
    """The computation of one model.

    Attributes:
        weights: of its backbone; None for a model that was trained from random weights.
    """

    weights: Weights | None

    @abstractmethod
    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """Return the logits of views: uint8 (n, size, size, 3) → float32 (n, classes)."""

    @abstractmethod
    def network(self) -> torch.nn.Module:
        """Return the whole model: normalized images (n, 3, size, size) → logits; gradients reach its upper part."""


def build_predictor(folder: Path, spec: ModelSpec, state: State, layout: StoreLayout) -> Predictor:
    """Return the computation of a model.

    Args:
        folder: the model's.
        spec: its description.
        state: its own tensors.
        layout: of the store that may know where the backbone's weights are.

    Raises:
        InputError: the backbone's weights are not on this machine, or the tensors do not fit the description.
    """
    if spec.architecture != "backbone":
        return ScratchPredictor(folder, spec, state)
    if spec.backbone is None or not spec.taps:
        raise InputError(f"{folder / MODEL}: backbone: a model of features needs a backbone and taps; copy it again")
    info = _describe(spec)
    weights = locate_backbone(folder, spec.backbone, layout)
    resize = Resize(**spec.resize.model_dump())
    backbone = FrozenBackbone(info, weights, resize, list(spec.mean), list(spec.std), spec.precision)
    kind = TunedPredictor if spec.tuned else FeaturePredictor
    return kind(folder, spec, state, backbone)


def _describe(spec: ModelSpec) -> BackboneInfo:
    """Return the description of the backbone's architecture at the model's image size."""
    name = spec.backbone.name if spec.backbone else ""
    tag = spec.backbone.tag if spec.backbone else None
    info = describe_backbone(Backbone(name=name, weights=tag))
    if info.size == spec.resize.size:
        return info
    return describe_backbone(Backbone(name=name, weights=tag, image_size=spec.resize.size))


@dataclass
class FeaturePredictor(Predictor):
    """A head on features of the frozen backbone.

    Attributes:
        folder: the model's.
        spec: its description.
        state: its own tensors, names with "head.".
        backbone: the frozen network.
    """

    folder: Path
    spec: ModelSpec
    state: State
    backbone: FrozenBackbone
    _runners: dict[int, InferenceRunner] = field(default_factory=dict)

    @property
    def weights(self) -> Weights | None:  # type: ignore[override]
        """Of the backbone."""
        return self.backbone.weights

    @cached_property
    def _taps(self) -> list[tuple[str, str]]:
        return [(tap.module, tap.pooling) for tap in self.spec.taps]

    @cached_property
    def _head_state(self) -> dict[str, torch.Tensor]:
        return {name.removeprefix("head."): each for name, each in self.state.items() if name.startswith("head.")}

    @cached_property
    def _head(self) -> torch.nn.Module:
        try:
            return build_head(self._head_state)
        except (KeyError, RuntimeError, IndexError) as error:
            raise InputError(
                f"{self.folder}: the head's tensors are not whole: {error}; copy the model again"
            ) from error

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """Return the frozen backbone's features of views, as the feature cache would hold them: (n, D)."""
        return np.concatenate(self._outputs(pixels, self._taps), 1)

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """See :meth:`Predictor.logits`."""
        return compute_logits(self._head, self.features(pixels), len(self.spec.classes))

    def network(self) -> torch.nn.Module:
        """See :meth:`Predictor.network`."""
        split = self._split(None)
        return WholeNetwork(
            None, build_tuned_network(split.upper, self._head_state, split.frozen_features), None
        ).eval()

    def _split(self, boundary: str | None) -> BackboneSplit:
        return split_backbone(self.backbone, self.backbone.load(self._modules), self._taps, boundary)

    @cached_property
    def _modules(self) -> list[str]:
        return [module for module, _ in self._taps]

    def _outputs(self, pixels: np.ndarray, wanted: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        """Return outputs of the frozen network as the feature cache would hold them: (n, D) each."""
        assert self.spec.backbone is not None  # noqa: S101  (for the type checker)
        dtype = torch.float32 if self.spec.precision == "fp32" else torch.float16
        computed: dict[tuple[str, str], np.ndarray] = {}
        for number, network in enumerate(self._networks(wanted)):
            outputs = self._runner(number, network, pixels)(pixels)()
            for output, values in zip(network.outputs, outputs, strict=True):
                computed.setdefault(output, values.to(dtype).cpu().numpy())
        return [computed[output] for output in wanted]

    def _networks(self, wanted: Sequence[tuple[str, str]]) -> list[NetworkSpec]:
        """Return the networks that the training's features came from, and one for outputs that none of them has."""
        known = list(self.spec.backbone.networks) if self.spec.backbone else []
        outputs = {output for network in known for output in network.outputs}
        missing = [output for output in wanted if output not in outputs]
        return [*known, *([NetworkSpec(outputs=missing)] if missing else [])]

    def _runner(self, number: int, network: NetworkSpec, pixels: np.ndarray) -> InferenceRunner:
        if number not in self._runners:
            runner = InferenceRunner(
                lambda: build_extractor(self.backbone.load([tap for tap, _ in network.outputs]), network.outputs),
                [self.backbone.feature_key(*output) for output in network.outputs],
                self.spec.precision,
                self.spec.mean,
                self.spec.std,
                self.spec.batch_size,
            )
            if network.compiled:  # the same library gives the same bits; it is not made for a few images
                runner.consider_compiling(pixels, 0, lambda line: None)
            self._runners[number] = runner
        return self._runners[number]


class TunedPredictor(FeaturePredictor):
    """A fine-tuned model: the frozen part below the boundary, and the trained part above it."""

    @cached_property
    def _cut(self) -> BackboneSplit:
        return self._split(self.spec.frozen_through)

    @cached_property
    def _tuned(self) -> TunedNetwork:
        network = build_tuned_network(self._cut.upper, self._head_state, self._cut.frozen_features)
        try:
            network.load_state_dict(dict(self.state))
        except RuntimeError as error:
            raise InputError(f"{self.folder}: the tensors do not fit {self.backbone.name}: {error}") from error
        return network.to(open_device()).eval()

    @property
    def _map_shape(self) -> tuple[int, ...] | None:
        if self._cut.reads_images or self._cut.boundary is None or self.spec.frozen_through is None:
            return None
        values = self.backbone.width(self._cut.boundary, "none")
        return self.backbone.info.map_shape(self.spec.frozen_through, values)

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """See :meth:`Predictor.logits`."""
        parts = [self._part(pixels[at : at + PREDICTION_BATCH]) for at in range(0, len(pixels), PREDICTION_BATCH)]
        return torch.cat(parts).numpy()

    def _part(self, pixels: np.ndarray) -> torch.Tensor:
        shape, boundary = self._map_shape, self._cut.boundary
        if shape is None or boundary is None:
            images = normalize(torch.from_numpy(pixels), per_channel(self.spec.mean), per_channel(self.spec.std))
            inputs, features = images.contiguous(memory_format=torch.channels_last), torch.zeros(len(images), 0)
        else:
            *frozen, maps = self._outputs(pixels, [*self._cut.frozen_taps, (boundary, "none")])
            inputs = to_maps(maps, shape)
            joined = np.concatenate(frozen, 1) if frozen else np.zeros((len(maps), 0), maps.dtype)
            features = torch.from_numpy(joined).float()
        return predict_batches(self._tuned, inputs, features, self.spec.precision)

    def network(self) -> torch.nn.Module:
        """See :meth:`Predictor.network`."""
        shape, boundary, lower = self._map_shape, self._cut.boundary, None
        if shape is not None and boundary is not None:
            taps = [*self._cut.frozen_taps, (boundary, "none")]
            lower = build_extractor(self.backbone.load([tap for tap, _ in taps]), taps)
        return WholeNetwork(lower, self._tuned.cpu(), shape).eval()


class ScratchPredictor(Predictor):
    """A network that was trained from random weights.

    Args:
        folder: the model's.
        spec: its description.
        state: its own tensors.
    """

    weights = None

    def __init__(self, folder: Path, spec: ModelSpec, state: State) -> None:
        self._spec = spec
        size, classes = spec.resize.size, len(spec.classes)
        model: Any = build_convnet(size, classes)
        if spec.architecture == "scratch":
            model = UntrainedBackbone(_describe(spec), size, classes)
        self._network = NormalizedNetwork(model, spec.mean, spec.std)
        try:
            self._network.load_state_dict(dict(state))
        except RuntimeError as error:
            raise InputError(f"{folder}: the tensors do not fit the network: {error}; copy the model again") from error
        self._network.to(open_device()).eval()

    def logits(self, pixels: np.ndarray) -> np.ndarray:
        """See :meth:`Predictor.logits`."""
        size = self._spec.batch_size
        parts = [
            predict_batches(self._network, torch.from_numpy(pixels[at : at + size]), None, self._spec.precision, size)
            for at in range(0, len(pixels), size)
        ]
        return torch.cat(parts).numpy()

    def network(self) -> torch.nn.Module:
        """See :meth:`Predictor.network`."""
        return self._network.model.cpu()
