"""Networks that begin with random weights, as what transfer learning is compared with."""

from collections.abc import Sequence

import torch
from torch import nn

from tl_dagster.backbones.building import create_network, drop_classifiers
from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.backbones.inference import normalize, per_channel
from tl_dagster.backbones.memory_format import mend_gradients
from tl_dagster.backbones.taps import pool

__all__ = ["NormalizedNetwork", "UntrainedBackbone", "build_convnet"]

CHANNELS, DENSE, DROPOUT = (32, 32, 64), 64, 0.5


class NormalizedNetwork(nn.Module):
    """A network behind its normalization: uint8 pixels (n, size, size, 3) → logits (n, classes).

    Args:
        model: normalized float32 images (n, 3, size, size) → logits.
        mean: per channel, of pixels in [0, 1].
        std: per channel.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("shift", per_channel(mean))
        self.register_buffer("scale", per_channel(std))

    @property
    def output(self) -> nn.Module:
        """The last layer, which gives the logits."""
        return list(self.model.children())[-1]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        logits: torch.Tensor = self.model(normalize(pixels, self.shift, self.scale))
        return logits


class UntrainedBackbone(nn.Module):
    """A backbone's architecture with random weights and a classifier: images (n, 3, size, size) → logits (n, classes).

    Args:
        info: the architecture.
        size: pixels of the square input.
        classes: of the output.
    """

    def __init__(self, info: BackboneInfo, size: int, classes: int) -> None:
        super().__init__()
        self.body = create_network(info.name, info.preprocess["size"])
        mend_gradients(self.body)
        drop_classifiers(self.body, info.classifiers)
        self.head = nn.Linear(info.width(info.classifier, "avg", size), classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        outputs = self.body(images)
        # Inception networks return outputs of auxiliary classifiers too while they train.
        features = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
        logits: torch.Tensor = self.head(pool(features, "avg"))
        return logits


def build_convnet(size: int, classes: int) -> nn.Module:
    """Return three convolutions, each with ReLU and max-pooling, then a dense layer with dropout, and the classifier.

    The small network of Chollet 2016, "Building powerful image classification models using very little data", with
    its initial weights (Glorot & Bengio 2010), and softmax in place of the sigmoid.

    Args:
        size: pixels of the square input.
        classes: of the output.

    Returns:
        A module: float32 images (n, 3, size, size) in [0, 1] → logits (n, classes).
    """
    layers: list[nn.Module] = []
    below = 3
    for channels in CHANNELS:
        layers += [nn.Conv2d(below, channels, 3), nn.ReLU(), nn.MaxPool2d(2)]
        below, size = channels, (size - 2) // 2
    dense = [nn.Flatten(), nn.Linear(below * size**2, DENSE), nn.ReLU(), nn.Dropout(DROPOUT), nn.Linear(DENSE, classes)]
    model = nn.Sequential(*layers, *dense)
    for module in model:
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return model
