"""Training without transfer: networks with random weights, with which transfer learning is compared.

Each epoch sees every training image once, in a view of its own. All that is random follows from the seed and the
number of the epoch, so a training that is resumed after a kill ends with the same bits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from tl_dagster.backbones.building import create_network, drop_classifiers
from tl_dagster.backbones.description import BackboneInfo
from tl_dagster.backbones.inference import normalize, per_channel
from tl_dagster.backbones.taps import pool
from tl_dagster.models.calibration import validate
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.progress import Progress
from tl_dagster.training import loop
from tl_dagster.training.checkpoints import Checkpoint
from tl_dagster.training.feature_batches import Targets
from tl_dagster.training.loop import LoopConfig, TrainingResult
from tl_dagster.training.optimisers import ParameterGroup, build_optimiser
from tl_dagster.training.settings import ScratchBaseline

__all__ = ["Examples", "FromPixels", "PixelSource", "UntrainedBackbone", "convnet", "predict", "train"]

CHANNELS, DENSE, DROPOUT = (32, 32, 64), 64, 0.5
WARMUP, WEIGHT_DECAY = 0.1, 0.01


class PixelSource(Protocol):
    """The source of training images, by row of the table of views."""

    def __call__(self, rows: np.ndarray, epoch: int = 0) -> Iterator[np.ndarray]:
        """Yield the pixels of table rows in order: uint8 (n, size, size, 3) batches, each valid until the next.

        Args:
            rows: (N,) int64.
            epoch: from 1: its view of each image; 0: the rows' own views.
        """


@dataclass(frozen=True)
class Examples:
    """The training and validation images.

    Attributes:
        train: (images,) int64: a table row of each training image.
        targets: (images, classes), their training targets.
        validation: (M,) int64: table rows of the validation views.
        labels: (M,) int64 class numbers of them.
        images: (M,) int64 image numbers of them, 0 … n-1.
    """

    train: np.ndarray
    targets: Targets
    validation: np.ndarray
    labels: np.ndarray
    images: np.ndarray


def convnet(size: int, classes: int) -> torch.nn.Module:
    """Build three convolutions, each with ReLU and max-pooling, a dense layer with dropout, and the classifier.

    The small network of Chollet 2016, "Building powerful image classification models using very little data", with
    its initial weights (Glorot & Bengio 2010), and softmax in place of the sigmoid.

    Args:
        size: pixels of the square input.
        classes: of the output.

    Returns:
        A module: float32 images (N, 3, size, size) in [0, 1] → logits (N, classes).
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


class UntrainedBackbone(nn.Module):
    """A backbone with random weights and a linear classifier on its averaged features.

    Args:
        info: the backbone's description.
        size: pixels of the square input.
        classes: number of classes.
    """

    def __init__(self, info: BackboneInfo, size: int, classes: int) -> None:
        super().__init__()
        self.body = create_network(info.name, info.preprocess["size"])
        drop_classifiers(self.body, info.classifiers)
        self.head = nn.Linear(info.width(info.classifier, "avg", size), classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (N, classes) of float32 images (N, 3, size, size)."""
        outputs = self.body(images)
        # Inception networks return the outputs of auxiliary classifiers too while they train.
        features = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
        logits: torch.Tensor = self.head(pool(features, "avg"))
        return logits


class FromPixels(nn.Module):
    """A network behind its normalization.

    Args:
        model: normalized float32 images (N, 3, size, size) → logits (N, classes).
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

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits (N, classes) of uint8 pixels (N, size, size, 3)."""
        logits: torch.Tensor = self.model(normalize(pixels, self.shift, self.scale))
        return logits


def train(
    model: torch.nn.Module,
    draw: PixelSource,
    examples: Examples,
    settings: ScratchBaseline,
    precision: str,
    checkpoint: Path,
    progress: Progress,
) -> TrainingResult:
    """Train in place by AdamW, and leave the weights of the epoch with the lowest validation log-loss in the model.

    Args:
        model: see :class:`FromPixels`; on its device.
        draw: yields the pixels, ``settings.batch_size`` at a time.
        examples: the training and validation images.
        settings: the declared settings.
        precision: "bf16" (autocast) or "fp32".
        checkpoint: the file from which training is resumed after a kill.
        progress: counts the steps.

    Returns:
        The kept epoch, and the history from the first epoch on: random weights are not a candidate.

    Raises:
        InputError: the loss is not a number, or a GPU's memory does not hold a step.
    """
    alone = len(examples.train) % settings.batch_size == 1 < min(settings.batch_size, len(examples.train))
    count = len(examples.train) - alone  # batch normalization has no variance of a single image
    config = LoopConfig(
        epochs=settings.epochs,
        steps=-(-count // settings.batch_size),
        hint=f"lower scratch_baseline.learning_rate (now {settings.learning_rate:g}), or set backbone.precision: fp32",
        patience=settings.patience,
        warmup=WARMUP,
        untrained=True,
    )
    losses = partial(_losses, model, draw, examples, settings.seed, count, precision)
    score = partial(_score, draw, examples, precision)
    optimiser = build_optimiser(
        "adamw", [ParameterGroup(list(model.parameters()), settings.learning_rate, WEIGHT_DECAY)]
    )
    try:
        return loop.train(model, optimiser, losses, score, config, progress, Checkpoint(checkpoint, progress.log))
    except torch.OutOfMemoryError as error:
        raise InputError(
            "the GPU's memory does not hold a step of training from scratch; lower scratch_baseline.batch_size (now "
            f"{settings.batch_size}), or free the GPU"
        ) from error


def _losses(
    model: torch.nn.Module, draw: PixelSource, examples: Examples, seed: int, count: int, precision: str, epoch: int
) -> Iterator[torch.Tensor]:
    """Yield the loss of each step of an epoch, which sees ``count`` of the training images once."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]))  # of dropout
    order = np.random.default_rng([seed, epoch]).permutation(len(examples.train))[:count]
    device = next(model.parameters()).device
    model.train()
    seen = 0
    for pixels in draw(examples.train[order], epoch):
        targets = examples.targets[order[seen : seen + len(pixels)]].to(device)
        seen += len(pixels)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(torch.from_numpy(pixels).to(device))
        yield torch.nn.functional.cross_entropy(logits.float(), targets)


def _score(draw: PixelSource, examples: Examples, precision: str, model: torch.nn.Module) -> tuple[float, float]:

    probabilities = predict(model, draw, examples.validation, precision).softmax(1).numpy()
    return validate(probabilities, examples.labels, examples.images)


def predict(model: torch.nn.Module, draw: PixelSource, rows: np.ndarray, precision: str) -> torch.Tensor:
    """Predict the views of table rows, (n,) int64: float32 logits (n, classes), on the CPU."""
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        return torch.cat([model(torch.from_numpy(pixels).to(device)).float().cpu() for pixels in draw(rows)])
