"""Multinomial logistic regression on standardized features, by L-BFGS.

The strength of L2 is chosen on validation over a path from strong to weak, each fit starting from the last
(warm starts along a regularisation path: Friedman, Hastie & Tibshirani 2010, J. Stat. Softw. 33). Where the best
strength lies at the edge of the declared ones, the path goes on beyond it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import nn

from tl_dagster.features.blocks import Features, blocks
from tl_dagster.models.calibration import Score
from tl_dagster.models.heads import build_layers, compute_logits
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.feature_batches import StandardizedFeatures, Targets, standardize
from tl_dagster.training.settings import LinearTopModel

__all__ = ["LogisticRegression", "fit_l2_path", "minimize"]

MOST_BEYOND = 6  # strengths tried beyond the edge of the declared ones
WEAKEST, STRONGEST = 1e-6, 1e3


class TensorRows(Protocol):
    """Tensor rows that are read by slices: a tensor, or rows that are made when they are indexed."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, rows: slice, /) -> torch.Tensor:
        """Return a slice of the rows: float32 (n, columns)."""


class LogisticRegression:
    """Multinomial logistic regression on standardized features: least mean cross-entropy plus L2.

    Fitted by L-BFGS with a strong Wolfe line search. Features are read block by block in each iteration, so they need
    not fit the memory.

    Args:
        l2: strength of L2; biases are not penalised.
        iterations: L-BFGS iterations at most.
        class_weights: float32 (classes,) weight of each class in the loss; None: 1.

    Attributes:
        parameters: float32 (classes, D + 1) once fitted: weights on standardized features, and the biases last.
    """

    parameters: torch.Tensor
    _mean: torch.Tensor
    _std: torch.Tensor

    def __init__(self, l2: float, iterations: int, class_weights: torch.Tensor | None = None) -> None:
        self.l2, self.iterations, self.class_weights = l2, iterations, class_weights

    def fit(self, features: Features, targets: TensorRows) -> Self:
        """Standardize features (N, D) by their own moments, and fit them to float32 targets (N, classes)."""
        return self.fit_standardized(standardize(features), targets)

    def fit_standardized(
        self, features: StandardizedFeatures, targets: TensorRows, start: torch.Tensor | None = None
    ) -> Self:
        """Fit features that are standardized already.

        Args:
            features: (N, D).
            targets: float32 (N, classes).
            start: float32 (classes, D + 1) parameters that the search begins at; None: zeros.
        """
        if start is None:
            start = torch.zeros(targets[:1].shape[1], features.width + 1)
        parameters = minimize(lambda each: self._loss_and_gradient(each, features, targets), start, self.iterations)
        self.parameters, self._mean, self._std = parameters, features.mean, features.std
        return self

    def build_network(self) -> nn.Module:
        """Build the fitted layer: standardized features (n, D) → logits (n, classes)."""
        classes, width = self.parameters.shape
        network = nn.Sequential(build_layers(width - 1, classes))
        network.load_state_dict({"output.weight": self.parameters[:, :-1], "output.bias": self.parameters[:, -1]})
        return network.eval()

    def predict_logits(self, features: Features) -> np.ndarray:
        """Predict features (n, D), not standardized, block by block: float32 logits (n, classes)."""
        rows = StandardizedFeatures(features, self._mean, self._std, memory=0)
        return compute_logits(self.build_network(), rows, len(self.parameters))

    def _loss_and_gradient(
        self, parameters: torch.Tensor, features: TensorRows, targets: TensorRows
    ) -> tuple[float, torch.Tensor]:
        """Return mean weighted cross-entropy plus L2, and the gradient, summed over blocks of rows."""
        weight, bias = parameters[:, :-1], parameters[:, -1]
        gradient, loss, count = torch.zeros_like(parameters), 0.0, len(features)
        for part in blocks(count, max(parameters.shape)):
            rows, target = features[part], targets[part]
            if self.class_weights is not None:
                target = target * self.class_weights
            logs = torch.addmm(bias, rows, weight.T).log_softmax(1)
            loss -= float((target * logs).sum())
            error = logs.exp_().mul_(target.sum(1, keepdim=True)).sub_(target)
            gradient[:, :-1].addmm_(error.T, rows)
            gradient[:, -1] += error.sum(0)
        gradient /= count
        gradient[:, :-1] += self.l2 * weight
        return loss / count + 0.5 * self.l2 * float(weight.square().sum()), gradient


def minimize(
    loss_and_gradient: Callable[[torch.Tensor], tuple[float, torch.Tensor]], start: torch.Tensor, iterations: int
) -> torch.Tensor:
    """Return the parameters of least loss, by L-BFGS with a strong Wolfe line search.

    Args:
        loss_and_gradient: parameters → their loss, and its gradient of the same shape.
        start: where the search begins; it is not changed.
        iterations: at most.
    """
    parameters = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [parameters], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-5
    )

    def closure() -> float:
        with torch.no_grad():
            loss, parameters.grad = loss_and_gradient(parameters.detach())
        return loss

    optimiser.step(closure)
    return parameters.detach()


def fit_l2_path(
    train: StandardizedFeatures,
    targets: Targets,
    class_weights: torch.Tensor | None,
    score: Callable[[nn.Module], Score],
    settings: LinearTopModel,
    progress: Progress,
) -> tuple[nn.Module, dict[str, Any]]:
    """Fit each strength of L2, and keep the one with the lowest validation log-loss.

    Where that is the strongest or the weakest of several declared ones, further strengths are tried beyond it until the
    log-loss no longer falls: at most six, each by the ratio of the grid's last two strengths there.

    Args:
        train: (N, D).
        targets: (N, classes).
        class_weights: (classes,) weight of each class, or None.
        score: a network on standardized features → its calibrated score on validation.
        settings: strengths and iterations.
        progress: counts the strengths.

    Returns:
        The network, and metadata of the fit: l2, and path: (l2, log-loss, accuracy) of each strength tried, from strong
        to weak.
    """
    grid = sorted(set(settings.l2), reverse=True)
    search = _L2Search(train, targets, class_weights, score, settings.max_iterations, progress, len(grid))
    progress.start("strengths")
    previous: LogisticRegression | None = None
    for l2 in grid:
        previous = search.fit(l2, previous)
    for l2 in _strengths_beyond(grid, search.best.l2):
        if search.fit(l2, search.best) is not search.best:
            break
    chosen = min(search.path, key=_log_loss)
    progress.update(len(search.path), len(search.path), "chosen: " + _described(chosen))
    return search.best.build_network(), {"l2": chosen[0], "path": sorted(search.path, reverse=True)}


@dataclass
class _L2Search:
    """The strengths tried so far, and the best model of them."""

    train: StandardizedFeatures
    targets: Targets
    class_weights: torch.Tensor | None
    score: Callable[[nn.Module], Score]
    iterations: int
    progress: Progress
    planned: int
    path: list[tuple[float, float, float]] = field(default_factory=list)
    best: LogisticRegression = field(init=False)

    def fit(self, l2: float, start: LogisticRegression | None) -> LogisticRegression:
        """Fit one strength, from the parameters of another's model, and remember it if it is the best."""
        model = LogisticRegression(l2, self.iterations, self.class_weights)
        model.fit_standardized(self.train, self.targets, None if start is None else start.parameters)
        score = self.score(model.build_network())
        tried = (l2, score.log_loss, score.accuracy)
        if not self.path or tried[1] < min(self.path, key=_log_loss)[1]:
            self.best = model
        self.path.append(tried)
        # Not the last line of this progress: that names the chosen strength.
        self.progress.update(len(self.path), max(self.planned, len(self.path) + 1), _described(tried))
        return model


def _strengths_beyond(grid: Sequence[float], best: float) -> list[float]:
    """Return the strengths to try beyond the grid (from strong to weak) where the best one is at its edge."""
    if len(grid) < 2 or best not in (grid[0], grid[-1]):  # a single one was named, not searched
        return []
    ratio = grid[0] / grid[1] if best == grid[0] else grid[-1] / grid[-2]
    strengths = [float(f"{best * ratio**step:.3g}") for step in range(1, MOST_BEYOND + 1)]
    return [l2 for l2 in strengths if WEAKEST <= l2 <= STRONGEST]


def _log_loss(tried: tuple[float, float, float]) -> float:
    return tried[1]


def _described(tried: tuple[float, float, float]) -> str:
    l2, loss, accuracy = tried
    return f"l2 {l2:g}: validation log-loss {loss:.4f}, accuracy {accuracy:.4f}"
