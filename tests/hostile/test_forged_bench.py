"""Files of a bench with a valid digest and something else inside: an error that names the file."""

import json
from pathlib import Path
from typing import Any

import pytest

from analysis.bench.cells import Cell, Cells, read_whole
from analysis.bench.shapes import OF_A_SIDE, SHAPES, Shape
from analysis.bench.spec import FILE, Spec, read_spec, write_spec
from steerlens.digests import signed

ODD: list[Any] = [None, True, -1, 0, 1.5, "x", "", [], [1.5], [None], [True], [[1]], {}, {"a": 1}]
RIGHT: dict[str, list[Any]] = {
    "fingerprint": ["x", ""],
    "data": ["x", ""],
    "model": ["x", ""],
    "attributes": [[]],
    "examples": [None],
    "factors": [[1.5]],
    "data_digest": ["x", ""],
    "loading": [{}],
    "methods": [[]],
}
"""What of the odd values a bench may hold; a name is looked up where it is used."""
LOADING = {
    "backend": [1, None, []],
    "device": [5, None],
    "dtype": [3, None],
    "default_system": [3, []],
    "instruction_in": [1, "nowhere"],
    "template_arguments": [3, [1]],
    "what": [1],
}


def forged(folder: Path, **changes: Any) -> Path:
    path = folder / FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    content.pop("digest")
    path.write_text(json.dumps(signed({**content, **changes})), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_spec(Spec(attributes=("positive",), methods=("CAA",)), tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", Spec.__dataclass_fields__)
def test_a_bench_of_other_kinds_of_values_is_refused_by_the_name_of_its_file(
    name: str, folder: Path
) -> None:
    before = (folder / FILE).read_bytes()
    for value in ODD:
        path = forged(folder, **{name: value})
        if value in RIGHT.get(name, []) and not isinstance(value, bool):
            read_spec(folder)
        else:
            with pytest.raises(ValueError, match=f"^{path} holds what no bench is made of"):
                read_spec(folder)
        path.write_bytes(before)


@pytest.mark.parametrize("name", LOADING)
def test_a_way_of_loading_of_other_kinds_is_refused(name: str, folder: Path) -> None:
    for value in LOADING[name]:
        path = forged(folder, loading={name: value})
        with pytest.raises(ValueError, match=f"^{path} holds what no bench is made of"):
            read_spec(folder)


@pytest.mark.parametrize("most", [[1], [0, 1, 1], [-1, -1, -1], [1.5, 1, 1], ["a", 1, 1]])
def test_numbers_of_questions_that_are_none_are_refused(most: list[Any], folder: Path) -> None:
    forged(folder, most=most)
    with pytest.raises(ValueError, match="holds what no bench is made of"):
        read_spec(folder)


def example(shape: Shape) -> Any:
    value: Any = {str: "a", bool: True}.get(shape.leaves[0], 1.5)
    for _ in range(shape.depth):
        value = [value]
    return value


@pytest.mark.parametrize("kind", SHAPES)
def test_a_cell_that_holds_something_else_is_refused_by_the_name_of_its_file(
    kind: str, tmp_path: Path
) -> None:
    shapes = {**SHAPES[kind], **(OF_A_SIDE if kind == "side" else {})}
    right = {name: example(shape) for name, shape in shapes.items()}
    cells, cell = Cells(tmp_path), Cell(kind, {"task": "happy"})
    cells.write(cell, right, {})
    path = cells.path(cell)
    assert read_whole(path)["result"] == right
    for name, shape in shapes.items():
        lacking = {key: value for key, value in right.items() if key != name}
        others = [{**right, name: odd} for odd in ({}, "text", [[[["deep"]]]], [{"a": 1}])]
        for wrong in (lacking, *others):
            if name in wrong and shape.holds(wrong[name]):
                continue
            cells.write(cell, wrong, {})
            with pytest.raises(ValueError, match=f"^{path} is no cell of this version"):
                read_whole(path)
