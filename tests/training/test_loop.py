"""The loop keeps the best epoch, goes on after a kill to the last bit, and stops with a clear word."""

import copy

import pytest
import torch

from tl_dagster.runtime.errors import InputError
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.checkpoints import Checkpoint
from tl_dagster.training.loop import LoopConfig, train
from tl_dagster.training.optimisers import ParameterGroup, build_optimiser

X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()
SILENT = Progress(lambda line: None)


def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 2)
        )


def score(model: torch.nn.Module) -> tuple[float, float]:
    logits = copy.deepcopy(model).eval()(X)
    return float(torch.nn.functional.cross_entropy(logits, Y)), float((logits.argmax(1) == Y).float().mean())


def training(model, kind="adamw", checkpoint=None, stop_in=None, scored=score, spoilt=None, log=None, **plan):
    optimiser = build_optimiser(kind, [ParameterGroup(list(model.parameters()), 0.05, 0.1, anchored=True)])

    def losses(epoch):
        if epoch == stop_in:
            raise KeyboardInterrupt
        rows = torch.randperm(64, generator=torch.Generator().manual_seed(epoch))
        for part in rows.split(16):
            loss = torch.nn.functional.cross_entropy(model(X[part]), Y[part])
            yield loss * float("nan") if epoch == spoilt else loss

    plan = LoopConfig(**{"epochs": 6, "steps": 4, "mend": "lower the_rate", "clip": 1.0, "averaging": 0.9, **plan})
    return train(model, optimiser, losses, scored, plan, Progress(log) if log else SILENT, checkpoint)


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_goes_on_to_the_last_bit(tmp_path, kind):
    undisturbed, killed, resumed = network(), network(), network()
    whole = training(undisturbed, kind)
    checkpoint = Checkpoint(tmp_path / "held.safetensors", print)
    with pytest.raises(KeyboardInterrupt):
        training(killed, kind, checkpoint, stop_in=4)
    said: list[str] = []
    again = training(resumed, kind, checkpoint, log=said.append)
    assert said[0] == "goes on after epoch 3 of 6, from a checkpoint"
    assert (again.epoch, again.history) == (whole.epoch, whole.history)
    for name, value in undisturbed.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_keeps_the_best_epoch_and_stops_early():
    losses = iter([0.9, 0.5, 0.6, 0.7, 0.4])
    found = training(network(), scored=lambda model: (next(losses), 0.0), patience=2)
    assert (found.epoch, len(found.history)) == (1, 4)


def test_a_loss_that_is_no_number(tmp_path):
    checkpoint = Checkpoint(tmp_path / "held.safetensors", print)
    with pytest.raises(InputError, match=r"loss of epoch 3 is nan: lower the_rate; the checkpoint of epoch 2 stays"):
        training(network(), checkpoint=checkpoint, spoilt=3)
    held = checkpoint.load()
    assert held and len(held[1]["history"]) == 3


def test_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    said: list[str] = []
    checkpoint = Checkpoint(tmp_path / "held.safetensors", said.append)
    checkpoint.save({"a": torch.ones(3)}, {"epoch": 1})

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tl_dagster.store.files.sync", full)
    checkpoint.save({"a": torch.zeros(3)}, {"epoch": 2})
    tensors, metadata = checkpoint.load()
    assert metadata == {"epoch": 1} and tensors["a"].sum() == 3
    assert "No space left" in said[0] and "stays" in said[0]
    assert [path.name for path in tmp_path.iterdir()] == ["held.safetensors"]


def test_unreadable_checkpoint_starts_anew(tmp_path):
    said: list[str] = []
    path = tmp_path / "held.safetensors"
    path.write_bytes(b"nonsense")
    assert Checkpoint(path, said.append).load() is None
    assert str(path) in said[0]


def test_decay_towards_the_first_weights():
    model = network()
    before = model[0].weight.detach().clone()
    for anchored, middle in ((True, before), (False, torch.zeros_like(before))):
        model[0].weight.data = before + 1
        optimiser = build_optimiser("sgd", [ParameterGroup([model[0].weight], 0.1, 0.5, anchored)])
        if anchored:
            optimiser.param_groups[0]["anchors"] = [before]
        from tl_dagster.training.optimisers import decay_weights

        decay_weights(optimiser)
        torch.testing.assert_close(model[0].weight.detach(), before + 1 + 0.05 * (middle - before - 1))
