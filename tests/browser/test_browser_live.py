"""The explorer as a widget: what it asks Python for, and what it does with the answers."""

import pytest
from payloads import payload

KEY = "0|CAA|0|1.3"


@pytest.fixture
def made():
    """A payload whose grid lacks the strength 1.3, and what Python would answer for it."""
    made = payload() | {"live": {"questions": True}}
    other = payload(strengths=(1.3,))
    reading = other["readings"][KEY] | {"kl": 0.777}
    return made, {"type": "reading", "key": KEY, "reading": reading, "effect": effect(0.777)}


def effect(kl):
    return {"method": "CAA", "place": 0, "strength": 1.3, "kl": kl, "recovered": 0.2, "rmse": 0.9}


def asked(opened, count=1):
    opened.page.wait_for_function(f"window.sent.length >= {count}")
    return opened.page.evaluate("window.sent")


def is_busy(opened):
    return opened.page.locator(".sle-progress").get_by_role("button", name="Stop").count() == 1


def answer(opened, *messages):
    opened.page.evaluate("all => window.answer(...all)", list(messages))


def test_a_new_strength_is_asked_for_once_it_rests(live, made):
    opened = live(made[0])
    for strength in (0.7, 1.1, 1.3):
        opened.slide("Strength", strength)
    (message,) = asked(opened)
    assert message["type"] == "ask"
    state = message["state"]
    assert (state["method"], state["strength"], state["question"]) == (
        "CAA",
        1.3,
        "Review a movie.",
    )


def test_until_the_answer_comes_the_last_reading_stays_and_is_faded(live, made):
    opened = live(made[0])
    opened.slide("Strength", 1.3)
    assert "kl|0|CAA|0|1" in opened.numbers()
    assert opened.page.locator(".sle-waits").count() == 1
    asked(opened)
    answer(opened, {"type": "progress", "id": 1, "text": "Reading layer 3 of 6", "share": 0.5})
    assert "Reading layer 3 of 6" in opened.page.locator(".sle-progress").inner_text()
    answer(opened, made[1] | {"id": 1})
    assert opened.numbers()["kl|" + KEY] == "0.777"
    assert opened.page.locator(".sle-waits").count() == 0
    assert not is_busy(opened)
    assert opened.numbers(".sle-effect")["effect|0|CAA|0|1.3|kl"] == "0.777"


def test_text_streams_and_progress_stays_until_all_is_there(live, made):
    opened = live(made[0])
    opened.slide("Strength", 1.3)
    asked(opened)
    early = {**made[1]["reading"], "text": None, "text_state": "none", "lens": None}
    answer(opened, made[1] | {"id": 1, "reading": early})
    card = opened.page.locator(".sle-card[data-method=CAA]")
    assert "not written yet" in card.inner_text()
    assert is_busy(opened)
    stream = {"type": "stream", "id": 1, "key": KEY}
    answer(opened, stream | {"text": "This is", "done": False})
    assert "This is" in card.inner_text()
    assert card.locator(".sle-caret").count() == 1
    answer(opened, stream | {"text": "This is all.", "done": True})
    assert card.locator(".sle-caret").count() == 0
    assert is_busy(opened)
    answer(opened, made[1] | {"id": 1})
    assert not is_busy(opened)
    assert len(opened.page.evaluate("window.sent")) == 1


def test_stop_is_sent_and_its_answer_ends_the_progress(live, made):
    opened = live(made[0])
    opened.slide("Strength", 1.3)
    asked(opened)
    answer(opened, {"type": "progress", "id": 1, "text": "Writing", "share": None})
    opened.page.get_by_role("button", name="Stop").click()
    assert asked(opened, 2)[-1] == {"type": "stop"}
    answer(opened, {"type": "stopped", "id": 1})
    assert not is_busy(opened)


def test_an_error_is_shown_and_goes_with_the_next_question(live, made):
    opened = live(made[0])
    opened.slide("Strength", 1.3)
    asked(opened)
    answer(opened, {"type": "error", "id": 1, "text": "Too strong: take less than 9."})
    assert opened.page.get_by_role("alert").inner_text() == "Too strong: take less than 9."
    assert not is_busy(opened)
    opened.slide("Strength", 1.4)
    asked(opened, 2)
    assert opened.page.get_by_role("alert").count() == 0


def test_an_answer_to_an_older_question_is_kept_and_moves_nothing(live, made):
    opened = live(made[0])
    opened.slide("Strength", 1.3)
    asked(opened)
    opened.slide("Strength", 1.4)
    asked(opened, 2)
    answer(opened, {"type": "error", "id": 1, "text": "old"}, made[1] | {"id": 1})
    assert opened.page.get_by_role("alert").count() == 0
    assert is_busy(opened)
    opened.slide("Strength", 1.3)
    assert "kl|" + KEY in opened.numbers()


def test_a_new_question_brings_its_text_and_curves(live, made):
    opened = live(made[0])
    page = opened.page
    page.get_by_label("Question").fill("What is love?")
    page.get_by_label("Instruction").fill("Be brief.")
    page.get_by_role("button", name="Run").click()
    (message,) = asked(opened)
    assert (message["state"]["question"], message["state"]["instruction"]) == (
        "What is love?",
        "Be brief.",
    )
    other = payload(tokens=3)
    text = other["texts"][0] | {"question": "What is love?", "instruction": "Be brief."}
    introduced = {"type": "text", "id": 1, "index": 1, "text": text}
    introduced["prompt"] = other["readings"]["0|prompt|0|1"]
    answer(opened, introduced | {"curves": []}, {"type": "vocabulary", "words": {"3": " baby"}})
    assert page.locator(".sle-tokentext[data-side=prompt] [role=option]").count() == 3
    answer(
        opened, made[1] | {"id": 1, "key": "1|CAA|0|1", "reading": other["readings"]["0|CAA|0|1"]}
    )
    page.locator(".sle-row >> nth=0").focus()
    page.keyboard.press("End")
    answer(opened, introduced | {"curves": other["curves"]["0"]})
    assert {"kl|1|CAA|0|1", "curve|1|any instruction|3"} <= set(opened.numbers())
    assert "accumulated|along|1|CAA|0|1|3|2" in opened.numbers(".sle-headline")
    assert page.get_by_label("Question").input_value() == "What is love?"
    assert page.get_by_label("Text", exact=True).locator("option").count() == 2


def test_keep_asks_python_and_shows_its_lines(live, made):
    opened = live(made[0])
    opened.page.get_by_role("button", name="Keep this view").click()
    (message,) = asked(opened)
    assert (message["type"], message["state"]["layer"]) == ("keep", 3)
    answer(opened, {"type": "kept", "python": "explorer.set(layer=3)", "json": '{"layer": 3}'})
    assert opened.page.locator(".sle-kept pre >> nth=0").inner_text() == "explorer.set(layer=3)"


def test_what_the_first_view_lacks_is_asked_for_at_once(live):
    made = payload()
    made["readings"]["0|CAA|0|1"]["lens"] = None
    (message,) = asked(live(made))
    assert message["state"]["strength"] == 1


def test_an_exact_strength_can_be_typed(live, made):
    opened = live(made[0])
    box = opened.page.get_by_label("Strength, exact")
    box.fill("-2.25")
    box.press("Enter")
    assert asked(opened)[0]["state"]["strength"] == -2.25


def test_a_reading_of_a_strength_with_rounding_dust_has_the_name_python_gives_it(live, made):
    opened = live(made[0])
    opened.slide("Strength", 0.1 + 0.2)
    assert str(asked(opened)[0]["state"]["strength"]) == "0.3"


def test_a_new_payload_is_drawn_and_the_end_leaves_nothing(live, made):
    opened = live(made[0])
    page = opened.page
    page.evaluate("payload => window.give(payload)", payload() | {"title": "Another"})
    assert page.locator("h2").inner_text() == "Another"
    assert page.locator(".steerlens-explorer").count() == 1
    page.evaluate("window.end()")
    assert page.locator(".steerlens-explorer").count() == 0
    assert page.evaluate("window.listeners()") == 0
