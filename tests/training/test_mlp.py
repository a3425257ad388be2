"""The small network: the best epoch is kept, and runs are the same to the last bit."""

import torch

from tests.training.test_top_model import SETTINGS, digits, fitted
from tl_dagster.training.feature_batches import LabelledFeatures


def test_two_runs_are_the_same_whatever_was_drawn_before():
    torch.manual_seed(1)
    first = fitted(SETTINGS["mlp"])
    torch.manual_seed(2)
    drawn = torch.get_rng_state()
    second = fitted(SETTINGS["mlp"])
    assert all(torch.equal(value, second.state[name]) for name, value in first.state.items())
    assert torch.equal(drawn, torch.get_rng_state())
    other = fitted(SETTINGS["mlp"].model_copy(update={"seed": 1}))
    assert not torch.equal(first.state["output.weight"], other.state["output.weight"])


def test_the_epoch_with_the_lowest_log_loss_is_kept():
    whole = digits()[0]
    few = LabelledFeatures(whole.features[:100], whole.labels[:100], whole.images[:100])
    eager = SETTINGS["mlp"].model_copy(update={"epochs": 30, "dropout": 0, "learning_rate": 0.1})
    found = fitted(eager, few)
    losses = {row["epoch"]: row["validation_log_loss"] for row in found.metadata["history"]}
    assert losses[found.metadata["epoch"]] == min(losses.values()) == found.log_losses[1]  # calibrated
    assert 0 < found.metadata["epoch"] < max(losses)  # or this shows nothing
