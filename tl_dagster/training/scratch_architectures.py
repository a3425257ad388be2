"""The architectures that are trained from random weights; nothing here imports torch."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tl_dagster.backbones.description import BackboneInfo, describe_backbone
from tl_dagster.backbones.frozen import build_resize
from tl_dagster.backbones.settings import Backbone
from tl_dagster.data.augmentation import Augmenter
from tl_dagster.data.decoding import DECODER_VERSION, Resize
from tl_dagster.data.settings import Augmentation
from tl_dagster.runtime.devices import resolve_precision
from tl_dagster.training.settings import ScratchBaseline

__all__ = ["ScratchArchitecture", "declared_architectures"]


@dataclass(frozen=True)
class ScratchArchitecture:
    """A network to train from random weights.

    Attributes:
        name: as declared, and its folder in the artifact.
        resize: from file to its input.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
        info: the backbone's architecture; None: the small convnet.
    """

    name: str
    resize: Resize
    mean: Sequence[float]
    std: Sequence[float]
    info: BackboneInfo | None

    def resolved(self, augmentation: Augmentation, precision: Literal["auto", "fp32", "bf16"]) -> dict[str, Any]:
        """Return what determines the training besides the settings (JSON-serialisable)."""
        return {
            "decode": DECODER_VERSION,
            "precision": resolve_precision(precision),
            "view": Augmenter(augmentation).identity("", 1),  # transforms, seed and libraries
            "input": [asdict(self.resize), self.mean, self.std],
        }


def declared_architectures(settings: ScratchBaseline, backbone: Backbone) -> list[ScratchArchitecture]:
    """Return the declared networks, each once.

    Raises:
        InputError: the library has no such backbone.
    """
    return [
        _convnet(settings, backbone) if name == "convnet" else _untrained(backbone)
        for name in dict.fromkeys(settings.architectures)
    ]


def _convnet(settings: ScratchBaseline, backbone: Backbone) -> ScratchArchitecture:
    square = Resize(settings.image_size, backbone.resize, crop_fraction=1.0, interpolation="bicubic")
    return ScratchArchitecture("convnet", square, [0.0] * 3, [1.0] * 3, None)


def _untrained(backbone: Backbone) -> ScratchArchitecture:
    info = describe_backbone(backbone)
    mean, std = (info.preprocess[name] for name in ("mean", "std"))
    return ScratchArchitecture("backbone", build_resize(info, backbone), mean, std, info)
