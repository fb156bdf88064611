"""The structure of a checkout in Markdown tables, read off its text; nothing is run.

    python scripts/structure/tables.py [FOLDER] [--against EARLIER]

imports.py says what counts as an import, counts.py what is a line of code and what is checking.
"""

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import zip_longest
from pathlib import Path

from counts import Measured, Source, exported, functions_of, public_names, source_of
from imports import Graph, Import, circles, graph_of, imports_of, layers, modules_of

PACKAGE = "steerlens"
LISTED = 10
METHODS = "steerlens.methods"
Row = tuple[str, str]


@dataclass(frozen=True)
class Folder:
    """The modules of one folder: their sources and what imports what."""

    path: Path
    sources: dict[str, Source]
    imports: set[Import]

    @cached_property
    def functions(self) -> list[Measured]:
        """Every function and method."""
        return [function for source in self.sources.values() for function in functions_of(source)]


@cache
def read(path: Path) -> Folder:
    """The folder, read and counted; empty where there is none."""
    modules = modules_of(path)
    sources = {name: source_of(name, file) for name, file in modules.items()}
    return Folder(path, sources, imports_of(modules))


def entries(path: Path) -> int:
    """The files and folders that a reader sees in a folder."""
    return len(
        [entry for entry in path.iterdir() if not entry.name.startswith(("__pycache__", "."))]
    )


def graphs(folder: Folder) -> dict[str, Graph]:
    """What imports what when modules are loaded, once all functions ran, and for type checkers."""
    kinds = {
        "at import time": ("import",),
        "lazy ones too": ("import", "lazy"),
        "those for type checkers too": ("import", "lazy", "typing"),
    }
    return {
        name: graph_of({edge for edge in folder.imports if edge.when in counted})
        for name, counted in kinds.items()
    }


def written(imports: set[Import], depth: int | None = None) -> int:
    """Imports that stand in the text, each pair once; between entries of the folder at depth 2."""
    pairs = {
        tuple(".".join(name.split(".")[:depth]) for name in (edge.importer, edge.imported))
        for edge in imports
        if not edge.outer
    }
    return sum(first != second for first, second in pairs)


def entry_layers(folder: Folder) -> int:
    """The longest chain of imports between the folder's entries, the root aside."""
    pairs = {
        tuple(".".join(name.split(".")[:2]) for name in (edge.importer, edge.imported))
        for edge in folder.imports
        if edge.when == "import"
    }
    between = {pair for pair in pairs if pair[0] != pair[1] and PACKAGE not in pair}
    names = {name for pair in between for name in pair}
    return layers({n: frozenset(b for a, b in between if a == n) for n in names})


def share(sources: Sequence[Source]) -> str:
    """The share of lines of code that check."""
    code = sum(len(source.code) for source in sources)
    return f"{100 * sum(len(source.checking) for source in sources) / max(code, 1):.1f} %"


def plan(folder: Folder) -> list[Row]:
    """Entries, layers and imports."""
    rows = [
        ("entries of the folder", str(entries(folder.path))),
        ("modules", f"{len(folder.sources)}"),
    ]
    for when, graph in graphs(folder).items():
        rows.append((f"layers of imports, {when}", str(layers(graph))))
    rows.append(("layers of imports between entries, at import time", str(entry_layers(folder))))
    rows.append(("imports between modules", str(written(folder.imports))))
    return [*rows, ("imports between entries", str(written(folder.imports, depth=2)))]


def circles_of(folder: Folder) -> list[Row]:
    """The sizes of the circles."""
    sizes = {
        when: ", ".join(str(len(circle)) for circle in circles(graph))
        for when, graph in graphs(folder).items()
    }
    return [
        (f"circles in {folder.path.name}, {when}", said or "none") for when, said in sizes.items()
    ]


def size(folder: Folder) -> list[Row]:
    """Lines, functions, comments, names."""
    sources, functions = list(folder.sources.values()), folder.functions
    code = sum(len(source.code) for source in sources)
    comments = 100 * sum(source.comments for source in sources) / code
    lengths = [function.lines for function in functions]
    public = sum(len(public_names(source)) for source in sources)
    return [
        ("lines of code", str(code)),
        ("functions", str(len(functions))),
        ("median length of a function", f"{statistics.median(lengths):g}"),
        ("functions above 40 lines", str(sum(length > 40 for length in lengths))),
        ("functions with more than 12 parameters", str(sum(f.parameters > 12 for f in functions))),
        ("comments in 100 lines of code", f"{comments:.1f}"),
        (f"names that `{PACKAGE}` exports", str(len(exported(folder.sources[PACKAGE])))),
        ("public names of all modules", str(public)),
    ]


def checking(folder: Folder) -> dict[str, str]:
    """The share of checking as a whole and for each entry of the folder."""
    groups: dict[str, list[Source]] = {PACKAGE: list(folder.sources.values())}
    for name, source in folder.sources.items():
        if name != PACKAGE:
            groups.setdefault(".".join(name.split(".")[:2]), []).append(source)
    pages = [one for one in groups.get(METHODS, []) if not one.name.endswith(".checks")]
    shares = {name: share(sources) for name, sources in groups.items()}
    return shares | {f"{METHODS}, without its checks.py": share(pages)}


def top(folder: Folder, by: Callable[[Measured], int]) -> list[str]:
    """The functions that have most of something, as cells of a table."""
    ordered = sorted(folder.functions, key=lambda function: (-by(function), function.name))
    short = [(function.name.removeprefix(f"{PACKAGE}."), by(function)) for function in ordered]
    return [f"`{name}` {number}" for name, number in short[:LISTED]]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def facts(root: Path) -> dict[str, str]:
    """Everything that is one number about a checkout."""
    package = read(root / PACKAGE)
    rows = [*plan(package), *size(package)]
    for place in (PACKAGE, "analysis", "scripts/bench"):
        rows += circles_of(read(root / place))
    return dict(rows)


def report(roots: dict[str, Path]) -> str:
    """All tables, one column for each of `roots`."""
    heads, packages = list(roots), [read(root / PACKAGE) for root in roots.values()]
    parts = [_side_by_side(["", *heads], [facts(root) for root in roots.values()])]
    parts.append(_side_by_side(["share of checking", *heads], [checking(p) for p in packages]))
    for title, by in (("longest functions", _lines), ("most parameters", _parameters)):
        columns = [top(package, by) for package in packages]
        rows = list(zip_longest(*columns, fillvalue=""))
        parts.append(table([f"{title}, {head}" for head in heads], rows))
    return "\n".join(parts)


def _lines(function: Measured) -> int:
    return function.lines


def _parameters(function: Measured) -> int:
    return function.parameters


def _side_by_side(head: Sequence[str], columns: Sequence[dict[str, str]]) -> str:
    names = list(dict.fromkeys(name for column in columns for name in column))
    return table(head, [[name, *(column.get(name, "") for column in columns)] for name in names])


def main() -> None:
    parser = argparse.ArgumentParser(description="The structure of a checkout, in Markdown tables.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parents[2])
    parser.add_argument("--against", type=Path, help="An earlier checkout, for a column before.")
    given = parser.parse_args()
    earlier = {"before": given.against} if given.against else {}
    print(report({**earlier, "after" if earlier else "now": given.folder}))


if __name__ == "__main__":
    main()
