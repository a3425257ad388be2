"""The ``attributes`` of a defs.yaml: their schema, their templates, and errors that name file, line and field."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import RootModel, ValidationError

from tl_dagster.graph.checked_declaration import CheckedDeclaration

__all__ = ["Attributes", "resolve_declaration"]

TEMPLATE = r"\{[{%]"
ANNOTATIONS = ("title", "description", "default")


class Attributes(RootModel[dict[str, Any]]):
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
        ResolutionException: a template cannot be resolved.
        DagsterInvalidDefinitionError: a value is not accepted; one paragraph for each error, with file, line and field.
    """
    known = context.with_scope(env=_Environment(context.scope["env"]))
    try:
        return CheckedDeclaration.model_validate(_resolve(known, attributes))
    except ValidationError as error:
        problems = [_describe(context, problem) for problem in error.errors()]
    raise dg.DagsterInvalidDefinitionError("\n".join(problems))


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
    resolved = context.resolve_value(value)
    typed = "transforms" not in context.path  # the arguments of transforms are of any type
    return _text(context, value) if typed and isinstance(resolved, bool | int | float) else resolved


def _text(context: dg.ResolutionContext, template: str) -> str:
    """Return a template's value as it was before Dagster read it as a number; fields that are numbers read it again."""
    from jinja2 import Template

    text: str = Template(template).render(**context.scope)
    return text


def _describe(context: dg.ResolutionContext, problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    cause = problem.get("ctx", {}).get("error")
    path = [*problem["loc"], *getattr(cause, "path", ())]
    if context.source_position_tree is None:
        return f"attributes.{_dotted(path)}: {message}"
    path = _written(context.source_position_tree, ["attributes", *path])
    source = context.source_position_tree.source_error(path, message, value_error=False)
    place = f"{_shorten(source.file_name)}:{source.start_line_no}"
    return f"{place} - {_dotted(path)}: {message}\n{source.snippet}\n"


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


def _shorten(file: str) -> str:
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


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
