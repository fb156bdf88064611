"""The lines, functions and names of a file, counted by its text; nothing is run.

A line of code is one that holds code: no blank line, comment or docstring. A line is *checking* if
it belongs to a `raise`; to an `if` without `else` whose body ends in a `raise`; to a function
called `require_...`; or to a `__post_init__` that does nothing but check. A call of a `require_...`
is no checking line elsewhere: it does not get in a reader's way.
"""

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DIRECTIVES = ("# noqa", "# pyright:", "# type:", "#!")


@dataclass(frozen=True)
class Source:
    """One file: its tree, the numbers of its lines of code, and of those among them that check."""

    name: str
    file: Path
    tree: ast.Module
    code: frozenset[int]
    checking: frozenset[int]
    comments: int


@dataclass(frozen=True)
class Measured:
    """A function or method, with its lines of code and its parameters (`self`, `cls` aside)."""

    name: str
    lines: int
    parameters: int


def source_of(name: str, file: Path) -> Source:
    """The file, read and counted; `name` is its module's."""
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    said = [token.string for token in tokens if token.type == tokenize.COMMENT]
    spans = [t for t in tokens if t.type not in LAYOUT and t.type != tokenize.COMMENT]
    filled = {line for t in spans for line in range(t.start[0], t.end[0] + 1)}
    code = frozenset(filled - _lines(node for node in ast.walk(tree) if _is_docstring(node)))
    checks = _lines(node for node in ast.walk(tree) if _is_check(node))
    comments = sum(not comment.startswith(DIRECTIVES) for comment in said)
    return Source(name, file, tree, code, code & checks, comments)


def _lines(nodes: Iterable[ast.AST]) -> frozenset[int]:
    return frozenset(line for node in nodes for line in _range(node))


def _range(node: ast.AST) -> range:
    ends = [node, *getattr(node, "decorator_list", [])]
    return range(min(end.lineno for end in ends), max(end.end_lineno for end in ends) + 1)  # pyright: ignore


def _is_docstring(node: ast.AST) -> bool:
    """Strings that stand alone: also those under a constant."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_check(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return isinstance(node.body[-1], ast.Raise) and not node.orelse
    if isinstance(node, Function):
        body = [inner for inner in node.body if not _is_docstring(inner)]
        return _requires(node.name) or (
            node.name == "__post_init__" and all(map(_is_for_checks, body))
        )
    return isinstance(node, ast.Raise)


def _is_for_checks(node: ast.stmt) -> bool:
    """Whether a statement of a `__post_init__` is there for checks alone."""
    if isinstance(node, ast.For):
        return all(map(_is_for_checks, node.body))
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        called = node.value.func
        return _requires(getattr(called, "attr", getattr(called, "id", "")))
    return _is_check(node)


def _requires(name: str) -> bool:
    return name.lstrip("_").startswith("require_")


def functions_of(source: Source) -> list[Measured]:
    """Every function and method of a file, also those inside others."""
    return [
        Measured(f"{source.name}.{name}", len(source.code & _lines([node])), _parameters(node))
        for name, node in _named(source.tree)
    ]


def _named(node: ast.AST, outer: str = "") -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        name = outer
        if isinstance(child, Function | ast.ClassDef):
            name = f"{outer}.{child.name}".lstrip(".")
        if isinstance(child, Function):
            yield name, child
        yield from _named(child, name)


def _parameters(node: Function) -> int:
    args = node.args
    every = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    names = [arg.arg for arg in every if arg is not None]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def exported(source: Source) -> set[str]:
    """The names that a package's root takes from its modules, as its type checkers' half says."""
    package = f"{source.name}."
    guarded = [node for node in source.tree.body if isinstance(node, ast.If)]
    inside = [node for guard in guarded for node in guard.body if isinstance(node, ast.ImportFrom)]
    names: set[str] = set()
    for node in inside:
        if node.module is not None and node.module.startswith(package):
            listed = {alias.asname or alias.name for alias in node.names}
            names |= _all_of(source, node.module) if "*" in listed else listed
    return names


def _all_of(source: Source, module: str) -> set[str]:
    """`__all__` of a package of this one, or what its `__init__.py` imports where it has none."""
    file = source.file.parent.joinpath(*module.split(".")[1:], "__init__.py")
    inner = source_of(module, file)
    imports = [node for node in inner.tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def public_names(source: Source) -> set[str]:
    """What a module defines at its top without an underscore; only what `__all__` lists, if any."""
    names: set[str] = set()
    listed: set[str] | None = None
    for node in source.tree.body:
        defined = _defined(node)
        names |= {name for name in defined if not name.startswith("_")}
        value = getattr(node, "value", None)
        if "__all__" in defined and isinstance(value, ast.List | ast.Tuple):
            listed = set(ast.literal_eval(value))
    return names if listed is None else names & listed


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, Function | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    named = [inner for target in targets if target is not None for inner in ast.walk(target)]
    return {name.id for name in named if isinstance(name, ast.Name)}
