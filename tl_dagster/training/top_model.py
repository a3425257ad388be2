"""The top model: multinomial logistic regression on standardised bottleneck features, by L-BFGS.

The strength of L2 is chosen on validation over a path from strong to weak, each fit starting from the last
(warm starts along a regularisation path: Friedman, Hastie & Tibshirani 2010, J. Stat. Softw. 33).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tl_dagster.spec import TopModel

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["Fit", "averaged_probabilities", "fit", "minimise", "validate"]


@dataclass(frozen=True)
class Fit:
    """A fitted classifier: logits are ``(features - mean) / std @ weight.T + bias``.

    Attributes:
        weight: float32 (classes, D).
        bias: float32 (classes,).
        mean: float32 (D,), of the training views' features.
        std: float32 (D,).
        l2: the strength that validation chose.
        path: (l2, validation log-loss, validation accuracy) of each strength tried.
    """

    weight: "torch.Tensor"
    bias: "torch.Tensor"
    mean: "torch.Tensor"
    std: "torch.Tensor"
    l2: float
    path: list[tuple[float, float, float]]


def fit(
    train: tuple["np.ndarray", "np.ndarray"],
    validation: tuple["np.ndarray", "np.ndarray", "np.ndarray"],
    settings: TopModel,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Fit:
    """Fit the classifier for each strength of L2 and keep the one with the lowest validation log-loss.

    Args:
        train: features (N, D) and targets (N, classes), float32, of all training views.
        validation: features (M, D), class numbers (M,) and image numbers (M,), whose views are averaged.
        settings: strengths, iterations, class weights.
        progress: told (done, total, note) for each strength.
    """
    import torch

    features = torch.tensor(train[0], dtype=torch.float32)  # a copy: it is standardised in place
    targets = torch.from_numpy(train[1])
    classes = targets.shape[1]
    mean = features.mean(0)
    std = features.std(0).clamp_min(1e-3)
    features.sub_(mean).div_(std)
    held_out = (torch.from_numpy(validation[0]).float() - mean) / std
    emphasis = None
    if settings.balanced:
        emphasis = len(targets) / (classes * targets.sum(0))
    parameters = torch.zeros(classes, features.shape[1] + 1)
    best: tuple[float, float, torch.Tensor] | None = None
    path = []
    for number, l2 in enumerate(sorted(settings.l2, reverse=True), 1):
        parameters = minimise(features, targets, l2, parameters, emphasis, settings.max_iterations)
        logits = held_out @ parameters[:, :-1].T + parameters[:, -1]
        loss, accuracy = validate(logits.softmax(1).numpy(), validation[1], validation[2])
        path.append((l2, loss, accuracy))
        progress(number, len(settings.l2), f"l2 {l2:g}: validation log-loss {loss:.4f}, accuracy {accuracy:.4f}")
        if best is None or loss < best[0]:
            best = (loss, l2, parameters)
    if best is None:
        raise ValueError("settings.l2 is empty")
    return Fit(best[2][:, :-1].contiguous(), best[2][:, -1].contiguous(), mean, std, best[1], path)


def minimise(
    features: "torch.Tensor",
    targets: "torch.Tensor",
    l2: float,
    start: "torch.Tensor",
    emphasis: "torch.Tensor | None",
    iterations: int,
) -> "torch.Tensor":
    """Weights and biases (classes, D + 1) of least mean cross-entropy plus L2.

    Args:
        features: float32 (N, D), standardised.
        targets: float32 (N, classes).
        l2: strength.
        start: (classes, D + 1), where the search begins.
        emphasis: (classes,) weight of each class, or None.
        iterations: L-BFGS iterations at most.
    """
    import torch

    parameters = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [parameters], max_iter=iterations, history_size=10, line_search_fn="strong_wolfe", tolerance_grad=1e-5
    )

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        logits = torch.addmm(parameters[:, -1], features, parameters[:, :-1].T)
        loss = torch.nn.functional.cross_entropy(logits, targets, weight=emphasis)
        loss = loss + 0.5 * l2 * parameters[:, :-1].square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return parameters.detach()


def averaged_probabilities(probabilities: "np.ndarray", images: "np.ndarray") -> "np.ndarray":
    """Mean class probabilities over the views of each image.

    Args:
        probabilities: (M, classes), one row per view.
        images: (M,) image number of each view, 0 … n-1, each occurring at least once.

    Returns:
        (n, classes).
    """
    import numpy as np

    total = np.zeros((int(images.max()) + 1, probabilities.shape[1]))
    np.add.at(total, images, probabilities)
    averaged: np.ndarray = total / np.bincount(images)[:, None]
    return averaged


def validate(probabilities: "np.ndarray", labels: "np.ndarray", images: "np.ndarray") -> tuple[float, float]:
    """Log-loss and accuracy of the averaged views.

    Args:
        probabilities: (M, classes), one row per view.
        labels: (M,) class number of each view.
        images: (M,) image number of each view, 0 … n-1.
    """
    import numpy as np

    averaged = averaged_probabilities(probabilities, images)
    truth = np.zeros(len(averaged), dtype=np.int64)
    truth[images] = labels
    right = averaged[np.arange(len(averaged)), truth]
    return float(-np.log(np.clip(right, 1e-12, 1)).mean()), float((averaged.argmax(1) == truth).mean())
