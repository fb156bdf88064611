"""What a prompt is compared with: `baseline=` of every measure, and "any instruction"."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from real_templates import GEMMA_2, QWEN_2_5

import analysis
import steerlens
from analysis import (
    NEUTRAL,
    coefficients,
    compare,
    decodability,
    dispersion,
    faithfulness,
    faithfulness_study,
    logit_shift,
    rank_share,
    reworded,
    strengths,
    sweep,
)
from analysis.measures.aligned import align
from analysis.measures.least_squares import least_squares_strength
from analysis.measures.plain_side import ANY_INSTRUCTION
from steerlens import CAA, Conversation, PromptPair, Template, at, calibrate, use_template
from steerlens.cli.measure import Measured

QWENS = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
OWN = "You are Q."
WIDTH = 32
PAIRS = [PromptPair.with_system(text, "Be kind.", (5, 6, 9, 40)) for text in "ABCD"]
STEERING = at(1, CAA(torch.linspace(-1, 1, WIDTH)))


@pytest.fixture(scope="module")
def own(folders: dict[str, Path]) -> Any:
    """A model whose template has a system prompt of its own."""
    model = steerlens.load(folders["gpt2"])
    use_template(model, QWEN_2_5.replace(QWENS, OWN))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is told once, and other tests ask for it
        steerlens.encode(model, Conversation("A"))
    return model


def with_plain(text: str) -> list[PromptPair]:
    return [replace(pair, plain=replace(pair.plain, system=text)) for pair in PAIRS]  # pyright: ignore


MEASURES: dict[str, Any] = {
    "coefficients": lambda m, p, **k: coefficients(m, p, [1, 2], {"CAA": STEERING}, **k),
    "rank_share": lambda m, p, **k: rank_share(m, p, [1], folds=4, **k),
    "decodability": lambda m, p, **k: decodability(m, p, [1], folds=4, **k),
    "faithfulness": lambda m, p, **k: faithfulness(
        m, p, {"CAA": STEERING}, any_instruction=False, **k
    ),
    "logit_shift": lambda m, p, **k: logit_shift(m, p, {"CAA": STEERING}, **k),
}


@pytest.mark.parametrize("name", MEASURES)
def test_an_instruction_as_baseline_is_the_plain_sides_system_turn(own: Any, name: str) -> None:
    measure = MEASURES[name]
    for baseline, text in (("neutral", NEUTRAL), ("Be calm.", "Be calm.")):
        found = measure(own, PAIRS, baseline=baseline)
        pd.testing.assert_frame_equal(found, measure(own, with_plain(text)), check_exact=False)
        assert found.attrs["baseline"] == baseline
        assert repr(text) in found.attrs["plain_system"]
    numbers = found.select_dtypes("float")
    assert not np.allclose(numbers, measure(own, PAIRS).select_dtypes("float"), equal_nan=True)


@pytest.mark.parametrize("name", MEASURES)
def test_no_system_turn_is_what_the_template_without_one_gives(
    own: Any, name: str, folders: dict[str, Path]
) -> None:
    found = MEASURES[name](own, PAIRS, baseline="none")
    assert (found.attrs["baseline"], found.attrs["plain_system"]) == ("none", "none")
    bare = steerlens.load(folders["gpt2"])
    use_template(bare, Template(QWEN_2_5.replace(QWENS, OWN), system=None))
    pd.testing.assert_frame_equal(found, MEASURES[name](bare, PAIRS), check_exact=False)
    table = MEASURES[name](own, PAIRS)
    assert table.attrs["baseline"] == "template"
    assert OWN in table.attrs["plain_system"]


def test_the_plain_rows_hold_what_the_baseline_says(own: Any) -> None:
    def plain(**options: Any) -> str:
        row = align(own, PAIRS[:1], [1], **options).plain_rows[0]
        return own.tokenizer.decode(list(row.ids))

    assert OWN in plain()
    assert "system" not in plain(baseline="none")
    assert NEUTRAL in plain(baseline="neutral")
    assert OWN not in plain(baseline="neutral")
    assert "Talk low." in plain(baseline="Talk low.")


def test_none_leaves_out_a_text_that_was_chosen_for_the_model_too(
    folders: dict[str, Path],
) -> None:
    model = steerlens.load(folders["gpt2"])
    use_template(model, Template(QWEN_2_5, system="You are a critic."))
    rows = {b: align(model, PAIRS[:1], [1], baseline=b).plain_rows[0] for b in ("template", "none")}
    text = {name: model.tokenizer.decode(list(row.ids)) for name, row in rows.items()}
    assert "critic" in text["template"]
    assert "system" not in text["none"]


@pytest.mark.parametrize("baseline", ["", "  ", None, 3])
def test_a_baseline_that_is_no_text_is_an_error(gpt2: Any, baseline: Any, unchecked: None) -> None:
    error = ValueError if isinstance(baseline, str) else TypeError
    with pytest.raises(error, match=r"'template'.*'none'.*'neutral'"):
        coefficients(gpt2, PAIRS, [1], {}, baseline=baseline)


def test_the_instruction_itself_is_no_baseline(gpt2: Any) -> None:
    with pytest.raises(ValueError, match=r"instruction itself, 'Be kind\.'"):
        coefficients(gpt2, PAIRS, [1], {}, baseline="Be kind.")


def test_raw_text_has_no_system_turn_to_change(gpt2: Any) -> None:
    raw = [PromptPair("It was", "Be kind. It was", "a day") for _ in range(2)]
    with pytest.raises(ValueError, match="raw text"):
        coefficients(gpt2, raw, [1], {}, baseline="neutral")
    none = coefficients(gpt2, raw, [1], {}, baseline="none")
    pd.testing.assert_frame_equal(none, coefficients(gpt2, raw, [1], {}))


def test_a_default_inside_the_user_turn_cannot_be_left_out_and_the_error_says_so(
    folders: dict[str, Path],
) -> None:
    from real_templates import LLAMA_2

    model = steerlens.load(folders["gpt2"])
    inside = LLAMA_2.replace("set system_message = false", "set system_message = 'Be safe.'")
    use_template(model, inside)
    pairs = PAIRS[:2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"baseline='none'.*user turn"):
            coefficients(model, pairs, [1], {}, baseline="none")


def test_dispersion_says_which_baseline_its_table_has(own: Any) -> None:
    table = coefficients(own, PAIRS, [1], {}, baseline="neutral")
    assert dispersion(table, baseline="neutral").attrs["baseline"] == "neutral"
    with pytest.raises(ValueError, match=r"baseline 'neutral'.*'none' is asked for"):
        dispersion(table, baseline="none")


def test_strengths_of_conversations_are_read_after_the_baselines_system_turn(own: Any) -> None:
    asked = [Conversation("A", response="b")]
    told = [Conversation("A", NEUTRAL, response="b")]
    found = strengths(own, asked, {"CAA": STEERING}, baseline="neutral")
    pd.testing.assert_frame_equal(found, strengths(own, told, {"CAA": STEERING}))
    assert found.attrs["baseline"] == "neutral"
    assert len(strengths(own, asked, {"CAA": STEERING}, baseline="none")) < len(found)
    with pytest.raises(ValueError, match="raw text"):
        strengths(own, ["A b c"], {"CAA": STEERING}, baseline="neutral")


def test_least_squares_strengths_are_found_against_the_baseline(own: Any) -> None:
    found = least_squares_strength(own, STEERING, PAIRS, baseline="neutral")
    assert found == pytest.approx(least_squares_strength(own, STEERING, with_plain(NEUTRAL)))
    assert found != pytest.approx(least_squares_strength(own, STEERING, PAIRS), rel=1e-3)


# -- any instruction -------------------------------------------------------------------------------


def test_any_instruction_is_the_neutral_one_measured_as_a_method(own: Any) -> None:
    table = faithfulness(own, PAIRS, {"CAA": STEERING})
    assert table["method"].unique().tolist() == ["CAA", ANY_INSTRUCTION]
    assert table.attrs["any_instruction"] == NEUTRAL
    mine = table[table["method"] == ANY_INSTRUCTION]
    same = faithfulness(own, PAIRS, {}, neutral=[reworded(PAIRS, NEUTRAL)], any_instruction=False)
    np.testing.assert_allclose(mine["relative_rmse"], same["relative_rmse"])
    assert (mine["strength"] == "").all()


def test_any_instruction_is_left_out_with_a_sentence_where_it_cannot_be_had(
    own: Any, folders: dict[str, Path]
) -> None:
    for baseline in ("neutral", NEUTRAL):
        table = faithfulness(own, PAIRS, {"CAA": STEERING}, baseline=baseline)
        assert table["method"].unique().tolist() == ["CAA"]
        assert "already" in table.attrs["any_instruction"]
    raw = [PromptPair("It was", "Be kind. It was", "a day") for _ in range(2)]
    assert "raw text" in faithfulness(own, raw, {"CAA": STEERING}).attrs["any_instruction"]
    roleless = steerlens.load(folders["gpt2"])
    use_template(roleless, GEMMA_2)
    pairs = [PromptPair("A", "Be kind. A", "a day"), PromptPair("B", "Be kind. B", "a day")]
    mixed = [
        PromptPair(Conversation(q), Conversation(f"Be kind. {q}"), "a day") for q in ("A", "B")
    ]
    table = faithfulness(roleless, mixed, {"CAA": STEERING})
    assert table["method"].unique().tolist() == ["CAA"]
    assert "cannot be written on this model" in table.attrs["any_instruction"]
    with pytest.raises(ValueError, match=r"nothing to measure.*raw text"):
        faithfulness(roleless, pairs, {})


def test_the_figure_says_why_there_is_no_line_of_any_instruction(own: Any) -> None:
    figure = analysis.relative_rmse_curve(
        faithfulness(own, PAIRS, {"CAA": STEERING}, baseline="neutral")
    )
    said = figure.layout.title.subtitle.text
    assert "Compared with: the neutral instruction." in said
    assert "No line of “any instruction”" in said
    shown = analysis.relative_rmse_curve(faithfulness(own, PAIRS, {"CAA": STEERING}))
    assert ANY_INSTRUCTION in {trace.name for trace in shown.data}
    assert "No line" not in shown.layout.title.subtitle.text


# -- strengths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", ["none", "neutral"])
def test_a_strength_in_kl_is_found_against_the_baseline(
    own: Any, baseline: str, folders: dict[str, Path]
) -> None:
    """Of a sweep and of `compare --strength auto`: as on pairs that have that plain side."""
    model, pairs = own, PAIRS
    if baseline == "none":
        model = steerlens.load(folders["gpt2"])
        use_template(model, Template(QWEN_2_5.replace(QWENS, OWN), system=None))
    else:
        pairs = with_plain(NEUTRAL)
    right = calibrate(model, STEERING, pairs, like="prompt").strength
    assert right != pytest.approx(calibrate(own, STEERING, PAIRS, like="prompt").strength, rel=1e-3)

    swept = sweep(own, PAIRS, {"CAA": STEERING}, strengths=[1], unit="kl", baseline=baseline)
    assert swept["strength_value"].tolist() == pytest.approx([right], rel=1e-4)

    measured = Measured(strength="auto", baseline=baseline)
    names = measured._at_strength(own, PAIRS[:1] * 4, {"CAA": STEERING})
    right = calibrate(model, STEERING, pairs[:1] * 4, like="prompt").strength
    assert list(names) == [f"CAA at {right:.3g}"]


def test_bare_is_for_pairs(own: Any) -> None:
    with pytest.raises(ValueError, match="no PromptPairs"):
        calibrate(own, STEERING, ["A text."], target_kl=0.1, bare=True)


# -- reports ---------------------------------------------------------------------------------------


def test_comparison_and_study_take_the_baseline_and_their_pages_say_it(own: Any) -> None:
    compared = compare(own, PAIRS, {"CAA": STEERING}, baseline="none", n_shown=1)
    for table in (compared.coefficients, compared.faithfulness, compared.logit_shift):
        assert table.attrs["baseline"] == "none"
    made = analysis.provenance(own, compared, "x")
    assert (made["baseline"], made["system text of the plain prompts"]) == ("none", "none")
    page = analysis.comparison_report(compared, made, title="t", intro="i").html
    assert "without a system turn" in page
    assert "measured as if it were a method" in page
    studied = faithfulness_study(own, PAIRS, baseline="neutral")
    page = analysis.faithfulness_report(
        studied, analysis.provenance(own, studied, "x"), "t", "i"
    ).html
    assert "Talk like a person.&#x27;, the neutral instruction" in page
    assert studied.faithfulness is None  # against itself there is no line of any instruction
