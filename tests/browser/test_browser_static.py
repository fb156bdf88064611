"""The explorer of a file, in a real browser: its numbers, its controls, and how panels are tied."""

import numpy as np
import pytest
from payloads import ODD, payload

from analysis.figures.tokens import colour_of

LIT = "all => all.map(e => e.closest('.sle-panel').classList[1] + ' ' + e.dataset.token)"


def expected(made, key):
    """The number of a payload that a page shows under this key; None where it is not measured."""
    kind, *rest = key.split("|")
    if kind in made["views"]:
        measure, *of, layer, token = rest
        first, _, second = "|".join(of).partition("−")
        at = (made["layers"].index(int(layer)), int(token))
        first, second = (cell(made, k, kind, measure, *at) if k else 0 for k in (first, second))
        return None if None in (first, second) else first - second
    if kind in {"kl", "recovered"}:
        return made["readings"]["|".join(rest)][kind]
    if kind == "rmse":
        return made["readings"]["|".join(rest[:-1])]["rmse"][made["layers"].index(int(rest[-1]))]
    if kind == "curve":
        lines = {line["name"]: line["rmse"] for line in made["curves"][rest[0]]}
        return lines[rest[1]][made["layers"].index(int(rest[2]))]
    if kind == "effect":
        text, method, place, strength, column = rest
        rows = [
            r for r in made["effect"][text] if (r["method"], r["place"]) == (method, int(place))
        ]
        return next(r[column] for r in rows if f"{r['strength']:g}" == strength)
    *of, token, way, rank = rest
    words = made["readings"]["|".join(of[:4])][kind]
    at = words if kind == "next" else words[made["layers"].index(int(of[4]))]
    return at[int(token)][way][int(rank)][1]


def cell(made, key, view, measure, layer, token):
    return made["readings"][key]["cells"][view][measure][layer][token]


def require_numbers_of(made, shown):
    """Each number is the payload's; the ends of the colours are computed from it elsewhere."""
    assert len(shown) > 20
    for key, value in shown.items():
        if key.startswith("limit|"):
            continue
        wanted = expected(made, key)
        assert (float(value) if value else None) == (
            None if wanted is None else pytest.approx(wanted)
        ), key


@pytest.mark.parametrize("name", ["usual", "one layer", "many scripts", "only the prompt"])
def test_every_number_shown_is_the_payloads(static, name):
    made = ODD[name]()
    require_numbers_of(made, static(made).numbers())


def test_numbers_follow_every_control(static):
    made = ODD["usual"]()
    opened = static(made)
    page = opened.page
    opened.slide("Strength", 4)
    assert "kl|0|CAA|0|4" in opened.numbers()
    opened.slide("Layer shown", 5)
    assert "rmse|0|CAA|0|4|5" in opened.numbers()
    opened.slide("Steered at", 2)
    assert "rmse|0|CAA|2|4|5" in opened.numbers()
    page.get_by_role("radio", name="PSR").check(force=True)
    page.get_by_role("radio", name="local").check(force=True)
    page.get_by_label("Measure", exact=True).select_option(label="norm of the change")
    assert "local|norm|0|PSR|2|4|5|4" in opened.numbers()
    page.get_by_label("Minus", exact=True).select_option(label="CAA")
    assert "local|norm|0|PSR|2|4−0|CAA|2|4|5|4" in opened.numbers()
    require_numbers_of(made, opened.numbers())
    page.get_by_label("Text", exact=True).select_option(index=1)
    assert "kl|1|PSR|2|4" in opened.numbers()
    require_numbers_of(made, opened.numbers())


def test_the_text_of_the_method_follows_its_strength(static):
    opened = static(ODD["usual"]())
    opened.slide("Strength", 1)
    assert "at strength 0.5" in opened.page.locator(".sle-card[data-method=CAA]").inner_text()


def test_what_was_not_measured_is_not_offered(static):
    made = payload(strengths=(0, 1, 2), places=(1, 2))
    for key in ["0|CAA|0|2", "0|CAA|1|0", "0|CAA|1|1", "0|CAA|1|2"]:
        del made["readings"][key]
    page = static(made).page
    assert page.get_by_label("Strength", exact=True).get_attribute("max") == "1"
    assert page.get_by_label("Steered at", exact=True).count() == 0


def test_colours_of_the_map_are_those_of_the_figures(static):
    made = payload(tokens=30)
    opened = static(made)
    values = [
        abs(v)
        for key in ("0|prompt|0|1", "0|CAA|0|1")
        for row, sinks in zip(
            made["readings"][key]["cells"]["accumulated"]["along"],
            made["readings"][key]["sink"],
            strict=True,
        )
        for i, v in enumerate(row)
        if i not in sinks
    ]
    limit = float(np.quantile(values, 0.98))
    shown = opened.numbers(".sle-map")["limit|accumulated|along|0|CAA|0|1"]
    assert float(shown) == pytest.approx(limit)
    for token in (7, 20):
        pixel = opened.page.eval_on_selector(
            "canvas[data-side=prompt]",
            """(e, token) => { const w = (e.clientWidth - 48) / 30, r = devicePixelRatio;
            const x = (46 + token * w + w / 4) * r, y = (2 + 1.25 * 24) * r;
            return [...e.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3); }""",
            token,
        )
        wanted = colour_of(cell(made, "0|prompt|0|1", "accumulated", "along", 4, token), limit)
        assert "#" + "".join(f"{channel:02x}" for channel in pixel) == wanted


def test_one_outlier_does_not_pale_the_map(static):
    made = payload(tokens=40)
    made["readings"]["0|prompt|0|1"]["cells"]["accumulated"]["along"][2][3] = 900.0
    opened = static(made)
    assert float(opened.numbers(".sle-map")["limit|accumulated|along|0|CAA|0|1"]) < 5
    assert "beyond the scale" in opened.page.locator(".sle-map").inner_text()
    dot = """e => { const w = (e.clientWidth - 48) / 40, r = devicePixelRatio;
      const at = [(46 + 3.5 * w) * r, (2 + 3.5 * 24 - 0.5) * r, 1, 1];
      return [...e.getContext("2d").getImageData(...at).data].slice(0, 3); }"""
    assert opened.page.eval_on_selector("canvas[data-side=prompt]", dot) == [255, 255, 255]


def test_hover_lights_a_token_in_every_panel(static):
    opened = static(payload())
    page = opened.page
    page.locator(".sle-tokentext[data-side=prompt] [data-token='6']").hover()
    assert page.eval_on_selector_all(".sle-lit", LIT) == [
        "sle-completions 6",
        "sle-tokens 6",
        "sle-tokens 6",
    ]
    assert {f"next|0|CAA|0|1|6|up|{i}" for i in range(5)} <= set(opened.numbers(".sle-next"))
    assert "accumulated|along|0|CAA|0|1|3|6" in opened.numbers(".sle-way")
    page.mouse.move(3, 3)
    assert page.eval_on_selector_all(".sle-lit", LIT)[0] == "sle-completions 4"


def test_hover_over_a_cell_of_the_map_lights_its_token_and_layer(static):
    opened = static(payload())
    canvas, cell = opened.page.locator("canvas[data-side=method]"), {"x": 46 + 9.5 * 46, "y": 14}
    canvas.hover(position=cell)
    assert opened.page.eval_on_selector_all(".sle-lit", LIT)[0] == "sle-completions 9"
    assert "accumulated|along|0|CAA|0|1|5|9" in opened.numbers(".sle-way")
    assert "rmse|0|CAA|0|1|5" in opened.numbers(".sle-distance")
    assert "lens|0|CAA|0|1|5|9|up|0" in opened.numbers(".sle-next")
    canvas.click(position=cell)
    opened.page.mouse.move(3, 3)
    assert "accumulated|along|0|CAA|0|1|5|9" in opened.numbers(".sle-headline")


def test_a_tap_chooses_a_token(static):
    opened = static(payload(), has_touch=True)
    opened.page.locator(".sle-card [data-token='3']").tap()
    assert opened.page.eval_on_selector_all(".sle-lit", LIT)[1] == "sle-tokens 3"


@pytest.mark.parametrize("where", [".sle-row >> nth=0", ".sle-scroller"])
def test_arrow_keys_move_token_and_layer(static, where):
    opened = static(payload())
    page = opened.page
    page.locator(where).focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"):
        page.keyboard.press(key)
    assert "accumulated|along|0|CAA|0|1|4|6" in opened.numbers(".sle-headline")
    assert "“·to”, layer 4" in page.locator(".sle-spoken").inner_text()
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    assert "accumulated|along|0|CAA|0|1|4|23" in opened.numbers(".sle-headline")
    assert page.evaluate("document.activeElement !== document.body")


def test_a_control_keeps_the_keyboard_when_it_is_built_anew(static):
    page = static(ODD["usual"]()).page
    page.get_by_label("Steered at", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-valuetext')") == "layer 3"


def test_a_token_of_a_long_text_is_scrolled_to_and_the_page_stays(static):
    page = static(payload(tokens=400, methods=("CAA",), strengths=(1,))).page
    page.locator(".sle-scroller").focus()
    top = page.evaluate("scrollY")
    page.keyboard.press("End")
    assert page.evaluate("scrollY") == top
    assert page.locator(".sle-scroller").evaluate("e => e.scrollLeft > 2000")
    row, token = (page.locator(f".sle-row >> nth=0 {inside}") for inside in ("", ">> .sle-lit"))
    row, token = row.bounding_box(), token.bounding_box()
    assert row["y"] <= token["y"] <= row["y"] + row["height"]


def test_a_click_in_a_chart_takes_its_layer_or_strength(static):
    opened = static(payload())
    click_at_the_right_of(opened.page.locator(".sle-distance .sle-pick"))
    opened.page.mouse.move(3, 3)
    assert "rmse|0|CAA|0|1|5" in opened.numbers(".sle-headline")
    click_at_the_right_of(opened.page.locator(".sle-effect .sle-pick >> nth=0"))
    assert "kl|0|CAA|0|4" in opened.numbers(".sle-headline")


def click_at_the_right_of(area):
    area.click(position={"x": area.bounding_box()["width"] - 8, "y": 20})


def test_template_tokens_unfold(static):
    page = static(payload()).page
    row = page.locator(".sle-row >> nth=1")
    assert "assistant" not in row.inner_text()
    row.get_by_role("button").first.click()
    assert "assistant" in row.inner_text()


def test_keep_shows_python_and_json(static):
    page = static(payload()).page
    page.get_by_role("button", name="Keep this view").click()
    python, made = (page.locator(f".sle-kept pre >> nth={i}").inner_text() for i in (0, 1))
    assert 'explorer.set(text=0, method="CAA", place=0, strength=1.0, layer=3' in python
    compile(python, "kept", "exec")
    assert page.evaluate("text => JSON.parse(text).method", made) == "CAA"


def test_two_explorers_in_one_page_do_not_disturb_each_other(static):
    opened = static(payload(), payload())
    first, second = "#explorer-0", "#explorer-1"
    before = opened.numbers(second)
    page = opened.page
    page.locator(f"{first} [aria-label=Strength]").evaluate(
        "e => { e.value = 4; e.dispatchEvent(new Event('input')); }"
    )
    page.locator(f"{first} input[value=PSR]").check(force=True)
    page.locator(f"{first} .sle-row [data-token='9'] >> nth=0").click()
    assert "kl|0|PSR|0|4" in opened.numbers(first)
    assert opened.numbers(second) == before
    assert page.locator(f"{second} input[value=CAA]").is_checked()


def test_markup_in_names_and_texts_stays_text(static):
    made = payload(
        methods=("<img src=x onerror=alert(1)>",), words=["<script>", "</script>", "&lt;"]
    )
    made["title"] = made["texts"][0]["question"] = "<b onclick='x'>title</b>"
    page = static(made).page
    assert page.locator(".sle-page img, .sle-page script, .sle-page b").count() == 0
    assert page.locator("h2").inner_text() == made["title"]


def test_another_format_is_refused_in_words(open_page, tmp_path):
    from explorer_pages import static_page

    file = tmp_path / "other.html"
    file.write_text(static_page(payload(), payload() | {"format": 2}), encoding="utf-8")
    assert "reads format 1" in open_page(file).page.locator("#explorer-1").inner_text()


ADDED = """() => { const e = document.querySelector("[aria-label=Strength]");
  const root = document.querySelector("#explorer-0");
  const tokens = [...root.querySelectorAll(".sle-token")], said = () => tokens.map((t) => t.title);
  const before = said();
  const seen = new MutationObserver(() => {});
  seen.observe(root, {childList: true, subtree: true});
  e.value = 4; e.dispatchEvent(new Event("input"));
  const added = seen.takeRecords().flatMap((one) => [...one.addedNodes]).filter((n) => n.tagName);
  const all = added.map((n) => 1 + n.querySelectorAll("*").length);
  return {tokens: tokens.length, repainted: said().filter((title, i) => title !== before[i]).length,
    kept: tokens.filter((one) => one.isConnected).length,
    added: all.reduce((sum, n) => sum + n, 0)}; }"""


def test_a_strength_repaints_and_rebuilds_no_token(static):
    """So that it takes milliseconds; how many is for a benchmark to say, on a machine at rest."""
    few, many = (static(payload(tokens=n, layers=30)).page.evaluate(ADDED) for n in (20, 60))
    assert many["tokens"] > few["tokens"] > 20
    assert few["repainted"] > 0
    assert many["repainted"] > few["repainted"]
    assert few["kept"] == few["tokens"]
    assert many["kept"] == many["tokens"]
    # Charts have elements for tokens, but not one for each of two rows, let alone for each layer.
    assert many["added"] - few["added"] < many["tokens"] - few["tokens"]
