"""The documentation keeps up with the code."""

from pathlib import Path

import pytest

from benchmarks.__main__ import NAMES
from tl_dagster import declaration as spec
from tl_dagster.data import sources

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "declaration.md").read_text()
DECLARED = [getattr(module, name) for module in (spec, *sources.MODULES) for name in module.__all__]
MODELS = [model for model in DECLARED if isinstance(model, type) and hasattr(model, "model_fields")]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_explained(model):
    for name, field in model.model_fields.items():
        assert f"| `{name}` |" in REFERENCE, name
        assert (field.description or "").replace("|", "\\|") in REFERENCE, name


def test_make_bench_knows_every_benchmark():
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert files - {"__init__", "__main__", "common"} == set(NAMES)
