"""The training loop of every network: epochs of steps, the best epoch kept, a checkpoint after each.

What is validated and kept is the exponential moving average of the weights over the steps, steadier than any one step's
(Polyak & Juditsky 1992, SIAM J. Control Optim. 30). Best is the lowest validation log-loss: accuracy moves in steps of
one image, and choosing by it is choosing by chance. The network as it came is among the candidates, as epoch 0.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.memory import keep_freed_memory
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.checkpoints import Checkpoint, optimiser_tensors, restore_optimiser, select_group
from tl_dagster.training.optimisers import decay_weights, set_rates

__all__ = ["LoopConfig", "TrainingResult", "train"]


@dataclass(frozen=True)
class LoopConfig:
    """How long, and how gently.

    Attributes:
        epochs: at most.
        steps: of each epoch.
        hint: what to do about a loss that is no number.
        patience: epochs without a lower validation log-loss after which training stops; None: it does not.
        warmup: share of all steps in which the learning rates rise, before their cosine to zero.
        clip: largest norm of a step's gradient; None: any.
        averaging: decay of the moving average of the weights; 0: the weights themselves.
        untrained: the network as it came has random weights, and is no candidate.
    """

    epochs: int
    steps: int
    hint: str
    patience: int | None = None
    warmup: float = 0.2
    clip: float | None = None
    averaging: float = 0.0
    untrained: bool = False


@dataclass(frozen=True)
class TrainingResult:
    """What training arrived at.

    Attributes:
        epoch: the epoch that was kept; 0 is the network as it came.
        history: per epoch: epoch, training_loss (but for epoch 0), validation_log_loss and validation_accuracy.
        seconds: that it took, those before a kill included.
    """

    epoch: int
    history: list[dict[str, float]]
    seconds: float


@dataclass
class _State:
    model: torch.nn.Module
    averaged: torch.optim.swa_utils.AveragedModel
    optimiser: torch.optim.Optimizer
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    kept: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def note(self, scored: tuple[float, float], **more: float) -> None:
        """Add an epoch, and keep its weights if they are the best so far."""
        loss, accuracy = scored
        epoch = len(self.history)
        if not self.history or loss < self.history[self.kept]["validation_log_loss"]:
            self.kept, self.best = epoch, _copied(self.averaged.module)
        self.history.append(
            {"epoch": float(epoch), **more, "validation_log_loss": loss, "validation_accuracy": accuracy}
        )

    def _improved(self) -> bool:
        """Whether the last epoch is the best one: its weights need not be kept twice."""
        return self.kept == len(self.history) - 1

    def save(self, checkpoint: Checkpoint) -> None:
        groups = {
            "model": _trained(self.model),
            "averaged": _trained(self.averaged.module),
            "best": {} if self._improved() else self.best,
            "optimiser": optimiser_tensors(self.optimiser),
            "updates": {"count": self.averaged.n_averaged},
        }
        tensors = {f"{group}/{name}": each for group, held in groups.items() for name, each in held.items()}
        seconds = time.monotonic() - self.begun
        checkpoint.save(tensors, {"history": self.history, "kept": self.kept, "seconds": seconds})

    def restore(self, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
        self.model.load_state_dict(select_group(tensors, "model"), strict=False)
        self.averaged.module.load_state_dict(select_group(tensors, "averaged"), strict=False)
        self.averaged.n_averaged.copy_(tensors["updates/count"])
        restore_optimiser(self.optimiser, select_group(tensors, "optimiser"))
        self.history, self.kept = metadata["history"], metadata["kept"]
        self.best = _copied(self.averaged.module) if self._improved() else select_group(tensors, "best")
        self.begun -= metadata["seconds"]


def train(
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    losses: Callable[[int], Iterator[torch.Tensor]],
    score: Callable[[torch.nn.Module], tuple[float, float]],
    plan: LoopConfig,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
) -> TrainingResult:
    """Train in place, and leave the best epoch's weights in the model.

    Args:
        model: trained; the caller says in which mode.
        optimiser: see :func:`tl_dagster.training.optimisers.build_optimiser`.
        losses: the epoch's number, from 1 → the loss of each of its steps; all that is random in it comes from that
            number, so that training goes on after a kill as if there had been none.
        score: a network → log-loss and accuracy on the validation split.
        plan: how long, and how gently.
        progress: told of each step and epoch.
        checkpoint: what to go on from, and where to keep each epoch.

    Raises:
        InputError: the loss is no number; the checkpoint of the last good epoch stays.
    """

    keep_freed_memory()
    state = _State(model, AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(plan.averaging)), optimiser)
    found = checkpoint.load() if checkpoint else None
    if found:
        state.restore(*found)
        progress.log(f"goes on after epoch {len(state.history) - 1} of {plan.epochs}, from a checkpoint")
    elif plan.untrained:
        state.note((math.inf, 0.0))
    else:
        state.note(score(model))
        _tell(state, plan, progress)
    progress.start("steps", (len(state.history) - 1) * plan.steps)
    while len(state.history) <= plan.epochs and not _stale(state, plan, progress):
        mean = _epoch(state, losses, plan, progress, checkpoint)
        scored = score(state.averaged.module)
        _require_number(scored[0], "validation log-loss", plan, state, checkpoint)
        state.note(scored, training_loss=mean)
        _tell(state, plan, progress)
        if checkpoint:
            state.save(checkpoint)
    model.load_state_dict(state.best, strict=False)
    return TrainingResult(state.kept, state.history[plan.untrained :], time.monotonic() - state.begun)


def _epoch(
    state: _State,
    losses: Callable[[int], Iterator[torch.Tensor]],
    plan: LoopConfig,
    progress: Progress,
    checkpoint: Checkpoint | None,
) -> float:
    """One epoch; the mean loss of its steps."""

    epoch, total = len(state.history), 0.0
    trained = [parameter for group in state.optimiser.param_groups for parameter in group["params"]]
    for step, loss in enumerate(losses(epoch)):
        value = float(loss.item())
        _require_number(value, "loss", plan, state, checkpoint)
        done = (epoch - 1) * plan.steps + step
        set_rates(state.optimiser, _factor(done, plan))
        state.optimiser.zero_grad()
        loss.backward()
        if plan.clip is not None:
            torch.nn.utils.clip_grad_norm_(trained, plan.clip)
        decay_weights(state.optimiser)
        state.optimiser.step()
        state.averaged.update_parameters(state.model)
        total += value
        progress.update(done + 1, plan.epochs * plan.steps, f"epoch {epoch}/{plan.epochs}, loss {value:.4f}")
    return total / plan.steps


def _factor(step: int, plan: LoopConfig) -> float:
    """Linear warm-up, then a cosine to zero (Loshchilov & Hutter 2017, "SGDR")."""
    steps = plan.epochs * plan.steps
    rising = min(1.0, (step + 1) / (plan.warmup * steps)) if plan.warmup else 1.0
    return rising * 0.5 * (1 + math.cos(math.pi * step / steps))


def _stale(state: _State, plan: LoopConfig, progress: Progress) -> bool:
    """Whether the best epoch lies so far back that training stops early (Prechelt 1998)."""
    epoch = len(state.history) - 1
    stale = plan.patience is not None and epoch - state.kept >= plan.patience
    if stale and epoch < plan.epochs:
        progress.log(f"stopped early: no lower validation log-loss since epoch {state.kept}")
    return stale


def _tell(state: _State, plan: LoopConfig, progress: Progress) -> None:
    last = state.history[-1]
    loss = f"loss {last['training_loss']:.4f}, " if "training_loss" in last else ""
    progress.log(
        f"epoch {last['epoch']:.0f}/{plan.epochs}: {loss}validation log-loss {last['validation_log_loss']:.4f}, "
        f"accuracy {last['validation_accuracy']:.4f}"
    )


def _require_number(value: float, what: str, plan: LoopConfig, state: _State, checkpoint: Checkpoint | None) -> None:
    if not math.isfinite(value):
        last = len(state.history) - 1
        stays = f"; the checkpoint of epoch {last} stays: {checkpoint.path}" if checkpoint and last else ""
        raise InputError(f"the {what} of epoch {last + 1} is {value}: {plan.hint}{stays}")


def _trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """All that training may change: trained parameters and buffers."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def _copied(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in _trained(model).items()}
