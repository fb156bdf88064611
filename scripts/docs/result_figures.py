"""The pictures of the pages of results, drawn from the tables that stand in the pages.

    python scripts/docs/result_figures.py                      of all pages
    python scripts/docs/result_figures.py docs/demo_model.md  of one

A page asks for a picture by its name, `![...](images/NAME.png)`, which is written beside the page.
So a picture shows the numbers of its page, whoever made them. Those of the bench's pages are drawn
with the pages, from their cells. It needs `pip install "steerlens[export,docs]"`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import result_drawings as drawings
from page_tables import Page
from small_pictures import shrink

from analysis import CannotDraw, save

DOCS = Path(__file__).parents[2] / "docs"
OTHERS = ("real_models.md", "demo_model.md", "benchmarks.md")
PAGES = (*sorted((DOCS / "results").glob("*.md")), *(DOCS / name for name in OTHERS))
WIDTH, DPI = 860, 110
DRAWN: dict[str, Callable[[Page], go.Figure]] = {
    drawing.__name__: drawing
    for drawing in (
        drawings.judge_auroc,
        drawings.demo_formats,
        drawings.demo_replaced,
        drawings.real_costs,
        drawings.speed_targets,
    )
}
NEEDS_A_MODEL = {"smollm2_tokens": "python scripts/pirate/tokens.py"}
"""Pictures of texts, not of tables, and the command that makes each from its page."""
OF_BENCHES = ("bench_", "claims_")
"""How the names of those begin that `python scripts/bench/results.py --pages` draws."""


def asked_for(text: str) -> list[str]:
    """The names of the pictures of a page."""
    return re.findall(r"\]\(images/(\w+)\.png\)", text)


def drawn_elsewhere(name: str) -> bool:
    """Whether another command draws the picture."""
    return name in NEEDS_A_MODEL or name.startswith(OF_BENCHES)


def draw(page: Path) -> list[Path]:
    """Write the pictures that a page asks for."""
    text = page.read_text(encoding="utf-8")
    read, folder = Page.of(text), page.parent / "images"
    names = [name for name in asked_for(text) if not drawn_elsewhere(name)]
    unknown = sorted(set(names) - set(DRAWN))
    if unknown:
        raise SystemExit(f"{page} asks for {unknown}, and there are {sorted(DRAWN)}.")
    figures = {name: DRAWN[name](read) for name in names}
    folder.mkdir(exist_ok=True)
    return [
        shrink(save(figure, folder / f"{name}.png", width=WIDTH, dpi=DPI))
        for name, figure in figures.items()
    ]


def main(asked: list[str]) -> None:
    for page in map(Path, asked) if asked else PAGES:
        try:
            for picture in draw(page):
                print(f"Wrote {picture}", flush=True)
        except CannotDraw as error:
            raise SystemExit(f"The pictures of {page} are not drawn. {error}") from error


if __name__ == "__main__":
    main(sys.argv[1:])
