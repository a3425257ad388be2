"""The ``attributes`` of a defs.yaml: their schema, their templates, and errors that name file, line and field."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster.components.core.context import RESOLUTION_CONTEXT_STASH_KEY
from dagster.components.resolved.errors import ResolutionException
from pydantic import RootModel, ValidationError

from tl_dagster.graph.checked_declaration import CheckedDeclaration
from tl_dagster.graph.problems import shorten
from tl_dagster.runtime.errors import InputError, UnknownFieldError

__all__ = ["Attributes", "Place", "find_place", "resolve_declaration"]

TEMPLATE = r"\{[{%]"
ANNOTATIONS = ("title", "description", "default")


@dataclass(frozen=True)
class Place:
    """A line of a file.

    Attributes:
        file: its path.
        line: from 1.
        root: the project's folder; paths are shown from there.
    """

    file: Path
    line: int
    root: Path

    def __str__(self) -> str:
        return f"{shorten(self.file, self.root)}:{self.line}"


class Attributes(RootModel[dict[Any, Any]]):
    """The attributes of a pipeline as they are written; any of them may be a template, such as ``{{ env.DATA }}``."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the schema of a declaration in which a template may stand for any value."""
        schema: dict[str, Any] = _allow_templates(CheckedDeclaration.model_json_schema(*args, **kwargs))
        return schema


def resolve_declaration(context: dg.ResolutionContext, attributes: dict[str, Any]) -> CheckedDeclaration:
    """Resolve the templates of the attributes by Dagster, and validate what comes out.

    Args:
        context: the scope of the templates, and the position of the attributes in their file.
        attributes: as they are written.

    Raises:
        InputError: a template cannot be resolved, or values are not accepted; a line for each, with file and field.
    """
    known = context.with_scope(env=_Environment(context.scope["env"]))
    try:
        return CheckedDeclaration.model_validate(_resolve(known, attributes))
    except ValidationError as error:
        problems = [_describe(context, problem) for problem in error.errors()]
    raise InputError("\n".join(problems))


def find_place(context: dg.ResolutionContext, path: Sequence[str | int]) -> Place | None:
    """Return where a value stands in its file, or the nearest one around it; None outside of files.

    Args:
        context: has the positions in the file.
        path: the keys of the value, from the document's first.
    """
    if context.source_position_tree is None:
        return None
    position, _ = context.source_position_tree.lookup_closest_and_path(path, None)
    root = getattr(context.stash.get(RESOLUTION_CONTEXT_STASH_KEY), "project_root", Path.cwd())
    return Place(Path(position.filename), position.start.line, root)


class _Environment:
    """The environment variables of templates; one that is not set is an error that names it, instead of None."""

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __call__(self, key: str, *default: Any) -> Any:
        return self._scope(key, *default) if default or key in os.environ else _undefined(key)

    def __getattr__(self, key: str) -> Any:
        value = getattr(self._scope, key)
        return _undefined(key) if value is None else value


def _undefined(key: str) -> Any:
    from jinja2 import StrictUndefined

    hint = f"the environment variable {key} is not set; set it, or write {{{{ env('{key}', 'DEFAULT') }}}}"
    return StrictUndefined(hint, name=key)


def _resolve(context: dg.ResolutionContext, value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolve(context.at_path(key), part) for key, part in value.items()}
    if isinstance(value, list):
        return [_resolve(context.at_path(index), part) for index, part in enumerate(value)]
    if not isinstance(value, str) or not re.search(TEMPLATE, value):
        return value  # Dagster would read a plain '2024_01' as the number 202401
    try:
        resolved = context.resolve_value(value)
    except ResolutionException as error:  # its message is a page; the reason is the last line
        reason = str(error).strip().splitlines()[-1].removeprefix("UndefinedError: ")
        parts = [str(find_place(context, context.path) or ""), _dotted(context.path[1:]), reason]
        raise InputError(_join(parts)) from error
    typed = "transforms" not in context.path  # the arguments of transforms are of any type
    return _text(context, value) if typed and isinstance(resolved, bool | int | float) else resolved


def _text(context: dg.ResolutionContext, template: str) -> str:
    """Return a template's value as it was before Dagster read it as a number; fields that are numbers read it again."""
    from jinja2 import Template

    text: str = Template(template).render(**context.scope)
    return text


def _describe(context: dg.ResolutionContext, problem: Any) -> str:
    """Return a line for an error of pydantic's: place, field, message."""
    message = problem["msg"].removeprefix("Value error, ").replace("\n", " ")
    cause = problem.get("ctx", {}).get("error")
    path = [*problem["loc"], *getattr(cause, "path", ())]
    if context.source_position_tree is None:
        return _join([_dotted(path), message])
    if problem["type"] == "missing":
        message = f"'{path[-1]}' is missing"
    written = _written(context.source_position_tree, ["attributes", *path])
    field = written[1:-1] if isinstance(cause, UnknownFieldError) else written[1:]  # its message names the field itself
    return _join([str(find_place(context, written)), _dotted(field), message])


def _join(parts: Sequence[str]) -> str:
    return ": ".join(part for part in parts if part)


def _written(tree: Any, path: Iterable[str | int]) -> list[str | int]:
    """Return the part of a path that is in the file: pydantic's has the kinds of sections too."""
    found: list[str | int] = []
    for key in path:
        if tree is not None and key in tree.children:
            tree = tree.children[key]
            found.append(key)
    return found


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(map(str, path))


def _allow_templates(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_allow_templates(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    # A template satisfies several members of a union.
    found = {"anyOf" if key == "oneOf" else key: _allow_templates(part) for key, part in schema.items()}
    if isinstance(properties := found.get("properties"), dict):
        found["properties"] = {name: _or_template(part) for name, part in properties.items()}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _or_template(found[key])
    return found


def _or_template(schema: dict[str, Any]) -> dict[str, Any]:
    # Not `anyOf`: its errors do not tell what is wrong.
    annotations = {key: schema[key] for key in ANNOTATIONS if key in schema}
    rest = {key: part for key, part in schema.items() if key not in ANNOTATIONS}
    return {**annotations, "if": {"type": "string", "pattern": TEMPLATE}, "else": rest}
