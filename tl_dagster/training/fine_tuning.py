"""Fine-tuning: the backbone's upper blocks and the classifier, trained on from the top model.

Batch-norm layers stay in evaluation mode, so their statistics are frozen. The frozen part of the network does not
run here when its output (the "boundary") comes from the feature cache.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tl_dagster.errors import InputError
from tl_dagster.progress import Progress
from tl_dagster.spec import FineTuning
from tl_dagster.training.top_model import validate

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["Inputs", "Result", "fine_tune", "network", "predict"]

EVALUATION_BATCH = 128


class Inputs(Protocol):
    """Where training takes its data: by row of the table of views."""

    def __call__(self, rows: "np.ndarray") -> "tuple[torch.Tensor, torch.Tensor]":
        """Boundary activations or images (n, C, H, W), and the frozen taps' features (n, D_frozen), float32."""


@dataclass(frozen=True)
class Result:
    """What fine-tuning arrived at.

    Attributes:
        epoch: the epoch that was kept; 0 is the top model itself.
        history: per epoch: training loss, validation log-loss and accuracy.
    """

    epoch: int
    history: list[dict[str, float]]


def network(upper: "torch.nn.Module", head: Mapping[str, "torch.Tensor"], frozen: "np.ndarray") -> "torch.nn.Module":
    """The upper part of a backbone with the top model on it.

    Args:
        upper: boundary activations or images → a list of the features (n, D_tap) of the taps above the boundary.
        head: weight, bias, mean and std of the top model.
        frozen: bool (D,): which of its features come from below the boundary.

    Returns:
        A module in evaluation mode: (inputs, frozen features) → logits (n, classes). Its logits equal the top
        model's as long as nothing is trained.
    """
    import torch

    order = torch.cat([torch.from_numpy(frozen).nonzero()[:, 0], torch.from_numpy(~frozen).nonzero()[:, 0]])

    class FineTuned(torch.nn.Module):
        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.upper = upper
            self.head = torch.nn.Linear(len(order), len(head["bias"]))
            self.head.weight.data.copy_(head["weight"][:, order])
            self.head.bias.data.copy_(head["bias"])
            self.register_buffer("mean", head["mean"][order])
            self.register_buffer("std", head["std"][order])

        def forward(self, inputs: torch.Tensor, below: torch.Tensor) -> torch.Tensor:
            features = torch.cat([below, *(each.float() for each in self.upper(inputs))], 1)
            logits: torch.Tensor = self.head((features - self.mean) / self.std)
            return logits

    return FineTuned().eval()


def fine_tune(
    model: "torch.nn.Module",
    inputs: Inputs,
    train: "np.ndarray",
    validation: tuple["np.ndarray", "np.ndarray"],
    labels: "np.ndarray",
    targets: "np.ndarray",
    settings: FineTuning,
    precision: str,
    progress: Progress,
) -> Result:
    """Train in place, and leave the best epoch's weights in the model.

    What is validated and kept is the exponential moving average of the weights over the steps, which is steadier than
    any one step's (Polyak & Juditsky 1992, SIAM J. Control Optim. 30).

    Best is the lowest validation log-loss: accuracy moves in steps of one image, and choosing by it is choosing by
    chance. The top model is among the candidates (as epoch 0), so what is left is never worse there.

    Args:
        model: see :func:`network`; parameters that require gradients are trained.
        inputs: gives the data of table rows.
        train: (images, views) int64: table rows of each training image's views.
        validation: table rows (M,) and image numbers (M,) of the validation views.
        labels: (rows,) class number of each table row, for validation.
        targets: (rows, classes) float32 that training views are trained towards.
        settings: the declared settings.
        precision: "bf16" (autocast) or "fp32".
        progress: told of each step.
    """
    import numpy as np
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.averaging))

    def score() -> tuple[float, float]:
        probabilities = predict(averaged.module, inputs, validation[0], precision).softmax(1).numpy()
        return validate(probabilities, labels[validation[0]], validation[1])

    start = score()
    progress.say(f"top model: validation log-loss {start[0]:.4f}, accuracy {start[1]:.4f}")
    history = [{"epoch": 0.0, "validation_log_loss": start[0], "validation_accuracy": start[1]}]
    best = (start[0], 0, copy.deepcopy(model.state_dict()))
    _freeze_depthwise(model)
    optimiser = _optimiser(model, settings)
    order = np.random.default_rng(settings.seed).permuted(train, axis=1)
    seen = settings.views_per_epoch
    steps = math.ceil(len(train) * seen / settings.batch_size) * settings.epochs
    done = 0
    progress.start("steps")
    for epoch in range(1, settings.epochs + 1):
        chosen = order[:, [((epoch - 1) * seen + view) % order.shape[1] for view in range(seen)]]
        rows = np.random.default_rng([settings.seed, epoch]).permutation(chosen.reshape(-1))
        losses = []
        for first in range(0, len(rows), settings.batch_size):
            _set_learning_rate(optimiser, done, steps)
            losses.append(
                _step(model, optimiser, inputs, rows[first : first + settings.batch_size], targets, settings, precision)
            )
            averaged.update_parameters(model)
            done += 1
            progress.update(done, steps, f"epoch {epoch}/{settings.epochs}, loss {losses[-1]:.4f}")
        loss, accuracy = score()
        history.append(
            {
                "epoch": float(epoch),
                "training_loss": float(np.mean(losses)),
                "validation_log_loss": loss,
                "validation_accuracy": accuracy,
            }
        )
        progress.say(
            f"epoch {epoch}/{settings.epochs}: loss {np.mean(losses):.4f}, "
            f"validation log-loss {loss:.4f}, accuracy {accuracy:.4f}"
        )
        if loss < best[0]:
            best = (loss, epoch, copy.deepcopy(averaged.module.state_dict()))
    model.load_state_dict(best[2])
    return Result(best[1], history)


def predict(model: "torch.nn.Module", inputs: Inputs, rows: "np.ndarray", precision: str) -> "torch.Tensor":
    """Logits of table rows: (n,) int64 → float32 (n, classes)."""
    import torch

    device = next(model.parameters()).device
    parts = []
    with torch.inference_mode(), _autocast(device, precision):
        for first in range(0, len(rows), EVALUATION_BATCH):
            values, below = inputs(rows[first : first + EVALUATION_BATCH])
            parts.append(model(values.to(device), below.to(device)).float().cpu())
    return torch.cat(parts)


def _freeze_depthwise(model: "torch.nn.Module") -> None:
    """Depthwise layers stay as pre-trained: few parameters, but two thirds of the time of a step on a CPU."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.groups == module.in_channels > 1:
            module.requires_grad_(False)


def _step(
    model: "torch.nn.Module",
    optimiser: "torch.optim.Optimizer",
    inputs: Inputs,
    rows: "np.ndarray",
    targets: "np.ndarray",
    settings: FineTuning,
    precision: str,
) -> float:
    import torch

    device = next(model.parameters()).device
    values, below = inputs(rows)
    truth = torch.from_numpy(targets[rows]).to(device)
    with _autocast(device, precision):
        logits = model(values.to(device), below.to(device))
    loss = torch.nn.functional.cross_entropy(logits.float(), truth, label_smoothing=settings.label_smoothing)
    if not torch.isfinite(loss):
        raise InputError(
            f"the fine-tuning loss is {loss.item()}; lower fine_tuning.learning_rate (now {settings.learning_rate:g}), "
            "or set backbone.precision: fp32"
        )
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    return float(loss.item())


def _autocast(device: "torch.device", precision: str) -> "torch.autocast":
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _optimiser(model: Any, settings: FineTuning) -> "torch.optim.Optimizer":
    """AdamW (Loshchilov & Hutter 2019); no weight decay on biases, normalisation, or the classifier."""
    import torch

    head = {id(parameter) for parameter in model.head.parameters()}
    body = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in head]
    groups = [
        {
            "params": [each for each in body if each.ndim > 1],
            "lr": settings.learning_rate,
            "weight_decay": settings.weight_decay,
        },
        {"params": [each for each in body if each.ndim <= 1], "lr": settings.learning_rate, "weight_decay": 0.0},
        {"params": list(model.head.parameters()), "lr": settings.head_learning_rate, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups)
    for group in optimiser.param_groups:
        group["peak"] = group["lr"]
    return optimiser


def _set_learning_rate(optimiser: "torch.optim.Optimizer", step: int, steps: int) -> None:
    """Linear warm-up over the first fifth, then a cosine to zero (Loshchilov & Hutter 2017)."""
    factor = min(1.0, (step + 1) / (0.2 * steps)) * 0.5 * (1 + math.cos(math.pi * step / steps))
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor
