"""`steerlens sweep` on the embedded model: what it writes, what it says, how it fails."""

import io
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import steerlens
from analysis import at_layers, sweep
from steerlens import whole
from steerlens.cli import inputs
from steerlens.cli.grid import Grid
from steerlens.jsonl import read_prompt_pairs

EXAMPLES = Path(__file__).parents[1] / "examples"
pytestmark = pytest.mark.filterwarnings("ignore:.*questions?. Of fewer than")

ANSWERS = (
    "A charming, touching picture with a fantastic ending.",
    "I was very happy with this movie.",
    "The story is moving and the cast is superb.",
    "It is a wonderful film.",
    "A great story, and a great cast.",
    "I loved every minute.",
)
ASKED = ("Review a film.", "Write a movie review.", "Tell me about a movie.", "How was the film?")


def lines(n: int, skip: int = 0) -> str:
    both = [
        {"user": f"{ASKED[i % 4]}{' Be brief.' * (i // 4)}", "system": "Be positive."}
        for i in range(skip, skip + n)
    ]
    answered = [{**one, "response": ANSWERS[i % 6]} for i, one in enumerate(both)]
    return "".join(json.dumps(one) + "\n" for one in answered)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text(lines(4))
    return path


@pytest.fixture
def train(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_text(lines(4, skip=4))
    return path


def test_it_writes_the_table_of_the_library_and_a_page(
    pairs: Path, train: Path, tmp_path: Path, run: Any
) -> None:
    out = tmp_path / "out" / "sweep"
    code, said, warned = run(
        "sweep", "--pairs", pairs, "--train", train, "--method", "CAA", "--method",
        "instruction-vector", "--layers", "1,4", "--strengths", "0.25,1", "--scopes",
        "response,positions(2, 5)", "--out", out, "--seed", "3",
    )  # fmt: skip
    assert code == 0, warned
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "sweep.csv", "sweep.html", "sweep.json",
    ]  # fmt: skip
    assert "of the prompt's effect at layer" in said
    assert str(out) in said
    model: Any = steerlens.load("demo")
    measured, fitted_on = map(read_prompt_pairs, (pairs, train))
    steerings = {
        **at_layers(model, fitted_on, "CAA", [1, 4]),  # pyright: ignore
        **at_layers(model, fitted_on, "InstructionVector", [1, 4]),  # pyright: ignore
    }
    scopes = [steerlens.response, steerlens.positions(2, 5)]
    expected = sweep(model, measured, steerings, strengths=(0.25, 1.0), scopes=scopes, seed=3)  # pyright: ignore
    table = pd.read_csv(f"{out}.csv")
    pd.testing.assert_frame_equal(table, expected, check_exact=False, rtol=1e-6, atol=1e-9)
    written = json.loads(Path(f"{out}.json").read_text())
    assert len(written["cells"]) == len(table) == 16
    assert written["made"]["pairs"] == "4 measured, 4 others for fitting"
    page = Path(f"{out}.html").read_text()
    assert page.count('<div class="plot">') == 6
    assert "steerlens sweep" in page


def test_without_train_every_second_question_is_fitted_on_and_not_measured(
    pairs: Path, tmp_path: Path, run: Any
) -> None:
    asked = ("sweep", "--pairs", pairs, "--method", "CAA", "--layers", "2", "--strengths", "1")
    code, said, _ = run(*asked, "--out", tmp_path / "s.html", "--json")
    assert code == 0
    found = json.loads(said)
    assert found["made"]["pairs"] == "2 measured, 2 others for fitting"
    assert found["cells"][0]["n_examples"] == 2
    assert (tmp_path / "s.csv").is_file()  # a suffix is not part of the name
    pairs.write_text(lines(3))
    code, _, said = run(*asked, "--out", tmp_path / "s")
    assert code == 2
    assert "has 3 questions" in said
    assert "--train" in said


def test_files_keep_their_scopes_and_a_strength_can_be_that_of_the_prompt(
    pairs: Path, tmp_path: Path, run: Any
) -> None:
    model: Any = steerlens.load("demo")
    fit = steerlens.CAA.fit(model, (["I loved it"], ["I hated it"]), 3)
    file = fit.steering.only(steerlens.response).save(tmp_path / "caa.safetensors")
    code, said, _ = run(
        "sweep", "--pairs", pairs, "--steering", file, "--scopes", "fitted", "--strengths", "1",
        "--strength-unit", "kl", "--out", tmp_path / "s", "--json",
    )  # fmt: skip
    assert code == 0
    (cell,) = json.loads(said)["cells"]
    assert cell["scope"] == "as fitted"
    assert cell["strength_value"] != 1
    assert cell["mean_kl"] == pytest.approx(cell["kl_prompt"], rel=0.06)


def test_contrasts_are_for_the_methods_that_take_two_sides(
    pairs: Path, tmp_path: Path, run: Any
) -> None:
    contrasts = EXAMPLES / "contrasts.jsonl"
    code, said, _ = run(
        "sweep", "--pairs", pairs, "--method", "CAA", "--contrasts", contrasts, "--layers", "2",
        "--strengths", "1", "--out", tmp_path / "s", "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(said)["made"]["pairs"] == "4 measured, 0 others for fitting"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "Nothing was given to sweep over"),
        (["--method", "CAAA"], "no method 'CAAA'"),
        (["--method", "act-add"], "not fitted on pairs"),
        (["--method", "CLAS"], "needs directions and validation"),
        (["--method", "CAA", "--layers", "two"], "--layers is like"),
        (["--method", "CAA", "--strengths", "1,x"], "--strengths is finite numbers"),
        (["--method", "CAA", "--strengths", "1,1"], "each once"),
        (["--method", "CAA", "--scopes", "answer"], "Unknown scope 'answer'"),
        (["--method", "CAA", "--scopes", "last,last"], "--scopes has one twice"),
        (["--method", "CAA", "--strength-unit", "nats"], "--strength-unit is fitted or kl"),
        (["--method", "CAA", "--sinks", "0.5"], "sinks=0.5"),
        (["--method", "CAA", "--baseline", " "], "baseline=' '"),
        (["--steering", "none.safetensors"], "no steering file"),
        (["--method", "CAA", "--train", "none.jsonl"], "none.jsonl"),
        (["--method", "CAA", "--out", "a/b/c/sweep"], "folder does not exist"),
    ],
)
def test_bad_options_are_errors_before_the_model_is_loaded(
    pairs: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch,
    options: list[str], said: str,
) -> None:  # fmt: skip
    def load(*given: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inputs, "load", load)
    out = [] if "--out" in options else ["--out", tmp_path / "sweep"]
    code, _, error = run("sweep", "--pairs", pairs, *options, *out)
    assert code == 2
    assert said in error
    assert not list(tmp_path.glob("sweep*"))


def test_what_stops_it_leaves_no_half_of_a_file(
    pairs: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.html").write_text("an earlier page")
    asked = ("sweep", "--pairs", pairs, "--method", "CAA", "--layers", "2", "--strengths", "1")

    def stop(draft: Any, path: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(whole.os, "replace", stop)
    code, _, said = run(*asked, "--out", tmp_path / "s")
    assert code == 2
    assert "the disk is full" in said
    assert sorted(path.name for path in tmp_path.glob("*")) == ["pairs.jsonl", "s.html"]
    assert (tmp_path / "s.html").read_text() == "an earlier page"


def test_scopes_are_split_at_commas_outside_brackets() -> None:
    grid = Grid(method=["CAA"], scopes="fitted, positions([2, 4]) | last,response")
    assert grid.places == [
        None, steerlens.positions([2, 4]) | steerlens.last, steerlens.response,
    ]  # fmt: skip


def test_progress_is_shown_where_somebody_sees_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from steerlens.runtime import progress

    shown = io.StringIO()
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    monkeypatch.setattr("sys.stderr", shown)
    model: Any = steerlens.load("demo")
    some = [_pair(number) for number in range(2)]
    caa = {"CAA": steerlens.at(2, steerlens.CAA([0.1] * 192))}
    sweep(model, some, caa, strengths=(0.5, 1.0), n_bootstrap=10, progress=True)
    assert "sweep: 100%" in shown.getvalue()
    assert "4/4" in shown.getvalue()


def _pair(number: int) -> Any:
    return steerlens.PromptPair.with_system(ASKED[number], "Be positive.", ANSWERS[number])
