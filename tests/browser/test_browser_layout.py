"""The explorer's layout in a real browser: nothing overlaps, is cut, or too small to read."""

import pytest
from payloads import ODD, payload

# Boxes of text as they are seen, which is without what the boxes around them cut off.
MEASURE = """() => {
  const page = document.querySelector(".sle-page"), seen = [], problems = [];
  const around = (e) => (e && e !== page ? [e, ...around(e.parentElement)] : []);
  const cuts = (e) => getComputedStyle(e).overflowX !== "visible";
  const scrolls = (e) => around(e).some((each) => /auto|scroll/.test(
    getComputedStyle(each).overflowX + getComputedStyle(each).overflowY));
  const visible = (element, rect) => around(element).filter(cuts).reduce((r, each) => {
    const box = each.getBoundingClientRect();
    return { left: Math.max(r.left, box.left), right: Math.min(r.right, box.right),
      top: Math.max(r.top, box.top), bottom: Math.min(r.bottom, box.bottom) };
  }, { left: rect.left, right: rect.right, top: rect.top, bottom: rect.bottom });

  const look = (text, element, style, rect) => {
    const r = visible(element, rect);
    const shortened = style.textOverflow === "ellipsis" && element.closest("[title]");
    if (rect.right > r.right + 1.5 && !shortened && !scrolls(element)) problems.push(["cut", text]);
    if (r.right - r.left < 1 || r.bottom - r.top < 3) return;
    if (r.right > innerWidth + 0.5 || r.left < -0.5) problems.push(["outside", text]);
    // Glyphs do not fill their line: its box may touch that of the next.
    const slack = Math.min(4, (r.bottom - r.top) * 0.2);
    seen.push({ element, text, left: r.left + 1, right: r.right - 1,
      top: r.top + slack, bottom: r.bottom - slack });
  };
  const walker = document.createTreeWalker(page, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode, element = text.parentElement, range = document.createRange();
    if (!text.data.trim() || element.closest("option, [hidden], .sle-spoken")) continue;
    const style = getComputedStyle(element);
    if (parseFloat(style.fontSize) < 11) problems.push(["small", text.data, style.fontSize]);
    range.selectNodeContents(text);
    for (const rect of range.getClientRects()) look(text.data, element, style, rect);
  }
  const meet = (a, b) =>
    a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  seen.forEach((a, i) => seen.slice(i + 1).forEach((b) => {
    if (a.element !== b.element && meet(a, b)) problems.push(["overlap", a.text, b.text]);
  }));
  if (document.documentElement.scrollWidth > innerWidth) problems.push(["wide"]);
  return problems.slice(0, 8);
}"""
FAULTS = {
    "small": ".sle-number { font-size: 10px !important }",
    "cut": ".sle-big { width: 20px; overflow: hidden }",
    "overlap": ".sle-panel h3 { margin-bottom: -24px !important }",
    "outside": ".sle-page { width: 1700px }",
}


@pytest.mark.parametrize("found", FAULTS)
def test_a_fault_planted_in_the_page_is_found(static, found):
    page = static(payload()).page
    page.add_style_tag(content=FAULTS[found])
    assert found in {problem[0] for problem in page.evaluate(MEASURE)}


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 700, 1400])
@pytest.mark.parametrize("name", ODD)
def test_no_text_overlaps_or_is_cut(static, name, width, theme):
    assert static(ODD[name](), width=width, theme=theme).page.evaluate(MEASURE) == []


@pytest.mark.parametrize("width", [700, 1400])
def test_no_text_of_an_ordinary_page_overlaps_or_is_cut(static, width):
    assert static(ODD["usual"](), width=width).page.evaluate(MEASURE) == []


def test_it_fits_the_narrow_cell_of_a_wide_window(live):
    opened = live(ODD["usual"](), width=1400)
    opened.page.eval_on_selector("#explorer", "e => { e.style.width = '420px'; }")
    chart = "document.querySelector('.sle-distance svg[role]')"
    opened.page.wait_for_function(f"{chart}.clientWidth < 420")
    assert opened.page.evaluate(MEASURE) == []


@pytest.mark.parametrize("width", [700, 1400])
def test_many_tokens_and_layers_scroll_inside_their_box(static, width):
    made = payload(tokens=400, layers=30, methods=("CAA",), strengths=(1,))
    page = static(made, width=width).page
    box = page.locator(".sle-scroller")
    assert box.evaluate("e => e.scrollWidth > 3 * e.clientWidth && e.clientHeight < 700")
    assert page.locator(".sle-page").bounding_box()["height"] < 4200


def test_dark_and_light_follow_the_system_and_then_the_notebook(static):
    page = static(ODD["usual"](), theme="dark").page
    theme = "document.querySelector('.steerlens-explorer').dataset.theme"
    assert page.evaluate(theme) == "dark"
    page.emulate_media(color_scheme="light")
    page.wait_for_function(f"{theme} === 'light'")
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    page.wait_for_function(f"{theme} === 'dark'")


def test_a_page_is_printed_in_light_colours(static):
    page = static(ODD["usual"](), theme="dark").page
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelector('.steerlens-explorer').dataset.theme") == "light"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelector('.steerlens-explorer').dataset.theme") == "dark"
