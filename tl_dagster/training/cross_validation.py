"""Cross-validated logistic regressions, all folds in one search.

The folds' problems differ little, so L-BFGS on their sum takes about as many iterations as on one of them, and each
iteration reads the features once for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tl_dagster.features.blocks import Features, blocks
from tl_dagster.training.feature_batches import LEAST_STD, standardize
from tl_dagster.training.logistic_regression import minimize

__all__ = ["CrossValidated", "cross_validate", "held_out_probabilities", "spread_folds"]

TINY = 1e-12


@dataclass(frozen=True)
class CrossValidated:
    """Held-out predictions by the strength of L2 with the lowest log-loss.

    Attributes:
        l2: the strength.
        probabilities: float64 (n, classes); NaN for images whose class is in no other fold.
        known: (m,) row numbers of the others.
        losses: (m,) log-loss of each of them.
    """

    l2: float
    probabilities: np.ndarray
    known: np.ndarray
    losses: np.ndarray


def spread_folds(labels: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Return the fold of each image: (n,) int64; classes are spread evenly, and groups stay whole.

    Args:
        labels: (n,) class numbers, 0 …, each occurring.
        groups: (n,) group of each image, of any type: near copies of an image must not help to predict it.
        count: number of folds.
    """
    first, own = np.unique(groups, return_index=True, return_inverse=True)[1:]
    labels = labels[first]
    shuffled = np.random.default_rng(0).permutation(len(labels))
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.bincount(labels)
    folds = np.empty(len(labels), np.int64)  # small classes start at different folds
    folds[order] = (np.arange(len(labels)) - np.repeat(sizes.cumsum() - sizes, sizes) + labels[order]) % count
    return folds[own]


def cross_validate(
    features: Features, labels: np.ndarray, folds: np.ndarray, strengths: Sequence[float], iterations: int
) -> CrossValidated:
    """Predict each image from the other folds, and choose the strength of L2; see :func:`held_out_probabilities`.

    Args:
        features: (n, D), one row per image.
        labels: (n,) class numbers.
        folds: (n,) number of each image's fold.
        strengths: of L2, from strong to weak.
        iterations: L-BFGS iterations at most, of each.
    """
    targets = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels]
    every = held_out_probabilities(features, targets, folds, strengths, iterations)
    known = np.flatnonzero(~np.isnan(every[0, :, 0]))
    losses = -np.log(np.clip(every[:, known, labels[known]], TINY, 1))
    best = int(losses.mean(1).argmin()) if len(known) else 0
    return CrossValidated(strengths[best], every[best], known, losses[best])


def held_out_probabilities(
    features: Features, targets: np.ndarray, folds: np.ndarray, strengths: Sequence[float], iterations: int
) -> np.ndarray:
    """Predict each image by logistic regressions that were fitted on the other folds, one for each strength of L2.

    Each is :class:`.LogisticRegression`'s problem: its features are standardized by the moments of the images that it
    is fitted on.

    Args:
        features: (n, D), one row per image.
        targets: float32 (n, classes).
        folds: (n,) number of each image's fold; copies of one image belong to one fold.
        strengths: of L2, from strong to weak: each search begins where the last one ended.
        iterations: L-BFGS iterations at most, of each.

    Returns:
        Class probabilities: float64 (strengths, n, classes); NaN for images whose class is in no other fold.
    """
    probabilities = np.full((len(strengths), *targets.shape), np.nan)
    labels, numbers = targets.argmax(1), np.unique(folds, return_inverse=True)[1]
    present = np.zeros((int(numbers.max()) + 1, targets.shape[1]), np.int64)
    np.add.at(present, (numbers, labels), 1)
    known = present.sum(0)[labels] > present[numbers, labels]
    if not known.any():
        return probabilities
    problem = _Problem(features, targets, numbers)
    parameters = problem.start()
    for number, l2 in enumerate(strengths):
        parameters = problem.fit(parameters, l2, iterations)
        probabilities[number, known] = problem.predict(parameters)[known]
    return probabilities


class _Problem:
    """The sum of the folds' problems.

    Args:
        features: (n, D).
        targets: float32 (n, classes).
        folds: (n,) 0 …
    """

    def __init__(self, features: Features, targets: np.ndarray, folds: np.ndarray) -> None:
        self._rows = standardize(features)
        self._targets, self._folds = torch.from_numpy(targets), torch.from_numpy(folds)
        self._count = int(folds.max()) + 1
        sizes = torch.bincount(self._folds, minlength=self._count)
        self._fitted = (len(folds) - sizes).clamp_min(1)  # images of the other folds
        self._ratio, self._shift = self._moments(sizes)

    def start(self) -> torch.Tensor:
        """Return zeros: float32 (folds, classes, D + 1), weights on a fold's standardized features, and biases last."""
        return torch.zeros(self._count, self._targets.shape[1], self._rows.width + 1)

    def fit(self, start: torch.Tensor, l2: float, iterations: int) -> torch.Tensor:
        """Return the parameters of least loss."""
        return minimize(lambda parameters: self._loss_and_gradient(parameters, l2), start, iterations)

    def predict(self, parameters: torch.Tensor) -> np.ndarray:
        """Return each image's probabilities by its own fold's parameters: (n, classes)."""
        parts = []
        for part in blocks(len(self._rows), self._width):
            own = self._folds[part].view(-1, 1, 1).expand(-1, 1, self._targets.shape[1])
            parts.append(self._logits(parameters, self._rows[part]).gather(1, own)[:, 0].double().softmax(1))
        probabilities: np.ndarray = torch.cat(parts).numpy()
        return probabilities

    @property
    def _width(self) -> int:
        return max(self._rows.width, self._count * self._targets.shape[1])

    def _moments(self, sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ratio and shift (folds, D): a fold's standardized features are those of all, times ratio, plus shift.

        Each fold's moments are taken away from those of all images, in double precision.
        """
        sums = torch.zeros(self._count, self._rows.width).double()
        squares = torch.zeros_like(sums)
        for part in blocks(len(self._rows), 2 * self._rows.width):
            rows = self._rows[part].double()
            sums.index_add_(0, self._folds[part], rows)
            squares.index_add_(0, self._folds[part], rows.square())
        fitted = self._fitted.view(-1, 1)
        mean = (sums.sum(0) - sums) / fitted
        std = ((squares.sum(0) - squares) / fitted - mean.square()).clamp_min(0).sqrt()
        std = torch.where(std * self._rows.std < LEAST_STD, 1 / self._rows.std, std)
        return (1 / std).float(), (-mean / std).float()

    def _logits(self, parameters: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Return the logits of each fold's parameters: (n, folds, classes)."""
        weight, bias = parameters[..., :-1], parameters[..., -1]
        joined = (weight * self._ratio.unsqueeze(1)).flatten(0, 1)
        offset = (bias + (weight * self._shift.unsqueeze(1)).sum(2)).flatten()
        logits: torch.Tensor = torch.addmm(offset, rows, joined.T).unflatten(1, bias.shape)
        return logits

    def _loss_and_gradient(self, parameters: torch.Tensor, l2: float) -> tuple[float, torch.Tensor]:
        """Return the sum of the folds' losses (mean cross-entropy plus L2), and its gradient."""
        weight = parameters[..., :-1]
        joined, biases = torch.zeros_like(weight), torch.zeros_like(parameters[..., -1])
        loss = 0.5 * l2 * float(weight.square().sum())
        for part in blocks(len(self._rows), self._width):
            rows, target = self._rows[part], self._targets[part].unsqueeze(1)
            share = (self._folds[part].unsqueeze(1) != torch.arange(self._count)) / self._fitted  # (n, folds)
            logs = self._logits(parameters, rows).log_softmax(2)
            loss -= float(((target * logs).sum(2) * share).sum())
            error = logs.exp_().mul_(target.sum(2, keepdim=True)).sub_(target).mul_(share.unsqueeze(2))
            joined += (error.flatten(1).T @ rows).view_as(weight)
            biases += error.sum(0)
        gradient = joined * self._ratio.unsqueeze(1) + biases.unsqueeze(2) * self._shift.unsqueeze(1) + l2 * weight
        return loss, torch.cat([gradient, biases.unsqueeze(2)], 2)
