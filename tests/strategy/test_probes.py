"""The transferability score against the paper's equations, written out slowly; what is probed of large sets."""

import numpy as np
import pytest

from tl_dagster.strategy.probes import candidates, fit_probes, stratified
from tl_dagster.strategy.transferability import logme


def slow_logme(features, labels):
    """Algorithm 1 of the paper, one class after the other, the evidence by its definition: the density of y."""
    features = features - features.mean(0)
    features /= np.maximum(features.std(0), 1e-3)
    count, width = features.shape
    evidences = []
    for label in np.unique(labels):
        y = (labels == label) - (labels == label).mean()
        alpha = beta = 1.0
        for _ in range(500):
            inverse = np.linalg.inv(alpha * np.eye(width) + beta * features.T @ features)
            m = beta * inverse @ features.T @ y
            gamma = width - alpha * np.trace(inverse)
            alpha, beta = gamma / (m @ m), (count - gamma) / ((y - features @ m) @ (y - features @ m))
        covariance = np.eye(count) / beta + features @ features.T / alpha
        log_density = y @ np.linalg.solve(covariance, y) + np.linalg.slogdet(2 * np.pi * covariance)[1]
        evidences.append(-log_density / 2 / count)
    return np.mean(evidences)


def clusters(count: int, width: int, distance: float):
    random = np.random.default_rng(0)
    labels = np.arange(count) % 3
    return random.normal(size=(count, width)) + distance * np.eye(3, width)[labels], labels


@pytest.mark.parametrize(("count", "width"), [(60, 5), (40, 30), (30, 50)])  # fewer images than features, too
def test_as_in_the_paper(count, width):
    features, labels = clusters(count, width, 1.0)
    assert logme(features, labels) == pytest.approx(slow_logme(features.copy(), labels), abs=1e-5)


def test_features_that_tell_the_classes_apart_score_higher():
    scores = [logme(*clusters(90, 20, distance)) for distance in (0.0, 1.0, 4.0)]
    assert scores == sorted(scores) and scores[2] - scores[0] > 0.2


def test_constant_features_have_a_score():
    labels = np.arange(12) % 2
    constant = logme(np.ones((12, 4), np.float16), labels)
    assert np.isfinite(constant) and constant < logme(np.eye(2)[labels], labels)


def test_a_thousand_classes_are_probed_in_part():
    labels = np.repeat(np.arange(1000), 20)
    rows = stratified(labels, 1280)
    counts = np.unique(labels[rows], return_counts=True)[1]
    assert len(counts) == 50 and set(counts) == {20} and len(rows) * 1280 * 50 <= 100_000_000
    assert (rows == stratified(labels, 1280)).all()
    made = {tap: np.random.default_rng(0).normal(size=(len(rows), 16)) for tap in ("low", "high")}
    assert len(fit_probes(made, labels[rows], rows, "high")) == 3


def test_copies_are_no_help():
    """Each image twice, with random labels: only who has seen the copy can tell."""
    random = np.random.default_rng(0)
    features, labels, groups = (
        np.repeat(random.normal(size=(60, 200)), 2, 0),
        np.repeat(np.arange(60) % 2, 2),
        np.arange(120) // 2,
    )
    (apart,), (together,) = (fit_probes({"tap": features}, labels, each, "tap") for each in (groups, np.arange(120)))
    assert together.accuracy > 0.8 and apart.accuracy < 0.7


def test_a_large_set_is_probed_in_part():
    labels = np.array([0] * 9000 + [1] * 1000)
    rows = stratified(labels, 100)
    assert len(rows) == 3000 and (labels[rows] == 1).sum() == 300


def test_candidates():
    assert candidates(["a", "b", "c"], "c") == [("c",), ("a",), ("b",), ("a", "b", "c")]
    assert candidates(["a"], "a") == [("a",)]
