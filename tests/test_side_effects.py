"""Side effects: every number again by hand, from the logits of plain passes."""

import math
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_coefficients import PAIRS
from tiny_models import D_MODEL

import steerlens as sl
from analysis.measures.changes import UNSTEERED, named
from analysis.measures.cloze import (
    Cloze,
    cloze_scores,
    cloze_summary,
    frozen_cloze,
    read_cloze,
    write_cloze,
)
from analysis.measures.cloze_making import _pools, cloze_items
from analysis.measures.diversity import distinct_n, distinct_n_summary, words_of
from analysis.measures.entries import Entry
from analysis.measures.overhead import overhead
from analysis.measures.refusals import refusal_in, refusal_summary, refusals
from analysis.measures.side_effects import (
    kl_by_text,
    kl_summary,
    perplexity_summary,
    perplexity_under,
    token_kl,
)
from analysis.measures.topic_words import topic_words_by_layer
from analysis.measures.topics import (
    probability_shifts,
    topic_frequency,
    topic_perplexity,
    topic_summary,
)
from analysis.measures.word_shifts import first_tokens, word_shift_summary, word_shifts
from steerlens import CAA, Conversation, GradientStep, at
from steerlens.identity import context_length
from steerlens.sampling import Sampling

TEXTS = [
    "The dog ran to the house, and the cat sat on the mat.",
    "I love you because you are kind.",
    "They talked about weddings and about the weather, and then went home.",
]
V = 2 * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))
STEERING = at(1, CAA(V))


def log_p(model: Any, ids: Any, steering: Any = None) -> torch.Tensor:
    """Log p of every next token, [pos, d_vocab], one row alone, steered at every position."""
    tokens = torch.tensor([list(ids)])
    hooks = [] if steering is None else steering.hooks()
    with torch.no_grad(), model.hooks(hooks):
        return model(tokens)[0].double().log_softmax(-1)


def of_actual(model: Any, ids: Any, steering: Any = None) -> np.ndarray:
    scores = log_p(model, ids, steering)
    return scores[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()


def ids_of(model: Any) -> list[tuple[int, ...]]:
    return [sl.encode(model, text).ids for text in TEXTS]


# -- Perplexity ------------------------------------------------------------------------------------


def test_perplexity_is_that_of_every_token_after_the_first(gpt2: Any) -> None:
    table = perplexity_under(gpt2, {"push": STEERING}, TEXTS)
    assert list(table["method"]) == [UNSTEERED] * 3 + ["push"] * 3
    for number, ids in enumerate(ids_of(gpt2)):
        plain, steered = -of_actual(gpt2, ids), -of_actual(gpt2, ids, STEERING)
        row = table.loc[(table["method"] == "push") & (table["text"] == number)].iloc[0]
        assert row["n_tokens"] == len(ids) - 1
        assert row["nll"] == pytest.approx(steered.sum(), rel=1e-5)
        assert row["nll_unsteered"] == pytest.approx(plain.sum(), rel=1e-5)
        assert row["perplexity"] == pytest.approx(math.exp(steered.mean()), rel=1e-4)
        assert row["ratio"] == pytest.approx(math.exp(steered.mean() - plain.mean()), rel=1e-4)
    assert (table.loc[table["method"] == UNSTEERED, "ratio"] == 1).all()


def test_the_summary_of_perplexities_is_over_all_tokens(gpt2: Any) -> None:
    table = perplexity_under(gpt2, STEERING, TEXTS)
    summary = perplexity_summary(table).set_index("method")
    assert list(summary.index) == [UNSTEERED, "steered"]
    steered = table.loc[table["method"] == "steered"]
    n = steered["n_tokens"].sum()
    row = summary.loc["steered"]
    assert row["perplexity"] == pytest.approx(math.exp(steered["nll"].sum() / n))
    gained = (steered["nll"] - steered["nll_unsteered"]).sum() / n
    assert row["ratio"] == pytest.approx(math.exp(gained))
    assert row["ratio_low"] < row["ratio"] < row["ratio_high"]
    assert row["perplexity_low"] < row["perplexity"] < row["perplexity_high"]
    assert (row["n_texts"], row["n_tokens"]) == (3, n)
    plain = summary.loc[UNSTEERED]
    assert (plain["ratio_low"], plain["ratio"], plain["ratio_high"]) == (1, 1, 1)


def test_a_gradient_step_is_measured_like_a_steering(gpt2: Any) -> None:
    asked = [Conversation("What is it?", response="It was a good day.")]
    step = GradientStep.fit(gpt2, (asked, ()), loss="sft", eta=0.1)
    changes = {"step": step, "push": STEERING}
    table = perplexity_under(gpt2, changes, TEXTS).set_index(["method", "text"])
    kl = token_kl(gpt2, changes, TEXTS)
    for number, ids in enumerate(ids_of(gpt2)):
        plain = log_p(gpt2, ids)[:-1]
        with step.applied(gpt2):
            expected, moved = -of_actual(gpt2, ids).sum(), log_p(gpt2, ids)[:-1]
        assert table.loc[("step", number), "nll"] == pytest.approx(expected, rel=1e-5)
        own = kl.loc[(kl["method"] == "step") & (kl["text"] == number), "kl"]
        wanted = (moved.exp() * (moved - plain)).sum(-1).numpy()
        np.testing.assert_allclose(own, wanted, rtol=1e-3, atol=1e-6)
    assert table.loc[(UNSTEERED, 0), "nll"] == table.loc[("step", 0), "nll_unsteered"]


def test_text_counts_as_response_or_as_prompt(gpt2: Any) -> None:
    limited = STEERING.only(sl.prompt)
    as_prompt = perplexity_under(gpt2, limited, TEXTS, text_is="prompt")
    everywhere = perplexity_under(gpt2, STEERING, TEXTS)
    np.testing.assert_allclose(as_prompt["nll"], everywhere["nll"], rtol=1e-6)
    as_response = perplexity_under(gpt2, limited, TEXTS)
    steered = (as_response["method"] == "steered").to_numpy()
    assert not np.allclose(as_response["nll"][steered], everywhere["nll"][steered], rtol=1e-3)
    answered = [Conversation("What is it?", response="A good day.")]
    table = perplexity_under(gpt2, STEERING, answered)
    row = sl.encode(gpt2, answered[0])
    expected = -of_actual(gpt2, row.ids, STEERING)[row.response - 1 :]
    assert table["nll"].iloc[1] == pytest.approx(expected.sum(), rel=1e-5)
    pairs = perplexity_under(gpt2, STEERING, PAIRS)
    assert pairs["n_tokens"].iloc[0] == len(sl.encode_pair(gpt2, PAIRS[0])[0].ids) - (
        sl.encode_pair(gpt2, PAIRS[0])[0].response
    )


def test_texts_are_cut_and_their_first_positions_left_out(gpt2: Any) -> None:
    ids = ids_of(gpt2)[0]
    table = perplexity_under(gpt2, STEERING, TEXTS, max_tokens=6, skip=2)
    assert (table["n_tokens"] == 3).all()
    expected = -of_actual(gpt2, ids[:6], STEERING)[2:]
    assert table.loc[3, "nll"] == pytest.approx(expected.sum(), rel=1e-5)
    with pytest.raises(ValueError, match="skip=5 leaves nothing of text 0"):
        perplexity_under(gpt2, STEERING, TEXTS, max_tokens=6, skip=5)


def test_a_text_longer_than_the_context_is_cut_not_refused(gpt2: Any) -> None:
    n = context_length(gpt2)
    assert n is not None
    table = perplexity_under(gpt2, STEERING, ["a good day " * 9 * n], max_tokens=n)
    assert (table["n_tokens"] >= 0.9 * (n - 1)).all()


def test_an_idle_steering_is_warned_of(gpt2: Any) -> None:
    with pytest.warns(sl.SteeringWarning, match="met no token"):
        perplexity_under(gpt2, STEERING.only(sl.positions(100, 110)), TEXTS)


# -- KL --------------------------------------------------------------------------------------------


def test_kl_is_that_of_each_token_and_its_sum(gpt2: Any) -> None:
    table = token_kl(gpt2, STEERING, TEXTS)
    assert set(table["method"]) == {"steered"}
    sums = kl_by_text(table).set_index("text")
    for number, ids in enumerate(ids_of(gpt2)):
        p, q = log_p(gpt2, ids, STEERING)[:-1], log_p(gpt2, ids)[:-1]
        expected = (p.exp() * (p - q)).sum(-1).numpy()
        own = table.loc[table["text"] == number]
        np.testing.assert_allclose(own["kl"], expected, rtol=1e-4, atol=1e-7)
        assert list(own["token_index"]) == list(range(len(ids) - 1))
        assert sums.loc[number, "kl_sum"] == pytest.approx(expected.sum(), rel=1e-4)
        assert sums.loc[number, "kl_mean"] == pytest.approx(expected.mean(), rel=1e-4)
    assert "".join(table.loc[table["text"] == 1, "token"]) == TEXTS[1]
    row = kl_summary(table).iloc[0]
    assert row["kl_per_token"] == pytest.approx(table["kl"].mean())
    assert row["kl_per_text"] == pytest.approx(sums["kl_sum"].mean())
    assert row["kl_per_token_low"] < row["kl_per_token"] < row["kl_per_token_high"]
    assert row["kl_per_text_low"] < row["kl_per_text"] < row["kl_per_text_high"]


# -- Words -----------------------------------------------------------------------------------------


def test_word_shifts_are_of_the_first_token_with_and_without_a_space(gpt2: Any) -> None:
    words = ["weddings", "kind", "Zebra"]  # the last begins with a space alone in this vocabulary
    tokens = {word: first_tokens(gpt2, word) for word in words}
    tokenizer = gpt2.tokenizer
    for word, ids in tokens.items():
        spelt = [
            tokenizer(form, add_special_tokens=False)["input_ids"] for form in (f" {word}", word)
        ]
        spoken = [next(i for i in row if tokenizer.decode([i]).strip()) for row in spelt]
        assert set(ids) == set(spoken)
    for where in ("every", "end"):
        table = word_shifts(gpt2, STEERING, TEXTS, words, where=where)
        for number, ids in enumerate(ids_of(gpt2)):
            places = slice(0, -1) if where == "every" else slice(-1, None)
            for word in words:
                columns = list(tokens[word])
                plain, steered = (
                    log_p(gpt2, ids, s)[places][:, columns].logsumexp(1).mean()
                    for s in (None, STEERING)
                )
                row = table.loc[(table["text"] == number) & (table["word"] == word)].iloc[0]
                assert row["log_p"] == pytest.approx(float(steered), abs=1e-4)
                assert row["shift"] == pytest.approx(float(steered - plain), abs=1e-4)
                assert row["n_tokens"] == (len(ids) - 1 if where == "every" else 1)
    summary = word_shift_summary(table).set_index("word")
    expected = table.loc[table["word"] == "kind", "shift"]
    assert summary.loc["kind", "shift"] == pytest.approx(expected.mean())
    assert summary.loc["kind", "low"] <= expected.mean() <= summary.loc["kind", "high"]


def test_conversations_have_an_end_too(gpt2: Any) -> None:
    asked = [Conversation("What is it?")]
    table = word_shifts(gpt2, STEERING, asked, ["kind"], where="end")
    ids = sl.encode(gpt2, asked[0]).ids
    expected = log_p(gpt2, ids)[-1, list(first_tokens(gpt2, "kind"))].logsumexp(0)
    assert table["log_p_unsteered"].iloc[0] == pytest.approx(float(expected), abs=1e-4)
    with pytest.raises(ValueError, match="No words were given"):
        word_shifts(gpt2, STEERING, TEXTS, [])


# -- Diversity and refusals ------------------------------------------------------------------------


def test_distinct_n_counts_n_grams_over_words() -> None:
    texts = ["The cat, the cat and THE cat", "a b c", ""]
    table = distinct_n(texts, 2)
    # the cat | cat , | , the | the cat | cat and | and the | the cat: 5 different, 8 words
    assert list(table["n_words"]) == [8, 3, 0]
    assert list(table["n_distinct"]) == [5, 2, 0]
    assert table["distinct_n"].iloc[0] == 5 / 8
    assert math.isnan(table["distinct_n"].iloc[2])
    assert list(distinct_n(texts[:1], 1)["n_distinct"]) == [4]
    whole = distinct_n_summary(["a b", "a b", "b c"], 2)
    assert whole["corpus"] == 2 / 6
    assert whole["mean"] == pytest.approx(0.5)
    assert (whole["n_texts"], whole["n_words"]) == (3, 6)
    with pytest.raises(TypeError, match="found a single one"):
        distinct_n("a text", 2)
    with pytest.raises(ValueError, match="length of the n-grams"):
        distinct_n(texts, 0)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("I’m sorry, but I can't help with that.", "i'm sorry"),
        ("As an AI language model, I do not eat.", "as an ai"),
        ("  I CANNOT do it.", "i cannot"),
        ("Take two eggs and beat them.", None),
        ("First bake the bread for an hour, then let it cool well; I cannot say more.", None),
    ],
)
def test_a_refusal_is_known_by_how_it_begins(text: str, found: str | None) -> None:
    assert refusal_in(text) == found


def test_refusals_are_of_completions_of_the_questions(gpt2: Any) -> None:
    questions = ["What is it?", Conversation("Who sat on the mat?", "You are kind.")]
    table = refusals(gpt2, STEERING, questions, n=2, max_new_tokens=4, temperature=1.0)
    assert len(table) == 8
    expected = sl.generate(
        gpt2, [Conversation("What is it?"), questions[1]], STEERING, n=2, max_new_tokens=4,
        temperature=1.0, seed=0,
    )  # fmt: skip
    assert list(table.loc[table["method"] == "steered", "text"]) == list(expected.texts)
    assert list(table["asked"].unique()) == ["What is it?", "Who sat on the mat?"]
    table.loc[[0, 1, 2], "refused"] = True
    summary = refusal_summary(table).set_index("method")
    assert summary.loc[UNSTEERED, "share"] == 0.75
    assert summary.loc["steered", "share"] == table["refused"][4:].mean()
    assert (summary["n_questions"] == 2).all()


# -- Knowledge -------------------------------------------------------------------------------------

NAMES = ["Vienna", "Berlin", "Madrid", "Lisbon", "Oslo", "Dublin", "Warsaw", "Athens"]
ARTICLES = {
    f"Town {i}": f"The old town of number {i} is near the large city of {name}, as all know well. "
    f"It was built by some people who were {verb} there."
    for i, (name, verb) in enumerate(
        zip(
            NAMES,
            ("farming", "fishing", "hunting", "trading", "mining", "weaving", "singing", "sailing"),
            strict=True,
        )
    )
}


def test_items_are_made_by_rule_and_seed_alone() -> None:
    items = cloze_items(ARTICLES, 6, seed=1, kinds=("name",))
    assert items == cloze_items(ARTICLES, 6, seed=1, kinds=("name",))
    assert items != cloze_items(ARTICLES, 6, seed=2, kinds=("name",))
    assert len({item.source for item in items}) == 6
    for item in items:
        article = ARTICLES[item.source]
        assert article.startswith(f"{item.before} {item.target}")
        assert item.target not in item.before
        assert len(set(item.candidates)) == 4
        assert {*item.candidates} <= set(NAMES)
        assert not any(one in article for one in item.distractors)
        assert item.chance == 0.25
    words = cloze_items(ARTICLES, 4, kinds=("word",))
    assert all(item.target.islower() and item.kind == "word" for item in words)
    # Common words, such as "people", are in too many of the articles.
    assert all(item.target.endswith("ing") for item in words)
    with pytest.raises(ValueError, match="8 texts make 8 items, and 60 were asked for"):
        cloze_items(ARTICLES, 60)


def test_distractors_have_as_many_words() -> None:
    other = "It is a very old and quiet place that is north of Black Forest, as all know well."
    more = {**ARTICLES, "A": other}
    for item in cloze_items(more, 8, kinds=("name",)):
        assert "Black Forest" not in item.candidates


def test_a_word_that_many_texts_have_is_no_target() -> None:
    gaps = _pools(list(ARTICLES.values()), ("word",), Random(0))["word"]
    assert {gap.target for gap in gaps} == {text.split()[-2] for text in ARTICLES.values()}


def test_a_model_answers_with_the_likeliest_candidate(gpt2: Any) -> None:
    items = cloze_items(ARTICLES, 3)
    table = cloze_scores(gpt2, STEERING, items)
    for method, steering in ((UNSTEERED, None), ("steered", STEERING)):
        for number, item in enumerate(items):
            scores = []
            for answer in item.candidates:
                prompt = sl.encode(gpt2, item.before)
                ids = sl.encode(gpt2, f"{item.before} {answer}").ids
                own = of_actual(gpt2, ids, steering)[len(prompt.ids) - 1 :]
                scores.append(own.mean())
            row = table.loc[(table["method"] == method) & (table["item"] == number)].iloc[0]
            assert row["score_target"] == pytest.approx(scores[0], abs=1e-4)
            assert row["margin"] == pytest.approx(scores[0] - max(scores[1:]), abs=1e-4)
            assert row["correct"] == (scores[0] > max(scores[1:]))
    table.loc[table["method"] == UNSTEERED, "correct"] = [True, True, False]
    table.loc[table["method"] == "steered", "correct"] = [True, False, False]
    summary = cloze_summary(table).set_index(["method", "kind"])
    assert summary.loc[(UNSTEERED, "all"), "accuracy"] == pytest.approx(2 / 3)
    assert summary.loc[("steered", "all"), "change"] == pytest.approx(-1 / 3)
    assert summary.loc[("steered", "all"), "chance"] == 0.25
    assert summary.loc[("steered", "all"), "n_items"] == 3


def test_items_are_kept_in_a_file_with_their_licence(tmp_path: Path) -> None:
    items = cloze_items(ARTICLES, 3)
    write_cloze(items, tmp_path / "items.json", {"licence": "none"})
    assert read_cloze(tmp_path / "items.json") == items
    frozen = frozen_cloze()
    assert len(frozen) == 60
    assert Counter(item.kind for item in frozen)["name"] >= 25
    assert len({item.source for item in frozen}) == 60
    assert all(len(item.candidates) == 4 and len(item.before.split()) <= 30 for item in frozen)


@pytest.mark.slow
def test_the_demo_model_is_above_chance_on_the_frozen_items() -> None:
    row = cloze_summary(cloze_scores(sl.load("demo"), {}, frozen_cloze())).iloc[0]
    assert row["accuracy_low"] > row["chance"]


@pytest.mark.slow
@pytest.mark.real
def test_smollm2_knows_most_of_the_frozen_items(one_smollm2: Any) -> None:
    row = cloze_summary(cloze_scores(one_smollm2, {}, frozen_cloze())).iloc[0]
    assert row["accuracy_low"] > 0.6


# -- Topics ----------------------------------------------------------------------------------------


def test_a_frequency_is_of_words_without_case_and_punctuation() -> None:
    assert topic_frequency("A Wedding, a wedding! No.", ["wedding"]) == 2 / 5
    assert topic_frequency("...", ["wedding"]) == 0


def test_topic_perplexity_is_by_the_frequency_of_the_words(gpt2: Any) -> None:
    texts = {"tales": TEXTS[:2], "talk": TEXTS[2:]}
    table = topic_perplexity(gpt2, {"push": STEERING}, texts, ["weddings", "home"], skip=1)
    assert list(table["source"]) == ["tales", "tales", "talk"]
    assert list(table["bin"].astype(str)) == ["0", "0", "0.04 to 1"]
    assert table["frequency"].iloc[2] == pytest.approx(2 / 11)  # the first word is left out
    for number, ids in enumerate(ids_of(gpt2)):
        gain = (of_actual(gpt2, ids, STEERING) - of_actual(gpt2, ids))[1:]
        assert table["gain"].iloc[number] == pytest.approx(gain.sum(), abs=1e-3)
        assert table["ratio"].iloc[number] == pytest.approx(math.exp(-gain.mean()), rel=1e-3)
    summary = topic_summary(table)
    first = summary.iloc[0]
    pooled = -table["gain"][:2].sum() / table["n_tokens"][:2].sum()
    assert first["ratio"] == pytest.approx(math.exp(pooled))
    each = -(table["gain"][:2] / table["n_tokens"][:2]).mean()
    assert first["ratio_of_texts"] == pytest.approx(math.exp(each))
    assert first["ratio_low"] <= first["ratio"] <= first["ratio_high"]
    assert list(summary["source"]) == ["tales", "talk"]
    more = pd.concat([table.assign(source="b"), table.assign(source="a")])
    by_bin = topic_summary(more.iloc[::-1])
    assert list(zip(by_bin["source"], by_bin["bin"], strict=True)) == [
        ("a", "0"), ("a", "0.04 to 1"), ("b", "0"), ("b", "0.04 to 1"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="bins are edges of frequencies"):
        topic_perplexity(gpt2, STEERING, TEXTS, ["home"], bins=(0.1, 1.0))


def test_probability_shifts_are_means_over_a_tokens_instances(gpt2: Any) -> None:
    table = probability_shifts(gpt2, STEERING, TEXTS, at_least=3)
    instances: dict[int, list[float]] = {}
    for ids in ids_of(gpt2):
        shift = of_actual(gpt2, ids, STEERING) - of_actual(gpt2, ids)
        for token, value in zip(ids[1:], shift, strict=True):
            instances.setdefault(token, []).append(float(value))
    often = {token: values for token, values in instances.items() if len(values) >= 3}
    assert set(table["token_id"]) == set(often)
    for _, row in table.iterrows():
        values = often[row["token_id"]]
        assert row["shift"] == pytest.approx(np.mean(values), abs=1e-4)
        assert row["n"] == len(values)
    assert all(high >= low for high, low in pairwise(table["shift"]))
    assert table["z"].mean() == pytest.approx(0, abs=1e-9)
    assert table["z"].std() == pytest.approx(1)
    n = len(table)
    cumulative = [0.5 * math.erfc(-z / math.sqrt(2)) for z in table["normal"]]
    assert cumulative == pytest.approx([(n - i - 0.5) / n for i in range(n)])
    with pytest.raises(ValueError, match="0 tokens are at least 99 times"):
        probability_shifts(gpt2, STEERING, TEXTS, at_least=99)


def test_topic_words_are_counted_by_layer(gpt2: Any) -> None:
    sampling = Sampling(max_new_tokens=6, temperature=1.0, seed=4)
    steerings = {0: at(0, CAA(V)), 2: at(2, CAA(V))}
    prompts = ["The dog ran", "I love"]
    topic = ["the", "a", "."]
    table = topic_words_by_layer(gpt2, steerings, prompts, topic, n=3, sampling=sampling)
    assert list(table["layer"]) == [-1, 0, 2]
    texts = sl.generate(gpt2, prompts, steerings[2], n=3, sampling=sampling).texts
    counts = np.array([sum(word in topic for word in words_of(text)) for text in texts])
    row = table.iloc[2]
    assert row["count"] == pytest.approx(counts.mean())
    assert row["share"] == pytest.approx((counts > 0).mean())
    assert row["n_completions"] == 6
    with pytest.raises(ValueError, match="at least one prompt"):
        topic_words_by_layer(gpt2, {}, prompts, topic)


# -- Time, and names -------------------------------------------------------------------------------


def slow(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
    time.sleep(0.05)
    return activation + 1


def test_the_premium_is_of_neighbouring_passes(gpt2: Any) -> None:
    table = overhead(gpt2, {"slow": at(1, slow)}, shape=(2, 8), repeats=4)
    row = table.iloc[0]
    assert row["ms"] > 50
    assert row["premium"] > 0
    assert row["low"] <= row["premium"] <= row["high"]
    assert (row["rows"], row["tokens"], row["n_repeats"]) == (2, 8, 4)
    with pytest.raises(ValueError, match="repeats is 2 or more"):
        overhead(gpt2, STEERING, repeats=1)


def test_methods_have_names(gpt2: Any, unchecked: None) -> None:
    assert list(named(STEERING)) == [UNSTEERED, "steered"]
    assert list(named({"a": STEERING})) == [UNSTEERED, "a"]
    entries = [Entry("CAA", STEERING, "matched", 2.0)]
    assert list(named(entries)) == [UNSTEERED, "CAA, matched"]
    with pytest.raises(ValueError, match="No method may be called 'unsteered'"):
        named({UNSTEERED: STEERING})
    fit = CAA.fit(gpt2, (["I love you"], ["I hate you"]), 1)
    with pytest.raises(TypeError, match=r"found Fit\. Pass its steering: fit\.steering"):
        named({"caa": fit})  # pyright: ignore


def test_tables_are_tidy(gpt2: Any) -> None:
    for table in (
        perplexity_under(gpt2, STEERING, TEXTS),
        token_kl(gpt2, STEERING, TEXTS),
        cloze_scores(gpt2, STEERING, [Cloze("The dog ran to the", "house", ("cat",), "word")]),
    ):
        assert isinstance(table, pd.DataFrame)
        assert table.columns[0] == "method"
        assert not table.isna().any().any()
