"""What the library warns of while a bench runs is kept and told, and so is how training went."""

import csv
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import steerlens as sl
from analysis.bench import bench as module
from analysis.bench import catalogue, fitting
from analysis.bench.bench import Bench, work
from analysis.bench.catalogue import Case, fit_of
from analysis.bench.cells import Cell, Cells
from analysis.bench.found import choice_sentences, training_sentences
from analysis.bench.kinds import PROMPT, fit_cell, write_cell
from analysis.bench.plan import Plan
from analysis.bench.report import WARNED, write_report
from analysis.bench.rules import BEFORE, BEYOND, INSIDE
from analysis.bench.shapes import require_result
from analysis.bench.spec import Spec
from analysis.bench.warned import Counts, by_kind, warned_cells, warning_sentences
from steerlens import SteeringWarning
from steerlens.baselines.lora import LoRA, LoRAFit
from steerlens.training.fit import Fit
from steerlens.training.loop import Trained

OUTSIDE = "The judge cannot be relied on for 2 of 4 texts. Leave these scores out."
SPEC = Spec(attributes=("positive",), methods=("CAA",), seeds=1)
SMALL = {
    "attributes": ("positive",),
    "methods": ("CAA",),
    "seeds": 1,
    "factors": (1.0,),
    "most": (8, 2, 2),
    "max_new_tokens": 8,
}
TASK = SPEC.tasks()["positive"]
WRITE, JUDGE = Cell("write", {"task": "positive"}), Cell("judge", {"task": "positive"})


@pytest.fixture(scope="module")
def model() -> Any:
    return sl.load("demo")


def warn(text: str, category: type[Warning] = SteeringWarning) -> None:
    warnings.warn(text, category, stacklevel=2)


# -- Kept in the cell ------------------------------------------------------------------------------


def test_every_cell_keeps_the_warnings_raised_while_it_is_made(tmp_path, monkeypatch):
    """Those of the cell that it needs are that one's; others' warnings go on their way."""

    def write(maker, cell):
        warn("This steering changed nothing. Look at its scope.")
        return {"texts": [["a"]]}

    def judge(maker, cell):
        warn(OUTSIDE)
        maker.result(WRITE)
        warn("old", DeprecationWarning)
        warn(OUTSIDE.replace("2 of 4", "3 of 4"))
        return {"attribute": [[1.0]]}

    monkeypatch.setitem(module.COMPUTE, "write", write)
    monkeypatch.setitem(module.COMPUTE, "judge", judge)
    bench = Bench(tmp_path, SPEC)
    with pytest.warns() as heard:
        found = bench.result(JUDGE)
    assert found["warnings"] == [OUTSIDE, OUTSIDE.replace("2 of 4", "3 of 4")]
    assert bench.result(WRITE)["warnings"] == ["This steering changed nothing. Look at its scope."]
    said = [str(one.message) for one in heard]
    assert said == [OUTSIDE, "This steering changed nothing. Look at its scope.", "old"]
    whole = json.loads(bench.cells.path(JUDGE).read_text())
    assert Cell.of_json(whole["cell"]).digest == JUDGE.digest  # warnings are no part of what it is


def test_a_cell_without_warnings_is_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setitem(module.COMPUTE, "write", lambda maker, cell: {"texts": [["a"]]})
    assert Bench(tmp_path, SPEC).result(WRITE) == {"texts": [["a"]]}


def test_a_warning_of_loading_is_no_matter_of_the_first_cell(tmp_path, monkeypatch, model):
    def load(self, name):
        warn("This model is unusual.")
        return model

    monkeypatch.setattr(type(SPEC.loading), "load", load)
    monkeypatch.setattr(module, "fingerprint", lambda model: SPEC.fingerprint)
    monkeypatch.setitem(
        module.COMPUTE, "write", lambda maker, cell: {"texts": [[str(maker.model.cfg.n_layers)]]}
    )
    with pytest.warns(SteeringWarning, match="unusual"):
        found = Bench(tmp_path, SPEC).result(WRITE)
    assert "warnings" not in found


def test_texts_that_are_no_warnings_are_told():
    require_result("write", {"texts": [["a"]], "warnings": ["Look out."]})
    with pytest.raises(ValueError, match="warnings"):
        require_result("write", {"texts": [["a"]], "warnings": [1]})


@pytest.fixture
def bench(tmp_path, model) -> Bench:
    """One training question that is answered: what fits it, a test says."""
    made = Bench(tmp_path, SPEC)
    task = replace(TASK, questions={**TASK.questions, "train": ("How was it?",)})
    vars(made).update(_tasks={"positive": task}, _model=model)
    for source in (PROMPT, "unsteered"):
        cell = write_cell(SPEC, task, "train", 0, source)
        made.cells.write(cell, {"texts": [["It was good."]]}, {})
    return made


def fitted(bench: Bench, monkeypatch, fit: Callable[[Case], Any]) -> dict[str, Any]:
    """The cell of a fit that is made by `fit`."""
    monkeypatch.setattr(fitting, "fit_of", lambda method: fit)
    return bench.result(fit_cell(SPEC, bench.tasks["positive"], "CAA", 0, 0))


def test_a_fit_that_comes_to_nothing_keeps_its_warnings(bench, monkeypatch):
    def failing(case):
        warn("The gates never open.")
        raise ValueError("nothing is left")

    told = fitted(bench, monkeypatch, failing)
    assert (told["reason"], told["warnings"]) == ("nothing is left", ["The gates never open."])


@pytest.fixture(scope="module")
def steering() -> Any:
    return sl.at(0, sl.CAA(torch.ones(4)))


def test_finding_the_unit_hides_no_warning_but_that_it_is_not_reached(bench, monkeypatch, steering):
    def calibrate(*_, **__):
        warn(f"{fitting.UNREACHED} 3 nats a token.")
        warn("The effect of this steering jumps.")
        return sl.Calibration(steering, 2.0, "prompt", 3.0, 1.0, False, ())

    monkeypatch.setattr(fitting, "calibrate", calibrate)
    told = fitted(bench, monkeypatch, lambda case: steering)
    assert told["warnings"] == ["The effect of this steering jumps."]
    assert (told["reached"], told["reason"]) == (False, None)
    assert "training" not in told


def test_the_warning_that_is_left_out_is_the_one_that_calibrate_gives(model):
    steering = sl.at(0, sl.CAA(torch.linspace(-1, 1, model.cfg.d_model)))
    pair = sl.PromptPair.with_system("How was the film?", "Love it all.", "It was a good film.")
    with pytest.warns(SteeringWarning, match=f"^{fitting.UNREACHED}"):
        sl.calibrate(model, steering, [pair], target_kl=1e3, progress=False)


# -- Told ------------------------------------------------------------------------------------------


class Given(Plan):
    """A plan that asks for cells that a test made up."""

    def asked(self) -> dict[str, Cell]:
        return ASKED


FITS = [fit_cell(SPEC, TASK, "CAA", 0, seed) for seed in range(4)]
BOTH = fit_cell(SPEC, TASK, "A-PSR_MSE + prompt", 0, 0)
SIDE = Cell("judge", {
    "task": "negative",
    "of": write_cell(SPEC, TASK, "test", 0, PROMPT, fit=BOTH, strength=1.0).as_json(),
})  # fmt: skip
NULLED = write_cell(SPEC, TASK, "test", 0, "null: echoed")
ASKED = {cell.digest: cell for cell in (*FITS, BOTH, SIDE, NULLED)}
ENDED = "The loss ended higher than it began ({}; kept is epoch 3). Lower learning_rate."
KNOWN = {
    FITS[0].digest: {"warnings": [ENDED.format(1.25), "Few pairs."]},
    FITS[1].digest: {"warnings": [ENDED.format(2.5)]},
    FITS[2].digest: {"reason": None, "warnings": []},
    SIDE.digest: {"warnings": [OUTSIDE]},
    NULLED.digest: {"texts": [[]]},
    BOTH.digest: {"reason": "no"},
}  # FITS[3] is not done


@pytest.fixture
def warned(tmp_path) -> tuple[pd.DataFrame, dict[str, Counts]]:
    codes = dict.fromkeys([BOTH.digest, NULLED.digest], "a code")  # so they had no warning
    return warned_cells(Given(SPEC, {}, Cells(tmp_path, KNOWN, codes)))


def test_the_table_of_warnings_says_which_cells_have_which(warned):
    table, counts = warned
    assert list(table.columns) == ["kind", "task", "method", "seed", "warning", "cells"]
    began = "The loss ended higher than it began ({}; kept is epoch 3)."
    assert table.to_numpy().tolist() == [
        ["fit", "positive", "CAA", 0, "Few pairs.", 1],
        ["fit", "positive", "CAA", 0, began.format(1.25), 1],
        ["fit", "positive", "CAA", 1, began.format(2.5), 1],
        ["judge", "negative", "A-PSR_MSE + prompt", 0, OUTSIDE.split(" Leave")[0], 1],
    ]
    assert counts == {"fit": (2, 4, 4), "judge": (1, 1, 1), "write": (0, 1, 1)}


def test_warnings_of_one_kind_differ_in_numbers_alone(warned):
    rows = by_kind(warned[0]).set_index("warning")
    assert rows.loc["The loss ended higher than it began (1.25; kept is epoch 3).", "cells"] == 2
    assert len(rows) == 3


def test_the_findings_count_the_cells_with_a_warning(warned):
    fits, scores = warning_sentences(*warned)
    assert fits == (
        "2 of 4 fits ended with a warning of the library, most often (2): The loss ended higher "
        "than it began (1.25; kept is epoch 3)."
    )
    assert scores.startswith("1 of 1 sets of scores ended with a warning of the library")
    assert warning_sentences(warned[0].iloc[:0], {"fit": (0, 4, 4)}) == []


def test_cells_of_a_time_that_kept_no_warnings_are_counted_apart(tmp_path):
    """Of those nothing is known: neither in them nor in their number is a sign of no warning."""
    table, counts = warned_cells(Given(SPEC, {}, Cells(tmp_path, KNOWN)))
    assert counts == {"fit": (2, 3, 4), "judge": (1, 1, 1), "write": (0, 0, 1)}
    fits, scores = warning_sentences(table, counts)
    assert fits.startswith("2 of 3 fits ended with a warning")
    assert fits.endswith("(Not known of 1 made earlier.)")
    assert "earlier" not in scores


def test_a_table_without_warnings_has_its_columns(tmp_path):
    table, counts = warned_cells(Given(SPEC, {}, Cells(tmp_path)))
    assert (len(table), counts) == (0, {})
    assert "cells" in table


def chosen(**columns: list[Any]) -> pd.DataFrame:
    kept = {"strongest": [False] * 4, "crossing": [""] * 4, "coherence_kept": [0.9] * 4}
    return pd.DataFrame({**kept, **columns})


def test_the_findings_say_where_c80_is_not_at_80_percent():
    rows = chosen(
        rule=["C80"] * 4,
        crossing=[BEYOND, BEYOND, INSIDE, BEFORE],
        strongest=[True, True, False, False],
        coherence_kept=[0.9, 1.0, 0.8, 0.5],
    )
    beyond, before = choice_sentences(rows)
    assert "in 2 of 4 choices the strongest strength tried still kept 80 %" in beyond
    assert "on test questions 95 % of the unsteered, the median" in beyond
    assert "in 1 of 4 choices even the weakest strength tried kept less" in before
    rows["coherence_kept"] = float("nan")
    assert "median" not in choice_sentences(rows)[0]


def test_the_findings_say_where_the_strongest_strength_was_best():
    ends = [True, False, True, True]
    (said,) = choice_sentences(chosen(rule=["harmonic"] * 4, strongest=ends))
    assert "3 of 4 choices are the strongest strength tried" in said
    assert choice_sentences(chosen(rule=["equal KL"] * 4, strongest=ends)) == []
    assert choice_sentences(chosen(rule=["harmonic"] * 4)) == []


# -- Training --------------------------------------------------------------------------------------


def trained(*losses: float, best: int = 0) -> Trained:
    rows = [{"epoch": n, "steps": 2 * n, "validation_loss": x} for n, x in enumerate(losses)]
    return Trained({}, tuple(rows), best, False)


@pytest.mark.parametrize(
    ("method", "of"),
    [("S-PSR_MSE", "PSR"), ("CLAS", "CLAS"), ("LoReFT", "LoReFT"), ("ReFT-r1", "ReFTr1"),
     ("LoRA", "LoRA"), ("BiPO", "BiPO")],
)  # fmt: skip
def test_every_trained_method_notes_its_training(method, of, model, monkeypatch, steering):
    how = trained(2.0, 1.0)
    lora = LoRA({"0.out": torch.ones(1, 2)}, {"0.out": torch.ones(2, 1)})
    fit = LoRAFit(lora, how) if of == "LoRA" else Fit(steering, {}, how)
    monkeypatch.setattr(getattr(catalogue, of), "fit", lambda *_, **__: fit)
    monkeypatch.setattr(Case, "directions", lambda *_: {})
    case = Case(model, TASK, 0, ["q"], ["a"], ["b"])
    fit_of(method)(case)
    assert case.trained == [how]


def test_a_fit_tells_how_long_it_was_trained_and_to_which_loss(bench, monkeypatch, steering):
    def calibrate(*_, **__):
        return sl.Calibration(steering, 2.0, "prompt", 3.0, 3.0, True, ())

    def training(case):
        case.trained.append(trained(3.0, 1.0, 2.0, best=1))
        return steering

    monkeypatch.setattr(fitting, "calibrate", calibrate)
    told = fitted(bench, monkeypatch, training)["training"]
    assert told == {"steps": 4, "epochs": 2, "best_epoch": 1,
                    "first_loss": 3.0, "best_loss": 1.0, "last_loss": 2.0}  # fmt: skip
    (row,) = bench.collected.fits.to_dict("records")
    assert {key: row[key] for key in told} == told


def test_the_findings_say_which_trainings_were_still_improving():
    rows = {"epochs": [5, 5, 5, None], "best_epoch": [5, 3, 5, None]}
    fits = pd.DataFrame({**rows, "best_loss": [1.0, 1.0, None, None]})
    (said,) = training_sentences(fits)
    assert said.startswith("1 of 2 trainings had their lowest validation loss in the last epoch")
    assert training_sentences(fits.iloc[1:]) == []
    assert training_sentences(pd.DataFrame()) == []


# -- All of it -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bench_that_was_warned_says_so_in_its_report_and_tables(tmp_path, monkeypatch):
    judge = module.COMPUTE["judge"]

    def outside(maker, cell):
        warn(OUTSIDE)
        return judge(maker, cell)

    monkeypatch.setitem(module.COMPUTE, "judge", outside)
    bench = Bench.planned(tmp_path, Spec(**SMALL))
    with pytest.warns(SteeringWarning, match="cannot be relied on"):
        work(tmp_path)
    collected = bench.collected
    judged = [one for one in bench.plan.asked().values() if one.kind == "judge"]
    report = write_report(bench, tmp_path).read_text(encoding="utf-8")
    assert WARNED in report
    assert f"{len(judged)} of {len(judged)} sets of scores ended with a warning" in report
    with (tmp_path / "tables" / "warnings.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "judge"]
    assert sum(int(row["cells"]) for row in rows) == len(judged)
    assert {"unsteered", "prompt", "CAA"} <= {row["method"] for row in rows}

    rows = collected.chosen.set_index("rule")
    assert rows.loc["equal KL", "strongest"]
    kept = collected.scores("C80", "coherence")
    share = kept["CAA"]["positive"].mean() / kept["unsteered"]["positive"].mean()
    assert rows.loc["C80", "coherence_kept"] == pytest.approx(share)
    assert rows.loc["C80", "crossing"] in (INSIDE, BEYOND, BEFORE)

    side = collected.side_effects.set_index("method").loc["CAA"]
    assert side["kl_per_text"] > side["kl_per_token"] > 0


def test_no_warning_is_silenced_where_the_benches_are_run():
    made = (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    lines = [line for line in made.splitlines() if "scripts/bench/" in line]
    assert lines
    assert not [line for line in lines if "-W" in line or "PYTHONWARNINGS" in line]
