"""The training loop of every network: epochs of steps, the best epoch kept, a checkpoint after each.

The exponential moving average of the weights over the steps is validated and kept: it is steadier than any one step's
weights (Polyak & Juditsky 1992, SIAM J. Control Optim. 30). Best is the lowest validation log-loss after calibration,
which all candidates get alike: before it, an epoch can win or lose by how sure it is alone. Accuracy moves in steps of
one image, and choosing by it is choosing by chance.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tl_dagster.models.calibration import Score
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.memory import keep_freed_memory
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.checkpoints import Checkpoint, optimiser_tensors, restore_optimiser, select_group
from tl_dagster.training.optimisers import decay_weights

__all__ = ["LoopConfig", "TrainingResult", "train"]

LEAST_GAIN = 1e-6  # of log-loss, over epoch 0: folding the temperature into the weights rounds
NOTABLE = 0.01  # share of the log-loss: less, as a level loss always finds by chance, does not prolong a training


@dataclass(frozen=True)
class LoopConfig:
    """The length of a training, its schedule, and the limits of a step.

    Attributes:
        epochs: at most.
        steps: of each epoch.
        hint: shown when the loss is NaN or infinite: the setting to change.
        patience: epochs in which the validation log-loss fell by less than 1 % after which training stops; None: it
            does not. Those of the warm-up do not count.
        warmup: share of all steps in which the learning rates rise, before their cosine to zero.
        clip: largest norm of a step's gradient; None: any.
        averaging: decay of the moving average of the weights; 0: the weights themselves.
    """

    epochs: int
    steps: int
    hint: str
    patience: int | None = None
    warmup: float = 0.2
    clip: float | None = None
    averaging: float = 0.0

    def rate_factor(self, step: int) -> float:
        """Return the share of the peak learning rate in a step, counted from 0 over all epochs.

        Linear warm-up, then a cosine to zero (Loshchilov & Hutter 2017, "SGDR").
        """
        steps = self.epochs * self.steps
        rising = min(1.0, (step + 1) / (self.warmup * steps)) if self.warmup else 1.0
        return rising * 0.5 * (1 + math.cos(math.pi * step / steps))


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training; the weights are left in the model.

    Attributes:
        epoch: the epoch that was kept; 0 is what training started from.
        score: of that epoch; its temperature is not in the weights.
        history: per epoch: epoch, training_loss (but for epoch 0), validation_log_loss, validation_accuracy and
            temperature.
        seconds: duration, that before a kill included.
    """

    epoch: int
    score: Score
    history: list[dict[str, float]]
    seconds: float


@dataclass
class _State:
    model: torch.nn.Module
    averaged: AveragedModel
    optimiser: torch.optim.Optimizer
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    best_epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def epochs_done(self) -> int:
        return len(self.history) - 1

    @property
    def best_score(self) -> Score:
        row = self.history[self.best_epoch]
        return Score(row["validation_log_loss"], row["validation_accuracy"], row["temperature"])

    def record(self, score: Score, **more: float) -> None:
        """Add an epoch to the history, and keep its weights if they are the best so far."""
        epoch = len(self.history)
        if not self.history or score.log_loss < self.best_score.log_loss - (0 if self.best_epoch else LEAST_GAIN):
            self.best_epoch, self.best = epoch, _copy_trained(self.averaged.module)
        scored = {"validation_log_loss": score.log_loss, "validation_accuracy": score.accuracy}
        self.history.append({"epoch": float(epoch), **more, **scored, "temperature": score.temperature})

    def last_gain(self) -> int:
        """Return the last epoch with a log-loss notably lower than that of the last one of which that holds."""
        gain, lowest = 0, math.inf
        for epoch, row in enumerate(self.history):
            if row["validation_log_loss"] < lowest * (1 - NOTABLE):
                gain, lowest = epoch, row["validation_log_loss"]
        return gain

    def _improved(self) -> bool:
        """Return whether the last epoch is the best one: its weights need not be saved twice."""
        return self.best_epoch == self.epochs_done

    def save(self, checkpoint: Checkpoint) -> None:
        groups = {
            "model": _trained(self.model),
            "averaged": _trained(self.averaged.module),
            "best": {} if self._improved() else self.best,
            "optimiser": optimiser_tensors(self.optimiser),
            "updates": {"count": self.averaged.n_averaged},
        }
        tensors = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
        seconds = time.monotonic() - self.started
        checkpoint.save(tensors, {"history": self.history, "kept": self.best_epoch, "seconds": seconds})

    def restore(self, tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> None:
        self.model.load_state_dict(select_group(tensors, "model"), strict=False)
        self.averaged.module.load_state_dict(select_group(tensors, "averaged"), strict=False)
        self.averaged.n_averaged.copy_(tensors["updates/count"])
        restore_optimiser(self.optimiser, select_group(tensors, "optimiser"))
        self.history, self.best_epoch = metadata["history"], metadata["kept"]
        self.best = _copy_trained(self.averaged.module) if self._improved() else select_group(tensors, "best")
        self.started -= metadata["seconds"]


def train(
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    losses: Callable[[int], Iterator[torch.Tensor]],
    score: Callable[[torch.nn.Module], Score],
    config: LoopConfig,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
    start: Score | None = None,
) -> TrainingResult:
    """Train in place, and leave the best epoch's weights in the model.

    Args:
        model: trained in the mode (training or evaluation) that the caller set.
        optimiser: see :func:`tl_dagster.training.optimisers.build_optimiser`.
        losses: the epoch's number, from 1 → the loss of each of its steps; all that is random in it comes from that
            number, so that a training that is resumed ends as if there had been no kill.
        score: a network → its calibrated score on the validation split.
        config: length and schedule.
        progress: counts the steps.
        checkpoint: resumed from, and written after each epoch.
        start: score of the model that training starts from: epoch 0, which is kept where no epoch is better; None: the
            weights are random, and there is no such candidate.

    Raises:
        InputError: the loss is not a number; the checkpoint of the last good epoch stays.
    """
    keep_freed_memory()
    state = _State(model, AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.averaging)), optimiser)
    saved = checkpoint.load() if checkpoint else None
    if saved:
        state.restore(*saved)
        progress.log(f"goes on after epoch {state.epochs_done} of {config.epochs}, from a checkpoint")
    else:
        state.record(start or Score(math.inf, 0.0))
        if start:
            _log_epoch(state, config, progress)
    done = state.epochs_done * config.steps
    schedule = LambdaLR(optimiser, config.rate_factor, last_epoch=done - 1)
    progress.start("steps", done)
    while state.epochs_done < config.epochs and not _should_stop(state, config, progress):
        mean = _train_epoch(state, schedule, losses, config, progress, checkpoint)
        scored = score(state.averaged.module)
        _require_finite(scored.log_loss, "validation log-loss", config, state, checkpoint)
        state.record(scored, training_loss=mean)
        _log_epoch(state, config, progress)
        if checkpoint:
            state.save(checkpoint)
    model.load_state_dict(state.best, strict=False)
    progress.log(f"chosen: epoch {state.best_epoch}: {_described(state.best_score)}")
    history = state.history if start else state.history[1:]
    return TrainingResult(state.best_epoch, state.best_score, history, time.monotonic() - state.started)


def _train_epoch(
    state: _State,
    schedule: LambdaLR,
    losses: Callable[[int], Iterator[torch.Tensor]],
    config: LoopConfig,
    progress: Progress,
    checkpoint: Checkpoint | None,
) -> float:
    """Train one epoch, and return the mean loss of its steps."""
    epoch, total = state.epochs_done + 1, 0.0
    parameters = [parameter for group in state.optimiser.param_groups for parameter in group["params"]]
    for step, loss in enumerate(losses(epoch), (epoch - 1) * config.steps + 1):
        value = float(loss.item())
        _require_finite(value, "loss", config, state, checkpoint)
        state.optimiser.zero_grad()
        loss.backward()
        if config.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, config.clip)
        decay_weights(state.optimiser)
        state.optimiser.step()
        schedule.step()
        state.averaged.update_parameters(state.model)
        total += value
        progress.update(step, config.epochs * config.steps, f"epoch {epoch}/{config.epochs}, loss {value:.4f}")
    return total / config.steps


def _should_stop(state: _State, config: LoopConfig, progress: Progress) -> bool:
    """Return whether the last gain lies so far back that training stops early (Prechelt 1998)."""
    gain = state.last_gain()
    waited = state.epochs_done - max(gain, math.ceil(config.warmup * config.epochs))
    stale = config.patience is not None and waited >= config.patience
    if stale:
        progress.log(f"stopped early: since epoch {gain} the validation log-loss fell by less than {NOTABLE:.0%}")
    return stale


def _log_epoch(state: _State, config: LoopConfig, progress: Progress) -> None:
    last = state.history[-1]
    loss = f"loss {last['training_loss']:.4f}, " if "training_loss" in last else ""
    score = Score(last["validation_log_loss"], last["validation_accuracy"])
    progress.log(f"epoch {last['epoch']:.0f}/{config.epochs}: {loss}{_described(score)}")


def _described(score: Score) -> str:
    return f"validation log-loss {score.log_loss:.4f}, accuracy {score.accuracy:.4f}"


def _require_finite(value: float, name: str, config: LoopConfig, state: _State, checkpoint: Checkpoint | None) -> None:
    if not math.isfinite(value):
        last = state.epochs_done
        stays = f"; the checkpoint of epoch {last} stays: {checkpoint.path}" if checkpoint and last else ""
        raise InputError(f"the {name} of epoch {last + 1} is {value}: {config.hint}{stays}")


def _trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return all that training may change: trained parameters and buffers."""
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def _copy_trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in _trained(model).items()}
