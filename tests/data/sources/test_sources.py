"""Sources are found by their modules."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from tl_dagster.data import sources
from tl_dagster.declaration import Declaration

LIGHT = """
import sys, tl_dagster.declaration
print(sorted({"pandas", "numpy", "pyarrow", "PIL", "fsspec", "torch"} & set(sys.modules)))
"""


def kinds() -> set[str]:
    return {source.model_fields["kind"].annotation.__args__[0] for source in sources.SOURCES}


def test_each_module_is_a_source_that_may_be_declared():
    files = {path.stem for path in Path(sources.__file__).parent.glob("*.py")}
    assert kinds() == files - {"__init__", "base"}
    assert Declaration(name="x", source={"kind": "webdataset", "path": "y"}).source.kind == "webdataset"


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ValidationError, match="'archive', 'folder', 'manifest'"):
        Declaration(name="x", source={"kind": "folders", "path": "y"})


def test_declaring_loads_nothing_heavy():
    assert subprocess.run([sys.executable, "-c", LIGHT], check=True, capture_output=True).stdout == b"[]\n"
