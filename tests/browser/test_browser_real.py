"""The explorer of the embedded model: the page shows the numbers of its table."""

import json

import pytest
from explorer_pages import Opened

import steerlens as sl

pytestmark = pytest.mark.slow
PAIRS = [
    sl.PromptPair(
        "Review a movie you watched.", "Be positive.", "A film full of joy, and well played."
    ),
    sl.PromptPair(
        "What did you think of the film?", "Be positive.", "It was a great film. I loved it."
    ),
]


@pytest.fixture(scope="module")
def explorer():
    model = sl.load("demo")
    caa = {
        layer: sl.CAA.fit(model, (["I loved it"], ["I hated it"]), layer).steering
        for layer in (2, 3)
    }
    act_add = sl.ActAdd.fit(model, (" wonderful", " terrible"), 3, c=4.0).steering
    return sl.explore(
        model,
        steerings={"CAA": caa, "ActAdd": act_add},
        pairs=PAIRS,
        strengths=(0.0, 1.0, 2.0),
        max_new_tokens=12,
    )


@pytest.fixture(scope="module")
def saved(explorer, tmp_path_factory):
    return explorer.save(tmp_path_factory.mktemp("explorer") / "x.html", texts=[0, 1])


def shown_cells(opened: Opened):
    """Each coefficient shown: its measure, view and place in the table, and the number."""
    for key, value in opened.numbers().items():
        view, *rest = key.split("|")
        if view in {"accumulated", "local"}:
            measure, text, method, place, strength, layer, token = rest
            yield (
                (view, measure, int(text), method, int(place), float(strength)),
                (
                    int(layer),
                    int(token),
                ),
                float(value),
            )


def test_the_numbers_shown_are_those_of_the_table(explorer, saved, open_page):
    opened, table, looked_at = open_page(saved), explorer.table, 0
    opened.page.get_by_role("radio", name="CAA").check(force=True)
    for strength, place, view in ((1, 0, "accumulated"), (2, 1, "local")):
        opened.slide("Strength", strength)
        opened.slide("Steered at", place)
        opened.page.get_by_role("radio", name=view).check(force=True)
        for of, at, value in shown_cells(opened):
            row = row_of(explorer, table, of, at)
            assert value == pytest.approx(row[of[1]], rel=1e-3, abs=1e-4), (of, at)
            looked_at += 1
    assert looked_at > 30


def row_of(explorer, table, of, at):
    view, _, text, method, place, strength = of
    label = {m.name: m.places for m in explorer.study.methods}[method][place].label
    rows = table[(table["example"] == text) & (table["method"] == method)]
    rows = rows[(rows["view"] == view) & (rows["place"] == label)]
    rows = rows[(rows["layer"] == at[0]) & (rows["token_index"] == at[1])]
    if method != "prompt":
        rows = rows[rows["strength_value"] == strength]
    (row,) = rows.to_dict("records")
    return row


def test_what_keep_writes_makes_the_same_state(explorer, saved, open_page):
    opened = open_page(saved)
    opened.slide("Strength", 2)
    opened.slide("Layer shown", 5)
    opened.page.get_by_role("button", name="Keep this view").click()
    python, state = (opened.page.locator(f".sle-kept pre >> nth={i}").inner_text() for i in (0, 1))
    again = explorer.at(json.loads(state))
    assert (again.state["strength"], again.state["layer"]) == (2, 5)
    last = python.splitlines()[-1].removeprefix("explorer = ")
    assert eval(last, {"explorer": explorer}).state == again.state


def test_it_is_below_its_budget_and_asks_nobody(saved, open_page):
    assert saved.stat().st_size < 8_000_000
    assert open_page(saved, width=700, theme="dark").asked == []
