"""The strategy's pictures: small enough for the UI, whatever was measured."""

import pytest
from PIL import Image

from tl_dagster.reporting.quadrants import accuracies, quadrants
from tl_dagster.strategy.decide import CELLS, Size, decide
from tl_dagster.strategy.probes import Probe

PROBES = [Probe(("high",), 0.1, 0.2, 0.9, 0.0, 0.0), Probe(("low",), 0.1, 0.1, 0.9, 0.5, 0.4)]


@pytest.mark.parametrize("probes", [PROBES, PROBES[:1], []])
@pytest.mark.parametrize("cell", CELLS)
def test_quadrants(tmp_path, probes, cell):
    path = tmp_path / "strategy.png"
    quadrants(path, decide(cell, ["low", "high"], "high", Size(10**6, 2, 100), probes, {}))
    assert path.stat().st_size < 75_000
    assert Image.open(path).size[0] > 400


def test_accuracies(tmp_path):
    rows = [{"cell": cell, "validation_accuracy": 0.9, "test_accuracy": 1.0, "seconds": 2.0} for cell in CELLS]
    accuracies(tmp_path / "bars.png", rows, "features-low")
    assert (tmp_path / "bars.png").stat().st_size < 75_000
