"""The tools of studies: results made once and kept, estimates and verdicts on simulated data."""

import json
import math
import operator
import os
from concurrent.futures import as_completed
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psr_plan as plan
import pytest
import study
from cells import Cells
from estimates import (
    NOT,
    SUPPORTED,
    UNDECIDED,
    Estimate,
    estimate,
    mean_of,
    verdict,
)
from material import from_file
from psr_cells import cells_with
from psr_page import page
from psr_results import Errors

from analysis.reports.markdown import markdown_table
from steerlens import PLAIN, Conversation

# Cells run in new processes, which import the module of their function: builtins are quick.


def cells(folder: Path, **about: Any) -> Cells:
    return Cells(folder, {"seeds": 3, "model": "demo", **about}, os.chdir, str(folder.parent))


# -- Cells -----------------------------------------------------------------------------------------


def test_a_result_is_made_once_and_read_again(tmp_path: Path) -> None:
    study = cells(tmp_path / "work")
    study.open()
    study.make(operator.truediv, [(6, 3)], 1)
    assert study.get("truediv", 6, 3) == 2
    study.path("truediv", (6, 3)).write_text("[5]")
    study.make(operator.truediv, [(6, 3), (1, 4)], 1)
    assert study.get("truediv", 6, 3) == [5], "it was there, so it is not made again"
    assert cells(tmp_path / "work").get("truediv", 1, 4) == 0.25
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert left == ["work/about.json", "work/truediv/1_4.json", "work/truediv/6_3.json"]


def test_nothing_is_started_where_nothing_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = cells(tmp_path)
    path = study.path("truediv", (6, 3))
    path.parent.mkdir()
    path.write_text("2")
    monkeypatch.setattr("cells.ProcessPoolExecutor", None)
    study.make(operator.truediv, [(6, 3)], 1)


def test_a_process_is_readied_before_its_first_cell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = cells(tmp_path / "work")
    study.make(os.path.abspath, [("here",)], 1)
    assert study.get("abspath", "here") == str(tmp_path / "here")
    assert "abspath 1/1 here:" in capsys.readouterr().err


def test_nan_and_infinity_are_kept(tmp_path: Path) -> None:
    study = cells(tmp_path)
    study.make(float, [("nan",), ("-inf",), ("0.1",)], 2)
    assert math.isnan(study.get("float", "nan"))
    assert study.get("float", "-inf") == -math.inf
    assert study.get("float", "0.1") == 0.1


def test_a_folder_of_another_study_is_refused_and_told_apart(tmp_path: Path) -> None:
    first = cells(tmp_path / "work", sizes=(1, 2))
    first.open()
    first.open()  # tuples are lists in JSON, and no difference
    with pytest.raises(SystemExit, match=r"other model, seeds \(\['demo', 3\]\) .*\['gpt2', 4\]"):
        cells(tmp_path / "work", sizes=(1, 2), model="gpt2", seeds=4).open()
    with pytest.raises(SystemExit, match=r"other extra \(\[None\]\) .*\[1\].*--work-dir"):
        cells(tmp_path / "work", sizes=(1, 2), extra=1).open()
    kept = json.loads((tmp_path / "work" / "about.json").read_text())
    assert kept == {"seeds": 3, "model": "demo", "sizes": [1, 2]}


def test_a_failing_cell_keeps_what_was_made_before_it(tmp_path: Path) -> None:
    study = cells(tmp_path)
    with pytest.raises(ZeroDivisionError):
        study.make(operator.truediv, [(6, 3), (1, 0)], 1)
    assert study.get("truediv", 6, 3) == 2
    assert not study.path("truediv", (1, 0)).exists()
    with pytest.raises(FileNotFoundError):
        study.get("truediv", 1, 0)


def test_a_failing_cell_keeps_what_is_made_after_it(tmp_path: Path) -> None:
    study = cells(tmp_path)
    with pytest.raises(ZeroDivisionError):
        study.make(operator.truediv, [(1, 0), (6, 3)], 1)
    assert study.path("truediv", (6, 3)).exists()


def test_a_failing_cell_of_many_ends_the_making(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cells.as_completed", partial(as_completed, timeout=10))
    study = cells(tmp_path)
    with pytest.raises(ZeroDivisionError):
        study.make(operator.truediv, [(1, 0), *((1, k) for k in range(1, 12))], 1)
    assert study.get("truediv", 1, 1) == 1


# -- Estimates -------------------------------------------------------------------------------------


def test_the_interval_of_an_estimate_covers_the_truth() -> None:
    rng, covered = np.random.default_rng(0), 0
    for draw in range(40):
        seeds = rng.normal(0, 0.1, size=(5, 1))
        data = 3 + seeds + rng.normal(0, 2, size=60) + rng.normal(0, 0.5, size=(5, 60))
        found = estimate(lambda s, q, x=data: float(x[np.ix_(s, q)].mean()), 5, 60, draw)
        assert found.value == pytest.approx(data.mean())
        low, high = found.interval
        assert low < found.value < high
        covered += low < 3 < high
    assert 34 <= covered <= 40


@pytest.mark.parametrize("axis", [0, 1], ids=["seeds", "questions"])
def test_seeds_and_questions_are_both_resampled(axis: int) -> None:
    """Differences along one of them alone make an interval of their own standard error."""
    values = np.random.default_rng(1).normal(size=40)
    data = values[:, None].repeat(30, 1) if axis == 0 else values[None].repeat(30, 0)
    found = estimate(lambda s, q: float(data[np.ix_(s, q)].mean()), *data.shape, 0)
    low, high = found.interval
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 40**0.5, rel=0.12)


def test_an_estimate_depends_on_its_draw_alone() -> None:
    data = np.random.default_rng(2).normal(size=(3, 20))
    one, again, other = (
        estimate(lambda s, q: float(data[np.ix_(s, q)].mean()), 3, 20, draw) for draw in (4, 4, 5)
    )
    np.testing.assert_array_equal(one.resampled, again.resampled)
    assert not np.array_equal(one.resampled, other.resampled)


def test_the_mean_over_attributes_is_narrower_than_each() -> None:
    rng = np.random.default_rng(3)
    each = [Estimate(value, value + rng.normal(size=1000)) for value in (1.0, 2.0, 6.0)]
    whole = mean_of(each)
    assert whole.value == pytest.approx(3)
    low, high = whole.interval
    assert (low, high) == pytest.approx((3 - 1.96 / 3**0.5, 3 + 1.96 / 3**0.5), abs=0.15)


def test_an_interval_leaves_out_resamples_without_a_value_and_is_written_with_two_digits() -> None:
    found = Estimate(1.234, np.array([np.nan, *np.linspace(0, 1, 41), np.nan]))
    assert found.interval == pytest.approx((0.025, 0.975))
    assert str(Estimate(1.234, np.linspace(1, 2, 41))) == "1.23 [1.02, 1.98]"


@pytest.mark.parametrize(
    ("ends", "above", "expected"),
    [
        ((1.1, 1.9), True, SUPPORTED),
        ((1.1, 1.9), False, NOT),
        ((0.1, 0.9), True, NOT),
        ((0.1, 0.9), False, SUPPORTED),
        ((0.9, 1.1), True, UNDECIDED),
        ((0.9, 1.1), False, UNDECIDED),
        ((1.0, 1.9), True, UNDECIDED),
        ((0.1, 1.0), False, UNDECIDED),
        ((np.nan, np.nan), True, UNDECIDED),
    ],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(
    ends: tuple[float, float], above: bool, expected: str
) -> None:
    class Given(Estimate):
        interval = ends  # pyright: ignore[reportAssignmentType]

    assert verdict(Given(0.0, np.zeros(1)), 1.0, above) == expected


def errors(seeds: int = 2, layers: int = 3, examples: int = 5, seed: int = 4) -> Errors:
    rng = np.random.default_rng(seed)
    found = Errors.of(
        [
            {
                name: rng.uniform(1, 9, size=(layers, examples)).tolist()
                for name in ("above", "below")
            }
            for _ in range(seeds)
        ]
    )
    assert found is not None
    return found


def test_relative_errors_are_pooled_over_seeds_and_examples() -> None:
    found = errors()
    seeds, examples = np.array([1, 1, 0]), np.array([4, 0, 0, 2])
    for layer, value in enumerate(found.relative(seeds, examples)):
        above = sum(found.above[s][layer][e] for s in seeds for e in examples)
        below = sum(found.below[s][layer][e] for s in seeds for e in examples)
        assert value == pytest.approx(math.sqrt(above / below))
    assert (found.seeds, found.n) == (2, 5)
    assert Errors.of([]) is None


def test_a_reference_of_one_seed_stands_for_every_seed() -> None:
    one, examples = errors(seeds=1), np.arange(5)
    np.testing.assert_allclose(
        one.relative(np.array([2, 0, 1]), examples), one.relative(np.array([0]), examples)
    )


def test_a_statistic_of_errors_is_made_of_the_relative_errors_of_layers() -> None:
    found = errors()
    whole = found.relative(np.arange(2), np.arange(5))
    made = found.statistic(lambda relative: float(relative[-1] - relative[0]), 0)
    assert made.value == pytest.approx(whole[-1] - whole[0])
    low, high = made.interval
    assert low < made.value < high
    resampled = np.random.default_rng(0)
    first = found.relative(resampled.integers(0, 2, 2), resampled.integers(0, 5, 5))
    apart = first[-1] - first[0] - made.value
    assert made.resampled[0] - made.value == pytest.approx(2**0.5 * apart)  # two seeds: n / (n - 1)


def test_an_interval_covers_where_seeds_differ_most() -> None:
    rng, covered, plain = np.random.default_rng(1), 0, 0
    for draw in range(60):
        data = 3 + rng.normal(0, 1, size=(3, 1)) + rng.normal(0, 1, size=(3, 60))
        found = estimate(lambda s, q, x=data: float(x[np.ix_(s, q)].mean()), 3, 60, draw)
        low, high = found.interval
        covered += low < 3 < high
        narrower = found.value + (2 / 3) ** 0.5 * (np.array([low, high]) - found.value)
        plain += narrower[0] < 3 < narrower[1]
    assert covered > plain
    assert covered >= 42  # three seeds can give no honest 95 %: the page says so


# -- Questions of one's own ------------------------------------------------------------------------

ASKED = {
    "instruction": "Answer formally.",
    "definition": "It keeps a formal tone.",
    "held_out": ["Be formal.", "Use a formal tone."],
    "questions": {
        "train": ["What is it?", "Who sat on the mat?"],
        "validation": ["Where is the cat?"],
        "test": ["Who ran?", "What was red?", "When did they go?"],
    },
}


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A file of two attributes."""
    path = tmp_path / "asked.json"
    path.write_text(json.dumps({"formal": ASKED, "short": {**ASKED, "instruction": "Be short."}}))
    return path


def given(monkeypatch: pytest.MonkeyPatch, asked: Path, **options: Any) -> plan.Options:
    chosen = plan.Options(str(asked.parent), "tiny", questions=str(asked), **options)
    monkeypatch.setattr(study, "_OPTIONS", [chosen])
    return chosen


def test_questions_of_ones_own_are_answered_under_the_instruction(
    gpt2: Any, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = given(monkeypatch, asked)
    monkeypatch.setattr(plan, "model", lambda: gpt2)
    monkeypatch.setattr("material._SUCCESSFUL", {})
    assert plan.attributes() == ("formal", "short")
    assert not chosen.judged
    found = plan.material.__wrapped__("formal")
    for split, questions in ASKED["questions"].items():  # pyright: ignore
        pairs = found.pairs[split]
        assert [pair.plain for pair in pairs] == [Conversation(text) for text in questions]
        prompted = [Conversation(text, "Answer formally.") for text in questions]
        assert [pair.prompted for pair in pairs] == prompted
        assert all(len(pair.response) > 0 for pair in pairs)
        reworded = found.in_other_words(split, found.equivalents)
        assert [one[0].prompted.system for one in reworded] == ASKED["held_out"]
    assert plan.material.__wrapped__("short").instruction == "Be short."
    assert found.setting(gpt2, "test", 2, 0) is None, "there is no judge"
    assert len(found.training(gpt2, 120, 0)) == 2


def test_a_model_without_turns_is_given_some(
    gpt2: Any, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = PLAIN + "{{ '' }}"
    for template, expected in ((None, PLAIN), (own, own)):
        monkeypatch.setattr(gpt2.tokenizer, "chat_template", template)
        from_file(gpt2, asked, "formal")
        assert gpt2.tokenizer.chat_template == expected


def test_a_judge_of_ones_own_is_asked_for_the_definition(gpt2: Any, asked: Path) -> None:
    judges = ("http://127.0.0.1:9/v1", "a-judge")
    found: Any = from_file(gpt2, asked, "formal", judges)
    assert (found.judge.name, found.judge.definition) == ("formal", ASKED["definition"])
    assert (found.judge.endpoint.base_url, found.judge.endpoint.model) == judges
    assert found.coherence.endpoint == found.judge.endpoint
    setting = found.setting(gpt2, "test", 2, 7)
    assert setting.questions == ASKED["questions"]["test"]  # pyright: ignore
    assert (setting.attribute, setting.coherence) == (found.judge, found.coherence)
    assert (setting.n, setting.sampling.seed) == (2, 7)


def test_a_judge_or_other_attributes_change_what_is_answered(
    asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert given(monkeypatch, asked, judge=("http://127.0.0.1:9/v1", "a-judge")).judged
    given(monkeypatch, asked, attributes=("short",))
    assert plan.attributes() == ("short",)


def test_results_belong_to_the_file_of_questions(asked: Path, folders: Any) -> None:
    chosen = plan.Options(str(asked.parent), str(folders["gpt2"]), questions=str(asked))
    before = cells_with(chosen).about
    asked.write_text(asked.read_text().replace("Be short.", "Be brief."))
    after = cells_with(chosen).about
    assert {key for key in before if before[key] != after[key]} == {"data"}


@pytest.mark.parametrize(
    ("without", "missing"),
    [("held_out", "held_out"), ("questions", "questions.test, questions.train")],
)
def test_a_file_of_questions_that_lacks_something_says_so(
    gpt2: Any, asked: Path, without: str, missing: str
) -> None:
    lacking = {name: value for name, value in ASKED.items() if name != without}
    asked.write_text(json.dumps({"formal": lacking}))
    with pytest.raises(ValueError, match=f"'formal' lacks .*{missing}"):
        from_file(gpt2, asked, "formal")
    with pytest.raises(ValueError, match="no attribute 'rude'; it has formal"):
        from_file(gpt2, asked, "rude")


# -- The page --------------------------------------------------------------------------------------


def test_a_table_in_markdown_has_a_head_a_rule_and_its_rows() -> None:
    table = markdown_table(["claim", "mean"], [["a", "1"], ["", "2"]])
    assert table == "| claim | mean |\n| --- | --- |\n| a | 1 |\n|  | 2 |"


def test_without_results_the_page_is_the_hypotheses_alone() -> None:
    text = page(None, plan.Options("nowhere"), "hypotheses")
    for name in ("H1", "H2", "H3", "H4", "H5"):
        assert f"**{name}**" in text
    assert "has not been opened" in text
    assert "--model gpt2`" in page(None, plan.Options("nowhere", "gpt2"), "hypotheses")
