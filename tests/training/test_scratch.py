"""Training from random weights: it learns, keeps its best epoch, and goes on after a kill to the last bit."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import elpv
from tl_dagster import InputError
from tl_dagster.models.calibration import validate
from tl_dagster.models.scratch_networks import NormalizedNetwork, build_convnet
from tl_dagster.runtime.progress import Progress
from tl_dagster.training.checkpoints import Checkpoint
from tl_dagster.training.feature_batches import Targets
from tl_dagster.training.scratch import WARMUP, Examples, predict, train
from tl_dagster.training.settings import ScratchBaseline

SIZE, BATCH = 48, 8
SETTINGS = ScratchBaseline(epochs=4, batch_size=BATCH, learning_rate=3e-3)


class Cells:
    """Real solar cells, turned by a quarter in each further epoch."""

    def __init__(self, labels) -> None:
        chosen = labels[labels["probability"].isin([0.0, 1.0])].groupby("probability").head(28)
        self.truth = chosen["probability"].to_numpy().astype(np.int64)
        images = [Image.open(elpv() / name).convert("RGB").resize((SIZE, SIZE)) for name in chosen["image"]]
        self.pixels = np.stack([np.asarray(image) for image in images])
        self.drawn: list[tuple[int, np.ndarray]] = []

    def __call__(self, rows, epoch=0):
        self.drawn.append((epoch, rows))
        for start in range(0, len(rows), BATCH):
            yield np.rot90(self.pixels[rows[start : start + BATCH]], max(epoch - 1, 0), (1, 2)).copy()

    def examples(self, train: int) -> Examples:
        order = np.random.default_rng(0).permutation(len(self.truth))
        rows, held_out = order[:train], order[train:]
        return Examples(
            rows, Targets(self.truth[rows], None, 2), held_out, self.truth[held_out], np.arange(len(held_out))
        )


@pytest.fixture
def cells(labels):
    return Cells(labels)


def network() -> torch.nn.Module:
    """Dropout and batch normalisation, in so small a network that a test takes a second."""
    torch.manual_seed(0)
    body = build_convnet(SIZE, 2)
    body.insert(1, torch.nn.BatchNorm2d(32))
    return NormalizedNetwork(body, [0.5] * 3, [0.5] * 3)


def saved(folder, name="saved", log=print) -> Checkpoint:
    return Checkpoint(folder / name, log)


def test_the_convnet_is_the_blog_posts():
    count = sum(parameter.numel() for parameter in build_convnet(150, 2).parameters())
    assert count == 1_212_513 + 65  # what Keras counts with one sigmoid, and a second output
    assert build_convnet(32, 3)(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_and_keeps_the_epoch_with_the_lowest_validation_log_loss(cells, tmp_path, precision):
    examples, model = cells.examples(40), network()
    result = train(model, cells, examples, SETTINGS, precision, saved(tmp_path), Progress(print))
    history = result.history
    assert [row["epoch"] for row in history] == [1, 2, 3, 4] and result.seconds > 0
    assert history[-1]["training_loss"] < history[0]["training_loss"]
    lowest = min(history, key=lambda row: row["validation_log_loss"])
    assert lowest["epoch"] == result.epoch
    probabilities = predict(model, cells, examples.validation, precision, BATCH).softmax(1).numpy()
    loss, _ = validate(probabilities, examples.labels, examples.images)
    assert loss == pytest.approx(lowest["validation_log_loss"], rel=1e-5 if precision == "fp32" else 1e-2)
    assert lowest["temperature"] != 1  # so it is in the weights


def test_each_epoch_sees_every_training_image_once_in_an_order_of_its_own(cells, tmp_path):
    examples = cells.examples(41)  # the last image would be alone in its batch
    train(network(), cells, examples, SETTINGS, "fp32", saved(tmp_path), Progress(print))
    orders = [rows for epoch, rows in cells.drawn if epoch]
    assert [epoch for epoch, _ in cells.drawn if epoch] == [1, 2, 3, 4]
    assert all(len(rows) == len(set(rows)) == 40 and set(rows) <= set(examples.train) for rows in orders)
    assert len({tuple(rows) for rows in orders}) == 4


def test_killed_training_goes_on_to_the_last_bit(cells, tmp_path):
    def trained(name: str, log=print):
        model = network()
        result = train(model, cells, cells.examples(40), SETTINGS, "fp32", saved(tmp_path, name, log), Progress(log))
        return result, model.state_dict()

    def killed(line: str) -> None:
        if line.startswith("epoch 3/4"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained("killed", killed)
    cells.drawn.clear()
    resumed, weights = trained("killed")
    assert [epoch for epoch, _ in cells.drawn if epoch] == [3, 4]
    undisturbed, expected = trained("undisturbed")
    assert (resumed.epoch, resumed.history) == (undisturbed.epoch, undisturbed.history)
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())


def test_stops_early(cells, tmp_path):
    settings = ScratchBaseline(epochs=50, patience=1, batch_size=BATCH, learning_rate=0.1)
    result = train(network(), cells, cells.examples(40), settings, "fp32", saved(tmp_path), Progress(print))
    assert len(result.history) == max(result.epoch, WARMUP * 50) + 1 < 50


def test_random_weights_are_never_selected(cells, tmp_path):
    settings = ScratchBaseline(epochs=1, batch_size=BATCH, learning_rate=0.1)  # one epoch that makes it worse
    result = train(network(), cells, cells.examples(40), settings, "fp32", saved(tmp_path), Progress(print))
    assert result.epoch == 1 and result.history[0]["validation_log_loss"] > np.log(2)


def test_a_nan_loss(cells, tmp_path):
    model = network()
    torch.nn.init.constant_(model.model[0].weight, torch.inf)
    with pytest.raises(InputError, match=r"lower scratch_baseline\.learning_rate \(now 0\.003\)"):
        train(model, cells, cells.examples(40), SETTINGS, "fp32", saved(tmp_path), Progress(print))
