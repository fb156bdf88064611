"""In a browser, no text of any figure lies over another or is cut, at any width.

The quick half draws every function once narrow, once wide and once dark; `slow` the whole matrix.
"""

from pathlib import Path

import plotly
import pytest
from figure_cases import cases
from geometry import faults, measured

from analysis.figures import TokenView, styled, token_figure

SCRIPT = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
HIGHEST = 5000
NAMES = tuple(cases(6, 2, 5))
LOOKS = {
    "paper": (312, {"style": "paper"}),
    "paper, two columns, serif": (648, {"style": "paper", "columns": 2, "font": "serif"}),
    "paper, dark": (312, {"style": "paper", "dark": True}),
    "notebook": (700, {}),
    "notebook, wide": (1400, {}),
    "notebook, wide, dark": (1400, {"dark": True}),
    "slides": (1200, {"style": "slides"}),
}
OF_TOKENS = ("heatmap", "transposed", "difference", "tokens", "strengths", "positions", "kinds")


@pytest.fixture(scope="module")
def page(browser):
    page = browser.new_page(viewport={"width": 1500, "height": 1200})
    page.set_content('<body style="margin:0"><div id="figure"></div></body>')
    page.add_script_tag(path=str(SCRIPT))
    return page


def laid_out(made, look):
    width, asked = LOOKS[look]
    if isinstance(made, TokenView):
        wide = {"width": width} if asked.get("style") is None else {}
        return token_figure(made, **{**asked, **wide})
    return styled(made, **asked)


def require_clean(page, made, look):
    width, _ = LOOKS[look]
    found = measured(page, laid_out(made, look), width)
    assert found["texts"], "nothing was drawn"
    assert not faults(found), "\n".join(faults(found)[:8])
    assert found["size"][1] < HIGHEST


@pytest.mark.parametrize("look", ["paper", "notebook, wide", "notebook, wide, dark"])
@pytest.mark.parametrize("name", NAMES)
def test_no_text_overlaps_or_is_cut(page, name, look):
    require_clean(page, cases(12, 5, 24)[name](), look)


@pytest.mark.parametrize("look", ["paper", "notebook"])
@pytest.mark.parametrize("name", ["faithfulness", "tradeoff", "models"])
def test_many_lines_leave_each_text_its_place(page, name, look):
    require_clean(page, cases(32, 17, 5)[name](), look)


@pytest.mark.slow
@pytest.mark.parametrize("n_tokens", [5, 60, 400])
@pytest.mark.parametrize("methods", [2, 17])
@pytest.mark.parametrize("layers", [6, 32])
@pytest.mark.parametrize("name", NAMES)
def test_the_whole_matrix(page, name, layers, methods, n_tokens):
    if name not in OF_TOKENS and n_tokens > 5:
        pytest.skip("has no tokens")
    if methods == 17 and n_tokens == 400 and name in ("heatmap", "transposed"):
        methods = 5  # nobody reads the 217,600 cells of more
    made = cases(layers, methods, n_tokens)[name]()
    for look in LOOKS:
        require_clean(page, made, look)


def test_texts_that_overlap_are_seen(page):
    figure = styled(cases(6, 2, 5)["faithfulness"](), "paper")
    figure.update_layout(title={"text": "A title that is far too long " * 4})
    found = faults(measured(page, figure, 312))
    assert any("cut" in fault for fault in found)
    figure = styled(cases(6, 2, 5)["faithfulness"](), "paper")
    figure.add_annotation(
        text="over it", x=0.5, y=-0.1, xref="paper", yref="paper", showarrow=False
    )
    figure.add_annotation(text="under", x=0.5, y=-0.1, xref="paper", yref="paper", showarrow=False)
    assert any("overlap" in fault for fault in faults(measured(page, figure, 312)))
