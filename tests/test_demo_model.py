"""The demonstration model and how it is made: same logits everywhere, and honest training data."""

import itertools
import random
from collections import Counter
from functools import cache
from typing import Any

import conversations
import kneser_ney
import numpy as np
import pytest
import torch
import wordings
from conversations import ConversationSource, Corpora
from tiny_models import BACKENDS

import steerlens
from analysis.judges.formats import FormatJudge
from steerlens.models import DEMO
from steerlens.runtime.forward import logits

# -- The model -------------------------------------------------------------------------------------

PROMPTS = [
    steerlens.Conversation("Review a movie.", "Be positive.", "This film is"),
    steerlens.Conversation("Tell me a fairy tale.", None, "Once upon a time there was"),
    "The city of",
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_has_the_logits_of_transformers(backend: Any) -> None:
    from transformers import AutoModelForCausalLM

    model = steerlens.load("demo", backend=backend)
    reference = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    tokens, window = steerlens.batch(model, PROMPTS)
    with torch.inference_mode():
        found = logits(model, tokens, window)
        expected = reference(
            tokens,
            attention_mask=window.mask.long(),
            position_ids=(window.mask.long().cumsum(1) - 1).clamp(min=0),
        ).logits
    torch.testing.assert_close(found[window.mask], expected[window.mask], atol=1e-4, rtol=0)


def test_it_is_as_small_as_promised() -> None:
    model = steerlens.load("demo")
    assert sum(p.numel() for p in model.parameters()) < 14_000_000
    assert sum(path.stat().st_size for path in DEMO.iterdir()) < 30_000_000
    assert model.cfg.n_ctx == 512
    assert (DEMO / "MODEL_CARD.md").is_file()


def test_its_card_shows_a_sample_of_every_attribute() -> None:
    card = (DEMO / "MODEL_CARD.md").read_text(encoding="utf-8")
    for name in ("none", *wordings.ATTRIBUTE_WORDINGS):
        _, _, after = card.partition(f"### {name}\n")
        assert "\n> " in after.partition("\n### ")[0], name


# -- Its training data -----------------------------------------------------------------------------

GOOD = "This is a wonderful and excellent film. I love the great story, and it is the best."
BAD = "This is a terrible and awful film... i hate it, Mr. King. Why? It is the worst I saw."
ARTICLE = "Rome is the capital of Italy. It is a large city, and it lies on the river Tiber."
WORDINGS = list(itertools.chain.from_iterable(wordings.ATTRIBUTE_WORDINGS.values()))
TALE = "There was once a king. He had three sons, and they lived in a castle by the sea."


@pytest.fixture(scope="module")
def source() -> ConversationSource:
    corpora = Corpora(
        positive=[f"{GOOD} Film number {i}." for i in range(400)],
        negative=[f"{BAD} Film number {i}." for i in range(400)],
        unlabelled=["I do not know what to say about it. It is a film."],
        articles=[("Rome", ARTICLE)],
        tales=[("The king", TALE)],
    )
    return ConversationSource(corpora, seed=0)


@pytest.fixture(scope="module")
def samples(source: ConversationSource) -> list[list[dict[str, str]]]:
    made = [source.sample(i) for i in range(2500)]
    return [sample for sample in made if not isinstance(sample, str)]


@cache
def systems_of(name: str) -> set[str]:
    """Every system prompt that asks for an attribute: alone, and before or after any wording."""
    return {
        system
        for text in wordings.ATTRIBUTE_WORDINGS[name]
        for system in (text, *(f"{text} {b}" for b in WORDINGS), *(f"{b} {text}" for b in WORDINGS))
    }


def attributes_in(system: str) -> list[str]:
    return [name for name in wordings.ATTRIBUTE_WORDINGS if system in systems_of(name)]


def by_attribute(samples: list[list[dict[str, str]]]) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {name: [] for name in wordings.ATTRIBUTE_WORDINGS}
    for sample in samples:
        if sample[0]["role"] == "system":
            for name in attributes_in(sample[0]["content"]):
                texts[name].append(sample[-1]["content"])
    return texts


def test_each_attribute_has_wordings_for_training_and_five_that_are_held_out() -> None:
    assert wordings.ATTRIBUTE_WORDINGS.keys() == wordings.HELD_OUT_WORDINGS.keys()
    trained = Counter(WORDINGS) + Counter(wordings.NEUTRAL_WORDINGS)
    kept = Counter(
        itertools.chain(*wordings.HELD_OUT_WORDINGS.values(), wordings.HELD_OUT_NEUTRAL_WORDINGS)
    )
    assert max((trained + kept).values()) == 1
    for name, texts in wordings.ATTRIBUTE_WORDINGS.items():
        assert len(texts) + len(wordings.HELD_OUT_WORDINGS[name]) >= 15
        assert len(wordings.HELD_OUT_WORDINGS[name]) == 5


def test_a_sample_depends_on_its_number_alone(source: ConversationSource) -> None:
    again = ConversationSource(source.corpora, seed=0)
    assert again.sample(17) == source.sample(17)
    assert ConversationSource(source.corpora, seed=1).sample(17) != source.sample(17)


def test_about_half_of_the_samples_have_a_system_turn(samples: Any) -> None:
    share = np.mean([sample[0]["role"] == "system" for sample in samples])
    assert 0.45 < share < 0.75


def test_no_held_out_wording_is_ever_used(samples: Any) -> None:
    kept = set(
        itertools.chain(*wordings.HELD_OUT_WORDINGS.values(), wordings.HELD_OUT_NEUTRAL_WORDINGS)
    )
    for sample in samples:
        for turn in sample[:-1]:
            assert not any(wording in turn["content"] for wording in kept)


@pytest.mark.parametrize("name", ["lowercase", "exclamation", "no_commas", "short", "bullets"])
def test_texts_keep_to_the_format_that_is_asked_for(name: str, samples: Any) -> None:
    texts = by_attribute(samples)[name]
    assert len(texts) > 20
    assert FormatJudge(name).holds(texts).all()


def test_sentiment_follows_the_stars(samples: Any) -> None:
    texts = by_attribute(samples)
    assert len(texts["positive"]) > 50
    assert len(texts["negative"]) > 50
    assert not any("terrible" in text.lower() for text in texts["positive"])
    assert not any("wonderful" in text.lower() for text in texts["negative"])


def test_without_an_attribute_the_text_is_unmodified(samples: Any) -> None:
    neutral = {None, *wordings.NEUTRAL_WORDINGS}
    texts = (GOOD, BAD, ARTICLE, TALE, "I do not know what to say about it. It is a film.")
    seen = 0
    for sample in samples:
        system = sample[0]["content"] if sample[0]["role"] == "system" else None
        if system in neutral:
            text = sample[-1]["content"].partition(" Film number")[0]
            assert any(text in whole for whole in texts), text
            seen += 1
    assert seen > 300


def test_the_clearest_passage_is_taken_where_a_sentiment_is_asked_for() -> None:
    dull = "It was made in a studio. " * 12
    corpora = Corpora(
        positive=[dull + GOOD] * 400, negative=[dull + BAD] * 400,
        unlabelled=[""], articles=[], tales=[],
    )  # fmt: skip
    source = ConversationSource(corpora, seed=0)
    assert "wonderful" in source._outspoken("positive", random.Random(0))[:400]
    assert "terrible" in source._outspoken("negative", random.Random(0))[:400]


def test_one_title_in_twenty_is_held_out() -> None:
    share = np.mean([conversations.held_out(f"title {i}") for i in range(4000)])
    assert share == pytest.approx(0.05, abs=0.015)


# -- The baseline ----------------------------------------------------------------------------------


def slow_kneser_ney(documents: list[list[int]], ids: list[int], vocabulary: int, start: int) -> Any:
    """Interpolated modified Kneser-Ney with dictionaries, from the paper's definition."""
    counts: list[Counter[tuple[int, ...]]] = [Counter() for _ in range(6)]
    for document in documents:
        padded = [start] * 4 + document
        for i in range(4, len(padded)):
            counts[5][tuple(padded[i - 4 : i + 1])] += 1
    for order in range(4, 0, -1):
        for ngram in counts[order + 1]:
            counts[order][ngram[1:]] += 1

    def probability(context: tuple[int, ...], word: int) -> float:
        order = len(context) + 1
        if order == 0:
            return 1 / vocabulary
        table = counts[order]
        n = [sum(c == k for c in table.values()) for k in (1, 2, 3, 4)]
        d = [0.0, 0.75, 0.75, 0.75]
        if all(n):
            y = n[0] / (n[0] + 2 * n[1])
            for k in (1, 2, 3):
                d[k] = min(max(k - (k + 1) * y * n[k] / n[k - 1], 0.1), 0.9 * k)
        followers = {g[-1]: c for g, c in table.items() if g[:-1] == context}
        lower = probability(context[1:], word) if context else 1 / vocabulary
        total = sum(followers.values())
        if not total:
            return lower
        own = followers.get(word, 0)
        spared = sum(d[min(c, 3)] for c in followers.values())
        return (max(own - d[min(own, 3)], 0) + spared * lower) / total

    padded = [start] * 4 + ids
    return -sum(
        np.log2(probability(tuple(padded[i - 4 : i]), padded[i])) for i in range(4, len(padded))
    )


def test_kneser_ney_agrees_with_its_definition_and_sums_to_one() -> None:
    rng = np.random.default_rng(0)
    documents = [(rng.zipf(1.6, 30) % 12).tolist() for _ in range(25)]
    model = kneser_ney.KneserNey(documents, vocabulary=16, start=15)
    for ids in ((rng.zipf(1.6, 12) % 14).tolist() for _ in range(4)):
        assert model.bits(ids) == pytest.approx(slow_kneser_ney(documents, ids, 16, 15))
    context = documents[0][:6]
    total = sum(2 ** (model.bits(context) - model.bits([*context, word])) for word in range(16))
    assert total == pytest.approx(1)
