"""Records of what a code location was loaded with, for its runs: an edited file changes later loads only.

Dagster keeps these records with each run, and gives them to every process that loads the definitions for that run.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dagster._core.definitions.definitions_load_context import DefinitionsLoadContext, DefinitionsLoadType
from dagster.components.core.context import ComponentDeclLoadContext

from tl_dagster.declaration import Declaration

__all__ = [
    "Loaded",
    "Problem",
    "find_missing",
    "get_index",
    "get_place",
    "parse_records",
    "record_again",
    "record_pipeline",
    "record_root",
    "recorded",
    "recorded_root",
    "recorded_state",
]

PIPELINE, ROOT = "tl_dagster/pipeline/", "tl_dagster/root"


@dataclass(frozen=True)
class Problem:
    """A declared pipeline that cannot be used.

    Attributes:
        name: the pipeline's, or its folder's where the name cannot be read.
        description: a line for each mistake, with file, line and field.
    """

    name: str
    description: str


Loaded = Declaration | Problem


def get_place(context: ComponentDeclLoadContext) -> str:
    """Return the name of a document in a file: the same whenever and wherever its project is loaded."""
    return f"{context.defs_relative_module_name(context.path)}[{get_index(context)}]"


def get_index(context: ComponentDeclLoadContext) -> int:
    """Return which document of its file a component is."""
    return getattr(context.component_loc, "instance_key", None) or 0


def record_pipeline(place: str, loaded: Loaded) -> None:
    """Record what a document declares, or what is wrong with it."""
    if isinstance(loaded, Problem):
        text = json.dumps({"problem": asdict(loaded)})
    else:  # fields that were not set stay so: some defaults depend on others
        text = json.dumps({"declaration": loaded.model_dump(mode="json", exclude_unset=True)})
    DefinitionsLoadContext.get().add_to_pending_reconstruction_metadata(PIPELINE + place, text)


def record_root(root: Path) -> None:
    """Record the project's folder."""
    DefinitionsLoadContext.get().add_to_pending_reconstruction_metadata(ROOT, str(root))


def recorded() -> dict[str, Loaded]:
    """Return place → what was recorded when the definitions of a run were loaded; empty when they are loaded anew."""
    return parse_records(_metadata())


def recorded_state() -> frozenset[tuple[str, str]]:
    """Return all that was recorded, to compare it; empty when definitions are loaded anew."""
    return frozenset((key, str(text)) for key, text in _metadata().items() if key.startswith(PIPELINE))


def record_again() -> None:
    """Record for these definitions what was recorded when the definitions of their run were loaded."""
    for place, loaded in recorded().items():
        record_pipeline(place, loaded)


def recorded_root() -> Path | None:
    """Return the project's folder of the run that definitions are loaded for; None when they are loaded anew."""
    root = Path(str(_metadata().get(ROOT, "")))
    return root if root.is_absolute() and root.is_dir() else None


def find_missing() -> list[Loaded]:
    """Return what was recorded for the run, but is in no file any more."""
    found = DefinitionsLoadContext.get().get_pending_reconstruction_metadata()
    return [loaded for place, loaded in recorded().items() if PIPELINE + place not in found]


def parse_records(metadata: Mapping[str, object]) -> dict[str, Loaded]:
    """Return place → what was recorded, from the metadata by which Dagster restores definitions."""
    return {key.removeprefix(PIPELINE): _parse(text) for key, text in metadata.items() if key.startswith(PIPELINE)}


def _metadata() -> Mapping[str, object]:
    context = DefinitionsLoadContext.get()
    restores = context.load_type == DefinitionsLoadType.RECONSTRUCTION
    metadata: Mapping[str, object] = context.reconstruction_metadata if restores else {}
    return metadata


def _parse(text: Any) -> Loaded:
    found = json.loads(getattr(text, "data", text))  # Dagster wraps it in some places
    return Problem(**found["problem"]) if "problem" in found else Declaration.model_validate(found["declaration"])
