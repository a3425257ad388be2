"""Training without transfer: networks with random weights, with which transfer learning is compared.

Each epoch sees every training image once, in a view of its own. All that is random follows from the seed and the
number of the epoch, so a training that is resumed after a kill ends with the same bits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch

from tl_dagster.models.calibration import Score, calibrated_score
from tl_dagster.models.heads import fold_temperature
from tl_dagster.models.networks import predict_batches
from tl_dagster.models.scratch_networks import NormalizedNetwork
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.progress import Progress
from tl_dagster.training import loop
from tl_dagster.training.checkpoints import Checkpoint
from tl_dagster.training.feature_batches import Targets
from tl_dagster.training.loop import LoopConfig, TrainingResult
from tl_dagster.training.optimisers import ParameterGroup, build_optimiser
from tl_dagster.training.settings import ScratchBaseline

__all__ = ["Examples", "PixelSource", "predict", "train"]

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


def train(
    model: NormalizedNetwork,
    draw: PixelSource,
    examples: Examples,
    settings: ScratchBaseline,
    precision: str,
    checkpoint: Checkpoint,
    progress: Progress,
) -> TrainingResult:
    """Train in place by AdamW, and leave the epoch with the lowest validation log-loss in the model, calibrated.

    Args:
        model: on its device.
        draw: yields the pixels, ``settings.batch_size`` at a time.
        examples: the training and validation images.
        settings: the declared settings.
        precision: "bf16" (autocast) or "fp32".
        checkpoint: resumed from after a kill, and written after each epoch.
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
    )
    losses = partial(_losses, model, draw, examples, settings.seed, count, precision)
    score = partial(_score, draw, examples, precision, settings.batch_size)
    optimiser = build_optimiser(
        "adamw", [ParameterGroup(list(model.parameters()), settings.learning_rate, WEIGHT_DECAY)]
    )
    try:
        result = loop.train(model, optimiser, losses, score, config, progress, checkpoint)
    except torch.OutOfMemoryError as error:
        raise InputError(
            "the GPU's memory does not hold a step of training from scratch; lower scratch_baseline.batch_size (now "
            f"{settings.batch_size}), or free the GPU"
        ) from error
    fold_temperature(model.output, result.score.temperature)
    return result


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


def _score(draw: PixelSource, examples: Examples, precision: str, batch_size: int, model: torch.nn.Module) -> Score:
    logits = predict(model, draw, examples.validation, precision, batch_size)
    return calibrated_score(logits.numpy(), examples.labels, examples.images)


def predict(
    model: torch.nn.Module, draw: PixelSource, rows: np.ndarray, precision: str, batch_size: int
) -> torch.Tensor:
    """Predict the views of table rows, (n,) int64: float32 logits (n, classes), on the CPU."""
    model.eval()
    batches = (torch.from_numpy(pixels) for pixels in draw(rows))
    return torch.cat([predict_batches(model, pixels, None, precision, batch_size) for pixels in batches])
