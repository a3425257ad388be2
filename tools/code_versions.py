"""Whether a stage's code changed while its version stayed: `make lint` runs this, `make acknowledge` accepts.

A stage's version is bumped by hand when its output changes (see "Identity" in docs/architecture.md). This looks at the
modules that a stage's results come from: its own, and all of `data`, `backbones`, `features`, `models`, `training`,
`strategy` and `evaluation` that it imports, directly or by way of `graph`, also inside functions. Of each the syntax
tree counts, without docstrings; comments and the lines' places never do. `code_versions.json` has what was accepted
last.
"""

import ast
import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tl_dagster.graph.stages import STAGES

__all__ = ["compare", "describe", "digest_source", "main"]

ROOT = Path(__file__).parent.parent
ACCEPTED = ROOT / "code_versions.json"
PACKAGES = ("data", "backbones", "features", "models", "training", "strategy", "evaluation")


def describe() -> dict[str, Any]:
    """Return ``stages``: name → version and modules; and ``modules``: name → digest of its syntax tree."""
    stages = {stage.name: {"version": stage.version, "modules": sorted(_closure(stage.__module__))} for stage in STAGES}
    modules = sorted({module for stage in stages.values() for module in stage["modules"]})
    return {"modules": {module: digest_source(_read(module)) for module in modules}, "stages": stages}


def compare(accepted: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return a line for each stage whose code changed while its version stayed.

    Args:
        accepted: what :func:`describe` returned when it was accepted.
        now: what it returns now.
    """
    lines = []
    for name, stage in now["stages"].items():
        before = accepted["stages"].get(name)
        if before is None or before["version"] != stage["version"]:
            continue
        changed = [
            module
            for module in sorted({*stage["modules"], *before["modules"]})
            if accepted["modules"].get(module) != now["modules"].get(module)
            or (module in stage["modules"]) != (module in before["modules"])
        ]
        if changed:
            named = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
            lines.append(f"{name}: version {stage['version']} stayed, but its code changed: {named}")
    return lines


def main() -> None:
    """Exit with 1 when a stage's code changed while its version stayed; with ``--accept``, accept everything."""
    now = describe()
    if "--accept" in sys.argv[1:]:
        ACCEPTED.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
        return
    accepted = json.loads(ACCEPTED.read_text())
    if lines := compare(accepted, now):
        lines.append(
            "where the same inputs give another output now, bump the stage's version; then, or where they do not: "
            "make acknowledge"
        )
        sys.exit("\n".join(lines))
    if accepted != now:
        sys.exit("versions or modules of stages changed: make acknowledge")


def _closure(module: str) -> set[str]:
    """Return a module and all of PACKAGES that it imports, also by way of modules of `graph`."""
    found, waiting = {module}, [module]
    while waiting:
        new = {each for each in _imports(waiting.pop()) if each.split(".")[1] in (*PACKAGES, "graph")} - found
        found |= new
        waiting += new
    return {each for each in found if each == module or each.split(".")[1] in PACKAGES}


@cache
def _imports(module: str) -> frozenset[str]:
    """Return the modules of the package that a module imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(_read(module))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tl_dagster."):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.startswith("tl_dagster.")}
    return frozenset(name for name in names if _path(name) is not None)


def _path(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _read(module: str) -> str:
    path = _path(module)
    return path.read_text() if path else ""


def digest_source(source: str) -> str:
    """Return a digest of what a source means: of its code as Python writes it, without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
