"""Fine-tuning: the backbone's upper blocks and the classifier, trained on from the top model.

Batch-norm layers stay in evaluation mode, so their statistics are frozen. The model here does not contain the frozen
part of the network where its output (the "boundary") comes from elsewhere: from the feature cache, or recomputed.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch

from tl_dagster.models.calibration import Score, calibrated_score
from tl_dagster.models.heads import fold_temperature
from tl_dagster.models.networks import PREDICTION_BATCH, TunedNetwork, predict_batches
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.checkpoints import Checkpoint
from tl_dagster.training.feature_batches import Targets
from tl_dagster.training.loop import LoopConfig, TrainingResult, train
from tl_dagster.training.optimisers import ParameterGroup, build_optimiser
from tl_dagster.training.settings import ResolvedFineTuning

__all__ = ["BatchSource", "FineTuningData", "fine_tune", "frozen_digest", "predict"]


class BatchSource(Protocol):
    """The source of training data, by row of the table of views."""

    def __call__(self, rows: np.ndarray, size: int, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the network's inputs of some rows, batch by batch.

        Args:
            rows: (n,) int64.
            size: rows of a batch; the last may be smaller.
            epoch: number of the epoch, where each has views of its own; 0: the table's views.

        Yields:
            Of each batch the boundary's activations or the images (size, C, H, W), and the features of the taps below
            the boundary (size, D_below), both float32.
        """


@dataclass(frozen=True)
class FineTuningData:
    """The data of training and validation.

    Attributes:
        inputs: yields the network's inputs by table row.
        train: (images, views) int64: table rows of each training image's views.
        validation: (M,) int64: table rows of the validation views.
        images: (M,) image number of each validation view, 0 … n-1; an image's views are averaged.
        labels: (rows,) class number of each table row, for validation.
        targets: (rows, classes), training targets of each table row.
        class_weights: (classes,) float32 weight of each class in training, or None.
    """

    inputs: BatchSource
    train: np.ndarray
    validation: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    targets: Targets
    class_weights: torch.Tensor | None = None


def fine_tune(
    model: TunedNetwork,
    data: FineTuningData,
    settings: ResolvedFineTuning,
    stage_depths: Mapping[str, int],
    precision: str,
    top_model: Score,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
) -> TrainingResult:
    """Train in place, and leave the best epoch in the model, calibrated; epoch 0 is the top model.

    Args:
        model: parameters that require gradients are trained.
        data: the data of training and validation.
        settings: the declared settings, resolved.
        stage_depths: of each trained parameter of ``model.upper``, the number of stages between its own and the
            highest.
        precision: "bf16" (autocast) or "fp32".
        top_model: score of the top model itself, on the cached features: this network computes them anew, with other
            rounding, and need not give the same predictions.
        progress: counts the steps.
        checkpoint: resumed from after a kill, and written after each epoch.

    Raises:
        InputError: the loss is not a number, or a GPU's memory does not hold a step.
        RuntimeError: something frozen changed.
    """
    before = frozen_digest(model)
    losses = partial(_losses, model, data, settings, precision)
    score = partial(_score, data, precision)
    optimiser = build_optimiser(settings.optimiser, _groups(model, settings, stage_depths))
    try:
        result = train(model, optimiser, losses, score, _loop_config(data, settings), progress, checkpoint, top_model)
    except torch.OutOfMemoryError as error:
        raise InputError(
            "the GPU's memory does not hold a step of fine-tuning; lower fine_tuning.batch_size (now "
            f"{settings.batch_size}), or free the GPU"
        ) from error
    if frozen_digest(model) != before:
        raise RuntimeError("a frozen parameter or statistic changed in training")
    fold_temperature(model.head.get_submodule("output"), result.score.temperature)
    return result


def _loop_config(data: FineTuningData, settings: ResolvedFineTuning) -> LoopConfig:

    rows = min(settings.views_per_epoch, data.train.shape[1]) * len(data.train)
    return LoopConfig(
        epochs=settings.epochs,
        steps=-(-rows // settings.batch_size),
        hint=f"lower fine_tuning.learning_rate (now {settings.learning_rate:g}) or fine_tuning.head_learning_rate "
        f"(now {settings.head_learning_rate:g}), or set backbone.precision: fp32",
        patience=settings.patience,
        warmup=settings.warmup,
        clip=settings.clip,
        averaging=settings.averaging,
    )


def frozen_digest(model: torch.nn.Module) -> str:
    """Return the SHA-256 of frozen parameters and of buffers, such as batch-norm statistics: training keeps them."""
    names = model.named_parameters(remove_duplicate=False)  # modules that are used twice have two
    trained = {name for name, parameter in names if parameter.requires_grad}
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if name not in trained:
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).numpy())
    return digest.hexdigest()


def predict(model: torch.nn.Module, inputs: BatchSource, rows: np.ndarray, precision: str) -> torch.Tensor:
    """Predict table rows, (n,) int64: float32 logits (n, classes), on the CPU."""
    batches = inputs(rows, PREDICTION_BATCH, 0)
    return torch.cat([predict_batches(model, values, below, precision) for values, below in batches])


def _score(data: FineTuningData, precision: str, model: torch.nn.Module) -> Score:

    logits = predict(model, data.inputs, data.validation, precision).numpy()
    return calibrated_score(logits, data.labels[data.validation], data.images)


def _losses(
    model: torch.nn.Module, data: FineTuningData, settings: ResolvedFineTuning, precision: str, epoch: int
) -> Iterator[torch.Tensor]:
    """Yield the loss of each step of an epoch."""
    # Each epoch takes the next views of every image, in an order of the image's own.
    order = np.random.default_rng(settings.seed).permuted(data.train, axis=1)
    seen = min(settings.views_per_epoch, order.shape[1])
    random = np.random.default_rng([settings.seed, epoch])
    rows = random.permutation(order[:, [((epoch - 1) * seen + view) % order.shape[1] for view in range(seen)]].ravel())
    device = next(model.parameters()).device
    class_weights = None if data.class_weights is None else data.class_weights.to(device)
    for start, (values, below) in zip(
        range(0, len(rows), settings.batch_size), data.inputs(rows, settings.batch_size, epoch), strict=True
    ):
        batch = (values, below, data.targets[rows[start : start + settings.batch_size]])
        values, below, truth = (tensor.to(device) for tensor in _mix(batch, settings.mixup, random))
        with _autocast(device, precision):
            logits = model(values, below)
        yield torch.nn.functional.cross_entropy(
            logits.float(), truth, weight=class_weights, label_smoothing=settings.label_smoothing
        )


def _mix(batch: tuple[torch.Tensor, ...], alpha: float, random: np.random.Generator) -> tuple[torch.Tensor, ...]:
    """Mix each row with another: mixup (Zhang et al. 2018); of activations, manifold mixup (Verma et al. 2019)."""
    if not alpha:
        return batch
    share, partner = random.beta(alpha, alpha), random.permutation(len(batch[0]))
    return tuple(share * tensor + (1 - share) * tensor[partner] for tensor in batch)


def _autocast(device: torch.device, precision: str) -> torch.autocast:

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _groups(model: TunedNetwork, settings: ResolvedFineTuning, stage_depths: Mapping[str, int]) -> list[ParameterGroup]:
    """Group parameters by learning rates that fall towards lower layers (discriminative: Howard & Ruder 2018)."""
    trained: dict[int, list[torch.nn.Parameter]] = {}
    for name, parameter in model.upper.named_parameters():
        if parameter.requires_grad:
            trained.setdefault(stage_depths[name], []).append(parameter)
    anchored = settings.decay_towards == "pretrained"
    body = [
        ParameterGroup(
            parameters, settings.learning_rate * settings.layer_decay**depth, settings.weight_decay, anchored
        )
        for depth, parameters in sorted(trained.items())
    ]
    return [*body, ParameterGroup(list(model.head.parameters()), settings.head_learning_rate)]
