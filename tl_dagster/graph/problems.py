"""The mistakes in a file of declarations, in lines that name file, line and field."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster.components.core.defs_module import ComponentFileModel

from tl_dagster.runtime.errors import InputError, first_line, suggest

__all__ = ["describe", "find_mistakes", "shorten"]

TYPE = "tl_dagster.TransferLearning"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def describe(error: BaseException) -> str:
    """Return what is wrong, without a traceback: the message for users, or of the error the others were raised from."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    if isinstance(error, InputError | dg.DagsterInvalidDefinitionError):
        return str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return _describe_yaml(error, error.problem_mark.name)
    return f"{type(error).__name__}: {first_line(error)}"


def find_mistakes(file: Path, root: Path, index: int | None = None) -> list[str]:
    """Return what is wrong with a defs.yaml before its attributes are looked at, a line for each mistake.

    Args:
        file: its path.
        root: the project's folder.
        index: one document of the file; all when None.
    """
    shown = shorten(file, root)
    try:
        documents = list(yaml.compose_all(file.read_text(encoding="utf-8"), Loader=Loader))
    except UnicodeDecodeError as error:
        return [f"{shown}: is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"]
    except yaml.MarkedYAMLError as error:
        return [_describe_yaml(error, shown)]
    except (yaml.YAMLError, OSError) as error:
        return [f"{shown}: {first_line(error)}"]
    if not documents:
        return [f"{shown}: is empty: write 'type: {TYPE}' and 'attributes' with a name and a source"]
    chosen = documents if index is None else documents[index : index + 1]
    return [f"{shown}:{line}: {text}" for document in chosen for line, text in _check(document)]


def shorten(file: Path, root: Path) -> str:
    """Return a file's path from the project's folder, where it lies in that."""
    return str(file.relative_to(root) if file.is_relative_to(root) else file)


def _describe_yaml(error: yaml.MarkedYAMLError, file: str) -> str:
    begun = f" ({error.context}, from line {error.context_mark.line + 1})" if error.context_mark else ""
    line = error.problem_mark.line + 1 if error.problem_mark else 1
    return f"{file}:{line}: not YAML: {error.problem}{begun}"


def _check(document: Any) -> Iterator[tuple[int, str]]:
    line = document.start_mark.line + 1
    if not isinstance(document, yaml.MappingNode):
        yield line, f"'type: {TYPE}' and 'attributes' are expected"
        return
    yield from _find_twice(document)
    found = {key.value: (key.start_mark.line + 1, value) for key, value in document.value}
    for name, (at, _) in found.items():
        if name not in ComponentFileModel.model_fields:
            yield at, f"unknown field '{name}': {suggest(str(name), ComponentFileModel.model_fields)}"
    at, kind = found.get("type", (line, None))
    if kind is None or not isinstance(kind, yaml.ScalarNode):
        yield at, f"'type' is missing: write 'type: {TYPE}'"
    elif not _is_component(kind.value):
        yield at, f"type: '{kind.value}' is not a component: {suggest(kind.value, [TYPE])}"
    at, attributes = found.get("attributes", (line, None))
    if attributes is not None and not _is_mapping(attributes):
        yield at, "attributes: fields are expected, each as 'name: value'"
    for key, _ in attributes.value if isinstance(attributes, yaml.MappingNode) else []:
        if key.tag in NUMBERS:
            yield key.start_mark.line + 1, f"unknown field '{key.value}': the names of fields are words"


def _is_mapping(node: Any) -> bool:
    return isinstance(node, yaml.MappingNode) or node.tag == "tag:yaml.org,2002:null"


def _find_twice(node: Any) -> Iterator[tuple[int, str]]:
    """Find keys that are written twice: YAML would take the last one, in silence."""
    seen: dict[str, int] = {}
    for child in node.value if isinstance(node, yaml.SequenceNode) else []:
        yield from _find_twice(child)
    for key, value in node.value if isinstance(node, yaml.MappingNode) else []:
        line, name = key.start_mark.line + 1, str(key.value)
        if name in seen and name != "<<":
            yield line, f"'{name}' is written twice, first in line {seen[name]}: remove one"
        seen.setdefault(name, line)
        yield from _find_twice(value)


def _is_component(name: str) -> bool:
    if name.startswith("."):  # relative to the file: Dagster finds it
        return True
    module, _, attribute = name.rpartition(".")
    try:
        kind = getattr(import_module(module), attribute, None)
    except (ImportError, ValueError):  # ValueError: no module at all
        return False
    return isinstance(kind, type) and issubclass(kind, dg.Component)
