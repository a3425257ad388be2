"""A dense layer with ReLU and dropout, and the classifier on it, on standardized features.

It is the classifier of Chollet's "Building powerful image classification models using very little data" (2016).
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from tl_dagster.features.blocks import BLOCK_BYTES
from tl_dagster.models.calibration import Score
from tl_dagster.models.heads import build_layers
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.feature_batches import StandardizedFeatures, Targets
from tl_dagster.training.loop import LoopConfig, train
from tl_dagster.training.optimisers import ParameterGroup, build_optimiser
from tl_dagster.training.settings import MlpTopModel

__all__ = ["fit_mlp"]

WARMUP = 0.1


def fit_mlp(
    features: StandardizedFeatures,
    targets: Targets,
    class_weights: torch.Tensor | None,
    score: Callable[[torch.nn.Module], Score],
    settings: MlpTopModel,
    progress: Progress,
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Train by AdamW and keep the epoch with the lowest validation log-loss.

    Args:
        features: (N, D).
        targets: (N, classes).
        class_weights: (classes,) weight of each class, or None.
        score: a network on standardized features → its calibrated score on validation.
        settings: the declared settings.
        progress: counts the steps.

    Returns:
        The network, and metadata of the fit: epoch and history, see :class:`~tl_dagster.training.loop.TrainingResult`.

    Raises:
        InputError: the loss is not a number.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(settings.seed, 0))
        network = torch.nn.Sequential(build_layers(features.width, targets.classes, settings.hidden, settings.dropout))
        group = ParameterGroup(list(network.parameters()), settings.learning_rate, settings.weight_decay)
        losses = partial(_losses, network, features, targets, class_weights, settings)
        config = LoopConfig(
            settings.epochs,
            math.ceil(len(features) / settings.batch_size),
            f"lower top_model.learning_rate, now {settings.learning_rate:g}",
            warmup=WARMUP,
        )
        result = train(network, build_optimiser("adamw", [group]), losses, score, config, progress)
    return network.eval(), {"epoch": result.epoch, "history": result.history}


def _losses(
    network: torch.nn.Module,
    features: StandardizedFeatures,
    targets: Targets,
    class_weights: torch.Tensor | None,
    settings: MlpTopModel,
    epoch: int,
) -> Iterator[torch.Tensor]:
    """Yield the loss of each step of an epoch: a random permutation of all rows.

    Many batches are read at once, in the order of the disk.
    """
    network.train()
    torch.manual_seed(_seed(settings.seed, epoch))  # dropout's
    size = settings.batch_size
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(features))
    at_once = max(1, BLOCK_BYTES // (4 * features.width * size)) * size
    for first in range(0, len(order), at_once):
        rows, places = np.unique(order[first : first + at_once], return_inverse=True)
        read = features[rows]
        for start in range(0, len(rows), size):
            batch = places[start : start + size]
            logits = network(read[torch.from_numpy(batch)])
            yield torch.nn.functional.cross_entropy(logits, targets[rows[batch]], weight=class_weights)


def _seed(seed: int, epoch: int) -> int:

    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
