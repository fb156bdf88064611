"""The gallery shows every figure function, and the ten lines of docs/figures.md make a PDF."""

import inspect
import re
from pathlib import Path

import gallery
import pytest

from analysis import figures

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures.md"
NO_PICTURE = {
    "CannotDraw",
    "caption",
    "save",
    "latex_table",
    "markdown_table",
    "method_colours",
    "method_looks",
    "TokenView",
}


def test_every_figure_function_is_in_the_gallery():
    calls = " ".join(entry.call + entry.function for entry in gallery.ENTRIES)
    missing = [name for name in figures.__all__ if name not in calls and name not in NO_PICTURE]
    assert set(missing) <= {"token_view"}, "token_views draws the same"


def test_the_page_is_what_the_command_writes_and_every_picture_is_there():
    assert gallery.PAGE.read_text(encoding="utf-8") == gallery.page()
    for entry in gallery.ENTRIES:
        assert gallery.picture_of(entry).exists(), entry.name
        assert entry.function in figures.__all__


def test_the_pictures_are_small():
    sizes = [path.stat().st_size for path in gallery.PICTURES.iterdir()]
    assert sum(sizes) < 2_000_000
    assert len(sizes) == len(gallery.ENTRIES)


def test_a_picture_that_there_is_not_is_an_error():
    with pytest.raises(SystemExit, match="no picture"):
        gallery.main(["nothing"])


def test_ten_lines_make_a_pdf_of_a_column(tmp_path, monkeypatch):
    code = re.findall(r"```python\n(.*?)```", FIGURES.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    made = []
    monkeypatch.setattr("analysis.save", lambda figure, path: made.append((figure, path)))
    monkeypatch.setattr("steerlens.analysis.save", lambda figure, path: made.append((figure, path)))
    said = []
    exec(code, {"print": said.append})
    ((figure, path),) = made
    assert path.endswith(".pdf")
    assert figure.layout.width == 312
    assert said[0].startswith("How far each method is")


def test_what_the_page_says_of_parameters_is_so():
    text = FIGURES.read_text(encoding="utf-8")
    for name in ("columns", "font", "dark", "title"):
        assert f"{name}=" in text
        assert name in inspect.signature(figures.styled).parameters
