"""The Dagster component: a declaration becomes assets, a job, a schedule and a sensor."""

import re
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel

from tl_dagster.declaration import NAME, Declaration
from tl_dagster.graph import automation
from tl_dagster.graph.alerts import build_alerts
from tl_dagster.graph.asset import build_asset
from tl_dagster.graph.attributes import Attributes, Place, find_place, resolve_declaration
from tl_dagster.graph.broken import build_broken
from tl_dagster.graph.executor import EXECUTORS
from tl_dagster.graph.io_manager import ArtifactIOManager
from tl_dagster.graph.logging import run_logger
from tl_dagster.graph.problems import describe, find_mistakes
from tl_dagster.graph.records import Loaded, Problem, get_index, get_place, record_pipeline, recorded
from tl_dagster.graph.tags import leaderboard_job, limit_tags, run_tags
from tl_dagster.runtime.errors import InputError

__all__ = ["TransferLearning", "build_definitions", "build_pipeline"]

# One object each, whatever the number of pipelines: Dagster merges what is identical.
SHARED = dg.Definitions(resources={"artifacts": ArtifactIOManager()}, loggers={"progress": run_logger})


class TransferLearning(dg.Component, dg.Resolvable):
    """An image classifier by transfer learning, from a folder or table of labelled images.

    The smallest declaration is a name and a source; docs/declaration.md explains every field.
    """

    def __init__(self, declaration: Declaration) -> None:
        self.loaded: Loaded = declaration
        self.place: Place | None = None  # of its name, where it comes from a file

    @classmethod
    def model(cls) -> type[BaseModel]:
        """Return the model of ``attributes``: any of them may be a template, such as ``{{ env.DATA }}``."""
        return Attributes

    @classmethod
    def resolve_from_model(cls, context: dg.ResolutionContext, model: BaseModel) -> "TransferLearning":
        """Return the component of attributes whose templates are resolved and whose values are checked."""
        return cls(resolve_declaration(context, model.model_dump()))

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "TransferLearning":
        """Return the component of a defs.yaml; of one with mistakes, whose definitions then say what they are."""
        loaded: Loaded
        try:
            loaded = cls._read(attributes, context)
        except Exception as error:  # whatever it is, it is this pipeline's alone
            written = attributes.model_dump().get("name") if attributes else None
            known = isinstance(written, str) and re.fullmatch(NAME, written)
            loaded = Problem(str(written) if known else context.path.name, describe(error))
        component = cls.__new__(cls)
        component.loaded, component.place = loaded, find_place(context.resolution_context, ["attributes", "name"])
        return component

    @classmethod
    def _read(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> Declaration:
        index, place = get_index(context), find_place(context.resolution_context, [])
        if place and (mistakes := find_mistakes(place.file, place.root, index)):
            raise InputError("\n".join(mistakes))
        if attributes is None:
            raise InputError(f"{place}: 'attributes' with a name and a source are missing")
        return super().load(attributes, context).declaration

    @property
    def declaration(self) -> Declaration:
        """The declaration.

        Raises:
            InputError: it has mistakes.
        """
        if isinstance(self.loaded, Problem):
            raise InputError(self.loaded.description)
        return self.loaded

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the pipeline's definitions; paths in the declaration start from the project's root."""
        loaded = self.loaded
        if self.place:
            place, known = get_place(context), recorded()
            if known and place not in known:  # written after the definitions of this run were loaded
                return dg.Definitions()
            loaded = known[place] if known else self._check_name(context)
            record_pipeline(place, loaded)
        if isinstance(loaded, Problem):
            return build_broken(loaded, context.path.relative_to(context.defs_module_path).parts, get_index(context))
        return build_pipeline(loaded, Path(context.project_root))

    def _check_name(self, context: dg.ComponentLoadContext) -> Loaded:
        """Return the declaration, or the problem that others have its name: which is meant, nobody can tell."""
        if isinstance(self.loaded, Problem):
            return self.loaded
        declared = context.component_tree.get_all_components(of_type=TransferLearning)
        twins = [str(each.place) for each in declared if each is not self and _has_name(each, self.loaded.name)]
        if not twins:
            return self.loaded
        places = ", ".join(sorted(twins))
        return Problem(
            self.loaded.name, f"{self.place}: name: '{self.loaded.name}' is also declared in {places}: rename one"
        )


def _has_name(component: TransferLearning, name: str) -> bool:
    return component.place is not None and isinstance(component.loaded, Declaration) and component.loaded.name == name


def build_pipeline(declaration: Declaration, root: Path) -> dg.Definitions:
    """Return all that a pipeline needs in any project: its definitions, and the resource and logger that all share."""
    return dg.Definitions.merge(build_definitions(declaration, root), SHARED)


def build_definitions(declaration: Declaration, root: Path) -> dg.Definitions:
    """Return the assets, job, schedule and sensor of a pipeline.

    Args:
        declaration: the pipeline.
        root: the folder that relative paths in it start from.
    """
    source = [automation.describe_source(declaration)] if declaration.on_change else []
    stages = automation.enabled_stages(declaration, root)
    assets = [build_asset(stage, [] if stage.inputs else [spec.key for spec in source]) for stage in stages]
    beside = [build_asset(stage, []) for stage in automation.stages_beside(declaration, root)]
    tags = {**run_tags(declaration.name, root), **limit_tags(declaration.runs)}
    described = declaration.description or f"Refresh every asset of {declaration.name}."

    def build_job(name: str, chosen: list[dg.AssetsDefinition], description: str) -> Any:
        return dg.define_asset_job(
            name,
            selection=dg.AssetSelection.assets(*chosen),
            description=description,
            executor_def=EXECUTORS[declaration.compute.executor],
            tags=tags,
        )

    job = build_job(declaration.name, assets, described)
    return dg.Definitions(
        assets=[*source, *assets, *beside],
        jobs=[
            job,
            *(build_job(leaderboard_job(declaration.name), [each], "Compare the backbones.") for each in beside),
        ],
        schedules=automation.build_schedules(declaration, root, job),
        sensors=[
            *([automation.build_sensor(declaration, root, job)] if declaration.on_change else []),
            *build_alerts(declaration),
        ],
    )
