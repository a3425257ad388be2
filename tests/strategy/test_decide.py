"""The strategy's table: each of its cells is reached, and what cannot be measured is reported."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from tl_dagster.runtime.errors import InputError
from tl_dagster.strategy.decide import Size, decide
from tl_dagster.strategy.decision import CELLS, Decision
from tl_dagster.strategy.probes import Probe, fit_probes

LARGE, SMALL = Size(8000, 2, 2_000_000), Size(200, 2, 2_000_000)


def features(apart_at: str, count: int = 200, classes: int = 2):
    """Features of two taps, the classes far apart at one of them and nearly mixed at the other."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    means = np.eye(classes, 8)[labels]
    made = {tap: random.normal(size=(count, 8)) + means * (4 if tap == apart_at else 0.5) for tap in ("low", "high")}
    return made, labels


def probed(made, labels) -> list[Probe]:
    return fit_probes(made, labels, np.arange(len(labels)), "high")


def decided(made, labels, size: Size = SMALL, strategy: str = "auto") -> Decision:
    return decide(strategy, list(made), "high", size, probed(made, labels), {})


@pytest.mark.parametrize(
    ("size", "apart_at", "cell"),
    [
        (SMALL, "high", "features-high"),
        (SMALL, "low", "features-low"),
        (LARGE, "high", "fine-tune-top"),
        (LARGE, "low", "fine-tune-all"),
    ],
)
def test_the_four_quadrants(size, apart_at, cell):
    decision = decided(*features(apart_at), size)
    assert decision.cell == cell
    assert (decision.quadrant, decision.depth) == (CELLS[cell].quadrant, CELLS[cell].depth)
    assert ("low" in decision.taps) >= (apart_at == "low")
    json.dumps(asdict(decision), allow_nan=False)


def test_the_same_every_time():
    assert decided(*features("low")) == decided(*features("low"))


def test_a_named_cell_is_taken_and_what_was_measured_is_recorded():
    decision = decided(*features("high"), SMALL, "fine-tune-all")
    assert (decision.cell, decision.depth, decision.learning_rate) == ("fine-tune-all", "all", 5e-5)
    assert decision.evidence["measured_cell"] == "features-high"
    assert decided(*features("high"), LARGE, "features-low").taps != ["high"]


def test_one_tap():
    made, labels = features("high")
    only = {"high": made["high"]}
    assert decided(only, labels).cell == "features-high"
    assert decided(only, labels, LARGE).taps == ["high"]
    with pytest.raises(InputError, match=r"backbone\.taps"):
        decided(only, labels, SMALL, "features-low")


def test_one_image_per_class():
    made, labels = features("low", count=12, classes=12)
    assert probed(made, labels) == []
    assert decided(made, labels, LARGE).cell == "features-high"


def test_a_class_smaller_than_the_folds():
    made, labels = features("low")
    labels[:3] = 2
    assert decided(made, labels).cell == "features-low"


def test_constant_features_are_no_reason_to_go_lower():
    made = {tap: np.ones((40, 8), np.float16) for tap in ("low", "high")}
    assert decided(made, np.arange(40) % 2).cell == "features-high"


def test_the_lowest_log_loss_decides_and_of_equals_the_first():
    probes = [
        Probe(("high",), 0.1, 1.0, 0.5, 0.0, 0.0),
        Probe(("low",), 0.1, 0.52, 0.8, 0.48, 0.05),
        Probe(("low", "high"), 0.1, 0.50, 0.8, 0.50, 0.05),
    ]
    assert decide("auto", ["low", "high"], "high", SMALL, probes, {}).taps == ["low", "high"]
    equal = [*probes[:2], replace(probes[1], taps=("low", "high"))]
    assert decide("auto", ["low", "high"], "high", SMALL, equal, {}).taps == ["low"]
