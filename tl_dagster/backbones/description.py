"""Descriptions of backbones that need no torch: stages, preprocessing, where the weights are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from tl_dagster.backbones.settings import Backbone
from tl_dagster.runtime.errors import InputError, suggest
from tl_dagster.store.answers import ask_module

__all__ = ["PENULTIMATE", "BackboneInfo", "describe_backbone"]

PENULTIMATE = "penultimate"
LOWER, HIGHER = "lower", "higher"
# Values of a pooled map, for each of its channels.
PER_CHANNEL = {"avg": 1, "max": 1, "avg+max": 2, "grid2x2": 4}
# Bumped by hand whenever the output of `inspection.describe` changes.
DESCRIPTION_VERSION = 6


@dataclass(frozen=True)
class BackboneInfo:
    """A backbone as its library describes it.

    Attributes:
        name: "timm/NAME" or "torchvision/NAME".
        stages: stage name → module path, from lower to higher.
        modules: every module path.
        nodes: operations of the traced network that are not modules.
        size: pixels of the square input that ``outputs`` are of.
        outputs: shape (D,), (T, C), (C, H, W) or (H, W, C) of the output of each module and node for one image, in the
            order in which they finish; "" is the whole network.
        costs: GFLOP of one image until each output has finished; none where they cannot be counted.
        parameters: of the network without its classifiers.
        classifiers: paths of the last fully connected layers, which are dropped; features are taken at the first.
        preprocess: size, crop_fraction, interpolation, mean and std that belong to the weights.
        weights: url and sha256 prefix of the pre-trained file; None when the library has none.
        untunable: why gradients cannot be computed through it; "" where they can.
    """

    name: str
    stages: Mapping[str, str]
    modules: tuple[str, ...]
    nodes: tuple[str, ...]
    size: int
    outputs: Mapping[str, Sequence[int]]
    costs: Mapping[str, float]
    parameters: int
    classifiers: tuple[str, ...]
    preprocess: Mapping[str, Any]
    weights: Mapping[str, str] | None
    untunable: str

    @property
    def classifier(self) -> str:
        """The path of the first dropped layer; "" (the network's own output) where there was none."""
        return self.classifiers[0] if self.classifiers else ""

    def module(self, tap: str) -> str:
        """Return the module path (or the node) of a tap; the penultimate one is where the dropped classifier stood.

        Raises:
            InputError: the backbone has no such tap, or there is nothing to pool at it.
        """
        stages = list(self.stages)
        named = {**self.stages, PENULTIMATE: self.classifier, HIGHER: self.classifier}
        if stages:
            named[LOWER] = self.stages[stages[max(len(stages) - 2, 0)]]
        path = named.get(tap, tap)
        if path in self.outputs:
            return path
        if path in self.modules:
            raise InputError(
                f"{self.name}: '{tap}' gives neither a vector nor tokens nor a map for each image; tap another module"
            )
        raise InputError(
            f"{self.name} has no tap '{tap}': {suggest(tap, [*named, *filter(None, self.outputs)])}; "
            "or the name of any module or node"
        )

    def is_below(self, path: str, boundary: str) -> bool:
        """Return whether a module or node runs before (or within) the layer that a tap names."""
        order = list(self.outputs)
        return order.index(path) <= order.index(self.module(boundary))

    def highest(self, taps: Sequence[str]) -> str:
        """Return the tap that finishes last."""
        order = list(self.outputs)
        return max(taps, key=lambda tap: order.index(self.module(tap)))

    def frozen_through(self, taps: Sequence[str], depth: str) -> str | None:
        """Return the tap up to which fine-tuning freezes; None: nothing is frozen.

        Args:
            taps: those that the model reads.
            depth: as declared: "top", "last N stages", "all" or "above NAME"; stages are counted from the highest tap.

        Raises:
            InputError: the backbone has no such stages or tap, or nothing that the taps need lies above it.
        """
        if depth == "all":
            return None
        below = [stage for stage in list(self.stages)[:-1] if not self._holds_all(stage, taps)]
        if depth.startswith("above "):
            return self._boundary(depth.removeprefix("above "), taps, below)
        count = 1 if depth == "top" else int(depth.split()[1])
        if depth == "top" and not below:
            raise InputError(
                f"fine_tuning.depth: {self.name} has no stage below its taps {[*taps]}: write 'above NAME' with one of "
                f"its modules, all, or add the tap {PENULTIMATE}"
            )
        if count > len(below) + 1:
            raise InputError(
                f"fine_tuning.depth: {self.name} has {len(below) + 1} stages up to its taps {[*taps]}, not {count}"
            )
        return below[-count] if count <= len(below) else None

    def _boundary(self, name: str, taps: Sequence[str], below: Sequence[str]) -> str:
        if self.module(name) in self.nodes:
            raise InputError(f"fine_tuning.depth: '{name}' is not a module: {suggest(name, below)}")
        if self._holds_all(name, taps):
            raise InputError(
                f"fine_tuning.depth: nothing of the taps {[*taps]} is left to tune above '{name}': "
                f"{suggest(name, below)}; or add the tap {PENULTIMATE}"
            )
        return name

    def stage_number(self, path: str) -> int:
        """Return how many stages have run when a module runs; those after the last stage belong to it."""
        order = list(self.outputs)
        while path and path not in self.outputs:  # a module with several outputs, or none, counts as its parent
            path = path.rpartition(".")[0]
        if not path:  # parameters of the network itself are embeddings, at its beginning
            return 0
        return sum(order.index(self.stages[stage]) < order.index(path) for stage in list(self.stages)[:-1])

    def _holds_all(self, boundary: str, taps: Sequence[str]) -> bool:
        return all(self.is_below(self.module(tap), boundary) for tap in taps)

    def width(self, tap: str, pooling: str, size: int) -> int:
        """Return the number of values in one pooled row of a tap at an image size; see :func:`.taps.pool`.

        Args:
            tap: as declared, or a module path.
            pooling: as declared.
            size: pixels of the square input; a flattened map is counted exactly for the declared size only.

        Raises:
            InputError: the backbone has no such tap.
        """
        shape = self.outputs[self.module(tap)]
        if len(shape) == 1:
            return shape[0]
        if pooling == "none":
            return self._flattened(shape, size)
        return PER_CHANNEL[pooling] * (shape[-1] if len(shape) == 2 or _channels_last(shape) else shape[0])

    def _flattened(self, shape: Sequence[int], size: int) -> int:
        return int(math.prod(shape) * (size / self.size) ** 2)

    def map_shape(self, tap: str, values: int) -> tuple[int, ...]:
        """Return the shape of a tap's output of this many values: (C, side, side), or (side, side, C) for NHWC.

        Vectors (D,) and tokens (T, C) have the shape that they have at the declared image size.
        """
        shape = self.outputs[self.module(tap)]
        if len(shape) != 3:
            return tuple(shape)
        channels = shape[2] if _channels_last(shape) else shape[0]
        side = math.isqrt(values // channels)
        return (side, side, channels) if _channels_last(shape) else (channels, side, side)

    def input_size(self, backbone: Backbone) -> int:
        """Return the pixels of the square input: as declared, else the weights' own."""
        return int(backbone.image_size or self.preprocess["size"])


def _channels_last(shape: Sequence[int]) -> bool:
    return len(shape) == 3 and shape[0] == shape[1] != shape[2]


def describe_backbone(backbone: Backbone) -> BackboneInfo:
    """Describe a declared backbone; the first time in a process of its own (about 4 s), then from the store.

    Raises:
        InputError: the library has no such model or weights tag, or the model does not accept the declared image size.
    """
    known = _described(backbone.name, backbone.tag, backbone.image_size)
    return BackboneInfo(
        backbone.name, **{**known, **{name: tuple(known[name]) for name in ("modules", "nodes", "classifiers")}}
    )


def _described(name: str, tag: str | None, size: int | None) -> dict[str, Any]:
    versions = f"{version('timm')} {version('torchvision')} {DESCRIPTION_VERSION}"
    return ask_module("tl_dagster.backbones.inspection", (name, tag or "", str(size or "")), versions)
