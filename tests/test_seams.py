"""The seams: a source, an export format and a command are one file each, added to a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tl_dagster

SOURCE = '''
"""Two images drawn here."""
from typing import Literal
from tl_dagster.data.listing import build_listing
from tl_dagster.data.sources.base import ImageSource

__all__ = ["DrawnSource"]

class DrawnSource(ImageSource):
    """Two classes of one image each."""
    kind: Literal["drawn"]
    def listing(self, context):
        return build_listing({"uri": ["/a.png", "/b.png"], "label": ["a", "b"]})
    def where(self, context):
        return "drawn"
'''
FORMAT = '''
"""The names of the classes, and no more."""
def export(classifier, folder):
    folder.write_text(" ".join(classifier))
'''
COMMAND = '''
"""``tl-dagster hello``."""
import click

@click.command
def command():
    """Greet."""
    click.echo("hello")
'''
SEAMS = {
    "source": (
        "data/sources/drawn.py",
        SOURCE,
        "from tl_dagster import Declaration\n"
        "source = Declaration.model_validate({'name': 'p', 'source': {'kind': 'drawn'}}).source\n"
        "from tl_dagster.data.sources import list_images\n"
        "print(*list_images(source, None)['label'])",
        "a b",
    ),
    "export format": (
        "models/export/names.py",
        FORMAT,
        "from pathlib import Path\nfrom tl_dagster.models.export import export_model\n"
        "export_model(['cat', 'dog'], Path('names.txt'), 'names')\nprint(Path('names.txt').read_text())",
        "cat dog",
    ),
    "command": ("cli/hello.py", COMMAND, "from tl_dagster.cli.main import main\nmain(['hello'])", "hello"),
}


@pytest.mark.parametrize("seam", SEAMS)
def test_one_file_is_enough(tmp_path, seam):
    file, text, code, expected = SEAMS[seam]
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(tl_dagster.__file__).parent, tmp_path / "tl_dagster", ignore=ignored)
    (tmp_path / "tl_dagster" / file).write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "DAGSTER_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == expected, done.stderr
