"""The configuration of this project, for projects that are made up."""

import shutil
from pathlib import Path

__all__ = ["QUIET", "ROOT", "copy_configuration"]

ROOT = Path(__file__).parent.parent.parent
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # run config


def copy_configuration(folder: Path) -> None:
    """Make a folder a project as this one: its settings, its workspace, an instance in `home`, no declarations."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    workspace = (ROOT / "workspace.yaml").read_text()
    definitions = workspace.replace("tl_dagster/definitions", f"{ROOT}/tl_dagster/definitions")
    (folder / "workspace.yaml").write_text(definitions)
    (folder / "assets").mkdir()
    (folder / "assets" / "__init__.py").touch()
    (folder / "home").mkdir()
    shutil.copy(ROOT / "dagster.yaml", folder / "home")
