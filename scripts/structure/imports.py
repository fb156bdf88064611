"""What imports what among the modules of a folder, read off their text; nothing is run.

An import counts wherever it stands: at the top ("import"), inside a function ("lazy"), or under
`if TYPE_CHECKING` ("typing"). `import_module("a.b")` with the name written out is one too.

A package's `__init__.py` is a module like others. Python runs it before any module of the package,
so whoever imports `a.b` from outside `a` imports `a` too. Modules inside `a` do not import `a` by
that: it is running already when they are reached. They do when they name it: `from a import thing`.

The root's table of lazy names is no import statement, but `if TYPE_CHECKING` beside it repeats the
table for type checkers, and each line there is an import that runs when its name is first looked
up. So a module that takes a name from the root goes in a circle if the root names it, too.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

When = Literal["import", "lazy", "typing"]
Graph = Mapping[str, frozenset[str]]
"""The modules that each module imports."""


@dataclass(frozen=True, order=True)
class Import:
    """One module imports another; `outer` where only because Python runs a package's root."""

    importer: str
    imported: str
    when: When
    outer: bool = False


def modules_of(folder: Path) -> dict[str, Path]:
    """The file of each module; names begin with the folder's own where it is a package."""
    stem = (folder.name,) if (folder / "__init__.py").is_file() else ()
    files = sorted(folder.rglob("*.py"))
    return {".".join(stem + _parts(file.relative_to(folder))): file for file in files}


def _parts(file: Path) -> tuple[str, ...]:
    return file.parent.parts if file.name == "__init__.py" else file.with_suffix("").parts


def imports_of(modules: Mapping[str, Path]) -> set[Import]:
    """Every import of one of `modules` by another."""
    made: set[Import] = set()
    for importer, file in modules.items():
        package = importer if file.name == "__init__.py" else importer.rpartition(".")[0]
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node, when in _statements(tree, "import"):
            for name in _names(node, package):
                made |= _reached(importer, name, when, modules)
    return {edge for edge in made if edge.importer != edge.imported}


def _statements(node: ast.AST, when: When) -> Iterator[tuple[ast.AST, When]]:
    """Every node below `node`, and when what it imports is imported."""
    for field, value in ast.iter_fields(node):
        inner = when
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            and field == "body"
        ):
            inner = "lazy"
        elif isinstance(node, ast.If) and field == "body" and _for_types_alone(node.test):
            inner = "typing"
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child, inner
                yield from _statements(child, inner)


def _for_types_alone(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _names(node: ast.AST, package: str) -> list[str]:
    """The dotted names that a statement imports; which of their parts is a module is open."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        home = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1])
        stem = ".".join(filter(None, [home if node.level else "", node.module or ""]))
        return [f"{stem}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        return [str(node.args[0].value)] if called in ("import_module", "__import__") else []
    return []


def _reached(importer: str, name: str, when: When, modules: Mapping[str, Path]) -> set[Import]:
    """The module that `name` leads to, and the packages around it that `importer` is not in."""
    parts = name.split(".")
    inside = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    reached = [module for module in inside if module in modules]
    made = {Import(importer, module, when) for module in reached[-1:]}
    return made | {
        Import(importer, package, when, outer=True)
        for package in reached[:-1]
        if not f"{importer}.".startswith(f"{package}.")
    }


def graph_of(imports: set[Import]) -> Graph:
    """The imports as a graph."""
    names = {name for edge in imports for name in (edge.importer, edge.imported)}
    return {
        name: frozenset(edge.imported for edge in imports if edge.importer == name)
        for name in names
    }


def circles(graph: Graph) -> list[frozenset[str]]:
    """The largest sets of modules that all reach one another, largest first."""
    reach = {name: _reach(graph, name) for name in graph}
    groups = {
        frozenset(other for other in reach[name] if name in reach[other])
        for name in graph
        if name in reach[name]
    }
    return sorted(groups, key=lambda group: (-len(group), sorted(group)))


def _reach(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph[waiting.pop()] - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def layers(graph: Graph) -> int:
    """The modules of the longest chain of imports, where a whole circle counts as one module."""
    circle_of = {name: group for group in circles(graph) for name in group}
    groups = {name: circle_of.get(name, frozenset([name])) for name in graph}

    @cache
    def height(group: frozenset[str]) -> int:
        below = {groups[other] for name in group for other in graph[name]} - {group}
        return 1 + max(map(height, below), default=0)

    return max(map(height, groups.values()), default=0)
