"""The documentation keeps up with the code."""

from pathlib import Path

import pytest

from tl_dagster import spec

REFERENCE = (Path(__file__).parent.parent / "docs" / "declaration.md").read_text()
MODELS = [getattr(spec, name) for name in spec.__all__ if hasattr(getattr(spec, name), "model_fields")]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_field_is_explained(model):
    for name, field in model.model_fields.items():
        assert f"| `{name}` |" in REFERENCE, name
        assert (field.description or "").replace("|", "\\|") in REFERENCE, name
