"""A pre-trained backbone as features are taken from it: description, weights, geometry, normalization, precision.

Nothing here imports torch until the network is loaded.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from tl_dagster.backbones.description import BackboneInfo, describe_backbone
from tl_dagster.backbones.settings import Backbone
from tl_dagster.backbones.weights import Weights, locate_weights
from tl_dagster.data.decoding import DECODER_VERSION, Resize
from tl_dagster.runtime.devices import resolve_precision

if TYPE_CHECKING:
    import torch

__all__ = ["FrozenBackbone", "build_resize"]


@dataclass(frozen=True)
class FrozenBackbone:
    """A frozen backbone with the weights and the preprocessing that belong to it.

    Attributes:
        info: the description of its architecture.
        weights: the file, or the seed, of its weights.
        resize: the geometry from image to its square input.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        precision: of its forward passes: "fp32" or "bf16".
    """

    info: BackboneInfo
    weights: Weights
    resize: Resize
    mean: Sequence[float]
    std: Sequence[float]
    precision: Literal["fp32", "bf16"]

    @classmethod
    def from_settings(cls, settings: Backbone) -> Self:
        """Return the declared backbone; its weights are downloaded where they are not on this machine yet.

        Raises:
            InputError: the library has no such backbone, or its weights cannot be found.
        """
        info = describe_backbone(settings)
        return cls(
            info,
            locate_weights(settings, info),
            build_resize(info, settings),
            info.preprocess["mean"],
            info.preprocess["std"],
            resolve_precision(settings.precision),
        )

    @property
    def name(self) -> str:
        """The library's name of it: "timm/NAME" or "torchvision/NAME"."""
        return self.info.name

    @property
    def size(self) -> int:
        """Pixels of the square input."""
        return self.resize.size

    def load(self, taps: Sequence[str] = ()) -> "torch.nn.Module":
        """Return the network in evaluation mode; see :func:`tl_dagster.backbones.building.load_backbone`."""
        from tl_dagster.backbones.building import load_backbone

        return load_backbone(self.info, self.weights, taps)

    def feature_key(self, tap: str, pooling: str) -> dict[str, Any]:
        """Return all that determines the features of a view but for the view itself (JSON-serialisable).

        Args:
            tap: as declared, or a module path.
            pooling: as declared.
        """
        return {
            "decode": DECODER_VERSION,
            "resize": asdict(self.resize),
            "mean": self.mean,
            "std": self.std,
            "backbone": self.name,
            "weights": self.weights.identity,
            "tap": self.info.module(tap),
            "pooling": pooling,
            "precision": self.precision,
        }

    def width(self, tap: str, pooling: str) -> int:
        """Return how many values one pooled row of a tap holds."""
        return self.info.width(tap, pooling, self.size)


def build_resize(info: BackboneInfo, settings: Backbone) -> Resize:
    """Return the geometry from image to network input, under the declared size and mode."""
    return Resize(
        size=info.input_size(settings),
        mode=settings.resize,
        crop_fraction=info.preprocess["crop_fraction"],
        interpolation=info.preprocess["interpolation"],
    )
