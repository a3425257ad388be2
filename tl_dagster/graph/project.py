"""The Dagster project around a folder: where its definitions are, and the jobs that they have."""

import sys
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import dagster as dg
from dagster._core.code_pointer import AutoloadDefsModuleCodePointer, CodePointer
from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin, enter_loadable_target_origin_load_context
from dagster._core.workspace.autodiscovery import (
    LoadableTarget,
    loadable_targets_from_python_file,
    loadable_targets_from_python_module,
)
from dagster._core.workspace.load import location_origin_from_module_name
from dagster._core.workspace.load_target import WorkspaceFileTarget, get_target_from_toml_data

from tl_dagster.declaration import Declaration
from tl_dagster.graph.problems import describe, find_mistakes
from tl_dagster.graph.records import Loaded, Problem, parse_records
from tl_dagster.graph.root import WORKSPACES, find_declarations, read_settings, require_root
from tl_dagster.graph.tags import LEADERBOARD_JOB
from tl_dagster.runtime.errors import InputError, suggest

__all__ = ["LoadedRepository", "Project", "find_project"]

DEFINITIONS = "tl_dagster.definitions"


@dataclass(frozen=True)
class LoadedRepository:
    """A repository as it was loaded, and how any process gets the same: a later edit of a declaration changes neither.

    Attributes:
        definition: the repository.
        reconstructable: what Dagster sends to other processes.
    """

    definition: dg.RepositoryDefinition
    reconstructable: ReconstructableRepository


@dataclass(frozen=True)
class Project:
    """A Dagster project.

    Attributes:
        root: its folder; relative paths in declarations start from it.
        locations: its code locations that this Python can load, in the order of their declaration.
    """

    root: Path
    locations: tuple[ManagedGrpcPythonEnvCodeLocationOrigin, ...]

    @cached_property
    def repositories(self) -> tuple[LoadedRepository, ...]:
        """The repositories of all code locations, loaded when this is first used.

        Raises:
            InputError: the definitions cannot be loaded.
        """
        return tuple(each for location in self.locations for each in _load(location, self.root))

    @property
    def problems(self) -> list[Problem]:
        """The declared pipelines that cannot be used; the others do not suffer from it."""
        return [loaded for loaded in self._loaded() if isinstance(loaded, Problem)]

    def get_declaration(self, name: str) -> Declaration:
        """Return a pipeline as it is declared now.

        Raises:
            InputError: as :meth:`get_job`.
        """
        self.get_job(name)
        return next(each for each in self._loaded() if isinstance(each, Declaration) and each.name == name)

    def _loaded(self) -> list[Loaded]:
        data = [each.definition.repository_load_data for each in self.repositories]
        return [loaded for each in data if each for loaded in parse_records(each.reconstruction_metadata).values()]

    def get_job(self, name: str) -> ReconstructableJob:
        """Return a job for :func:`dagster.execute_job`: the definitions that were loaded stay those of its run.

        Args:
            name: of a pipeline.

        Raises:
            InputError: the definitions cannot be loaded, or there is not such a job.
        """
        for repository in self.repositories:
            if repository.definition.has_job(name):
                return repository.reconstructable.get_reconstructable_job(name)
        if mistakes := [problem.description for problem in self.problems if problem.name == name]:
            raise InputError("\n".join(mistakes))
        jobs = {job for repository in self.repositories for job in repository.definition.job_names}
        known = sorted(job for job in jobs if not job.startswith("__") and not job.endswith(LEADERBOARD_JOB))
        hint = suggest(name, known) if known else "none is declared: write assets/<pipeline>/defs.yaml"
        raise InputError(f"no pipeline '{name}' in the project {self.root}: {hint}")


def find_project(start: Path | None = None) -> Project:
    """Return the project of the nearest folder, from ``start`` upwards, that says where its definitions are.

    That is, in this order: ``[tool.dagster]`` or ``[tool.dg.project]`` of a pyproject.toml, dg.toml, workspace.yaml, or
    declarations as ``assets/<pipeline>/defs.yaml`` alone.

    Args:
        start: a file or folder in the project; the working folder when None.

    Raises:
        InputError: there is none, or its definitions cannot be loaded by this Python.
    """
    root = require_root(start)
    return Project(root, _from_settings(root) or _from_workspace(root) or _from_folder(root))


def _from_settings(root: Path) -> tuple[ManagedGrpcPythonEnvCodeLocationOrigin, ...]:
    with chdir(root):  # Dagster takes the working folder for the project's
        targets = get_target_from_toml_data(read_settings(root))
    each = targets if isinstance(targets, list) else [targets] if targets else []
    return tuple(origin for target in each for origin in target.create_origins())


def _from_folder(root: Path) -> tuple[ManagedGrpcPythonEnvCodeLocationOrigin, ...]:
    return (location_origin_from_module_name(DEFINITIONS, None, str(root), root.name),)


def _from_workspace(root: Path) -> tuple[ManagedGrpcPythonEnvCodeLocationOrigin, ...]:
    path = next((root / name for name in WORKSPACES if (root / name).is_file()), None)
    if path is None:
        return ()
    try:
        origins = WorkspaceFileTarget([str(path)]).create_origins()
    except Exception as error:  # of YAML, of configuration
        raise InputError(f"{path} cannot be used: {describe(error)}") from error
    managed = [origin for origin in origins if isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin)]
    own = tuple(
        _within(root, origin)
        for origin in managed  # the others are servers'
        if origin.loadable_target_origin.executable_path in (None, sys.executable)
    )
    if not own:
        raise InputError(f"{path} has no code location of this Python, {sys.executable}")
    return own


def _within(root: Path, origin: ManagedGrpcPythonEnvCodeLocationOrigin) -> ManagedGrpcPythonEnvCodeLocationOrigin:
    """Return a code location that loads from any working folder: a module's is relative to that in the file."""
    target = origin.loadable_target_origin
    target = target._replace(working_directory=str((root / (target.working_directory or ".")).resolve()))
    return ManagedGrpcPythonEnvCodeLocationOrigin(target, origin.location_name)


def _load(location: ManagedGrpcPythonEnvCodeLocationOrigin, root: Path) -> list[LoadedRepository]:
    """Load the repositories of a code location as Dagster's servers do, without a server."""
    target, anew = location.loadable_target_origin, DefinitionsLoadContext(DefinitionsLoadType.INITIALIZATION)
    # Left set, the context would give these declarations to what is loaded later in this process.
    with DefinitionsLoadContext.scoped(anew), enter_loadable_target_origin_load_context(target):
        try:
            return [_reconstruct(pointer) for pointer in _find_pointers(target)]
        except Exception as error:  # whatever the user's modules raise
            mistakes = [line for file in find_declarations(root) for line in find_mistakes(file, root)]
            raise InputError("\n".join(mistakes) or describe(error)) from error


def _reconstruct(pointer: CodePointer) -> LoadedRepository:
    repository = ReconstructableRepository(pointer)
    definition = repository.get_definition()
    return LoadedRepository(definition, repository.with_repository_load_data(definition.repository_load_data))


def _find_pointers(target: LoadableTargetOrigin) -> list[CodePointer]:
    """Return what the module or file of a code location defines; the module is imported."""
    folder, module = target.working_directory, target.module_name or target.package_name
    if target.autoload_defs_module_name:
        return [AutoloadDefsModuleCodePointer(module=target.autoload_defs_module_name, working_directory=folder)]
    if target.python_file:
        names = (
            [target.attribute]
            if target.attribute
            else _names(loadable_targets_from_python_file(target.python_file, folder))
        )
        return [CodePointer.from_python_file(target.python_file, name, folder) for name in names]
    if module:
        names = [target.attribute] if target.attribute else _names(loadable_targets_from_python_module(module, folder))
        return [CodePointer.from_module(module, name, folder) for name in names]
    return []


def _names(targets: Sequence[LoadableTarget]) -> list[str]:
    return [target.attribute for target in targets]
