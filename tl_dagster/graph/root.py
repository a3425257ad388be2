"""The folder of the project around a folder, found without Dagster."""

import tomllib
from pathlib import Path
from typing import Any

from tl_dagster.runtime.errors import InputError

__all__ = ["WORKSPACES", "find_declarations", "find_root", "read_settings", "require_root"]

WORKSPACES = ("workspace.yaml", "workspace.yml")
DECLARED = "assets/*/defs.yaml"


def find_root(start: Path | None = None) -> Path | None:
    """Return the nearest folder, from ``start`` upwards, that says where definitions are; None when there is none.

    Args:
        start: a file or folder; the working folder when None.

    Raises:
        InputError: a pyproject.toml or dg.toml on the way is not TOML.
    """
    start = (start or Path.cwd()).absolute()
    return next((root for root in (start, *start.parents) if _is_root(root)), None)


def require_root(start: Path | None = None) -> Path:
    """Return the project's folder: see :func:`find_root`.

    Raises:
        InputError: there is none.
    """
    if root := find_root(start):
        return root
    raise InputError(
        f"no project in {(start or Path.cwd()).absolute()} or above it: go to a folder with "
        "assets/<pipeline>/defs.yaml, a pyproject.toml with [tool.dg.project], or a workspace.yaml"
    )


def read_settings(root: Path) -> dict[str, Any]:
    """Return what a folder's pyproject.toml or dg.toml says to Dagster, as a pyproject.toml says it; or nothing.

    Raises:
        InputError: the file is not TOML.
    """
    for path in (root / "pyproject.toml", root / "dg.toml"):
        if not path.is_file():
            continue
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        tools = {"dg": data} if path.name == "dg.toml" else data.get("tool", {})
        if tools.get("dagster") or "project" in tools.get("dg", {}):
            return {"tool": tools}
    return {}


def find_declarations(root: Path) -> list[Path]:
    """Return every defs.yaml of a project, sorted."""
    settings = read_settings(root).get("tool", {}).get("dg", {}).get("project", {})
    module = settings.get("defs_module") or (
        f"{settings['root_module']}.defs" if "root_module" in settings else "assets"
    )
    folders = [root.joinpath(*module.split(".")), root.joinpath("src", *module.split("."))]
    return sorted(path for folder in folders for path in folder.glob("**/defs.yaml"))


def _is_root(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    named = any((folder / name).is_file() for name in WORKSPACES)
    return bool(read_settings(folder)) or named or any(folder.glob(DECLARED))
