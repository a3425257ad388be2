"""Temperature scaling: better log-loss, bounded where all is told apart, right for averaged views."""

import numpy as np
import pytest
from scipy.special import softmax

from tl_dagster.models.calibration import (
    averaged_probabilities,
    averaged_softmax,
    calibrated_score,
    temperature,
    validate,
)


def drawn(count: int, views: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits whose softmax the labels are drawn from; the views of an image are the same."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, 5)) * 2
    labels = (softmax(logits, 1).cumsum(1) < rng.random((count, 1))).sum(1)
    return tuple(np.repeat(each, views, axis=0) for each in (logits, labels, np.arange(count)))


@pytest.mark.parametrize("factor", [0.25, 1, 4])
def test_finds_the_factor(factor):
    logits, labels, images = drawn(2000)
    found = temperature(logits * factor, labels, images)
    assert found == pytest.approx(factor, rel=0.1)
    before, after = (validate(softmax(logits * factor / t, 1), labels, images)[0] for t in (1, found))
    assert after <= before
    if factor != 1:
        assert after < before - 0.05


@pytest.mark.parametrize("factor", [0.25, 4])
def test_how_sure_a_model_is_does_not_make_it_win(factor):
    """Models that differ in nothing else have the same score."""
    logits, labels, images = drawn(200)
    plain, other = calibrated_score(logits, labels, images), calibrated_score(logits * factor, labels, images)
    assert other.log_loss == pytest.approx(plain.log_loss, rel=1e-5) and other.accuracy == plain.accuracy
    assert other.temperature == pytest.approx(factor * plain.temperature, rel=1e-3)
    assert abs(validate(softmax(logits * factor, 1), labels, images)[0] - plain.log_loss) > 0.05


@pytest.mark.parametrize("scale", [0.01, 1, 100])
def test_images_told_apart_leave_some_doubt(scale):
    labels = np.arange(60) % 3
    logits = np.eye(3)[labels] * scale
    found = temperature(logits, labels, np.arange(60))
    assert 0.04 < found < 21
    if scale == 1:
        right = softmax(logits / found, 1)[np.arange(60), labels]
        assert right == pytest.approx(61 / 62, abs=1e-3)


def test_one_image():
    assert 0.04 < temperature(np.array([[0.0, 3.0]]), np.array([1]), np.array([0])) < 21


def test_blocks_average_as_the_whole_does(monkeypatch):
    logits, _, images = drawn(20)
    monkeypatch.setattr("tl_dagster.models.calibration.BLOCK_VALUES", 35)
    np.testing.assert_allclose(averaged_softmax(logits, images), averaged_probabilities(softmax(logits, 1), images))
