"""The loop keeps the best epoch, goes on after a kill to the last bit, and stops with a clear message."""

import contextlib
import copy
import math

import pytest
import torch

from tl_dagster.models.calibration import Score
from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.checkpoints import Checkpoint
from tl_dagster.training.loop import LoopConfig, train
from tl_dagster.training.optimisers import ParameterGroup, build_optimiser, decay_weights

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()
SILENT = Progress(lambda line: None)


def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        )


def score(model: torch.nn.Module) -> Score:
    logits = copy.deepcopy(model).eval()(X)
    return Score(float(torch.nn.functional.cross_entropy(logits, Y)), float((logits.argmax(1) == Y).float().mean()))


START = score(network())


def training(model, kind="adamw", checkpoint=None, stop_in=None, scored=score, spoilt=None, log=None, **config):
    optimiser = build_optimiser(kind, [ParameterGroup(list(model.parameters()), 0.05, 0.1, anchored=True)])

    def losses(epoch):
        if epoch == stop_in:
            raise KeyboardInterrupt
        rows = torch.randperm(64, generator=torch.Generator().manual_seed(epoch))
        for part in rows.split(16):
            loss = torch.nn.functional.cross_entropy(model(X[part]), Y[part])
            yield loss * float("nan") if epoch == spoilt else loss

    config = LoopConfig(**{"epochs": 6, "steps": 4, "hint": "lower the_rate", "clip": 1.0, "averaging": 0.9, **config})
    return train(model, optimiser, losses, scored, config, Progress(log) if log else SILENT, checkpoint, START)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_goes_on_to_the_last_bit(tmp_path, kind):
    undisturbed, killed, resumed = network(), network(), network()
    whole = training(undisturbed, kind)
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", print)
    with pytest.raises(KeyboardInterrupt):
        training(killed, kind, checkpoint, stop_in=4)
    lines: list[str] = []
    again = training(resumed, kind, checkpoint, log=lines.append)
    assert lines[0] == "goes on after epoch 3 of 6, from a checkpoint"
    assert (again.epoch, again.history, again.score) == (whole.epoch, whole.history, whole.score)
    assert lines[-1].startswith(f"chosen: epoch {whole.epoch}: validation log-loss {whole.score.log_loss:.4f}")
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(("warmup", "stopped_after"), [(0.0, 3), (0.2, 4), (0.5, 5)])
def test_keeps_the_best_epoch_and_stops_early_after_the_warmup(warmup, stopped_after):
    scores = iter([Score(loss, 0.0, 2.0) for loss in (0.5, 0.6, 0.7, 0.8, 0.9, 0.4)])
    found = training(network(), scored=lambda model: next(scores), patience=2, warmup=warmup)
    assert (found.epoch, len(found.history) - 1) == (1, stopped_after)
    assert found.score == (0.5, 0.0, 2.0)


@pytest.mark.parametrize(("gain", "epochs"), [(0.001, 3), (0.006, 8)])
def test_a_level_loss_does_not_prolong_a_training(gain, epochs):
    """The best epoch is kept all the same; small gains count that add up."""
    losses = iter([0.5 * (1 - gain) ** epoch for epoch in range(8)])
    found = training(network(), scored=lambda model: Score(next(losses), 0.0), patience=2, warmup=0, epochs=8)
    assert found.epoch == len(found.history) - 1 == epochs


def test_what_training_starts_from_stays_where_no_epoch_is_better_by_more_than_rounding():
    model = network()
    found = training(model, scored=lambda model: Score(START.log_loss - 1e-9, 1.0, 2.0))
    assert (found.epoch, found.score) == (0, START)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in network().state_dict().items())


def test_a_nan_loss(tmp_path):
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", print)
    with pytest.raises(InputError, match=r"loss of epoch 3 is nan: lower the_rate; the checkpoint of epoch 2 stays"):
        training(network(), checkpoint=checkpoint, spoilt=3)
    saved = checkpoint.load()
    assert saved and len(saved[1]["history"]) == 3


def test_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    lines: list[str] = []
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", lines.append)
    checkpoint.save({"a": torch.ones(3)}, {"epoch": 1})

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tl_dagster.store.files.sync", full)
    checkpoint.save({"a": torch.zeros(3)}, {"epoch": 2})
    tensors, metadata = checkpoint.load()
    assert metadata == {"epoch": 1} and tensors["a"].sum() == 3
    assert "No space left" in lines[0] and "stays" in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_unreadable_checkpoint_starts_from_the_beginning(tmp_path):
    lines: list[str] = []
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(b"nonsense")
    assert Checkpoint(path, lines.append).load() is None
    assert str(path) in lines[0]


def test_decay_towards_the_first_weights():
    model = network()
    before = model[0].weight.detach().clone()
    for anchored, middle in ((True, before), (False, torch.zeros_like(before))):
        model[0].weight.data = before + 1
        optimiser = build_optimiser("sgd", [ParameterGroup([model[0].weight], 0.1, 0.5, anchored)])
        if anchored:
            optimiser.param_groups[0]["anchors"] = [before]
        decay_weights(optimiser)
        torch.testing.assert_close(model[0].weight.detach(), before + 1 + 0.05 * (middle - before - 1))


def rates(checkpoint=None, stop_in=None) -> list[float]:
    """The learning rate of each step of a training, until it is killed."""
    model, seen = network(), []
    optimiser = build_optimiser("adamw", [ParameterGroup(list(model.parameters()), 0.05)])

    def losses(epoch):
        if epoch == stop_in:
            raise KeyboardInterrupt
        for _ in range(4):
            seen.append(optimiser.param_groups[0]["lr"])
            yield torch.nn.functional.cross_entropy(model(X), Y)

    with contextlib.suppress(KeyboardInterrupt):
        train(model, optimiser, losses, score, LoopConfig(6, 4, "", warmup=0.25), SILENT, checkpoint)
    return seen


def test_rates_rise_and_follow_a_cosine_also_after_a_kill(tmp_path):
    cosine = [0.05 * (1 + math.cos(math.pi * step / 24)) / 2 for step in range(24)]
    expected = [rate * min(1, (step + 1) / 6) for step, rate in enumerate(cosine)]
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", print)
    assert rates() == pytest.approx(expected)
    assert rates(checkpoint, stop_in=4) + rates(checkpoint) == rates()
