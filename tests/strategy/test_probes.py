"""Probes keep groups whole, and of large sets a part is probed."""

import numpy as np

from tl_dagster.strategy.probes import candidates, fit_probes, stratified


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
