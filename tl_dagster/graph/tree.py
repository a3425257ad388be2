"""All definitions of a project: what cannot be loaded is missing alone, and an asset in its place says why."""

import os
import sys
from collections.abc import Hashable, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._utils.warnings import suppress_dagster_warnings
from dagster.components.core.context import ComponentDeclLoadContext
from dagster.components.core.decl import ComponentDecl, DefsFolderDecl, build_filesystem_component_decl_from_context
from dagster.components.core.defs_module import ComponentPath, find_defs_or_component_yaml
from dagster.components.core.load_defs import get_library_json_enriched_defs
from dagster_shared.utils.config import locate_dg_config_in_folder

from tl_dagster.declaration import Declaration
from tl_dagster.graph.automation import ended_runs
from tl_dagster.graph.broken import CHECKING, build_broken
from tl_dagster.graph.component import build_pipeline
from tl_dagster.graph.problems import describe, find_mistakes, shorten
from tl_dagster.graph.records import (
    Problem,
    find_missing,
    get_place,
    record_again,
    record_pipeline,
    recorded,
    recorded_state,
)

__all__ = ["load_definitions"]

IGNORED = "__pycache__"


@suppress_dagster_warnings  # that parts of Dagster are new is not the user's matter
def load_definitions(root: Path) -> dg.Definitions:
    """Return the definitions of a project: its pipelines, whatever stands beside them, the sensor that ends dead runs.

    As :func:`dagster.load_from_defs_folder`, but that a file which cannot be loaded takes nothing else away, that a run
    goes on with what it was started with when its file is removed or broken meanwhile, and that a folder ``assets``
    needs no pyproject.toml.

    Args:
        root: the project's folder.
    """
    state = recorded_state()
    if not state:
        return _load(root)
    definitions = _load_for_run(root, state)
    record_again()
    return definitions


@lru_cache(maxsize=1)  # Dagster asks for the definitions of a run three times in its process
def _load_for_run(root: Path, state: Hashable) -> dg.Definitions:
    return _load(root)


def _load(root: Path) -> dg.Definitions:
    if str(root) not in sys.path:  # the folder of declarations is a package, wherever this was started
        sys.path.insert(0, str(root))
    if locate_dg_config_in_folder(root, lambda settings: "project" in settings):
        tree = TolerantTree.for_project(root)
    else:
        tree = TolerantTree(defs_module=import_module("assets"), project_root=root)
    found = dg.Definitions.merge(tree.build_defs(), dg.Definitions(sensors=[ended_runs]))
    return dg.Definitions.merge(
        found, *(build_pipeline(loaded, root) for loaded in find_missing() if isinstance(loaded, Declaration))
    )


class TolerantTree(dg.ComponentTree):
    """Dagster's tree of components, in which files that cannot be loaded are components that say so."""

    def _get_filesystem_decl(self) -> ComponentDecl[Any]:
        place = ComponentPath.from_path(self.defs_module_path)
        known = self.state_tracker.get_cache_data(place).component_decl
        if known is None:
            context = self.decl_load_context.for_component_loc(place)
            known = _read(context) or _folder(context, {})
            self.state_tracker.set_cache_data(place, component_decl=known)
        return known

    def build_defs(self, loc: Any = None) -> dg.Definitions:
        """Return the definitions of the whole tree, or of one place in it."""
        try:
            return self._build_for_run() if loc is None and recorded_state() else super().build_defs(loc)
        except Exception:
            if loc is not None or CHECKING in os.environ:
                raise
            parts = self._build_apart(self._get_filesystem_decl())
            return dg.Definitions.merge(*parts, get_library_json_enriched_defs(self))

    def _build_for_run(self) -> dg.Definitions:
        """Return all definitions, without the schemas of all types of components, which the UI shows."""
        children = self.find_root_decl().iterate_child_component_decls()
        return dg.Definitions.merge(
            *(self.build_defs(child.loc) for child in children), dg.Definitions(component_tree=self)
        )

    def _build_apart(self, decl: ComponentDecl[Any]) -> list[dg.Definitions]:
        """Build each file on its own, for one of them raises an error."""
        try:
            return [super().build_defs(decl.loc)]
        except Exception as error:
            if isinstance(decl, DefsFolderDecl) and decl.children:
                return [part for child in decl.children.values() for part in self._build_apart(child)]
            return [Unreadable(_explain(decl.context, error)).build_defs(decl.context)]


class Unreadable(dg.Component):
    """A file that cannot be loaded."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def build_defs(self, context: ComponentDeclLoadContext) -> dg.Definitions:
        """Return an asset that says what is wrong."""
        if not recorded():
            record_pipeline(get_place(context), self.problem)
        return build_broken(self.problem, context.path.relative_to(context.defs_module_path).parts)


class UnreadableDecl(ComponentDecl[Unreadable]):
    """A file that Dagster cannot read."""

    def _load_component(self) -> Unreadable:
        try:
            build_filesystem_component_decl_from_context(self.context)
        except Exception as error:
            return Unreadable(_explain(self.context, error))
        return Unreadable(
            Problem(self.context.path.stem, f"{self.context.path} has changed: load the definitions anew")
        )

    @property
    def component_type(self) -> type[Unreadable]:
        return Unreadable


def _read(context: ComponentDeclLoadContext) -> ComponentDecl[Any] | None:
    """Return what a file or folder declares; where one in a folder cannot be read, that one alone is unreadable."""
    try:
        return build_filesystem_component_decl_from_context(context)
    except Exception:
        if not context.path.is_dir() or find_defs_or_component_yaml(context.path):
            return UnreadableDecl(context=context, loc=context.component_loc)
    inside = [path for path in sorted(context.path.iterdir()) if path.name != IGNORED and not path.name.startswith(".")]
    read = {path: _read(context.for_component_loc(ComponentPath.from_path(path))) for path in inside}
    return _folder(context, {path: decl for path, decl in read.items() if decl})


def _folder(context: ComponentDeclLoadContext, children: Mapping[Path, ComponentDecl[Any]]) -> DefsFolderDecl:
    return DefsFolderDecl(
        context=context, loc=context.component_loc, children=children, source_tree=None, component_file_model=None
    )


def _explain(context: ComponentDeclLoadContext, error: Exception) -> Problem:
    root, file = Path(context.project_root), find_defs_or_component_yaml(context.path) or context.path
    mistakes = find_mistakes(file, root) if file.suffix in (".yaml", ".yml") else []
    return Problem(context.path.stem, "\n".join(mistakes) or f"{shorten(file, root)}: {describe(error)}")
