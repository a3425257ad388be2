"""Multinomial logistic regression on standardised features, by L-BFGS.

The strength of L2 is chosen on validation over a path from strong to weak, each fit starting from the last
(warm starts along a regularisation path: Friedman, Hastie & Tibshirani 2010, J. Stat. Softw. 33).
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch

from tl_dagster.features.blocks import blocks
from tl_dagster.models.heads import build_layers
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.feature_batches import StandardizedFeatures, Targets
from tl_dagster.training.settings import LinearTopModel

__all__ = [
    "fit_l2_path",
    "fit_logistic_regression",
    "held_out_probabilities",
]


class TensorRows(Protocol):
    """A tensor, or what gives slices of one."""

    def __len__(self) -> int:
        """How many rows."""

    def __getitem__(self, rows: slice, /) -> torch.Tensor:
        """A slice of the rows: float32 (n, columns)."""


def fit_l2_path(
    train: StandardizedFeatures,
    targets: Targets,
    class_weights: torch.Tensor | None,
    score: Callable[[torch.nn.Module], tuple[float, float]],
    settings: LinearTopModel,
    progress: Progress,
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Fit the classifier for each strength of L2 and keep the one with the lowest validation log-loss.

    Args:
        train: (N, D).
        targets: (N, classes).
        class_weights: (classes,) weight of each class, or None.
        score: a network on standardised features → log-loss, calibrated, and accuracy on validation.
        settings: strengths and iterations.
        progress: told of each strength.

    Returns:
        The network, and what is to be told of it: l2, and path: (l2, log-loss, accuracy) of each strength tried.
    """

    network = torch.nn.Sequential(build_layers(train.width, targets.classes))
    parameters = best = torch.zeros(targets.classes, train.width + 1)
    path: list[tuple[float, float, float]] = []
    progress.start("strengths")
    for number, l2 in enumerate(sorted(settings.l2, reverse=True), 1):
        parameters = fit_logistic_regression(train, targets, l2, parameters, class_weights, settings.max_iterations)
        loss, accuracy = score(_set(network, parameters))
        if not path or loss < min(path, key=_log_loss)[1]:
            best = parameters
        path.append((l2, loss, accuracy))
        told = f"l2 {l2:g}: validation log-loss {loss:.4f}, accuracy {accuracy:.4f}"
        progress.update(number, len(settings.l2), told)
    return _set(network, best), {"l2": min(path, key=_log_loss)[0], "path": path}


def _log_loss(tried: tuple[float, float, float]) -> float:
    return tried[1]


def _set(network: torch.nn.Module, parameters: torch.Tensor) -> torch.nn.Module:
    network.load_state_dict({"output.weight": parameters[:, :-1], "output.bias": parameters[:, -1]})
    return network


def fit_logistic_regression(
    features: TensorRows,
    targets: TensorRows,
    l2: float,
    start: torch.Tensor,
    class_weights: torch.Tensor | None,
    iterations: int,
) -> torch.Tensor:
    """Weights and biases (classes, D + 1) of least mean cross-entropy plus L2.

    Args:
        features: float32 (N, D), standardised; read block by block in each iteration.
        targets: float32 (N, classes).
        l2: strength.
        start: (classes, D + 1), where the search begins.
        class_weights: (classes,) weight of each class, or None.
        iterations: L-BFGS iterations at most.
    """

    parameters = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [parameters], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-5
    )

    def closure() -> float:
        with torch.no_grad():
            loss, parameters.grad = _loss_and_gradient(parameters.detach(), features, targets, l2, class_weights)
        return loss

    optimiser.step(closure)
    return parameters.detach()


def _loss_and_gradient(
    parameters: torch.Tensor, features: TensorRows, targets: TensorRows, l2: float, class_weights: torch.Tensor | None
) -> tuple[float, torch.Tensor]:
    """Mean weighted cross-entropy and L2, and the gradient, summed over blocks of rows."""

    weight, bias = parameters[:, :-1], parameters[:, -1]
    gradient, loss, count = torch.zeros_like(parameters), 0.0, len(features)
    for part in blocks(count, max(parameters.shape)):
        rows, wanted = features[part], targets[part]
        if class_weights is not None:
            wanted = wanted * class_weights
        logs = torch.addmm(bias, rows, weight.T).log_softmax(1)
        loss -= float((wanted * logs).sum())
        error = logs.exp_().mul_(wanted.sum(1, keepdim=True)).sub_(wanted)
        gradient[:, :-1].addmm_(error.T, rows)
        gradient[:, -1] += error.sum(0)
    gradient /= count
    gradient[:, :-1] += l2 * weight
    return loss / count + 0.5 * l2 * float(weight.square().sum()), gradient


def held_out_probabilities(
    features: np.ndarray, targets: np.ndarray, folds: np.ndarray, l2: float, iterations: int
) -> np.ndarray:
    """Class probabilities of each image from a top model that was fitted on the other folds.

    Args:
        features: (n, D), one row per image.
        targets: float32 (n, classes).
        folds: (n,) number of each image's fold; copies of one image belong to one fold.
        l2: strength of L2.
        iterations: L-BFGS iterations at most.

    Returns:
        (n, classes); not a number for images whose class is in no other fold: nothing can be said of them.
    """

    probabilities = np.full(targets.shape, np.nan)
    labels = targets.argmax(1)
    for fold in np.unique(folds):
        rest = folds != fold
        held_out = ~rest & np.isin(labels, labels[rest])
        if not held_out.any():
            continue
        known = torch.tensor(features[rest], dtype=torch.float32)
        mean, std = known.mean(0), known.std(0, unbiased=False).clamp_min(1e-3)
        start = torch.zeros(targets.shape[1], features.shape[1] + 1)
        parameters = fit_logistic_regression(
            known.sub_(mean).div_(std), torch.from_numpy(targets[rest]), l2, start, None, iterations
        )
        unseen = (torch.tensor(features[held_out], dtype=torch.float32) - mean) / std
        logits = unseen @ parameters[:, :-1].T + parameters[:, -1]
        probabilities[held_out] = logits.softmax(1).numpy()
    return probabilities
