"""The layout of the package: lengths of files, local imports, quoted annotations, and the way to a row of features.

Read from the source, without importing it. Beside each figure stands that of commit 588799f, where ``stages`` and four
modules at the top are what ``graph`` is since. Imports that only a type checker reads do not count.

- ``local_imports``: import statements in functions and methods outside ``graph``; ``all_local_imports``: in all files.
- ``quoted_annotations``: strings in annotations of arguments, results and variables; those in ``Literal``, in the
  metadata of ``Annotated`` and in calls are values.
- ``feature_row_climbs``: the way from an image's place to its row of features begins in the module of
  ``BottleneckFeatures`` and goes on through what it imports of ``graph``, except other stages. For each module of
  ``features`` or ``backbones`` that a module on the way imports at its head, the way climbs back up once: it is called
  from above and returns there. ``all_feature_row_climbs``: local imports count too.
"""

import argparse
import ast
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.common import finish, parse

PACKAGE, COMMIT = "tl_dagster", "588799f"
BEFORE: Mapping[str, float] = {
    "median_file_lines": 125.5,
    "longest_file_lines": 341,
    "graph_stages_lines": 3222,
    "local_imports": 274,
    "all_local_imports": 378,
    "quoted_annotations": 602,
    "classes_in_functions": 12,
    "feature_row_climbs": 9,
    "all_feature_row_climbs": 12,
}
MOST = {"longest_file_lines": 350.0, "graph_stages_lines": 1200.0, "local_imports": 80.0, "classes_in_functions": 0.0}
GRAPH = ("graph", "stages", "component", "definitions", "automation", "console")


def layer(module: str) -> str:
    """The layer of a module: the first part of its name within the package."""
    first = module.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]
    return "graph" if first in GRAPH else first


def nodes(parent: ast.AST, local: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Each node below another, without what only a type checker reads, and whether it lies in a function."""
    for child in ast.iter_child_nodes(parent):
        if not isinstance(child, ast.If) or ast.unparse(child.test) not in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            yield child, local
            yield from nodes(child, local or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def quoted(annotation: ast.AST | None) -> int:
    """How many strings of an annotation are types."""
    if annotation is None or isinstance(annotation, ast.Call):
        return 0
    if isinstance(annotation, ast.Constant):
        return int(isinstance(annotation.value, str))
    if isinstance(annotation, ast.Subscript):
        name = ast.unparse(annotation.value).rpartition(".")[2]
        if name == "Literal":
            return 0
        if name == "Annotated" and isinstance(annotation.slice, ast.Tuple):
            return quoted(annotation.slice.elts[0])
    return sum(quoted(child) for child in ast.iter_child_nodes(annotation))


def named(statement: ast.AST, modules: Mapping[str, ast.Module]) -> set[str]:
    """The modules of the package that an import statement names; none for another node."""
    if isinstance(statement, ast.Import):
        return {each.name for each in statement.names} & modules.keys()
    if not isinstance(statement, ast.ImportFrom):
        return set()
    below = {f"{statement.module}.{each.name}" for each in statement.names} & modules.keys()
    return below or {f"{statement.module}"} & modules.keys()


def climbs(modules: Mapping[str, ast.Module], *, within: bool) -> int:
    """How often the way to a row of features comes back up to the graph; ``within``: local imports count too."""
    classes = {name: [each for each in tree.body if isinstance(each, ast.ClassDef)] for name, tree in modules.items()}
    stages = {name for name, defs in classes.items() for each in defs if "Stage" in map(ast.unparse, each.bases)}
    way = [name for name, defs in classes.items() if "BottleneckFeatures" in {each.name for each in defs}]
    count = 0
    for module in way:  # grows
        used = {each for node, local in nodes(modules[module]) if within or not local for each in named(node, modules)}
        count += sum(layer(each) in {"features", "backbones"} for each in used)
        way += sorted({each for each in used if layer(each) == "graph"} - {*way} - stages)
    return count


def measure(folder: Path) -> dict[str, float]:
    """The figures of the package in a folder."""
    files = {file.relative_to(folder): file.read_text() for file in sorted((folder / PACKAGE).rglob("*.py"))}
    lines = {".".join(file.with_suffix("").parts): len(text.splitlines()) for file, text in files.items()}
    trees = zip(lines, map(ast.parse, files.values()), strict=True)
    modules = {name.removesuffix(".__init__"): tree for name, tree in trees}
    stages = f"{PACKAGE}.graph.stages." if f"{PACKAGE}.graph" in modules else f"{PACKAGE}.stages."
    parts = [(name, node, local) for name, tree in modules.items() for node, local in nodes(tree)]
    imports = [name for name, node, local in parts if local and isinstance(node, ast.Import | ast.ImportFrom)]
    notes = [getattr(node, kind, None) for _, node, _ in parts for kind in ("annotation", "returns")]
    return {
        "median_file_lines": statistics.median(lines.values()),
        "longest_file_lines": max(lines.values()),
        "graph_stages_lines": sum(count for name, count in lines.items() if name.startswith(stages)),
        "local_imports": sum(layer(name) != "graph" for name in imports),
        "all_local_imports": len(imports),
        "quoted_annotations": sum(map(quoted, notes)),
        "classes_in_functions": sum(local and isinstance(node, ast.ClassDef) for _, node, local in parts),
        "feature_row_climbs": climbs(modules, within=False),
        "all_feature_row_climbs": climbs(modules, within=True),
    }


def main() -> None:
    """Print what was beside what is; the results are kept unless another tree is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tree", nargs="?", type=Path, help=f"a folder that holds {PACKAGE}, instead of this one")
    parser.add_argument("--before", type=Path, help=f"another, to compare with instead of commit {COMMIT}")
    options = parse(parser)
    before = measure(options.before) if options.before else BEFORE
    now = measure(options.tree or Path(__file__).parent.parent)
    print(f"{'':45} {'before':>10} {'now':>10}")
    for name, value in now.items():
        print(f"{name:45} {before[name]:>10g} {value:>10g}")
    if options.tree is None:
        finish("layout", {**now}, {name: {"at_most": bound} for name, bound in MOST.items()})


if __name__ == "__main__":
    main()
