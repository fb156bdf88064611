"""A bench on a model and data of one's own: what is refused early, and what is said afterwards."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_templates import STORIES

import steerlens as sl
from analysis.bench import judging
from analysis.bench.bench import Bench, work
from analysis.bench.cells import Cell, Cells
from analysis.bench.found import LOWER, TOGETHER, null_sentences, sentences
from analysis.bench.kinds import write_cell
from analysis.bench.loading import Loading
from analysis.bench.parallel import require_run
from analysis.bench.plan import Plan
from analysis.bench.script import slurm_script
from analysis.bench.spec import Spec, read_spec, tasks_text, write_spec
from analysis.bench.standings import standings
from analysis.bench.tasks import read_tasks
from steerlens.cli.bench import names_in

THINGS = ["sea", "sun", "sky", "dog", "cat", "tea", "car", "inn", "owl", "elm", "ant"]
QUESTIONS = [f"Tell me about the {thing}." for thing in THINGS]
SMALL = {"methods": ("CAA",), "seeds": 1, "factors": (1.0,), "max_new_tokens": 4}


def tasks(path: Path, **more: object) -> Path:
    """A file of one task with letters that no English name has."""
    splits = {"train": QUESTIONS[:8], "validation": QUESTIONS[8:9], "test": QUESTIONS[9:]}
    task = {"instruction": "Be positive.", "questions": splits, **more}
    path.write_text(json.dumps({"gut / 良い 😀, or so": task}), encoding="utf-8")
    return path


# -- Before anything is computed -------------------------------------------------------------------


def test_names_may_hold_commas():
    known = ("CAA", "CAA, 4 examples", "COLD-FD, 4 examples", "LAS grid")
    found = names_in("CAA, 4 examples, CAA ,LAS  grid,", known)
    assert found == ("CAA, 4 examples", "CAA", "LAS grid")
    assert names_in("CAA, Magic", known) == ("CAA", "Magic")


def test_what_is_asked_for_twice_is_once():
    spec = Spec(methods=("CAA", "CAA"), factors=(1.0, 1.0), rules=("C80", "C80"))
    assert (spec.methods, spec.factors, spec.rules) == (("CAA",), (1.0,), ("C80",))


@pytest.mark.parametrize("name", ["examples", "max_new_tokens"])
def test_numbers_below_1_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be from 1 to .*; found -3"):
        replace(Spec(), **{name: -3})


def test_a_plan_that_fails_leaves_nothing_behind(tmp_path):
    data, out = tasks(tmp_path / "tasks.json"), tmp_path / "bench"
    with pytest.raises(ValueError, match="Unknown model"):
        Bench.planned(out, Spec("nope", data=str(data), **SMALL))
    assert not out.exists()


def test_tasks_of_a_plan_that_was_given_up_are_replaced(tmp_path):
    out = tmp_path / "bench"
    out.mkdir()
    (out / "tasks.json").write_text("{}")
    text = tasks_text(Spec(data=str(tasks(tmp_path / "mine.json"))), out)
    assert text is not None
    assert "Be positive" in text


def test_data_that_changed_since_the_plan_are_refused(tmp_path):
    data, out = tasks(tmp_path / "mine.json"), tmp_path / "bench"
    spec = Spec(data=str(data), **SMALL)
    write_spec(spec, out, tasks_text(spec, out))
    assert tasks_text(spec, out) is not None
    data.write_text(data.read_text().replace("positive", "cheerful"))
    with pytest.raises(ValueError, match=r"other tasks than those of .*mine\.json"):
        tasks_text(spec, out)


def test_tasks_of_a_folder_that_were_changed_are_refused(tmp_path):
    data, out = tasks(tmp_path / "mine.json"), tmp_path / "bench"
    bench = Bench.planned(out, Spec(data=str(data), **SMALL))
    assert Bench.of(out).tasks.keys() == bench.tasks.keys()
    (out / "tasks.json").write_text((out / "tasks.json").read_text().replace("sea", "lake"))
    with pytest.raises(ValueError, match="was changed after the bench was planned"):
        _ = Bench.of(out).tasks


def test_a_question_too_long_for_the_model_is_told_by_plan(tmp_path):
    splits = {"train": QUESTIONS[:8], "validation": ["word " * 600], "test": ["b"]}
    data = tasks(tmp_path / "mine.json", questions=splits)
    with pytest.raises(ValueError, match=r"question 1 of validation, 'word word.*context holds"):
        Bench.planned(tmp_path / "bench", Spec(data=str(data), **SMALL))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"answers": [1]}, "answers must be an object"),
        ({"answers": {"train": 3}}, "answers of 'train' must be one"),
        ({"questions": {"train": ["a"] * 9, "validation": ["b"], "test": ["c"]}}, "twice in train"),
        (
            {"questions": {"train": QUESTIONS[:8], "validation": [" "], "test": ["c"]}},
            "a question of validation is empty",
        ),
    ],
)
def test_damaged_tasks(tmp_path, more, said):
    with pytest.raises(ValueError, match=said):
        read_tasks(tasks(tmp_path / "mine.json", **more))


def test_fewer_questions_of_multiple_choice_have_as_many_options(tmp_path):
    counts = {"train": 8, "validation": 1, "test": 2}
    rows = {split: [[["(A)"], ["(B)"]]] * n for split, n in counts.items()}
    data = tasks(tmp_path / "mine.json", options=rows)
    (task,) = Spec(data=str(data), most=(None, 1, 1)).tasks().values()
    assert (len(task.questions["test"]), len(task.options["test"])) == (1, 1)


def test_a_file_is_no_folder_of_a_bench(tmp_path):
    place = tmp_path / "file"
    place.write_text("")
    for act in (lambda: Bench.planned(place, Spec(**SMALL)), lambda: Bench.of(place)):
        with pytest.raises(ValueError, match="names the folder of a bench"):
            act()


def test_a_scheduler_that_no_backend_asks_is_refused():
    with pytest.raises(ValueError, match="--scheduler is for the backends dask and submitit"):
        require_run(1, "loky", (0, 1), "tcp://here:1")


# -- How the model is loaded -----------------------------------------------------------------------


@pytest.mark.skipif(not STORIES.is_dir(), reason="shared/models/stories260K is absent")
def test_a_model_without_a_chat_template_gets_a_plain_one():
    model = Loading().load(str(STORIES))
    assert model.tokenizer.chat_template == sl.PLAIN


def test_how_a_model_is_loaded_names_its_cells_and_holds_for_the_folder(tmp_path):
    spec = Spec(attributes=("positive",), fingerprint="f", **SMALL)
    other = replace(spec, loading=Loading(dtype="float64"))
    (task,) = spec.tasks().values()
    assert "loading" not in write_cell(spec, task, "test", 0).settings
    assert write_cell(other, task, "test", 0)["loading"] == {"dtype": "float64"}
    write_spec(other, tmp_path)
    assert read_spec(tmp_path) == other
    with pytest.raises(ValueError, match="dtype is 'float64' there and 'float32' now"):
        write_spec(spec, tmp_path)


def test_a_template_that_cannot_be_is_told_before_the_model_is_loaded():
    with pytest.raises(ValueError, match="messages is set by steerlens itself"):
        Loading(template_arguments={"messages": 1})
    assert Loading(default_system="none").template.system is None


# -- While it runs ---------------------------------------------------------------------------------


def test_a_judge_that_cannot_be_made_is_tried_once_and_nothing_is_written_for_it(
    tmp_path, monkeypatch
):
    data, out, tried = tasks(tmp_path / "mine.json"), tmp_path / "bench", []
    bench = Bench.planned(out, Spec(data=str(data), **SMALL))

    def none(*given, **_):
        tried.append(given)
        raise ValueError("This model shows no effect to judge by.")

    monkeypatch.setattr(judging, "likelihood", none)
    with pytest.raises(RuntimeError) as told:
        work(out)
    assert len(tried) == 1
    said = str(told.value)
    assert said.count("shows no effect to judge by") == 1
    assert "Traceback" not in said
    assert "\n" not in said
    place = re.search(r"Where: (.*)\.$", said)
    assert place is not None
    assert "Traceback" in Path(place[1]).read_text()
    (judged, *_) = [cell for cell in bench.plan.left() if cell.kind == "judge"]
    assert not bench.cells.there(Cell.of_json(judged["of"]))


def test_what_another_worker_made_is_not_counted(tmp_path, monkeypatch):
    bench = Bench(tmp_path, Spec(attributes=("positive",), most=(8, 2, 2), **SMALL))
    write_spec(bench.spec, tmp_path)
    left = iter([bench.plan.named(), []])
    monkeypatch.setattr(Plan, "left", lambda *_: next(left))
    monkeypatch.setattr(Cells, "make", lambda *_: {})  # it is there by now
    assert work(tmp_path) == 0


# -- The SLURM script ------------------------------------------------------------------------------


def test_a_script_goes_to_where_it_was_printed_and_escapes_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = slurm_script("my 100% bench", 2).splitlines()
    assert f"cd {tmp_path}" in lines
    assert f'#SBATCH --output="{tmp_path}/my 100%% bench/slurm-%A_%a.log"' in lines


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cpus": 0}, "cpus must be from 1"),
        ({"memory": ""}, "--memory is one word"),
        ({"time": "1 h"}, "--time is one word"),
    ],
)
def test_a_script_that_slurm_would_refuse(given, said):
    with pytest.raises(ValueError, match=said):
        slurm_script("bench", 2, **given)


def test_a_folder_that_slurm_cannot_read():
    with pytest.raises(ValueError, match="quotes or line breaks"):
        slurm_script('a"b', 2)


# -- What is said ----------------------------------------------------------------------------------


def scored(seeds: int = 3, questions: int = 12, **means: float) -> dict[str, dict[str, np.ndarray]]:
    """Scores of methods on one attribute, around their means."""
    rng = np.random.default_rng(0)
    return {
        name: {"x": np.clip(mean + rng.normal(0, 2, (seeds, questions)), 0, 100)}
        for name, mean in means.items()
    }


def said_of(scores: dict[str, dict[str, np.ndarray]]) -> str:
    return "\n".join(sentences(standings(scores), scores, "harmonic"))


def test_one_method_is_the_best_of_none():
    said = said_of(scored(CAA=50, prompt=80))
    assert "CAA, the only method with a mean, has 50 [" in said
    assert "every other" not in said


def test_what_is_no_better_than_no_steering_is_said():
    said = said_of(scored(CAA=80, ActAdd=50, Angular=20, unsteered=50))
    assert f"Not told apart from the model itself, {TOGETHER}: ActAdd." in said


def test_what_is_better_than_no_steering_is_not_called_the_same():
    assert "from the model itself" not in said_of(scored(CAA=80, ActAdd=70, unsteered=50))


def test_one_question_tells_no_method_apart():
    scores = scored(1, 1, CAA=50, ActAdd=20)
    said = said_of(scores)
    assert "CAA has the highest mean (50 (no interval))" in said.replace("49", "50")
    assert f"not told apart from it, {TOGETHER}: ActAdd." in said
    assert "nan" not in said
    assert "One seed" in said
    assert "1 test question:" in said
    assert standings(scores)["first"].isna().all()


def test_many_questions_and_seeds_need_no_warning():
    said = said_of(scored(CAA=50, ActAdd=20))
    assert f"{LOWER}, also {TOGETHER}." in said
    assert "seed" not in said
    assert "test question" not in said


def test_seeds_that_are_lacking_are_told():
    scores = scored(CAA=50, ActAdd=20, LoRA=40)
    scores["ActAdd"]["x"][1:] = np.nan
    del scores["LoRA"]["x"]
    said = said_of(scores)
    assert "Not with all of the 3 seeds" in said
    assert "ActAdd on x (1); LoRA on x (0)" in said
    assert standings(scores).set_index("method").loc["ActAdd", "seeds"] == 1


def many(best: float) -> dict[str, dict[str, np.ndarray]]:
    """Twelve methods that are alike, and one with another mean."""
    rng = np.random.default_rng(0)
    names = {f"m{n}": {"x": 50 + rng.normal(0, 9, (3, 12))} for n in range(12)}
    return {**names, "best": {"x": best + rng.normal(0, 9, (3, 12))}}


def test_the_claim_is_what_comparisons_leave_open_that_hold_together():
    scores = many(57)
    said = said_of(scores)
    first = re.search(
        rf"not told apart from it, {TOGETHER}: (.*) \(one by one, only (.*)\)\.", said
    )
    assert first
    together, alone = (found.split(", ") for found in first.groups())
    assert set(alone) < set(together)
    tied = standings(scores).set_index("method")["tied_with_best"]
    assert {*together, "best"} == set(tied.index[tied])


def test_what_only_comparisons_one_by_one_decide_is_no_claim():
    open_ = rf"not told apart from it, {TOGETHER}: m\d.* \(one by one, {LOWER}\)\."
    assert re.search(open_, said_of(many(64)))


def test_what_is_not_told_apart_from_no_steering_holds_together_too():
    scores = many(57)
    scores["unsteered"] = {"x": scores.pop("best")["x"]}
    said = said_of(scores)
    first = re.search(
        rf"from the model itself, {TOGETHER}: (.*) \(one by one, (only m\d.*)\)\.", said
    )
    assert first
    assert set(first[2].removeprefix("only ").split(", ")) < set(first[1].split(", "))


def test_a_prompt_that_adds_nothing_is_told():
    scores = scored(unsteered=60, prompt=55, **{"null: looped": 58})
    (said,) = null_sentences(scores)
    assert "The prompt itself adds nothing on x (prompt 5" in said
