"""Multiple choice and the data of others in the bench, and digests that stay what they were."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens as sl
from analysis.bench.bench import Bench, work
from analysis.bench.catalogue import METHODS
from analysis.bench.cells import Cells, digest_of
from analysis.bench.from_pairs import tasks_made_of, tasks_of
from analysis.bench.kinds import (
    PROMPT,
    UNSTEERED,
    baseline_cell,
    effects_cell,
    fit_cell,
    odds_cell,
    scale_cell,
    side_cell,
    spread_cell,
    steered_cell,
    written_cell,
)
from analysis.bench.odds import odds, options_of
from analysis.bench.plan import Plan
from analysis.bench.spec import Spec
from analysis.bench.tasks import CHOICE, read_tasks
from steerlens import Conversation, read_pairs
from steerlens.cli import main

OLD_METHODS = ("CAA", "ActAdd", "A-PSR_MSE + prompt", "A-PSR_MSE", "COLD-FD, 4 examples", "LoRA")
THINGS = ["film", "book", "dog", "horse", "girl", "war", "witch", "car", "king", "ship"]
THINGS += ["house", "road", "tree", "river"]
SMALL = {"methods": ("CAA",), "seeds": 1, "factors": (1.0,), "max_new_tokens": 8}


def choices(n: int = 14) -> list[dict[str, str]]:
    """Questions whose matching letter is A and B in turn."""
    rows = []
    for number, thing in enumerate(THINGS[:n]):
        a, b = ("I loved it", "I hated it")[:: 1 if number % 2 else -1]
        match, other = ("(A)", "(B)")[:: 1 if number % 2 else -1]
        rows.append({"question": f"How was the {thing}?\n\nChoices:\n (A) {a}\n (B) {b}",
                     "answer_matching_behavior": match,
                     "answer_not_matching_behavior": other})  # fmt: skip
    return rows


def put(folder: Path, content: Any, name: str = "liking.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("data", "digest"),
    [("demo", "96d8ba689de574347303b19a"), ("smollm2", "0e360900285a368617aa7e30")],
)
def test_cells_of_existing_tasks_have_the_digests_that_they_had(data, digest):
    """Made by the version before tasks had options: results of long runs are found by them."""
    spec = Spec(model=data, data=data, fingerprint="0" * 32, methods=OLD_METHODS)
    tasks = spec.tasks()
    cells = Plan(spec, tasks, Cells(Path("none"))).named()
    for task in tasks.values():
        for method in OLD_METHODS:
            fit = fit_cell(spec, task, method, 0, 0)
            written = written_cell(spec, task, method, 0, 0, "test", 1.0)
            cells += [
                steered_cell(spec, task, method, 0, 1, "test", 1.0),
                side_cell(spec, task, written),
                effects_cell(spec, task, "test", 0, fit=fit, strength="as fitted"),
            ]
        sources = (UNSTEERED, PROMPT, "equivalent", "neutral", "null: echoed")
        cells += [baseline_cell(spec, task, source, 1, "test") for source in sources]
        cells += [spread_cell(spec, task, 0, "template"), scale_cell(spec, task)]
    assert set(OLD_METHODS) <= set(METHODS)
    assert digest_of([cell.digest for cell in cells]) == digest


# -- Tasks of other people's data ------------------------------------------------------------------


def test_choices_become_a_task_with_options_in_every_split(tmp_path):
    found = read_pairs(put(tmp_path, choices()))
    with pytest.raises(ValueError, match="--instruction"):
        tasks_of(found)
    (task,) = read_tasks(put(tmp_path, tasks_of(found, "Love it all.", "liking"), "tasks.json"))
    assert (task.name, task.judge, task.instruction) == ("liking", CHOICE, "Love it all.")
    assert {split: len(of) for split, of in task.questions.items()} == {
        "train": 8,
        "validation": 3,
        "test": 3,
    }
    asked = {row["question"]: row for row in choices()}
    for split, questions in task.questions.items():
        for question, (yes, no) in zip(questions, task.options[split], strict=True):
            assert yes == (asked[question]["answer_matching_behavior"],)
            assert no == (asked[question]["answer_not_matching_behavior"],)
    for question, (yes, no) in zip(task.questions["train"], task.answers["train"], strict=True):
        assert f"{yes})" == asked[question]["answer_matching_behavior"]
        assert f"{no})" == asked[question]["answer_not_matching_behavior"]


def test_a_trait_brings_its_own_instructions(tmp_path):
    told = [{"pos": "Be kind.", "neg": "Be harsh."}, {"pos": "Care.", "neg": "No."}]
    trait = {"instruction": told,
             "questions": [f"What of the {thing}?" for thing in THINGS]}  # fmt: skip
    found = read_pairs(put(tmp_path, trait))
    made = tasks_of(found, name="kind")["kind"]
    assert made["instruction"] == "Be kind."
    assert made["equivalents"] == ["Care."]
    assert made["neutral"] == ["Be harsh.", "No."]
    assert not {"options", "answers"} & set(made)
    assert sorted(q for of in made["questions"].values() for q in of) == sorted(trait["questions"])


def test_answers_of_a_file_are_what_methods_are_fitted_on(tmp_path):
    path = tmp_path / "x.csv"
    rows = [f"What of the {thing}?,I love the {thing},I hate it" for thing in THINGS]
    path.write_text("\n".join(["question,matching,not_matching", *rows]))
    made = tasks_of(read_pairs(path), "Love it all.")["task"]
    thing = made["questions"]["train"][0].removeprefix("What of the ").removesuffix("?")
    assert made["answers"]["train"][0] == [f"I love the {thing}", "I hate it"]


def test_what_is_no_task_is_told(tmp_path):
    few = read_pairs(put(tmp_path, choices(4)))
    with pytest.raises(ValueError, match="4 different questions; a bench needs 10"):
        tasks_of(few, "Love it all.")
    texts = tmp_path / "x.jsonl"
    texts.write_text(json.dumps({"positive": "a", "negative": "b"}))
    with pytest.raises(ValueError, match="line 1 asks none"):
        tasks_of(read_pairs(texts), "Love it all.")
    lines = [{"user": "a", "system": s, "response": "b"} for s in ("Be x.", "Be y.")]
    texts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r"has 2: 'Be x\.', 'Be y\.'"):
        tasks_of(read_pairs(texts))
    with pytest.raises(ValueError, match="have their own"):
        tasks_made_of("demo", "Love it all.")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"train": []}, "the splits"),
        ({"train": [], "validation": [], "test": []}, "one for each question"),
        ([["(A)"], ["(A)"]], "two lists"),
        ([[], ["(A)"]], "two lists"),
        ("(A)", "two lists"),
    ],
)
def test_options_that_are_wrong_are_told(options, said, tmp_path):
    made = tasks_of(read_pairs(put(tmp_path, choices())), "Love it all.", "liking")
    if isinstance(options, dict):
        made["liking"]["options"] = options
    else:
        made["liking"]["options"]["test"][0] = options
    with pytest.raises(ValueError, match=said):
        read_tasks(put(tmp_path, made, "tasks.json"))


# -- The odds --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo():
    return sl.load("demo")


def by_hand(model: Any, asked: Conversation, yes: str, no: str) -> float:
    """The log odds of two letters, from the logits behind the bracket."""
    row = sl.encode(model, Conversation(asked.user, asked.system, "("))
    with torch.no_grad():
        logits = model(torch.tensor([row.ids]))[0, -1].double()
    letters = [model.tokenizer.encode(letter, add_special_tokens=False)[-1] for letter in (yes, no)]
    return float(logits[letters[0]] - logits[letters[1]])


def test_the_score_is_the_log_odds_of_the_letter(demo, tmp_path):
    made = tasks_of(read_pairs(put(tmp_path, choices())), "Love it all.", "liking")
    (task,) = read_tasks(put(tmp_path, made, "tasks.json"))
    maker = Bench(tmp_path, Spec())
    vars(maker).update(_tasks={"liking": task}, _model=demo)
    for source, system in ((UNSTEERED, None), (PROMPT, "Love it all.")):
        cell = odds_cell(Spec(), task, "test", source)
        assert cell["system"] == system
        found = odds(maker, cell)
        for number, (question, both) in enumerate(
            zip(task.questions["test"], task.options["test"], strict=True)
        ):
            letters = [side[0].strip("()") for side in both]
            wanted = by_hand(demo, Conversation(question, system), *letters)
            assert found["log_odds"][number][0] == pytest.approx(wanted, abs=1e-4)
            assert 0 < found["mass"][number][0] <= 1


def test_three_options_and_swapped_sides(demo):
    asked = Conversation("How was it?\n\nChoices:\n (A) a\n (B) b\n (C) c")
    rows, start = options_of(demo, asked, (("(A)", "(C)"), ("(B)",)))
    assert len({row.ids[start:] for row in rows}) == 3
    with pytest.raises(ValueError, match="cannot be told apart"):
        options_of(demo, asked, (("(A)",), ("A)", "(A)")))


def test_a_bench_of_choices_from_plan_to_report(tmp_path, capsys):
    out, data = str(tmp_path / "bench"), str(put(tmp_path, choices()))

    def say(*words: str) -> Any:
        with pytest.raises(SystemExit) as ended:
            main(["bench", *words, "--out", out, "--json"])
        assert ended.value.code == 0
        return json.loads(capsys.readouterr().out)

    options = ("--methods", "CAA", "--seeds", "1", "--strengths", "1", "--max-new-tokens", "8")
    planned = say("plan", "--data", data, "--instruction", "Love it all.", *options)
    assert planned["attributes"] == ["liking"]
    bench = Bench.of(out)
    work(out)
    (task,) = bench.tasks.values()
    cell = baseline_cell(bench.spec, task, UNSTEERED, 0, "test")
    scores, of = bench.result(cell), bench.result(odds_cell(bench.spec, task, "test"))
    for share, log_odds in zip(scores["attribute"], of["log_odds"], strict=True):
        assert share[0] == pytest.approx(100 / (1 + math.exp(-log_odds[0])), abs=1e-3)
    points = bench.collected.points
    told = points.loc[points["measure"] == "log odds"]
    assert set(told["method"]) == {"unsteered", "prompt", "CAA"}
    mean = sum(row[0] for row in of["log_odds"]) / len(of["log_odds"])
    assert told.loc[told["method"] == "unsteered", "mean"].iloc[0] == pytest.approx(mean)
    assert not any(cell.kind == "write" and "null" in cell["source"] for cell in bench.plan.named())
    said = " ".join(say("collect")["found"])
    assert "CAA, the only method with a mean" in said
    assert "null" not in said


def test_open_questions_are_judged_as_others_are(tmp_path):
    data = put(tmp_path, [{"question": f"What of the {thing}?"} for thing in THINGS])
    out = tmp_path / "bench"
    spec = Spec(data=str(data), **SMALL)
    (task,) = spec.tasks(out, tasks_made_of(str(data), "Love it all.")).values()
    assert (task.judge, task.options) == ("likelihood", {})
    assert baseline_cell(spec, task, UNSTEERED, 0, "test")["of"]["kind"] == "write"
