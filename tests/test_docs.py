"""The documentation keeps up with the code."""

from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from benchmarks.__main__ import NAMES
from tl_dagster import Declaration

ROOT = Path(__file__).parent.parent
REFERENCE = (ROOT / "docs" / "declaration.md").read_text()


def find_models(annotation: object) -> set[type[BaseModel]]:
    """The models in a type: itself, and those of its fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}.union(*(find_models(field.annotation) for field in annotation.model_fields.values()))
    return set().union(*map(find_models, get_args(annotation)))


MODELS = sorted(find_models(Declaration), key=lambda model: model.__name__)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_explained(model):
    for name, field in model.model_fields.items():
        assert f"| `{name}` |" in REFERENCE, name
        assert (field.description or "").replace("|", "\\|") in REFERENCE, name


def test_make_bench_knows_every_benchmark():
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert files - {"__init__", "__main__", "common", "hostile"} == set(NAMES)
