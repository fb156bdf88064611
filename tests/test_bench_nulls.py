"""Texts that show nothing: what is replaced, what repeats, and which words tell prompted text."""

import pytest

from analysis.bench.nulls import echoed, keywords_of, looped, null_texts, shuffled, stuffed
from analysis.judges import judge_of
from steerlens.demo import benchmark_set

TEXT = "one two three four, five six seven eight nine ten eleven twelve."


def test_one_word_in_n_is_replaced_and_its_marks_stay() -> None:
    (found,) = stuffed([TEXT], ["WOW", "GEE"], 4)
    words = found.split()
    assert [i for i, w in enumerate(words) if w.strip(",.") in ("WOW", "GEE")] == [3, 7, 11]
    assert words[3].endswith(",")
    assert words[11].endswith(".")
    assert words[:3] == ["one", "two", "three"]
    assert {w.strip(",.") for w in words} >= {"WOW", "GEE"}
    assert stuffed(["few words."], ["WOW"], 10) == ["few WOW."]
    assert stuffed(["- a\n- b c d"], ["WOW"], 4) == ["- a\n- b WOW d"]
    with pytest.raises(ValueError, match="0 keywords"):
        stuffed([TEXT], [], 4)
    with pytest.raises(ValueError, match="every=0"):
        stuffed([TEXT], ["WOW"], 0)


def test_echoes_loops_and_shuffles() -> None:
    assert echoed([TEXT, ""], "Be glad. ") == [f"Be glad. {TEXT}", "Be glad."]
    (loop, empty) = looped([TEXT, ""])
    assert loop.split()[:9] == [*TEXT.split()[:8], "one"]
    assert len(loop.split()) >= 32
    assert empty == ""
    (mixed,) = shuffled([TEXT])
    assert sorted(mixed.split()) == sorted(TEXT.split())
    assert mixed != TEXT


def test_nulls_repeat_by_seed() -> None:
    texts, words = [TEXT] * 8, ["a", "b", "c"]
    one = null_texts(texts, "Be glad.", words, seed=1)
    assert list(one) == ["stuffed 10", "stuffed 5", "echoed", "looped", "shuffled"]
    assert all(len(some) == 8 for some in one.values())
    assert one == null_texts(texts, "Be glad.", words, seed=1)
    other = null_texts(texts, "Be glad.", words, seed=2)
    assert one["shuffled"] != other["shuffled"]
    assert one["stuffed 5"] != other["stuffed 5"]


def test_keywords_are_what_prompted_texts_say_more_often() -> None:
    plain = ["the sea is wide today", "the ship is old", "the wind is cold"]
    prompted = ["arr the sea is wide", "arr the ship be old", "arr the wind be cold", "be the sea"]
    assert keywords_of(prompted, plain, 2) == ["arr", "be"]
    assert "rum" not in keywords_of([*prompted, "rum rum rum rum"], plain)
    with pytest.raises(ValueError, match="No word is commoner"):
        keywords_of(["a b"], ["a b"])


@pytest.mark.parametrize(("name", "at_least"), [("positive", 80), ("negative", 85)])
def test_keywords_of_the_demo_fool_the_judge_of_sentiment(name: str, at_least: int) -> None:
    """The audit's finding: every fifth word put in is enough for the judge."""
    rows = benchmark_set.read(name).split("validation")
    plain = [row.plain for row in rows]
    words = keywords_of([row.prompted for row in rows], plain)
    judge = judge_of(name)
    assert judge(plain).mean() < 65
    assert judge(stuffed(plain, words, 5)).mean() > at_least
