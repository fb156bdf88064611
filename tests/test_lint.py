"""A look at pairs: every check finds what it is for, and little in data where there is nothing."""

import json
import random
from typing import Any

import pytest
from false_alarms import NOUNS, checks, pairs, splits, swaps, texts

import steerlens as sl
from steerlens import CAA, Conversation, PromptPair, lint
from steerlens.cli import main
from steerlens.pairs.confounds import words_alone
from steerlens.pairs.fitted import lexical, telling_words
from steerlens.pairs.looked_at import look_at
from steerlens.pairs.significance import ALPHA, auroc, telling
from steerlens.pairs.words import language_of, plain, script_of, words_of

TRIALS = 100


def with_side(change: Any, n: int = 24) -> tuple[list[str], list[str]]:
    positive, negative = pairs(n)
    return [change(number, text) for number, text in enumerate(positive)], negative


# -- Nothing to find -------------------------------------------------------------------------------


def test_clean_pairs_have_no_findings():
    assert checks(pairs()) == set()
    assert str(lint(pairs())).startswith("the pairs, 24 pairs: ")


@pytest.mark.parametrize("n", [8, 24])
def test_few_false_alarms_where_sides_are_a_random_split_of_one(n):
    """A family of tests may err in 1 of 100, and there are eight: words, marks, length, ..."""
    assert sum(splits(n, TRIALS)) <= TRIALS * 8 * ALPHA


def test_few_false_alarms_where_the_sides_of_pairs_were_swapped_at_random():
    assert sum(swaps(16, TRIALS)) <= TRIALS * 8 * ALPHA


def test_a_family_of_tests_is_held_to_one_level_together():
    drawn = random.Random(3)
    alarms = 0
    for _ in range(300):
        there = {
            str(word): tuple([drawn.random() < 0.5 for _ in range(12)] for _ in range(2))
            for word in range(60)
        }
        alarms += bool(telling(there, paired=bool(_ % 2)))  # pyright: ignore
    assert alarms <= 300 * 3 * ALPHA


def test_eight_pairs_are_enough_to_tell_one_word_that_is_in_all():
    there = {"love": ([True] * 8, [False] * 8), "rare": ([True] + [False] * 7, [False] * 8)}
    assert telling(there, paired=True) == {"love": (1.0, 0.0)}
    assert telling({"love": ([True] * 7, [False] * 7)}, paired=True) == {}


# -- Each check ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("empty", lambda n, text: "  " if n == 3 else text),
        ("duplicates", lambda n, text: text),
        ("length", lambda n, text: text + " " + texts(1, n)[0] * 2),
        ("words", lambda n, text: text.replace("The", "Every", 1)),
        ("begins", lambda n, text: f"Sure thing. {text}"),
        ("ends", lambda n, text: f"{text} Thank you."),
        ("marks", lambda n, text: f"\n- {text}"),
        ("script", lambda n, text: "Это очень хорошая книга, " + text[:5]),
        ("language", lambda n, text: "Das ist die Sache und der Hund ist nicht da, ich sah sie."),
        ("uniform", lambda n, text: "I cannot help with that." if n % 4 else text),
        ("unrelated", lambda n, text: texts(1, 1000 + n)[0]),
        ("truncated", lambda n, text: " ".join([text] * 5) + (" and so" if n % 2 else "")),
    ],
)  # fmt: skip
def test_each_check_finds_what_it_is_for(check, change):
    given = with_side(change)
    if check == "duplicates":
        given = [*given[0], given[0][0].upper()], [*given[1], given[1][0].upper()]
    found = [one for one in lint(given) if one.check == check]
    assert found, checks(given)
    assert found[0].numbers
    assert found[0].advice.endswith(".")


def test_pairs_that_say_nothing_and_pairs_that_say_the_contrary_are_errors():
    positive, negative = pairs()
    found = lint(([*positive, "Same.", negative[0]], [*negative, "same", positive[0]]))
    assert {one.check for one in found.at_least("error")} == {"contradictions"}
    found = lint(([*positive, "Same."], [*negative, "Same."]))
    assert [one.check for one in found.at_least("error")] == ["identical"]
    assert found.found[0].examples == ("pair 25: 'Same.'",)


def test_the_worst_comes_first():
    found = lint(with_side(lambda n, text: "" if n == 0 else f"Sure thing. {text}" * 2))
    order = [("error", "warning", "note").index(one.severity) for one in found]
    assert order == sorted(order)
    assert order[0] == 0


def test_pairs_that_differ_in_more_than_one_part():
    positive, negative = pairs()
    asked = [[Conversation(f"What of {n}?", s, t) for n, t in enumerate(side)]
             for s, side in ((None, positive), (None, negative))]  # fmt: skip
    assert "more than the attribute" not in checks((asked[0], asked[1]))
    for other in (
        [Conversation(f"And {n}?", None, t) for n, t in enumerate(negative)],
        [Conversation(f"What of {n}?", "Be sad.", t) for n, t in enumerate(negative)],
    ):
        found = [one for one in lint((asked[0], other)) if one.check == "more than the attribute"]
        assert found[0].numbers == {"pairs": 24, "share": 1.0}


def choices(letters: str) -> str:
    """Model-written evals whose matching letters are these, with options that differ little."""
    rows = []
    for number, letter in enumerate(letters):
        yes, no = pairs(1, number)[0][0], pairs(1, number)[1][0]
        first, second = (yes, no) if letter == "A" else (no, yes)
        other = "B" if letter == "A" else "A"
        rows.append({"question": f"Question {number}?\n\nChoices:\n (A) {first}\n (B) {second}",
                     "answer_matching_behavior": f"({letter})",
                     "answer_not_matching_behavior": f"({other})"})  # fmt: skip
    return json.dumps(rows)


def test_letters_out_of_balance(tmp_path):
    path = tmp_path / "x.json"
    for letters, told in (("A" * 14 + "BB", True), ("AB" * 8, False), ("A" * 5 + "B", False)):
        path.write_text(choices(letters))
        assert ("letters" in checks(path)) == told
    path.write_text(choices("AB" * 8))
    look = look_at(path)
    assert look.positive[1].said == pairs(1, 1)[0][0]  # the words of the option, not its letter


def test_leaks_from_training_into_test():
    positive, negative = pairs(40)
    train, test = (positive[:30], negative[:30]), (positive[25:], negative[25:])
    (leak,) = (one for one in lint(train, test=test) if one.check == "leak")
    assert (leak.severity, leak.numbers["leaked"]) == ("error", 10)
    apart = (positive[30:], negative[30:])
    assert "leak" not in checks(train, test=apart)
    long = " ".join(texts(8, 99))
    near = ([long.replace("The", "That", 1)], ["Nothing of the sort."])
    assert "near leak" in checks(([long], ["Another text."]), test=near)


def test_pairs_with_an_instruction_share_their_responses_and_are_not_compared():
    listed = [
        PromptPair.with_system(f"What of {n}?", "Be kind.", t) for n, t in enumerate(texts(12))
    ]
    assert checks(listed) == set()
    assert checks([*listed, listed[0]]) == {"duplicates"}
    assert checks(listed, test=listed[:2]) == {"leak"}


def test_odd_inputs():
    assert {one.check for one in lint((["a"], ["b"]))} == {"few"}
    for given in ((["😀"] * 9, ["🙃"] * 9), (["好"] * 9, ["坏"] * 9), ([" "] * 9, ["\u200b"] * 9)):
        assert lint(given).as_json()
    with pytest.raises(ValueError, match="2 positive and 1 negative"):
        lint((["a", "b"], ["c"]))
    with pytest.raises(TypeError, match="found int"):
        lint(3)
    with pytest.raises(TypeError, match="lint compares texts"):
        lint(([3], [4]))


def test_words_of_any_script():
    assert words_of("Don't STOP, É!") == ("don't", "stop", "é")
    assert words_of("我喜欢") == ("我", "喜", "欢")
    assert plain(" A  b! ") == plain("a b") == "a b"
    assert (script_of("123 ..."), script_of("Ωμέγα a")) == (None, "GREEK")
    assert language_of("The dog is in the house and it was not there") == "English"
    assert language_of("Ha") is None


def test_auroc_counts_ties_half():
    assert auroc([1.0, 2.0], [1.0, 0.0]) == 0.875
    assert auroc([1.0], [1.0]) == 0.5


def test_words_alone_leave_the_scored_pair_out():
    assert words_alone(["love a", "love b", "love c"], ["hate a", "hate b", "hate c"]) == 1.0
    assert words_alone(["a", "b", "c"], ["d", "e", "f"]) == 0.5  # no word is in two pairs


# -- After fitting ---------------------------------------------------------------------------------

GLAD, SAD = ["loved", "liked", "enjoyed", "admired"], ["hated", "loathed", "disliked", "despised"]


@pytest.fixture(scope="module")
def fitted():
    model = sl.load("demo")
    sides = tuple([f"I {words[n % 4]} the {noun}." for n, noun in enumerate(NOUNS)]
                  for words in (GLAD, SAD))  # fmt: skip
    return model, sides, CAA.fit(model, sides, 3).steering


def test_telling_words_and_the_two_lexical_controls(fitted):
    look = look_at(fitted[1])
    assert [set(words) for words in telling_words(look)] == [set(GLAD), set(SAD)]
    found = lexical(look)
    assert [text.said for text in found["words alone"][0][:2]] == ["loved", "liked"]
    assert found["without words"][0][0].said == found["without words"][1][0].said == "I the film."


def test_a_direction_of_words_is_told_as_one(fitted):
    model, sides, steering = fitted
    numbers = lint(sides, model=model, steering=steering).numbers
    assert numbers["AUROC, pairs"] > 0.9
    assert numbers["AUROC, without words"] == 0.5  # the sides are equal without them
    assert numbers["AUROC, pairs, low"] <= numbers["AUROC, pairs"] <= numbers["AUROC, pairs, high"]
    if numbers["AUROC, words alone"] >= 0.9:
        assert "lexical control" in checks(sides, model=model, steering=steering)


def test_paraphrases_that_score_as_chance_are_told(fitted):
    model, sides, steering = fitted
    same = (sides[0][:8], sides[0][:8])
    found = lint(sides, model=model, steering=steering, paraphrases=same, test=sides)
    assert found.numbers["AUROC, paraphrases"] == 0.5
    assert found.numbers["AUROC, test"] == found.numbers["AUROC, pairs"]
    assert "paraphrases" in found.checks
    found = lint(sides, model=model, steering=steering, paraphrases=sides)
    assert "paraphrases" not in found.checks


def test_a_bare_direction_is_enough_and_its_sign_counts(fitted):
    model, sides, steering = fitted
    ((site, _),) = steering.placed
    v = CAA.fit(model, sides, 3).steers[site].direction
    there = lint(sides, model=model, steering={3: v}).numbers["AUROC, pairs"]
    back = lint(sides, model=model, steering={site: -v}).numbers["AUROC, pairs"]
    assert there == pytest.approx(1 - back)
    with pytest.raises(ValueError, match="takes both"):
        lint(sides, steering=steering)
    answered = tuple([Conversation("So?", response=t) for t in side] for side in sides)
    cold = sl.ColdFD.fit(model, answered, 3).steering
    with pytest.raises(ValueError, match="no single direction"):
        lint(sides, model=model, steering=cold)


# -- The command -----------------------------------------------------------------------------------


def run(capsys: Any, *words: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(["lint", *map(str, words)])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out + said.err


def test_the_command_and_its_exit_codes(tmp_path, capsys):
    clean, longer = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for path, given in ((clean, pairs()), (longer, with_side(lambda n, text: text * 3))):
        rows = [{"positive": a, "negative": b} for a, b in zip(*given, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(capsys, clean)[0] == 0
    code, said = run(capsys, longer, "--json")
    assert code == 3
    found = json.loads(said)
    assert found["pairs"] == 24
    assert found["counts"]["warning"] == sum(f["severity"] == "warning" for f in found["findings"])
    assert "length" in {one["check"] for one in found["findings"]}
    assert run(capsys, longer, "--fail-on", "error")[0] == 0
    assert run(capsys, longer, "--fail-on", "never")[0] == 0
    code, said = run(capsys, clean, "--test", clean, "--fail-on", "error")
    assert (code, "[leak]" in said) == (3, True)


def test_what_cannot_be_is_one_line(tmp_path, capsys):
    path = tmp_path / "x.csv"
    path.write_text("good,bad\na,b\n")
    for words, said in (
        ([path], "is not known: CSV"),
        ([path, "--fail-on", "x"], "--fail-on"),
        ([path, "--paraphrases", path], "--steering FILE"),
        ([tmp_path / "none.csv"], "There is no file"),
        ([path, "--columns", "good"], "two different names"),
    ):
        code, told = run(capsys, *words)
        assert (code, told.count("\n"), said in told) == (2, 1, True), told
    assert run(capsys, path, "--columns", "good,bad")[0] == 0
    path.write_text("a,b\nc,d\n")
    assert "2 pairs" in run(capsys, path, "--columns", "0,1")[1]


def test_the_command_looks_at_a_steering(tmp_path, capsys, fitted):
    _, sides, steering = fitted
    steering.save(tmp_path / "s.safetensors")
    path = tmp_path / "x.jsonl"
    rows = [{"positive": a, "negative": b} for a, b in zip(*sides, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--steering", tmp_path / "s.safetensors", "--paraphrases", path, "--json")
    _, said = run(capsys, path, *options)
    assert json.loads(said)["numbers"]["AUROC, paraphrases"] > 0.9
