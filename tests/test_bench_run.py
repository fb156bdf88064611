"""The bench on the demonstration model, at the smallest sizes that have everything."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.bench import side
from analysis.bench.bench import Bench, work
from analysis.bench.catalogue import METHODS
from analysis.bench.cells import Cell, read_whole
from analysis.bench.kinds import PROMPT, UNSTEERED, baseline_cell, fit_cell
from analysis.bench.plan import Plan, of_shard
from analysis.bench.spec import Spec, write_spec
from analysis.bench.tasks import demo_tasks
from analysis.measures.cloze import frozen_cloze
from steerlens import SteeringWarning

SMALL = {
    "attributes": ("positive",),
    "methods": ("instruction vector", "CAA"),
    "seeds": 2,
    "factors": (0.5, 1.0),
    "most": (8, 4, 4),
    "max_new_tokens": 8,
}
LESS = {**SMALL, "seeds": 1, "rules": ("harmonic",), "factors": (1.0,)}
"""For what happens to cells, whatever is in them."""


@pytest.fixture(scope="module", autouse=True)
def few_items():
    """Side effects on a quarter of the items: they are half of the time of a bench this small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side, "frozen_cloze", lambda: frozen_cloze()[::4])
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A bench that is done."""
    folder = tmp_path_factory.mktemp("bench")
    bench = Bench.planned(folder, Spec(**SMALL))
    work(folder)
    return bench


def results(folder: Path) -> dict[str, object]:
    """Every result by its digest, without what may differ between two runs: times and memory."""
    found = {}
    for path in sorted((folder / "cells").iterdir()):
        result = json.loads(path.read_text())["result"]
        found[path.stem] = {k: v for k, v in result.items() if k not in ("seconds", "megabytes")}
    return found


def test_a_bench_is_done_when_nothing_is_left_and_a_second_run_makes_nothing(done):
    assert done.plan.left() == []
    assert done.collected.missing == 0
    assert len(done.plan.named()) == done.plan.total() or len(done.plan.named()) > 0
    before = {path: path.stat().st_mtime_ns for path in (done.folder / "cells").iterdir()}
    assert work(done.folder) == 0
    assert before == {path: path.stat().st_mtime_ns for path in (done.folder / "cells").iterdir()}


def test_a_cell_says_by_what_code_it_was_made(done):
    import hashlib

    from analysis.bench import bench as module

    told = [read_whole(p)["provenance"] for p in (done.folder / "cells").iterdir()]
    (code,) = {one["code"] for one in told}
    packages = (Path(module.__file__).parents[1], Path(module.__file__).parents[2] / "steerlens")
    files = {p: [(f, f.read_bytes()) for f in sorted(p.rglob("*.py"))] for p in packages}
    own, digest = Path(module.__file__), hashlib.sha256()
    assert own in dict(files[packages[0]])
    for package in reversed(packages):
        for path, content in files[package]:
            digest.update(f"{path.relative_to(package)}\n".encode() + content)
    assert code == digest.hexdigest()[:16]


def test_the_unsteered_baseline_is_written_once_and_shared(done):
    written = [json.loads(path.read_text())["cell"] for path in (done.folder / "cells").iterdir()]
    own = [
        cell
        for cell in written
        if cell["kind"] == "write"
        and cell["source"] == UNSTEERED
        and "fit" not in cell
        and cell["split"] == "validation"
    ]
    assert len(own) == 1


def test_shards_together_make_the_same_to_the_last_digit(done, tmp_path):
    """And so do two runs."""
    Bench.planned(tmp_path, Spec(**SMALL))
    for number in range(3):
        work(tmp_path, (number, 3))
    assert results(tmp_path) == results(done.folder)


def test_every_task_and_method_is_in_exactly_one_shard():
    for method in (None, *METHODS):
        assert sum(of_shard("positive", method, (i, 5)) for i in range(5)) == 1


def test_other_test_questions_change_no_choice(done, tmp_path):
    """The tuner cannot see test data: with other test questions it chooses the same."""
    (task,) = demo_tasks(["positive"], {"train": 8, "validation": 4, "test": None})
    other = replace(task, questions={**task.questions, "test": task.questions["test"][10:14]})
    plan = Plan(done.spec, {"positive": other}, done.cells)
    for method in done.spec.methods:
        for rule in done.spec.rules:
            assert plan.chosen(other, method, rule) == done.plan.chosen(
                done.tasks["positive"], method, rule
            )
    assert plan.left()  # whereas every test cell is another one


def test_the_choice_reads_validation_cells_and_no_others(done, monkeypatch):
    read = []
    whole = type(done.cells).read

    def watched(self, cell):
        read.append(cell)
        return whole(self, cell)

    monkeypatch.setattr(type(done.cells), "read", watched)
    done.plan.chosen(done.tasks["positive"], "CAA", "harmonic")
    splits = {cell["of"]["split"] for cell in read if cell.kind == "judge"}
    assert splits == {"validation"}
    assert {cell.kind for cell in read} == {"judge", "fit"}
    assert {cell["seed"] for cell in read if cell.kind == "fit"} == {0}


def test_no_test_text_is_written_before_the_choice(tmp_path):
    bench = Bench.planned(tmp_path, Spec(**{**SMALL, "methods": ("CAA",)}))
    named = [cell for cell in bench.plan.named() if "CAA" in json.dumps(cell.as_json())]
    assert named
    assert not [cell for cell in named if '"split": "test"' in json.dumps(cell.as_json())]


def test_a_failing_cell_costs_no_other(tmp_path, monkeypatch):
    bench = Bench.planned(tmp_path, Spec(**LESS))
    from analysis.bench import bench as module

    fit = module.COMPUTE["fit"]

    def failing(maker, cell):
        if cell["method"] == "CAA":
            raise MemoryError("too large")
        return fit(maker, cell)

    monkeypatch.setitem(module.COMPUTE, "fit", failing)
    with pytest.raises(RuntimeError, match=r"could not be made(.|\n)*too large"):
        work(tmp_path)
    assert bench.plan.chosen(bench.tasks["positive"], "instruction vector", "harmonic")
    monkeypatch.undo()
    work(tmp_path)
    assert Bench.of(tmp_path).plan.left() == []


def test_nothing_is_fitted_for_an_attribute_without_a_judge(tmp_path, monkeypatch):
    two = {**LESS, "attributes": ("positive", "exclamation"), "methods": ("CAA",)}
    bench = Bench.planned(tmp_path, Spec(**two))
    from analysis.bench import judging

    def missing(name):
        if name == "exclamation":
            raise ValueError("no judge of exclamation")
        return judge_of(name)

    judge_of = judging.judge_of
    monkeypatch.setattr(judging, "judge_of", missing)
    with pytest.raises(RuntimeError, match="no judge of exclamation"):
        work(tmp_path)
    there = {
        task: [bench.cells.there(fit_cell(bench.spec, bench.tasks[task], "CAA", 0, 0))]
        for task in two["attributes"]
    }
    assert there == {"positive": [True], "exclamation": [False]}
    fit = fit_cell(bench.spec, bench.tasks["positive"], "CAA", 0, 0)
    monkeypatch.setattr(judging, "judge_of", lambda name: missing("exclamation"))
    assert Bench.of(tmp_path).result(fit) == bench.cells.read(fit)  # what is there stays usable
    monkeypatch.undo()
    work(tmp_path)
    assert Bench.of(tmp_path).plan.left() == []


def test_nothing_is_fitted_while_another_worker_makes_the_first_scores(tmp_path):
    from analysis.bench.cells import Busy

    bench = Bench.planned(tmp_path, Spec(**SMALL | {"seeds": 1}))
    task = bench.tasks["positive"]
    other = Bench.of(tmp_path)
    first = baseline_cell(bench.spec, task, UNSTEERED, 0, "validation")
    with other.cells._claimed(first), pytest.raises(Busy, match="judge positive 0 validation"):
        bench.result(fit_cell(bench.spec, task, "CAA", 0, 0))


def test_another_model_in_the_folder_is_refused(done):
    from analysis.bench.spec import read_spec, write_spec

    with pytest.raises(ValueError, match=r"model is 'demo' there and 'smollm2' now"):
        write_spec(replace(done.spec, model="smollm2"), done.folder)
    assert read_spec(done.folder) == done.spec


def test_a_bench_that_asks_for_more_keeps_what_is_there(tmp_path):
    first = {**LESS, "methods": ("CAA",)}
    Bench.planned(tmp_path, Spec(**first))
    work(tmp_path)
    before = set((tmp_path / "cells").iterdir())
    more = Bench.planned(tmp_path, Spec(**{**first, "methods": ("CAA", "instruction vector")}))
    assert len(more.plan.left()) < len(more.plan.named())
    work(tmp_path)
    named = {tmp_path / "cells" / f"{cell.digest}.json" for cell in more.plan.named()}
    assert named & before == before & named != set()


def test_a_folder_without_a_bench(tmp_path):
    with pytest.raises(ValueError, match="bench plan"):
        Bench.of(tmp_path)


def test_what_cannot_be_planned_is_told_before_the_model_is_loaded(tmp_path, monkeypatch):
    import steerlens

    def load(*_, **__):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(steerlens, "load", load)
    for wrong, said in (
        ({"methods": ("Magic",)}, "Magic"),
        ({"attributes": ("happy",)}, "happy"),
        ({"seeds": 0}, "seeds"),
        ({"factors": (0.0,)}, "must be numbers from"),
        ({"rules": ("luck",)}, "luck"),
        ({"configurations": 9}, "configurations"),
        ({"data": "nothing.json"}, "nothing.json"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            Bench.planned(tmp_path / "new", Spec(**{**SMALL, **wrong}))
    assert not (tmp_path / "new").exists()


def test_a_method_that_lacks_what_it_needs_is_left_out_with_its_reason(done, tmp_path):
    from analysis.bench.fitting import fit
    from analysis.bench.kinds import fit_cell

    bench = Bench.planned(tmp_path, Spec(**SMALL))
    bench.tasks["positive"] = replace(bench.tasks["positive"], contrast=None)
    told = fit(bench, fit_cell(bench.spec, bench.tasks["positive"], "ActAdd", 0, 0))
    assert "contrast" in told["reason"]


def test_the_prompted_scores_are_of_prompted_text(done):
    cells = [
        baseline_cell(done.spec, done.tasks["positive"], source, 0, "test")
        for source in (UNSTEERED, PROMPT)
    ]
    texts = [done.result(Cell.of_json(cell["of"]))["texts"] for cell in cells]
    assert texts[0] != texts[1]


def test_the_page_of_the_bench_runs_as_it_stands(tmp_path, monkeypatch):
    page = (Path(__file__).parents[1] / "docs" / "bench.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    exec(compile(block, "docs/bench.md", "exec"), {})
    report = (tmp_path / "out" / "bench-in-python" / "report.html").read_text(encoding="utf-8")
    assert "CAA" in report


def test_the_command_line_plans_runs_and_collects(tmp_path, capsys):
    from steerlens.cli import main

    out = str(tmp_path / "bench")

    def say(*words: str) -> dict[str, object]:
        with pytest.raises(SystemExit) as ended:
            main(["bench", *words, "--out", out, "--json"])
        assert ended.value.code == 0
        return json.loads(capsys.readouterr().out)

    planned = say(
        *("plan", "--attributes", "lowercase", "--methods", "CAA,ActAdd", "--seeds", "1"),
        *("--strengths", "0.5,1", "--questions", "8,3,3", "--max-new-tokens", "8"),
    )
    assert planned["done"] == 0
    assert planned["cells"] > 20
    empty = say("collect")
    assert empty["missing"] > 0
    assert say("run")["made"] > 20
    collected = say("collect")
    assert collected["missing"] == 0
    assert any("highest mean" in sentence for sentence in collected["found"])
    tables = {path.stem for path in (tmp_path / "bench" / "tables").iterdir()}
    assert {"scores", "curves", "chosen", "costs", "faithfulness", "standings_C80"} <= tables


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--shard", "3"], "--shard is i/n"),
        (["run", "--shard", "3/3"], "0/4 to --shard 3/4"),
        (["run", "--workers", "0"], "workers"),
        (["run", "--backend", "mpi"], "mpi"),
        (["plan", "--strengths", "a"], "--strengths"),
        (["plan", "--questions", "1,2"], "--questions"),
        (["plan", "--methods", "Magic"], "Magic"),
        (["collect"], "bench plan"),
        (["script"], "bench plan"),
    ],
)
def test_what_cannot_be_is_one_line_that_says_what_to_do(tmp_path, capsys, words, said):
    from steerlens.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["bench", *words, "--out", str(tmp_path / "bench")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_what_changes_weights_is_measured_as_a_steering_is(tmp_path):
    """A LoRA and a gradient step: scores, distances and KL, and the weights are as before."""
    from analysis.bench.catalogue import fit_of
    from analysis.bench.fitting import at_strength, case_of
    from analysis.bench.kinds import effects_cell, fit_cell
    from steerlens.identity import fingerprint

    methods = ("LoRA", "gradient step")
    bench = Bench.planned(tmp_path, Spec(**{**LESS, "methods": methods}))
    work(tmp_path)
    task = bench.tasks["positive"]
    for method in methods:
        fit = fit_cell(bench.spec, task, method, 0, 0)
        told = bench.result(fit)
        assert told["reason"] is None
        found = bench.result(effects_cell(bench.spec, task, "test", 0, fit=fit, strength=1.0))
        assert sum(found["kl_left"]) != pytest.approx(sum(found["kl_prompt"]))
        assert found["missed"][-1] != found["whole"][-1]
        again = at_strength(bench, fit, "as fitted")
        assert type(again) is type(fit_of(method)(case_of(bench, fit)))
    assert fingerprint(bench.model) == bench.spec.fingerprint


def test_effects_are_what_faithfulness_and_recovered_say(done):
    import numpy as np

    from analysis import faithfulness, prompt_effect_recovered
    from analysis.bench.cells import Cell
    from analysis.bench.effects import answered
    from analysis.bench.fitting import at_strength
    from analysis.bench.kinds import effects_cell, fit_cell

    task = done.tasks["positive"]
    fit = fit_cell(done.spec, task, "CAA", 0, 1)
    cell = effects_cell(done.spec, task, "test", 1, fit=fit, strength=1.0)
    found = done.result(cell)
    _, pairs = answered(done, Cell.of_json(cell["pairs"]))
    steering = {"CAA": at_strength(done, fit, 1.0)}
    table = faithfulness(done.model, pairs, steering, n_bootstrap=10)
    own = np.sqrt(np.sum(found["missed"], axis=1) / np.sum(found["whole"], axis=1))
    said = table.loc[table["method"] == "CAA", "relative_rmse"]
    np.testing.assert_allclose(own, said.to_numpy(), rtol=1e-6)
    other = prompt_effect_recovered(done.model, pairs, steering, n_bootstrap=10)
    (recovered,) = other.loc[other["method"] == "CAA", "recovered"]
    left, whole = sum(found["kl_left"]), sum(found["kl_prompt"])
    assert 1 - left / whole == pytest.approx(recovered, rel=1e-4)


def test_a_method_of_few_examples_is_given_as_many(tmp_path):
    from analysis.bench.fitting import case_of
    from analysis.bench.kinds import fit_cell

    bench = Bench.planned(tmp_path, Spec(**SMALL))
    task = bench.tasks["positive"]
    few, all_ = (
        case_of(bench, fit_cell(bench.spec, task, method, 0, 0))
        for method in ("CAA, 4 examples", "CAA")
    )
    assert len(few.pairs) == 4
    assert len(all_.pairs) == 8


def test_a_packed_bench_has_every_table_and_needs_no_folder(done, tmp_path):
    import pandas as pd

    from analysis.bench.collect import Collected
    from analysis.bench.packed import pack, unpacked
    from analysis.bench.report import tables

    path = pack(done, tmp_path / "cells.jsonl.gz")
    assert pack(done, tmp_path / "again.jsonl.gz").read_bytes() == path.read_bytes()
    packed = Collected(unpacked(path))
    assert packed.missing == 0
    own, others = tables(done.collected), tables(packed)
    assert own.keys() == others.keys()
    for name, table in own.items():
        pd.testing.assert_frame_equal(table, others[name], rtol=1e-3, atol=1e-3, obj=name)


def test_a_packed_bench_is_gone_on_with_elsewhere(tmp_path):
    """What was done is not done again, but for the fit and the texts of cells that are left."""
    from analysis.bench.packed import pack, restore

    begun = Bench.planned(tmp_path / "begun", Spec(**SMALL | {"seeds": 1}))
    work(tmp_path / "begun")
    cells = {cell.digest: cell for cell in begun.plan.named()}
    as_fitted = [one for one in cells.values() if one.settings.get("strength") == "as fitted"]
    (lost,) = (one for one in as_fitted if one["fit"]["method"] == "CAA")
    begun.cells.path(lost).unlink()
    wider = replace(begun.spec, attributes=("positive", "lowercase"))
    write_spec(wider, tmp_path / "begun")
    path = pack(Bench.of(tmp_path / "begun"), tmp_path / "cells.jsonl.gz")

    elsewhere = Bench.planned(tmp_path / "elsewhere", wider)
    n = restore(path, tmp_path / "elsewhere")
    there = {p.stem for p in (tmp_path / "elsewhere" / "cells").iterdir()}
    assert len(there) == n
    assert cells.keys() - there == {lost.digest, Cell.of_json(lost["fit"]).digest}
    judged = [cell for cell in cells.values() if cell.kind == "judge"]
    texts = {"validation": False, "test": True}  # the judges of the new attribute read these
    for cell in judged:
        assert (Cell.of_json(cell["of"]).digest in there) == texts[cell["of"]["split"]]
    assert restore(path, tmp_path / "elsewhere") == 0
    before = path.read_bytes()  # what was not restored is not lost where the rest is packed again
    assert pack(Bench.of(tmp_path / "elsewhere"), path).read_bytes() == before
    empty = Bench.planned(tmp_path / "empty", wider)  # of which no test cell can be named by itself
    assert pack(empty, path).read_bytes() == before
    elsewhere.result(lost)
    assert elsewhere.cells.there(Cell.of_json(lost["fit"]))
    assert {c.digest for c in elsewhere.plan.left() if c["task"] == "positive"}.isdisjoint(cells)


def test_packed_scores_keep_the_fit_that_they_were_made_with(tmp_path):
    from analysis.bench.packed import pack, rounded, unpacked

    bench = Bench.planned(tmp_path / "here", Spec(**LESS))
    work(tmp_path / "here")
    path = pack(bench, tmp_path / "cells.jsonl.gz")
    before = path.read_bytes()
    scored = [one for one in bench.plan.named() if "fit" in one.settings]
    fit = Cell.of_json(scored[0]["fit"])
    told = read_whole(bench.cells.path(fit))
    bench.cells.write(fit, told["result"] | {"unit": 2.0, "seconds": 1.0}, told["provenance"])
    assert pack(Bench.of(tmp_path / "here"), path).read_bytes() != before  # all is of the new make
    path.write_bytes(before)
    bench.cells.path(scored[0]).unlink()  # a score that the folder lacks is of the earlier fit
    with pytest.warns(SteeringWarning, match="Of the cells, 1 came out otherwise"):
        pack(Bench.of(tmp_path / "here"), path)
    assert unpacked(path).cells.read(fit) == rounded(told["result"])


def test_times_of_texts_that_other_code_made_are_not_compared(done):
    from analysis.bench.collect import Collected

    plan, fresh = done.plan, type(done.cells)
    task = plan.tasks["positive"]
    plain = Cell.of_json(baseline_cell(plan.spec, task, UNSTEERED, 0, "validation")["of"])
    cells = fresh(done.folder)
    ratios = Collected(Plan(plan.spec, plan.tasks, cells)).costs["time_ratio"]
    assert (ratios > 0).all()
    cells = fresh(done.folder, {plain.digest: done.cells.read(plain)}, {plain.digest: "another"})
    assert Collected(Plan(plan.spec, plan.tasks, cells)).costs["time_ratio"].isna().all()


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8b\x08"])
def test_a_damaged_pack_is_told(tmp_path, content):
    from analysis.bench.packed import unpacked

    path = tmp_path / "cells.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no packed bench"):
        unpacked(path)


def test_side_effects_and_the_matrix_are_cells_of_a_bench(tmp_path):
    import numpy as np

    from analysis import side_by_side  # noqa: F401  the public package loads
    from analysis.bench.fitting import at_strength
    from analysis.bench.kinds import fit_cell
    from analysis.bench.side import excerpt
    from analysis.measures.cloze import cloze_scores
    from analysis.measures.side_effects import perplexity_summary, perplexity_under

    two = {**SMALL, "attributes": ("positive", "lowercase"), "methods": ("CAA",), "seeds": 1}
    bench = Bench.planned(tmp_path, Spec(**two))
    work(tmp_path)
    collected = bench.collected
    matrix = collected.matrix
    assert len(matrix) == 2 * 2 * 3  # steered for, measured, and the model, the prompt, CAA
    own = matrix.loc[(matrix["task"] == "lowercase") & (matrix["measured"] == "lowercase")]
    points = collected.points
    scored = points.loc[(points["rule"] == "harmonic") & (points["measure"] == "attribute")]
    scored = scored.loc[scored["task"] == "lowercase"].set_index("method")["mean"]
    for _, row in own.iterrows():
        assert row["mean"] == pytest.approx(scored[row["method"]])

    effects = collected.side_effects.set_index(["task", "method"])
    assert effects.loc[("positive", "unsteered"), "perplexity_ratio"] == 1
    assert effects.loc[("positive", "unsteered"), "kl_per_token"] == 0
    task = bench.tasks["positive"]
    chosen = bench.plan.chosen(task, "CAA", "harmonic")
    assert chosen is not None
    steering = at_strength(bench, fit_cell(bench.spec, task, "CAA", 0, 0), chosen.strength)
    items = side.frozen_cloze()
    told = perplexity_summary(
        perplexity_under(bench.model, {"CAA": steering}, [excerpt(item) for item in items]),
        n_bootstrap=10,
    ).set_index("method")
    row = effects.loc[("positive", "CAA")]
    assert row["n_items"] == len(items) > 1
    assert row["perplexity_ratio"] == pytest.approx(told.loc["CAA", "ratio"], rel=1e-6)
    right = cloze_scores(bench.model, {"CAA": steering}, items).groupby("method")["correct"].mean()
    assert row["cloze"] == pytest.approx(right["CAA"])
    assert row["cloze_change"] == pytest.approx(right["CAA"] - right["unsteered"])
    assert np.isfinite(row["distinct"])

    others = [c for c in bench.plan.named() if c.kind == "judge" and c["task"] != c["of"]["task"]]
    bench.cells.path(others[0]).unlink()
    later = Bench.of(tmp_path).collected
    assert (later.missing, later.blank) == (0, 1)
    assert len(later.matrix) == len(matrix) - 1


def test_side_effects_leave_out_what_is_shorter_than_an_act_add(done):
    from analysis.bench.collect import side_row
    from analysis.bench.side import taken_items
    from steerlens import ActAdd
    from steerlens.prompts import encode

    items = frozen_cloze()
    long = ActAdd.fit(done.model, ("word " * 11, None), sites=1)
    lengths = [len(encode(done.model, item.before).ids) for item in items]
    rows = long.steering.placed[0][1].v.shape[0]
    taken = taken_items(done, long.steering, items)
    assert taken == [number for number, n in enumerate(lengths) if n >= rows]
    assert 0 < len(taken) < len(items)
    assert taken_items(done, None, items) == list(range(len(items)))

    plain = {"nll": [1.0, 2.0, 4.0], "correct": [True, False, False], "tokens": [1, 1, 1]}
    found = {"items": [0, 2], "nll": [2.0, 4.0], "tokens": [1, 1], "correct": [True, True]}
    row = side_row({**found, "kl": [1.0, 0.0], "distinct": [1.0], "refused": [False]}, plain)
    assert row["perplexity_ratio"] == pytest.approx(2.718281828**0.5)  # (2 - 1 + 4 - 4) / 2 nats
    assert row["cloze_change"] == 0.5
    assert row["n_items"] == 2


def test_side_effects_of_a_method_that_takes_no_item_are_a_row_without_numbers(
    done, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        side, "taken_items", lambda _, change, items: [] if change else list(range(len(items)))
    )
    bench = Bench.planned(tmp_path, Spec(**{**LESS, "methods": ("CAA",)}))
    work(tmp_path)
    table = bench.collected.side_effects.set_index("method")
    assert table.loc["CAA", "n_items"] == 0
    assert table["perplexity_ratio"].isna()["CAA"]
    assert not table["perplexity_ratio"].isna()["unsteered"]


def test_the_spread_of_the_push_is_that_of_the_coefficients(done):
    import numpy as np

    from analysis import coefficients
    from analysis.bench.cells import Cell
    from analysis.bench.effects import answered
    from analysis.bench.kinds import spread_cell

    task = done.tasks["positive"]
    cell = spread_cell(done.spec, task, 0, "template")
    found = done.result(cell)
    _, pairs = answered(done, Cell.of_json(cell["pairs"]))
    table = coefficients(done.model, pairs, [3], {})
    lengths = table.loc[table["method"] == "prompt"].groupby("example")["norm"]
    low, high = (lengths.quantile(q).to_numpy() for q in (0.05, 0.95))
    told = found["percentiles"][3]
    own = [i for i, value in enumerate(told[0]) if value is not None]
    assert own
    np.testing.assert_allclose(np.array(told[0], dtype=float)[own], low[own], rtol=1e-5)
    np.testing.assert_allclose(np.array(told[2], dtype=float)[own], high[own], rtol=1e-5)
    one = done.collected.unevenness("positive", "template", 3)
    assert one is not None
    assert one.n_seeds == 2
    assert found != done.result(spread_cell(done.spec, task, 0, "neutral"))
