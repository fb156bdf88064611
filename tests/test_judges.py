"""The shipped judges: exact rules, classifiers against arithmetic by hand, coherence."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import steerlens
from analysis.judges import ATTRIBUTES, Coherence, FormatJudge, Judge, judge_of, register, sentiment
from analysis.judges import coherence as coherence_module
from analysis.judges.coherence import Scale, canonical, malformed, measure, repetition
from analysis.judges.formats import RULES, sentence_ends
from analysis.judges.linear import HERE, Classifier, ClassJudge, ngrams_of, sentiment_classifier
from steerlens.identity import fingerprint

CORPUS = Path(__file__).parents[1].parent / "shared" / "corpus"
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason="shared/corpus is absent")

PRAISE = "A wonderful film with excellent acting. I loved it and highly recommend it."
BLAME = "An awful film with terrible acting. It is boring and a waste of time."
TEXTS = {
    "review": "I saw this movie last night and the acting was not bad, but the plot is weak.",
    "encyclopedia": "It is a city in the north of the province; its population was 12,000 in 2011.",
    "fairytale": "Once upon a time there was a king who had three sons, and the youngest said,",
}
HUMAN = (
    "I have seen this film three times and I still like it. The story is simple, but the actors "
    "are very good and the music is beautiful. My only complaint is that it is too long. If you "
    "like old movies, you will enjoy it."
)


# -- Formats: (text, share that keeps to it) -------------------------------------------------------

EXAMPLES = {
    "lowercase": [
        ("all of it is small. yes, 12 too.", 1.0),
        ("One is not.", 2 / 3),
        ("he met McCoy", 2 / 3),
        ("ALL BIG", 0.0),
        ("12 34", math.nan),
        ("", math.nan),
    ],
    "exclamation": [
        ("It is good! I like it! And then it was", 1.0),
        ("It is good! I like it.", 0.5),
        ("It is good. Is it?", 0.0),
        ('He said "run!" Then he ran!', 1.0),
        ("What?! Really!", 1.0),
        ("No end", math.nan),
        ("Mr. Smith met J. Doe, etc. and left!", 1.0),
        ("It cost 3.5 dollars!", 1.0),
        ("I know they don't. So did I. It is Tom's. We can't!", 0.25),
        ("Well... it was good!", 1.0),
        ("Well... It was good!", 0.5),
    ],
    "no_commas": [
        ("None here. None there.", 1.0),
        ("One, here. None there.", 0.5),
        ("A, b", 0.0),
        ("Mr. Smith met Dr. Jones, who left.", 0.0),
        ("", math.nan),
    ],
    "short": [
        ("A few words.", 1.0),
        ("A few words", 0.0),
        ('He said: "no!"', 1.0),
        (" ".join(["word"] * 40) + ".", 1.0),
        (" ".join(["word"] * 60) + ".", 0.5),
        (" ".join(["word"] * 80) + ".", 0.0),
        ("", math.nan),
    ],
    "bullets": [
        ("- One.\n- Two.", 1.0),
        ("- One.\nTwo.", 0.5),
        ("One. Two.", 0.0),
        ("- One. Two. Three. Four.", 0.0),
        ("- One.\n- Two.\nIt is. They go. We ran.", 2 / 3),
        ("-no blank", 0.0),
        ("- One.\n\n- Two.", 1.0),
        ("", math.nan),
    ],
}


@pytest.mark.parametrize("name", RULES)
def test_a_format_scores_the_share_that_keeps_to_it(name: str) -> None:
    texts, shares = zip(*EXAMPLES[name], strict=True)
    np.testing.assert_allclose(FormatJudge(name)(texts), 100 * np.array(shares))
    assert FormatJudge(name).holds(texts).tolist() == [share == 1 for share in shares]


def test_abbreviations_and_initials_end_no_sentence() -> None:
    assert sentence_ends("Dr. A. Jones vs. Mrs. Hill. Who won? He did!") == [".", "?", "!"]


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(ValueError, match=r"'upper'.*lowercase, exclamation"):
        FormatJudge("upper")


# -- Classifiers -----------------------------------------------------------------------------------


def small_classifier() -> Classifier:
    return Classifier(
        classes=("no", "yes"),
        ngrams=("bad", "good", "not good"),
        weights=np.array([[1.0, -1.0], [-2.0, 2.0], [3.0, -3.0]], dtype=np.float32),
        bias=np.array([0.25, -0.25]),
        calibration=np.array([0.5, -0.2]),
    )


def test_a_score_is_the_equation_by_hand() -> None:
    # "not good": the rows good and not good are present, so |x| = 2.
    z = np.array([-2.0 + 3.0, 2.0 - 3.0]) / math.sqrt(2) + [0.25, -0.25]
    z = z * math.exp(0.5 - 0.2 * math.log(2))
    expected = 100 / (1 + math.exp(z[0] - z[1]))
    assert ClassJudge("yes", small_classifier())(["Not GOOD!"])[0] == pytest.approx(expected)


def test_quotes_and_curly_apostrophes_do_not_move_a_score() -> None:
    for plain, other in (
        ("I don't like this film and I wouldn't recommend it.", "I don’t like this film and I "
         "wouldn’t recommend it."),
        ("It was wonderful.", "It was 'wonderful'."),
    ):  # fmt: skip
        assert sentiment()([plain]) == sentiment()([other])


def test_a_word_said_twice_counts_once() -> None:
    judge = ClassJudge("yes", small_classifier())
    assert judge(["good"])[0] == judge(["good, good"])[0]


def test_a_text_without_a_known_word_has_no_score() -> None:
    assert np.isnan(ClassJudge("yes", small_classifier())(["quux", ""])).all()


def test_ngrams_are_words_pairs_and_triples() -> None:
    assert ngrams_of("It's a 10!") == {"it's", "a", "10", "it's a", "a 10", "it's a 10"}


def test_a_classifier_survives_its_file(tmp_path: Path) -> None:
    before = small_classifier()
    before.save(tmp_path / "judge.safetensors")
    after = Classifier.load(tmp_path / "judge.safetensors")
    assert (after.classes, after.ngrams) == (before.classes, before.ngrams)
    np.testing.assert_array_equal(after.weights, before.weights)
    np.testing.assert_allclose(
        after.probabilities(["not good"]), before.probabilities(["not good"])
    )


def test_weights_in_any_memory_order_survive_their_file(tmp_path: Path) -> None:
    """safetensors writes memory as it lies, so a transposed matrix came back shuffled."""
    one = small_classifier()
    turned = Classifier(
        one.classes, one.ngrams, np.asfortranarray(one.weights), one.bias, one.calibration
    )
    turned.save(tmp_path / "judge.safetensors")
    np.testing.assert_array_equal(
        Classifier.load(tmp_path / "judge.safetensors").weights, one.weights
    )


@pytest.mark.parametrize("damage", ["cut", "part", "shape"])
def test_a_damaged_judge_says_so(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "judge.safetensors"
    small_classifier().save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    else:
        arrays = load_file(path)
        if damage == "part":
            del arrays["ngrams"]
        else:
            arrays["weights"] = arrays["weights"][:2].copy()
        save_file(arrays, path)
    with pytest.raises(ValueError, match="Reinstall steerlens"):
        Classifier.load(path)


def test_sentiment_tells_praise_from_blame_and_the_two_add_up() -> None:
    positive, negative = sentiment("positive"), sentiment("negative")
    assert positive([PRAISE])[0] > 90
    assert positive([BLAME])[0] < 10
    np.testing.assert_allclose(positive([PRAISE, BLAME]) + negative([PRAISE, BLAME]), 100)


@given(st.sampled_from([PRAISE, BLAME, HUMAN]))
def test_formats_do_not_move_the_classifiers(text: str) -> None:
    changed = text.upper().replace(",", "").replace(".", "!")
    assert sentiment()([text]) == sentiment()([changed])
    assert register("review")([text]) == register("review")([changed])


def test_the_evidence_of_a_text_is_in_it_and_sorted() -> None:
    found = sentiment_classifier().evidence(PRAISE, "positive", n=5)
    assert len(found) == 5
    assert {ngram for ngram, _ in found} <= ngrams_of(PRAISE)
    sizes = [abs(weight) for _, weight in found]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0


@pytest.mark.parametrize("name", TEXTS)
def test_register_knows_each_register(name: str) -> None:
    assert register(name)([TEXTS[name]])[0] > 50
    others = [text for other, text in TEXTS.items() if other != name]
    assert (register(name)(others) < 50).all()


def test_the_shipped_classifiers_are_small() -> None:
    assert (HERE / "sentiment.safetensors").stat().st_size < 3_000_000


@needs_corpus
def test_sentiment_is_right_on_unseen_reviews() -> None:
    import pandas as pd

    table = pd.read_parquet(CORPUS / "reviews.parquet")
    table = table[table.split == "test"].sample(3000, random_state=0)
    right = (table.stars >= 7).to_numpy()
    scores = sentiment()(table.text.tolist())
    assert ((scores > 50) == right).mean() >= 0.88
    for low, high in ((10, 30), (70, 90)):  # calibrated: the score is the share that is positive
        inside = (scores >= low) & (scores < high)
        assert abs(right[inside].mean() - scores[inside].mean() / 100) < 0.1


@needs_corpus
def test_register_is_right_on_unseen_texts() -> None:
    import pandas as pd

    human_texts = pytest.importorskip("human_texts")
    rng, hits = random.Random(0), []
    for name, texts in human_texts.openings(CORPUS, "check", 200, seed=3).items():
        starts = [" ".join(one.text.split()[: rng.randint(20, 80)]) for one in texts]
        hits += (register(name)(starts) > 50).tolist()
    assert pd.Series(hits).mean() >= 0.97


# -- Coherence -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo() -> Any:
    return steerlens.load("demo")


def test_the_scale_belongs_to_the_shipped_model(demo: Any) -> None:
    assert Scale.shipped().fingerprint == fingerprint(demo)


def test_coherence_falls_as_text_degrades() -> None:
    words = HUMAN.split()
    rng = random.Random(0)
    jumbled = " ".join(rng.sample(words, len(words)))
    spelt = " ".join("".join(rng.sample(word, len(word))) for word in words)
    looped = " ".join(words[:8] * 6)
    half = " ".join(words[:20] + rng.sample(words[20:], len(words) - 20))
    texts = [HUMAN, half, jumbled, spelt, looped, "the " * 40]
    human, middle, disordered, *broken = Coherence()(texts)
    assert human > 80
    # Whole words in any order are still words: the module says that this costs half of the scale.
    assert disordered < human - 30
    assert disordered < middle < human
    assert max(broken) < 15


def test_a_text_without_words_is_not_coherent() -> None:
    assert Coherence()(["", "...", "!!! ???"]).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        str.lower,
        lambda text: text.replace(",", ""),
        lambda text: text.replace(".", "!"),
        lambda text: "- " + text.replace(". ", ".\n- "),
    ],
    ids=["lowercase", "no commas", "exclamation", "bullets"],
)
def test_a_format_costs_no_coherence(change: Any) -> None:
    assert Coherence()([change(HUMAN)])[0] == pytest.approx(Coherence()([HUMAN])[0])


def test_scores_do_not_depend_on_the_other_texts() -> None:
    texts = [HUMAN, PRAISE, *TEXTS.values(), "no", HUMAN * 9]
    together = Coherence()(texts)
    np.testing.assert_allclose(together, [Coherence()([t])[0] for t in texts], atol=1e-3)


def test_the_loss_is_that_of_transformers(demo: Any) -> None:
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(steerlens.models.DEMO)
    (one,) = measure([PRAISE], demo)
    assert one is not None
    prompt = steerlens.encode(
        demo,
        steerlens.Conversation(
            coherence_module.REQUESTS[one.register], coherence_module.INSTRUCTION
        ),
    ).ids
    answer = demo.tokenizer(canonical(PRAISE), add_special_tokens=False).input_ids
    ids = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        log_p = reference(ids[:, :-1]).logits.log_softmax(-1)[0]
    expected = [-log_p[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)]
    np.testing.assert_allclose(one.losses, expected, atol=1e-3)


def test_repetition_and_malformed_by_hand() -> None:
    # a b a b a: 4 pairs of which 2 differ, 2 quadruples of which 2 differ
    assert repetition("a b a b a") == pytest.approx((0.5 + 0.0) / 2)
    assert repetition("word") == 0
    assert malformed("the film zzqx") == pytest.approx(4 / 11)
    assert malformed("the film's 1999") == pytest.approx(0)


def test_a_scale_of_other_weights_is_refused() -> None:
    from dataclasses import replace

    other = Coherence(replace(Scale.shipped(), fingerprint="other"))
    with pytest.raises(ValueError, match="other weights"):
        other([HUMAN])


@needs_corpus
@pytest.mark.slow
def test_attributes_cost_human_text_at_most_five_points() -> None:
    human_texts = pytest.importorskip("human_texts")
    report = pytest.importorskip("report")
    rng = random.Random(0)
    tokenizer = steerlens.load("demo").tokenizer
    human = {
        name: [human_texts.cut(one.text, tokenizer, rng, (64, 64)) for one in texts]
        for name, texts in human_texts.openings(CORPUS, "check", 200, seed=2).items()
    }
    plain = np.median(Coherence()([text for group in human.values() for text in group]))
    for name in ATTRIBUTES:
        scores = Coherence()(report.as_attribute(name, human))
        assert abs(np.median(scores) - plain) < 5, name


# -- The protocol ----------------------------------------------------------------------------------

JUDGES = [*map(judge_of, ATTRIBUTES), Coherence()]


@pytest.mark.parametrize("judge", JUDGES, ids=lambda judge: judge.name)
def test_every_judge_keeps_to_the_protocol(judge: Judge) -> None:
    assert isinstance(judge, Judge)
    scores = judge([PRAISE, HUMAN], ["Review a movie.", steerlens.Conversation("Review a movie.")])
    assert scores.shape == (2,)
    assert ((scores >= 0) & (scores <= 100)).all()
    assert judge([]).shape == (0,)
    with pytest.raises(ValueError, match="2 texts and 1 prompts"):
        judge([PRAISE, BLAME], ["Review a movie."])
    with pytest.raises(ValueError, match=r"Pass \[text\]"):
        judge(PRAISE)


def test_an_unknown_attribute_is_named() -> None:
    with pytest.raises(ValueError, match=r"'angry'.*positive"):
        judge_of("angry")
    with pytest.raises(ValueError, match=r"'angry'.*negative, positive"):
        sentiment("angry")
