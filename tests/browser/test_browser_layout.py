"""The explorer's layout in a real browser: nothing overlaps, is cut, or too small to read."""

import pytest
from payloads import ODD, payload

# Boxes of text as they are seen: cut to the boxes that scroll around them.
MEASURE = """() => {
  const seen = [], problems = [];
  const page = document.querySelector(".sle-page");
  const walker = document.createTreeWalker(page, NodeFilter.SHOW_TEXT);
  const clipped = (node, rect) => {
    let {left, right, top, bottom} = rect;
    for (let e = node; e && e !== page; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.overflowX === "visible" && style.overflowY === "visible") continue;
      const box = e.getBoundingClientRect();
      [left, right, top, bottom] = [Math.max(left, box.left), Math.min(right, box.right),
        Math.max(top, box.top), Math.min(bottom, box.bottom)];
    }
    return {left, right, top, bottom};
  };
  const scrolls = (e) => { for (; e && e !== page; e = e.parentElement)
    if (/auto|scroll/.test(getComputedStyle(e).overflowX + getComputedStyle(e).overflowY)) return true; return false; };
  while (walker.nextNode()) {
    const text = walker.currentNode, element = text.parentElement;
    if (!text.data.trim() || element.closest("option, title, [hidden], .sle-spoken")) continue;
    const style = getComputedStyle(element), range = document.createRange();
    if (parseFloat(style.fontSize) < 11) problems.push(["small", text.data, style.fontSize]);
    range.selectNodeContents(text);
    for (const rect of range.getClientRects()) {
      const r = clipped(element, rect), shortens = style.textOverflow === "ellipsis" && (element.title || element.closest("[title]"));
      if (r.right - r.left < 1 || r.bottom - r.top < 3) continue;
      if (rect.right > r.right + 1.5 && !shortens && !scrolls(element)) problems.push(["cut", text.data, rect.right - r.right]);
      if (r.right > innerWidth + 0.5 || r.left < -0.5) problems.push(["outside", text.data, r.right]);
      // Glyphs do not fill their line: its box may touch that of the next.
      const slack = Math.min(4, (r.bottom - r.top) * 0.2);
      seen.push({left: r.left + 1, right: r.right - 1, top: r.top + slack, bottom: r.bottom - slack, element, text: text.data});
    }
  }
  for (let i = 0; i < seen.length; i++) for (let j = i + 1; j < seen.length; j++) {
    const [a, b] = [seen[i], seen[j]];
    if (a.element !== b.element && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)
      problems.push(["overlap", a.text, b.text]);
  }
  if (document.documentElement.scrollWidth > innerWidth) problems.push(["wide", document.documentElement.scrollWidth]);
  return problems.slice(0, 8);
}"""


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
    opened.page.wait_for_function("document.querySelector('.sle-distance svg[role]').clientWidth < 420")
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
