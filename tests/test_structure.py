"""The plan of the code: no circles of imports, short functions, few parameters; read off its text.

A circle counts however it is tied: at import time, inside functions, or under TYPE_CHECKING. Two
modules in a circle are one module in two files, and laziness only hides it.

A package's `__init__.py` is a module like others, and Python runs it for whoever comes from outside
the package. From inside it runs already, so `steerlens.sites` does not import `steerlens` by being
in it. Nor is the root's table of lazy names an import while `steerlens` loads; but the lines under
TYPE_CHECKING that repeat it count, so that a module which takes a name from the root (even its
version) is in a circle with it if the root exports that module. The command line, which the root
does not name, may ask the root.
"""

from functools import cache
from pathlib import Path

import pytest
from counts import Measured, exported, functions_of, public_names, source_of
from imports import Graph, Import, circles, graph_of, imports_of, layers, modules_of
from tables import report

import steerlens

ROOT = Path(__file__).parent.parent
FOLDERS = ("steerlens", "analysis", "scripts", "benchmarks")
MOST_LINES, MOST_PARAMETERS = 40, 12


@cache
def imports_inside(*folders: str) -> frozenset[Import]:
    modules: dict[str, Path] = {}
    for folder in folders:
        modules |= modules_of(ROOT / folder)
    return frozenset(imports_of(modules))


@cache
def functions_in(folder: str) -> tuple[Measured, ...]:
    modules = modules_of(ROOT / folder).items()
    return tuple(each for name, file in modules for each in functions_of(source_of(name, file)))


def imports_in_circles(imports: frozenset[Import] | set[Import]) -> list[str]:
    """Every import that is part of a circle, in words."""
    groups = circles(graph_of(set(imports)))
    return sorted(
        f"{edge.importer} imports {edge.imported} ({edge.when})"
        for edge in imports
        for group in groups
        if {edge.importer, edge.imported} <= group
    )


@pytest.mark.parametrize(
    "folders", [("steerlens",), ("analysis",), ("steerlens", "analysis"), ("scripts/bench",)]
)
def test_no_modules_import_each_other_in_a_circle(folders):
    tied = imports_in_circles(imports_inside(*folders))
    assert not tied, "\n".join(tied)


def test_steerlens_does_not_import_analysis_but_for_its_command_line_and_its_other_name():
    inside = imports_inside("steerlens", "analysis")
    ours = [edge for edge in inside if edge.importer.startswith("steerlens")]
    crossing = {edge.importer for edge in ours if edge.imported.startswith("analysis")}
    assert crossing <= {"steerlens.analysis"}
    asking = [edge for edge in ours if edge.imported == "steerlens.analysis"]
    assert all(edge.importer.startswith("steerlens.cli.") for edge in asking)
    assert {edge.when for edge in asking} == {"lazy"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_is_longer_than_a_page(folder):
    long = [f"{f.name}: {f.lines}" for f in functions_in(folder) if f.lines > MOST_LINES]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_function_has_more_parameters_than_one_can_remember(folder):
    counted = [(f.name, f.parameters) for f in functions_in(folder)]
    many = [f"{name}: {number}" for name, number in counted if number > MOST_PARAMETERS]
    assert not many, "\n".join(many)


def test_the_files_are_found():
    assert {"steerlens", "steerlens.methods.caa"} <= set(modules_of(ROOT / "steerlens"))
    assert {"analysis", "analysis.judges"} <= set(modules_of(ROOT / "analysis"))
    assert {"claims", "results"} <= set(modules_of(ROOT / "scripts/bench"))
    assert Import("steerlens.methods.caa", "steerlens.types", "import") in imports_inside(
        "steerlens"
    )
    assert all(len(functions_in(folder)) > 20 for folder in FOLDERS)


def test_the_exported_names_are_counted_as_python_lists_them():
    root = source_of("steerlens", ROOT / "steerlens" / "__init__.py")
    assert exported(root) == set(steerlens.__all__)


# The measuring functions themselves, on packages made up for the purpose.


def package(folder: Path, **files: str) -> set[Import]:
    """The imports inside a package `made` of these modules; `room_in_a` is `made.room.a`."""
    for name, text in {"root": "", **files}.items():
        stem = "__init__" if name == "root" else name.replace("_in_", "/")
        file = folder / "made" / f"{stem}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return imports_of(modules_of(folder / "made"))


def sizes(imports: set[Import]) -> list[int]:
    return [len(circle) for circle in circles(graph_of(imports))]


LAZY = "def f():\n    {}\n"
FOR_TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {}\n"


@pytest.mark.parametrize(
    ("wrapped", "when"), [("{}\n", "import"), (LAZY, "lazy"), (FOR_TYPES, "typing")]
)
@pytest.mark.parametrize(
    "statement",
    ["from made.a import x", "import made.a", "from made import a", "from . import a"],
)
def test_a_circle_is_seen_wherever_it_is_closed(wrapped, when, statement, tmp_path):
    made = package(tmp_path, a="import made.b", b=wrapped.format(statement), c="import made.a")
    assert Import("made.b", "made.a", when) in made
    assert circles(graph_of(made)) == [frozenset({"made.a", "made.b"})]
    assert imports_in_circles(made) == [
        "made.a imports made.b (import)",
        f"made.b imports made.a ({when})",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "class C:\n    def f(self):\n        with x:\n            import made.a\n",
        "async def f():\n    from .a import x\n",
        "import importlib\ndef f():\n    return importlib.import_module('made.a').x\n",
        "try:\n    import json\nexcept ImportError:\n    def f():\n        import made.a\n",
    ],
)
def test_a_lazy_import_is_seen_however_deep(text, tmp_path):
    made = package(tmp_path, a="import made.b", b=text)
    assert {edge for edge in made if edge.importer == "made.b"} == {
        Import("made.b", "made.a", "lazy")
    }


def test_the_other_branch_of_type_checking_is_run(tmp_path):
    text = "import typing\nif typing.TYPE_CHECKING:\n    import made.a\nelse:\n    import made.c\n"
    assert package(tmp_path, a="", b=text, c="") == {
        Import("made.b", "made.a", "typing"),
        Import("made.b", "made.c", "import"),
    }


def test_three_modules_one_behind_the_other_are_no_circle(tmp_path):
    made = package(tmp_path, a="import made.b", b=LAZY.format("import made.c"), c="import json")
    assert circles(graph_of(made)) == []
    assert layers(graph_of(made)) == 3


def test_a_circle_counts_as_one_layer_and_two_circles_are_told_apart(tmp_path):
    texts = {"a": "import made.b", "b": "import made.a, made.c", "c": "import made.d"}
    made = package(tmp_path, **texts, d="import made.c", e="import made.a")
    assert sizes(made) == [2, 2]
    assert layers(graph_of(made)) == 3


def test_a_module_does_not_import_the_package_that_it_is_in_unless_it_names_it(tmp_path):
    root = FOR_TYPES.format("from made.a import x")
    assert sizes(package(tmp_path / "by path", root=root, a="import made.b", b="")) == []
    made = package(tmp_path / "by name", root=root, a="from made import __version__")
    assert circles(graph_of(made)) == [frozenset({"made", "made.a"})]
    outside = package(tmp_path / "not named", root=root, a="", b="from made import __version__")
    assert sizes(outside) == []


def test_whoever_comes_from_outside_runs_the_root_of_a_package(tmp_path):
    room = {"room_in___init__": "from made.room.a import x", "room_in_a": "import made.b"}
    made = package(tmp_path, **room, b="import made.room.c", room_in_c="")
    assert Import("made.b", "made.room", "import", outer=True) in made
    assert circles(graph_of(made)) == [frozenset({"made.room", "made.room.a", "made.b"})]


def test_modules_of_a_folder_that_is_no_package_go_by_their_bare_names(tmp_path):
    (tmp_path / "a.py").write_text("import b")
    (tmp_path / "b.py").write_text("def f():\n    from a import x\n")
    assert circles(graph_of(imports_of(modules_of(tmp_path)))) == [frozenset({"a", "b"})]


def test_an_empty_graph_has_no_layers():
    nothing: Graph = {}
    assert (circles(nothing), layers(nothing)) == ([], 0)


COUNTED = '''\
"""Two lines
of a docstring."""

# A comment that counts.
import json  # noqa: F401

__all__ = ["Shape", "LIMIT"]
LIMIT: int = 3
"""What this is."""
other = 4


def require_small(
    x: int,
) -> None:
    """Check."""

    if x > LIMIT:
        advice = "less"
        raise ValueError(advice)


class Shape:
    def __post_init__(self):
        require_small(self.x)

    @property
    def area(self, /, a, *rest, b=1, **more):
        # And another.
        if a:
            raise ValueError
        else:
            a = 2

        def inner(self_, c): return c
        return inner
'''


@pytest.fixture
def counted(tmp_path):
    (tmp_path / "made.py").write_text(COUNTED, encoding="utf-8")
    return source_of("made", tmp_path / "made.py")


def lines_with(*starts: str) -> set[int]:
    numbered = enumerate(COUNTED.splitlines(), 1)
    return {number for number, line in numbered if line.strip().startswith(starts)}


def test_blank_lines_comments_and_docstrings_are_no_code(counted):
    bare = lines_with('"""', "of a docstring", "#")
    blank = {n for n, line in enumerate(COUNTED.splitlines(), 1) if not line}
    assert counted.code == set(range(1, len(COUNTED.splitlines()) + 1)) - bare - blank
    assert counted.comments == 2


def test_checking_is_what_raises_and_what_is_there_for_it(counted):
    alone = {
        n
        for n, line in enumerate(COUNTED.splitlines(), 1)
        if line == "            raise ValueError"
    }
    check = lines_with("def require_small", "x: int", ") ->", "if x", "advice", "raise ValueError(")
    check |= lines_with("def __post_init__", "require_small(")
    assert counted.checking == check | alone


def test_functions_are_measured_without_self_and_docstring(counted):
    assert functions_of(counted) == [
        Measured("made.require_small", lines=6, parameters=1),
        Measured("made.Shape.__post_init__", lines=2, parameters=0),
        Measured("made.Shape.area", lines=8, parameters=4),
        Measured("made.Shape.area.inner", lines=1, parameters=2),
    ]


def test_the_tables_say_what_was_and_what_is(tmp_path):
    roots = {when: tmp_path / when for when in ("before", "after")}
    for when, text in (("before", COUNTED), ("after", COUNTED + "a = 1\n")):
        folder = roots[when] / "steerlens"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text(FOR_TYPES.format("from steerlens.shapes import f, g"))
        (folder / "shapes.py").write_text(text, encoding="utf-8")
        (folder / "user.py").write_text("def f():\n    import steerlens.shapes\n")
    rows = report(roots).splitlines()
    assert "| imports between modules | 2 | 2 |" in rows
    assert "| layers of imports, lazy ones too | 2 | 2 |" in rows
    assert "| lines of code | 26 | 27 |" in rows
    assert "| names that `steerlens` exports | 2 | 2 |" in rows
    assert "| steerlens.shapes | 42.9 % | 40.9 % |" in rows
    assert "| `shapes.Shape.area` 8 | `shapes.Shape.area` 8 |" in rows


def test_public_names_are_those_listed_or_without_underscore(counted, tmp_path):
    assert public_names(counted) == {"Shape", "LIMIT"}
    (tmp_path / "open.py").write_text("import json\na, _b = 1, 2\ndef f(): ...\nclass _C: ...\n")
    assert public_names(source_of("open", tmp_path / "open.py")) == {"a", "f"}
