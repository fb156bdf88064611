"""The figures of the pages of results show the numbers of their tables, and every page has one."""

import re

import likelihood
import numpy as np
import page_tables
import pytest
import result_figures
import samples
import small_pictures
from page_tables import Page
from PIL import Image

from analysis import caption

WRITTEN = {
    "results/likelihood_judge": (likelihood.PICTURE,),
    "results/smollm2_samples": (samples.PICTURE,),
}
"""The pictures that the script of each page writes into it."""
CHANGED = {
    "judge_auroc": ("0.92 | 0.88 to 0.98", "0.93 | 0.88 to 0.98", 0.93),
    "demo_formats": ("62.0% [55.1%, 68.4%], n 200 |", "63.5% [55.1%, 68.4%], n 200 |", 63.5),
    "demo_replaced": ("79.7 [78.8, 80.4]", "79.3 [78.8, 80.4]", 79.3),
    "real_costs": ("| 19.9 |", "| 21.7 |", 21.7),
    "speed_targets": ("| 0.37 (0.37 to 0.37) |", "| 0.74 (0.37 to 0.74) |", 0.74 / 0.333),
}
"""Of each figure: a cell of its table, the same with another number, and that number."""


def text_with(name: str) -> str:
    """The page that asks for the picture."""
    texts = [page.read_text(encoding="utf-8") for page in result_figures.PAGES]
    (text,) = [text for text in texts if name in result_figures.asked_for(text)]
    return text


def values_in(figure) -> list[float]:
    """Every number that a line or a mark of the figure stands at, bands left out."""
    drawn = [trace for trace in figure.data if trace.mode != "none"]
    lines = "lines" in str(drawn[0].mode)
    values = [value for trace in drawn for value in (trace.y if lines else trace.x)]
    return [float(value) for value in values]


@pytest.mark.parametrize("page", result_figures.PAGES, ids=lambda page: page.stem)
def test_every_page_has_a_picture_that_is_there_with_a_text_for_it(page):
    text = page.read_text(encoding="utf-8")
    names = result_figures.asked_for(text)
    assert names
    for name in names:
        assert name in result_figures.DRAWN or result_figures.drawn_elsewhere(name)
        assert (page.parent / "images" / f"{name}.png").stat().st_size > 2000
        found = re.search(rf"!\[([^\]]+)\]\(images/{name}\.png\)\n\n\*([^*]+\.)\*\n", text)
        assert found, name
        assert len(found[1]) > 30


def test_pictures_are_small_and_none_is_left_over():
    folders = {page.parent / "images" for page in result_figures.PAGES}
    pictures = [path for folder in folders for path in folder.glob("*.png")]
    of_others = ("heatmap.png", "explorer.png")
    pictures = [path for path in pictures if path.name not in of_others]
    texts = [page.read_text(encoding="utf-8") for page in result_figures.PAGES]
    asked = {name for text in texts for name in result_figures.asked_for(text)}
    assert {path.stem for path in pictures} == asked
    assert set(result_figures.DRAWN) <= asked
    assert sum(path.stat().st_size for path in pictures) < 1_500_000


def test_every_picture_of_the_pages_is_small():
    every = small_pictures.pictures([small_pictures.DOCS])
    assert len(every) > 40
    assert [path.name for path in every if not small_pictures.is_small(path)] == []


def test_a_picture_that_is_made_small_has_nearly_its_colours(tmp_path):
    # A scale from blue over white to red, with one thin line of a colour that nothing else has.
    up = np.linspace(0, 255, 400)
    scale = np.stack([up, 255 - abs(up - 127), 255 - up], axis=-1).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 3, (300, 400, 1))
    points = np.minimum(scale[None] + noise, 255).astype(np.uint8)
    points[150] = (0, 200, 0)
    Image.fromarray(points).convert("RGBA").save(tmp_path / "a.png")
    before = (tmp_path / "a.png").stat().st_size
    assert not small_pictures.is_small(tmp_path / "a.png")
    small_pictures.main([str(tmp_path)])
    assert small_pictures.is_small(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < before
    with Image.open(tmp_path / "a.png") as picture:
        now = np.asarray(picture.convert("RGB"))
    assert abs(now.astype(int) - points).max() <= 12
    written = (tmp_path / "a.png").read_bytes()
    small_pictures.main([str(tmp_path)])
    assert (tmp_path / "a.png").read_bytes() == written


def test_what_is_transparent_becomes_white_and_what_is_no_picture_is_told(tmp_path):
    points = np.random.default_rng(0).integers(0, 255, (80, 80, 4)).astype(np.uint8)
    points[..., 3] = 255
    points[:5] = (200, 0, 0, 0)
    path = tmp_path / "a.png"
    Image.fromarray(points).save(path)
    small_pictures.main([str(path)])
    with Image.open(path) as picture:
        assert np.asarray(picture.convert("RGB"))[:5].min() >= 243
    (tmp_path / "text.png").write_text("no picture")
    for wrong in ("text.png", "absent.png"):
        with pytest.raises(SystemExit, match=wrong):
            small_pictures.main([str(tmp_path / wrong)])


@pytest.mark.parametrize("name", result_figures.DRAWN)
def test_another_number_in_the_page_is_another_in_the_figure(name):
    text, (before, after, number) = text_with(name), CHANGED[name]
    assert text.count(before) >= 1
    was = values_in(result_figures.DRAWN[name](Page.of(text)))
    now = values_in(result_figures.DRAWN[name](Page.of(text.replace(before, after))))
    assert len(was) == len(now) > 5
    changed = [(old, new) for old, new in zip(was, now, strict=True) if old != new]
    assert changed
    assert {new for _, new in changed} == {number}


@pytest.mark.parametrize(
    ("page", "picture"), [(page, picture) for page, some in WRITTEN.items() for picture in some]
)
def test_a_script_that_runs_again_keeps_the_pictures_of_its_page(page, picture):
    text = (result_figures.DOCS / f"{page}.md").read_text(encoding="utf-8")
    assert f"\n\n{picture}\n\n" in text
    names = [*result_figures.asked_for(" ".join(WRITTEN[page]))]
    assert names == result_figures.asked_for(text)


def test_the_template_of_the_demonstration_models_page_has_its_pictures():
    root = result_figures.DOCS.parent
    template = (root / "scripts" / "demo_model" / "report.md").read_text(encoding="utf-8")
    page = (root / "docs" / "demo_model.md").read_text(encoding="utf-8")
    pictures = re.compile(r"^!\[.*\n\n\*.*\*$", re.MULTILINE)
    assert pictures.findall(template) == pictures.findall(page) != []


@pytest.mark.parametrize("name", list(result_figures.DRAWN))
def test_every_figure_says_how_many_and_what_its_interval_is(name):
    says = caption(result_figures.DRAWN[name](Page.of(text_with(name))))
    assert re.search(
        r"\d+ (test |validation )?(questions|texts|human texts|to \d+ texts|repeats)|One run", says
    )
    assert "95 % interval" in says or "no interval" in says


def test_what_is_no_number_is_an_error_not_a_gap():
    with pytest.raises(ValueError, match="is no number"):
        page_tables.with_estimates(
            Page.of("# A\n\n| b |\n| --- |\n| 0.4 or so |\n").table("A"), "b"
        )
    with pytest.raises(ValueError, match="0 tables beneath 'B'"):
        Page.of("# A\n").table("B")


def test_a_picture_that_there_is_not_is_an_error(tmp_path):
    (tmp_path / "page.md").write_text("![x](images/nothing.png)\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="asks for \\['nothing'\\]"):
        result_figures.draw(tmp_path / "page.md")


def test_pictures_are_written_beside_the_page(tmp_path, monkeypatch):
    made, small = [], []
    monkeypatch.setattr(result_figures, "save", lambda figure, path, **_: made.append(path) or path)
    monkeypatch.setattr(result_figures, "shrink", small.append)
    page = tmp_path / "demo.md"
    page.write_text(text_with("demo_formats"), encoding="utf-8")
    result_figures.draw(page)
    names = ("formats", "replaced")
    assert made == [tmp_path / "images" / f"demo_{name}.png" for name in names] == small


def test_marks_that_share_a_row_lie_apart_and_one_alone_in_its_middle():
    figure = result_figures.DRAWN["demo_formats"](Page.of(text_with("demo_formats")))
    first, second = (np.array(trace.y) for trace in figure.data)
    assert len(first) > 3
    assert np.allclose(second - first, 0.3)
    alone = result_figures.DRAWN["judge_auroc"](Page.of(text_with("judge_auroc")))
    (trace,) = alone.data
    assert np.array_equal(trace.y, range(len(trace.y)))
