"""The command line on the embedded model: what it writes, what it says, how it fails."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import steerlens
from steerlens import CAA, CLAS, PSR, ColdFD, ColdKernel, Steering, at, load_steering
from steerlens.cli import main
from steerlens.cli.fit.directions import stored_directions
from steerlens.methods.psr import Gates
from steerlens.training.objectives import LL, MSE
from steerlens.training.schedule import Schedule

EXAMPLES = Path(__file__).parents[1] / "examples"
SHORT = ["--max-new-tokens", "8"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two fitted steerings, made by the command line."""
    folder = tmp_path_factory.mktemp("steerings")
    made = {"act_add": folder / "act_add.safetensors", "caa": folder / "caa.safetensors"}
    commands = (
        ["fit", "act-add", "--positive", " good", "--negative", " bad", "--layer", "2"],
        ["fit", "caa", "--pairs", str(EXAMPLES / "contrasts.jsonl"), "--layer", "3"],
    )
    for command, path in zip(commands, made.values(), strict=True):
        with pytest.raises(SystemExit) as stopped:
            main([*command, "--out", str(path)])
        assert stopped.value.code in (0, None)
    return made


FIVE = tuple(
    {"user": user, "system": "Be positive.", "response": response}
    for user, response in (
        ("Review a film.", "A charming, touching picture with a fantastic ending."),
        ("Write a movie review.", "I was very happy with this movie."),
        ("Tell me about a movie you saw.", "The story is moving and the cast is superb."),
        ("What did you think of the film?", "It is a wonderful film."),
        ("Write a review of a film.", "A great story, and a great cast."),
    )
)


LABELS = (1.0, 0.25, 0.75, 0.0, 1.0)


@pytest.fixture
def written(tmp_path: Path) -> Any:
    """A pairs file with so many of the five pairs, which need no answer any more."""

    def write(n: int = 5) -> Path:
        path = tmp_path / "written.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in FIVE[:n]))
        return path

    return write


# These fits are too short on purpose.
SHORT_FIT = ["--epochs", "2", "--max-new-tokens", "8"]
hurried = pytest.mark.filterwarnings(
    "ignore:.* opened on no token",
    "ignore:.* can move a parameter",
    "ignore:.*(validation|training) loss",
)


@hurried
def test_psr_is_fitted_and_generates(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "psr.safetensors"
    command = ["fit", "psr", "--pairs", str(EXAMPLES / "pairs.jsonl"), "--layers", "2,4-5"]
    with pytest.raises(SystemExit) as stopped:
        main([*command, *SHORT_FIT, "--json", "--out", str(path)])
    assert stopped.value.code in (0, None)
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "A-PSR_MSE|R"
    assert list(found["firing"]) == [f"layer {layer} resid_post" for layer in (2, 4, 5)]
    assert found["validation_loss"][0] == pytest.approx(1, rel=0.5)
    with pytest.raises(SystemExit) as stopped:
        main(["info", str(path)])
    assert stopped.value.code in (0, None)
    assert "PSR" in capsys.readouterr().out


def test_difference_of_means_is_one_vector_at_one_layer(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "dim.safetensors"
    command = ["fit", "psr", "--pairs", EXAMPLES / "pairs.jsonl", "--objective", "DiM"]
    command += ["--max-new-tokens", 8, "--out", path]
    code, out, _ = run(*command, "--layers", 3, "--json")
    assert code == 0
    assert json.loads(out)["method"] == "S-Const_DiM|R"
    (_, placed) = load_steering(path, steerlens.load("demo")).placed[0]
    assert (placed.steer.W == 0).all()
    assert placed.steer.Z.abs().sum() > 0
    code, _, err = run(*command, "--layers", "all")
    assert code == 2
    assert "one layer; asked for 6 layers" in err


def test_a_direction_is_fitted_and_clas_takes_it(run: Any, tmp_path: Path) -> None:
    file, out = tmp_path / "d.safetensors", tmp_path / "clas.safetensors"
    contrasts = EXAMPLES / "contrasts.jsonl"
    code, said, _ = run("fit", "direction", "--pairs", contrasts, "--kind", "means", "--out", file)
    assert code == 0
    assert len(re.findall(r"held-out AUROC [01]\.\d\d \(on 1 pair\)", said)) == 6
    model = steerlens.load("demo")
    directions = stored_directions(file, model, range(6))
    assert [float(v.norm()) for v in directions.values()] == pytest.approx([1] * 6, abs=1e-5)
    code, said, _ = run(
        *("fit", "clas", "--pairs", EXAMPLES / "pairs.jsonl", *SHORT, "--direction", file),
        *("--layers", "1,3", "--steps", "2", "--limit", "9", "--json", "--out", out),
    )
    assert code == 0
    first, best = json.loads(said)["validation_loss"]
    assert best <= first
    steering = cast(Steering, load_steering(out, model))
    assert [site.layer for site in steering.sites] == [1, 3]
    for site, steer in steering.placed:
        clas = cast(CLAS, steer)
        assert torch.allclose(clas.v, directions[site])
        assert clas.limit == 9


def test_clas_finds_directions_in_the_prompts_themselves(run: Any, tmp_path: Path) -> None:
    out, held = tmp_path / "clas.safetensors", tmp_path / "held.jsonl"
    pair = {"user": "Review a film.", "system": "Be positive.", "response": "A wonderful film."}
    held.write_text(json.dumps(pair))
    code, said, _ = run(
        *("fit", "clas", "--pairs", EXAMPLES / "pairs.jsonl", "--validation", held, *SHORT),
        *("--direction", "means", "--layers", "2-3", "--steps", "1", "--kind", "single"),
        *("--out", out),
    )
    assert code == 0
    assert "single, 6 pairs" in said
    assert said.count("held-out AUROC") == 2
    assert said.count("(on 1 pair)") == 2
    model = steerlens.load("demo")
    steers = [cast(CLAS, steer) for _, steer in cast(Steering, load_steering(out, model)).placed]
    assert len({float(steer.b) for steer in steers}) == 1


@hurried
def test_clas_that_no_step_improves_says_that_it_does_nothing(run: Any, tmp_path: Path) -> None:
    code, said, _ = run(
        *("fit", "clas", "--pairs", EXAMPLES / "pairs.jsonl", *SHORT, "--limit", "1e-12"),
        *("--direction", "random", "--layers", "3", "--steps", "1"),
        *("--out", tmp_path / "clas.safetensors"),
    )
    assert code == 0
    assert "at step 0 of 1" in said
    assert "this steering does nothing" in said


@hurried
def test_clas_learns_its_directions_or_takes_them_from_a_file(
    run: Any, files: Any, tmp_path: Path
) -> None:
    command = ("fit", "clas", "--pairs", EXAMPLES / "pairs.jsonl", *SHORT, "--learn-directions")
    out = tmp_path / "clas.safetensors"
    code, _, said = run(*command, "--direction", files["caa"], "--layers", "3", "--out", out)
    assert code == 2
    assert "would ignore" in said
    assert run(*command, "--layers", "3", "--steps", "1", "--out", out)[0] == 0


def test_clas_looks_at_its_input_before_the_model_answers(
    run: Any, files: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steerlens.generation.responses", lambda *_, **__: pytest.fail("asked"))
    lines = tmp_path / "pairs.jsonl"
    line = json.dumps({"user": "Review a film.", "system": "Be positive."}) + "\n"
    command = ("fit", "clas", "--pairs", lines, "--out", tmp_path / "clas.safetensors")
    lines.write_text(line)
    assert "One pair cannot be fitted" in run(*command)[2]
    lines.write_text(2 * line)
    assert "has no vector at layer 0" in run(*command, "--direction", files["caa"])[2]


def test_a_file_without_the_asked_direction_is_an_error(
    run: Any, files: Any, tmp_path: Any
) -> None:
    code, _, said = run(
        *("fit", "clas", "--pairs", EXAMPLES / "pairs.jsonl", *SHORT, "--layers", "2,3"),
        *("--direction", files["caa"], "--out", tmp_path / "clas.safetensors"),
    )
    assert code == 2
    assert "has no vector at layer 2" in said
    assert "`steerlens fit direction`, `fit caa`" in said
    code, _, said = run(
        *("fit", "clas", "--pairs", EXAMPLES / "pairs.jsonl", *SHORT, "--layers", "2"),
        *("--direction", files["act_add"], "--out", tmp_path / "clas.safetensors"),
    )
    assert code == 2
    assert "it has none" in said
    wide = tmp_path / "wide.safetensors"
    at(2, PSR.constant(torch.ones(2, 192))).save(wide)
    code, _, said = run(
        *("fit", "clas", "--pairs", EXAMPLES / "pairs.jsonl", *SHORT, "--layers", "2"),
        *("--direction", wide, "--out", tmp_path / "clas.safetensors"),
    )
    assert code == 2
    assert "holds 2 at layer 2" in said


PLAIN_LINES = [{"user": line["user"], "response": line["response"]} for line in FIVE]


@pytest.mark.parametrize("way", ["random", "file", "learnt"])
def test_clas_takes_completions_without_an_instruction(
    run: Any, files: Any, tmp_path: Path, way: str
) -> None:
    lines, held, out = (tmp_path / name for name in ("plain.jsonl", "held.jsonl", "clas"))
    lines.write_text("".join(json.dumps(line) + "\n" for line in PLAIN_LINES[:2]))
    held.write_text("".join(json.dumps(line) + "\n" for line in PLAIN_LINES[2:]))
    options = {
        "random": ("--direction", "random"),
        "file": ("--direction", files["caa"]),
        "learnt": ("--learn-directions",),
    }
    code, said, _ = run(
        *("fit", "clas", "--pairs", lines, "--validation", held, "--layers", "3"),
        *("--steps", "1", *options[way], "--out", out),
    )
    assert code == 0
    assert "2 pairs" in said
    assert "AUROC" not in said
    assert out.is_file()


def test_directions_from_instructions_name_the_line_that_has_none(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steerlens.cli.inputs.load", lambda *_: pytest.fail("loaded"))
    lines = tmp_path / "plain.jsonl"
    asked = [*FIVE[:2], *PLAIN_LINES[2:]]
    lines.write_text("\n" + "".join(json.dumps(line) + "\n" for line in asked))
    command = ("fit", "clas", "--pairs", lines, "--out", tmp_path / "clas.safetensors")
    for kind in ("rfm", "means"):
        code, _, said = run(*command, "--direction", kind)
        assert code == 2
        assert "plain.jsonl, line 4: without an instruction" in said
        assert f"--direction {kind}" in said
        assert "--direction random, --learn-directions, or --direction FILE" in said
    # Directions come from the pairs that are fitted on: with these two, all have an instruction.
    lines.write_text("".join(json.dumps(line) + "\n" for line in asked[1:3]))
    with pytest.raises(pytest.fail.Exception, match="loaded"):
        run(*command)


def test_random_directions_of_few_pairs_have_no_score(run: Any, tmp_path: Path) -> None:
    lines = tmp_path / "contrasts.jsonl"
    lines.write_text('{"positive": "I loved it", "negative": "I hated it"}\n')
    command = ("fit", "direction", "--pairs", lines, "--layers", "3", "--out", tmp_path / "d")
    code, said, _ = run(*command, "--kind", "random")
    assert code == 0
    assert "not scored, no pair was held out" in said
    code, said, _ = run(*command, "--kind", "random", "--json")
    assert json.loads(said)["directions"][0] == {
        "site": "layer 3 resid_post",
        "auroc": None,
        "correlation": None,
        "held_out_pairs": 0,
        "sinks": 0,
    }
    code, _, said = run(*command, "--kind", "means")
    assert code == 2
    assert "At least 3 pairs are needed" in said


LABELLED = tuple({**line, "label": label} for line, label in zip(FIVE, LABELS, strict=True))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """The five pairs, each with a label."""
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LABELLED))
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {"labels": list(LABELS), "gates": Gates(), "objective": MSE()}),
        (("--shift", -0.5), {"gates": Gates(b_m=-0.5)}),
        (("--shift", -0.3, "--learn-shift"), {"gates": Gates(b_m=-0.3, learn_b_m=True)}),
        (("--regularise", 0.3), {"gates": Gates(regularise=0.3)}),
        (("--objective", "LL"), {"objective": LL()}),
        (("--objective", "both", "--ll-weight", 3), {"objective": MSE() + 3.0 * LL()}),
        (
            ("--constant", "--rank", 2, "--surface", "QR"),
            {"gates": Gates(rank=2, constant=True), "surface": "QR"},
        ),
        (
            ("--epochs", 9, "--batch-size", 2, "--learning-rate", 0.1, "--seed", 4),
            {"schedule": Schedule(epochs=9, batch_size=2, learning_rate=0.1, seed=4)},
        ),
    ],
    ids=str,
)
def test_options_reach_the_fit(
    run: Any, labelled: Path, monkeypatch: pytest.MonkeyPatch, options: Any, expected: Any
) -> None:
    asked: dict[str, Any] = {}

    def fit(model: Any, pairs: Any, sites: Any, **given: Any) -> Any:
        asked.update(given)
        raise ValueError("seen enough")

    monkeypatch.setattr("steerlens.methods.psr.PSR.fit", fit)
    code, _, err = run(
        "fit", "psr", "--pairs", labelled, "--layers", 3, "--out", labelled.parent / "x", *options
    )
    assert (code, err) == (2, "error: seen enough\n")
    if "gates" in expected:  # compared by their fields: a tensor may be among them
        assert asdict(asked["gates"]) == asdict(expected["gates"])
    assert all(asked[name] == expected[name] for name in expected if name != "gates")


@hurried
def test_b_m_is_told_and_in_the_file(run: Any, labelled: Path, tmp_path: Path) -> None:
    command = ["fit", "psr", "--pairs", labelled, "--layers", 3, "--out", tmp_path / "psr.st"]
    code, said, err = run(*command, *SHORT_FIT, "--shift", -0.5, "--json")
    assert code == 0, err
    (_, placed) = load_steering(tmp_path / "psr.st", steerlens.load("demo")).placed[0]
    assert placed.steer.b_m == -0.5
    assert json.loads(said)["b_m"] == {"layer 3 resid_post": -0.5}


@hurried
def test_a_fit_goes_on_from_its_checkpoint_and_notices_another(
    run: Any, written: Any, tmp_path: Path
) -> None:
    path, out = tmp_path / "fit.checkpoint", tmp_path / "psr.st"
    command = ["fit", "psr", "--pairs", written(), "--layers", 3, "--out", out, "--json"]
    command += ["--checkpoint", path, "--objective", "both", "--ll-weight", 2, *SHORT_FIT]
    code, first, _ = run(*command)
    assert code == 0
    kept = path.stat().st_mtime_ns
    assert run(*command)[:2] == (0, first)
    assert path.stat().st_mtime_ns == kept, "nothing was left to train"
    for other in (("--ll-weight", 3), ("--batch-size", 2)):
        code, _, err = run(*command, *other)
        assert code == 2
        assert "another schedule" in err


@hurried
def test_a_direction_from_a_file_is_kept_and_only_the_gate_trained(
    run: Any, files: Any, written: Any, tmp_path: Path
) -> None:
    model, out = steerlens.load("demo"), tmp_path / "psr.st"
    command = ["fit", "psr", "--pairs", written(), "--out", out, *SHORT_FIT]
    assert run(*command, "--layers", 3, "--direction", files["caa"])[0] == 0
    (_, fitted), (_, caa) = (load_steering(path, model).placed[0] for path in (out, files["caa"]))
    assert (fitted.steer.Z[0] == caa.steer.direction).all()
    assert fitted.steer.W.any()
    for layers, file, says in (
        ("2-3", "caa", "no vector at layer 2 resid_post; it has layer 3 resid_post"),
        ("2", "act_add", "no vector at layer 2 resid_post; it has none"),
    ):
        code, _, err = run(*command, "--layers", layers, "--direction", files[file])
        assert (code, says in err) == (2, True), err
    code, _, err = run(*command, "--layers", 3, "--direction", files["caa"], "--rank", 2)
    assert (code, "holds 1 directions a layer; --rank asks for 2" in err) == (2, True)


def test_what_difference_of_means_would_ignore_is_an_error(
    run: Any, written: Any, labelled: Path, tmp_path: Path
) -> None:
    command = ["fit", "psr", "--pairs", written(), "--layers", 3, "--objective", "DiM"]
    command += ["--out", tmp_path / "dim.st"]
    for name, value in (
        ("--epochs", 9), ("--batch-size", 2), ("--learning-rate", 0.01), ("--shift", -0.5),
        ("--ll-weight", 2), ("--direction", "x.st"), ("--checkpoint", tmp_path / "x"),
    ):  # fmt: skip
        code, _, err = run(*command, name, value)
        assert (code, err) == (2, f"error: DiM is not trained: leave out {name}.\n")
    assert run(*command, "--learn-shift")[2].endswith("leave out --learn-shift.\n")
    command[command.index("--pairs") + 1] = labelled
    assert "leave out the labels of the pairs file" in run(*command)[2]


def test_help_needs_no_torch_and_names_every_command() -> None:
    code = (
        "import sys\nfrom steerlens.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    commands = ("demo", "generate", "fit", "compare", "faithfulness", "sweep", "explore")
    commands += ("models", "info", "doctor", "explain", "lens")
    for command in commands:
        assert command in said.stdout


def test_generate_prints_json_that_depends_on_the_seed_alone(run: Any) -> None:
    asked = ("generate", "--prompt", "Review a film.", "--n", "2", "--json", *SHORT)
    code, first, _ = run(*asked, "--seed", "1")
    assert code == 0
    assert len(json.loads(first)["unsteered"]) == 2
    assert run(*asked, "--seed", "1")[1] == first
    assert run(*asked, "--seed", "2")[1] != first


def test_a_system_turn_and_raw_text_change_the_prompt(run: Any) -> None:
    texts = []
    for more in ((), ("--system", "Be positive."), ("--raw",)):
        _, out, _ = run("generate", "--prompt", "Review a film.", "--json", *SHORT, *more)
        texts.append(json.loads(out)["prompted" if "--system" in more else "unsteered"])
    assert texts[0] != texts[1] != texts[2]
    code, _, err = run("generate", "--prompt", "x", "--raw", "--system", "y")
    assert (code, "Leave one of them out" in err) == (2, True)


def test_a_steering_file_steers_and_strength_zero_does_not(run: Any, files: Any) -> None:
    asked = ("generate", "--prompt", "Review a film.", "--steering", files["caa"], "--json", *SHORT)
    steered = json.loads(run(*asked, "--strength", "8")[1])
    assert steered["steered"] != steered["unsteered"]
    off = json.loads(run(*asked, "--strength", "0")[1])
    assert off["steered"] == off["unsteered"]


def test_compare_writes_a_report_and_its_numbers(run: Any, files: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    steerings = [part for path in files.values() for part in ("--steering", path)]
    pairs = EXAMPLES / "pairs.jsonl"
    code, out, err = run(
        "compare", "--pairs", pairs, *steerings, "--out", report, "--json", "--equivalent",
        "Be happy.", "--max-new-tokens", "10",
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert {row["method"] for row in found["faithfulness"]} == {
        "ActAdd",
        "CAA",
        "equivalent prompts",
        "any instruction",
    }
    assert {row["strength"] for row in found["faithfulness"]} == {"as fitted", "least squares", ""}
    assert all(row["moved"] for row in found["logit_shift"])
    html = report.read_text(encoding="utf-8")
    assert html.count("data-figure=") >= 3
    assert report.stat().st_size < 8e6
    assert sorted(tmp_path.iterdir()) == [report]


def test_faithfulness_of_the_prompt_alone_is_a_report_and_its_tables(
    run: Any, written: Any, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    code, out, err = run("faithfulness", "--pairs", written(2), "--out", report, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    tables = ["dispersion", "rank_share", "decodability", "faithfulness"]
    facts = ["report", "plain_system", "baseline", "measured", "for_strengths"]
    assert list(found) == [*facts, *tables]
    assert (found["baseline"], found["measured"], found["for_strengths"]) == ("template", 2, 0)
    assert found["report"] == str(report)
    for name in tables:
        rows = found[name]
        assert {row["layer"] for row in rows} == set(range(6))
        assert {row["n_examples"] for row in rows} == {2}
    assert {row["method"] for row in found["dispersion"]} == {"prompt"}
    html = report.read_text(encoding="utf-8")
    assert html.count("data-figure=") == 4
    assert {row["method"] for row in found["faithfulness"]} == {"any instruction"}
    assert run("faithfulness", "--pairs", written(2), "--out", report)[1] == (
        f"The report is at {report}\n"
    )


def test_faithfulness_of_steering_files_is_measured_on_every_other_question(
    run: Any, files: Any, written: Any, tmp_path: Path
) -> None:
    report = tmp_path / "report.html"
    steerings = [part for path in files.values() for part in ("--steering", path)]
    code, out, err = run(
        "faithfulness", "--pairs", written(), *steerings, "--out", report, "--json",
        "--equivalent", "Be happy.", "--neutral", "Answer.",
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads(out)
    lines = {(row["method"], row["strength"]) for row in found["faithfulness"]}
    fitted = {(name, s) for name in ("ActAdd", "CAA") for s in ("as fitted", "least squares")}
    others = ("equivalent prompts", "neutral prompts", "any instruction")
    assert lines == fitted | {(name, "") for name in others}
    assert (found["measured"], found["for_strengths"]) == (3, 2)
    assert {row["n_examples"] for row in found["faithfulness"]} == {3}
    assert {(row["method"], row["strength"]) for row in found["dispersion"]} == (
        fitted | {("prompt", "")}
    )
    html = report.read_text(encoding="utf-8")
    assert html.count("data-figure=") == 4
    assert "Who is faithful" in html
    assert "3 measured, 2 for least-squares strengths" in html


def test_faithfulness_of_one_question_says_what_is_needed(
    run: Any, written: Any, tmp_path: Path
) -> None:
    code, out, err = run("faithfulness", "--pairs", written(1), "--out", tmp_path / "report.html")
    assert (code, out) == (2, "")
    assert err.startswith("error: With one question")
    assert "Give pairs of at least two questions" in err
    assert not (tmp_path / "report.html").exists()


def test_info_tells_the_model_and_what_is_inside(run: Any, files: Any) -> None:
    code, out, _ = run("info", files["caa"])
    assert code == 0
    for word in ("demo", "fingerprint", "CAA", "response", "layer: 3", "processing"):
        assert word in out
    found = json.loads(run("info", files["caa"], "--json")[1])
    assert found["origin"]["model"]["name"] == "demo"


def test_models_and_doctor_answer(run: Any) -> None:
    found = json.loads(run("models", "--json", "--hub", "gpt2")[1])
    assert "gpt2" in found["hub"]
    assert "demo" in found["embedded"]
    code, out, _ = run("doctor", "--json")
    checks = json.loads(out)
    assert code == 0, [check for check in checks if not check["works"]]
    assert any("cached generation" in check["name"] for check in checks)


def test_the_doctor_says_what_does_not_work(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from steerlens.cli import doctor

    def broken(*_: Any) -> str:
        raise ValueError("no such thing")

    monkeypatch.setattr(doctor, "_padding", broken)
    code, out, _ = run("doctor")
    assert code == 1
    assert "padded batches equal single rows: ValueError: no such thing" in out


FIT = ["fit", "psr", "--pairs", "{answered}", "--layers", "2", "--out", "{out}"]
BAD = {
    "an unknown model": (["generate", "--prompt", "x", "--model", "nosuch"], "Unknown model"),
    "a missing steering": (
        ["generate", "--prompt", "x", "--steering", "no.st"],
        "no steering file",
    ),
    "an infinite strength": (
        ["generate", "--prompt", "x", "--steering", "{caa}", "--strength", "inf"],
        "finite number",
    ),
    "a layer too many": (
        ["fit", "act-add", "--positive", "a", "--layer", "99", "--out", "{out}"],
        "does not have",
    ),
    "an unwritable place": (
        ["fit", "act-add", "--positive", "a", "--layer", "1", "--out", "{out}/no/x.st"],
        "Cannot write",
    ),
    "an unknown scope": (
        ["fit", "caa", "--pairs", "{good}", "--layer", "1", "--out", "{out}", "--scope", "middle"],
        "Unknown scope",
    ),
    "a missing pairs file": (
        ["compare", "--pairs", "no.jsonl", "--steering", "{caa}", "--out", "{out}"],
        "There is no file",
    ),
    "layers that are none": (
        ["fit", "psr", "--pairs", "{pairs}", "--layers", "two", "--out", "{out}"],
        '"2-5" or "all"',
    ),
    "a label that is none": (
        ["fit", "psr", "--pairs", "{label}", "--layers", "2", "--out", "{out}"],
        "line 1: the field 'label' must be a number from 0 to 1; found 7",
    ),
    "labels on some lines": (
        ["fit", "psr", "--pairs", "{some}", "--layers", "2", "--out", "{out}"],
        "1 of 2 lines have a label",
    ),
    "a label without its response": (
        ["fit", "psr", "--pairs", "{unanswered}", "--layers", "2", "--out", "{out}"],
        "judges a response, and the line has no 'response'",
    ),
    "labels where none are read": (
        ["compare", "--pairs", "{some}", "--steering", "{caa}", "--out", "{out}"],
        "1 unknown field: label",
    ),
    "a learnt shift without labels": (
        [*FIT, "--learn-shift"],
        "labels are the same",
    ),
    "a shift that is no number": (
        [*FIT, "--shift", "nan"],
        "--shift must be a finite number",
    ),
    "a weight that would be ignored": (
        [*FIT, "--ll-weight", "2"],
        "Choose the objective 'both', or leave ll_weight out",
    ),
    "batches of nothing": (
        [*FIT, "--batch-size", "0"],
        "batch_size must be at least 1",
    ),
    "a missing direction": (
        [*FIT, "--direction", "no.st"],
        "no steering file",
    ),
    "a checkpoint in an unwritable place": (
        [*FIT, "--checkpoint", "{out}/no/x"],
        "its folder does not exist",
    ),
    "a checkpoint that is none": (
        [*FIT, "--checkpoint", "{bad}"],
        "is no training checkpoint",
    ),
    "an unknown objective": (
        ["fit", "psr", "--pairs", "{pairs}", "--layers", "2", "--objective", "X", "--out", "{out}"],
        "MSE, LL, both",
    ),
    "a line that is not JSON": (
        ["compare", "--pairs", "{bad}", "--steering", "{caa}", "--out", "{out}"],
        "line 2",
    ),
    "a line without its field": (
        ["fit", "caa", "--pairs", "{pairs}", "--layer", "1", "--out", "{out}"],
        "'positive' is missing",
    ),
    "an empty file": (
        ["compare", "--pairs", "{empty}", "--steering", "{caa}", "--out", "{out}"],
        "is empty",
    ),
    "one steering twice": (
        ["compare", "--pairs", "{pairs}", *["--steering", "{caa}"] * 2, "--out", "{out}"],
        "Two steering files",
    ),
    "two steering files of one name": (
        ["faithfulness", "--pairs", "{pairs}", *["--steering", "{caa}"] * 2, "--out", "{out}"],
        "Two steering files are called caa",
    ),
    "faithfulness in an unwritable place": (
        ["faithfulness", "--pairs", "{pairs}", "--out", "{out}/no/x.html"],
        "its folder does not exist",
    ),
    "no steering file at all": (["info", "{pairs}"], "no safetensors file"),
    "a demo folder that is a file": (["demo", "--out", "{pairs}"], "Choose another"),
}


@hurried
@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_user_error_is_one_line_and_code_2_and_leaves_nothing(
    case: str, run: Any, files: Any, tmp_path: Path
) -> None:
    bad, empty = tmp_path / "bad.jsonl", tmp_path / "empty.jsonl"
    bad.write_text('{"user": "a", "system": "b"}\n{oops\n')
    empty.write_text("\n")
    made = {
        "label": [FIVE[0] | {"label": 7}],
        "some": [LABELLED[0], FIVE[1]],
        "unanswered": [{"user": "a", "system": "b", "label": 1}],
        "answered": FIVE[:2],
    }
    for name, lines in made.items():
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    places = {
        **{name: tmp_path / name for name in made},
        "out": tmp_path / "out",
        "good": EXAMPLES / "contrasts.jsonl",
        "pairs": EXAMPLES / "pairs.jsonl",
        "bad": bad,
        "empty": empty,
        **files,
    }
    arguments, says = BAD[case]
    before = sorted(tmp_path.iterdir())
    code, out, err = run(*(argument.format(**places) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert says in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="Unknown model"):
        main(["generate", "--prompt", "x", "--model", "nosuch", "--debug"])


@pytest.mark.filterwarnings("default::steerlens.SteeringWarning")
def test_a_steering_that_does_nothing_is_a_line_on_stderr(run: Any, tmp_path: Path) -> None:
    import torch

    import steerlens as sl

    model = sl.load("demo")
    far = sl.at(2, sl.CAA(torch.ones(model.cfg.d_model))).only(sl.positions(400))
    far.save(tmp_path / "far.safetensors", model)
    code, _, err = run(
        "generate", "--prompt", "x", "--steering", tmp_path / "far.safetensors", *SHORT
    )
    assert code == 0
    assert err.startswith("warning: ")
    assert "positions(400, None)" in err
    assert len(err.strip().splitlines()) == 1


@hurried
def test_one_pair_has_none_to_hold_back(run: Any, tmp_path: Path) -> None:
    pairs, out = tmp_path / "one.jsonl", tmp_path / "psr.st"
    pairs.write_text(json.dumps(FIVE[0]))
    command = ["fit", "psr", "--pairs", pairs, "--layers", 3, "--out", out, *SHORT_FIT]
    code, said, err = run(*command, "--json")
    assert code == 0, err
    assert json.loads(said)["validation_loss"] == [None, None]
    assert "no pair held back" in run(*command)[1]


def test_several_steers_at_a_site_are_no_direction(run: Any, tmp_path: Path) -> None:
    path, out = tmp_path / "sum.safetensors", tmp_path / "psr.st"
    (at(2, CAA(torch.ones(192))) + at(2, CAA(torch.ones(192)))).save(path)
    code, _, err = run(
        *("fit", "psr", "--pairs", EXAMPLES / "pairs.jsonl", "--layers", 2, "--out", out),
        *("--direction", path),
    )
    assert code == 2
    assert "several steers at layer 2" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--layers", 9), "9"),
        (("--layers", "2,3", "--objective", "DiM"), "one vector at one layer"),
        (("--layers", 2, "--direction", "none.safetensors"), "none.safetensors"),
        (("--layers", 2, "--shift", "nan"), "--shift must be a finite number"),
        (("--layers", 2, "--constant", "--regularise", 0.3), "leave out --regularise"),
    ],
    ids=["layer", "DiM", "file", "nan", "constant"],
)
def test_mistakes_are_found_before_the_model_answers(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any, message: str
) -> None:
    def answer(*given: Any) -> Any:
        raise AssertionError("The model was asked first.")

    monkeypatch.setattr("steerlens.cli.inputs.answered", answer)
    command = ["fit", "psr", "--pairs", EXAMPLES / "pairs.jsonl", "--out", tmp_path / "x"]
    code, _, err = run(*command, *options)
    assert code == 2
    assert message in err


# -- COLD ------------------------------------------------------------------------------------------

COLD = ("--pairs", EXAMPLES / "contrasts.jsonl", "--layers", "2")
AS_IT_IS = ("--eta", "1")


@pytest.mark.parametrize(
    ("command", "method"), [("cold-kernel", ColdKernel), ("cold-fd", ColdFD)], ids=str
)
def test_cold_is_fitted_and_says_how_far_it_moves(
    run: Any, tmp_path: Path, command: str, method: type
) -> None:
    push = {}
    for eta in ("1", "2"):
        out = tmp_path / f"{eta}.safetensors"
        code, said, _ = run("fit", command, *COLD, "--eta", eta, "--json", "--out", out)
        assert code == 0
        push[eta] = json.loads(said)["push"]
        steer: Any = cast(Any, load_steering(out, steerlens.load("demo")).placed[0][1]).steer
        assert isinstance(steer, method)
        assert steer.eta == float(eta)
    assert push["2"] == pytest.approx(2 * push["1"], rel=1e-3)
    assert push["1"] > 0
    code, said, _ = run("fit", command, *COLD, "--loss", "sft", "--out", out)
    assert code == 0
    assert "of their length" in said


def test_options_of_cold_reach_the_fit(run: Any, tmp_path: Path) -> None:
    out = tmp_path / "cold.safetensors"
    command = ("fit", "cold-kernel", *COLD, "--kernel", "rbf", "--width", "40", "--out", out)
    assert run(*command, *AS_IT_IS, "--batch-size", "2")[0] == 0
    placed = cast(Steering, load_steering(out, steerlens.load("demo"))).placed
    assert cast(Any, placed[0][1]).steer.width == 40
    command = ("fit", "cold-fd", *COLD, "--mode", "fd", "--eps", "0.01", "--central", "--out", out)
    assert run(*command, *AS_IT_IS)[0] == 0
    cold = cast(Any, load_steering(out, steerlens.load("demo")).placed[0][1]).steer
    assert (cold.mode, cold.eps, cold.central) == ("fd", 0.01, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("cold-kernel", "--kernel", "linear"), "unit"),
        (("cold-fd", "--mode", "autograd"), "jvp"),
        (("cold-fd", "--compat", "paper"), "released"),
        (("cold-fd", "--loss", "likelihood"), "negative_sft"),
        (("cold-fd", "--loss", "options"), "2 unknown fields: negative, positive"),
    ],
    ids=str,
)
def test_names_that_cold_does_not_know_are_errors_before_the_model_is_loaded(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any, message: str
) -> None:
    monkeypatch.setattr("steerlens.cli.inputs.load", lambda *_: pytest.fail("loaded"))
    command, *rest = options
    code, _, said = run("fit", command, *COLD, *rest, "--out", tmp_path / "x.safetensors")
    assert code == 2
    assert message in said


@pytest.mark.parametrize("option", ["--neutral", "--equivalent"])
def test_the_baseline_is_no_reference_too(option: str, run: Any, tmp_path: Path) -> None:
    """Said before the model answers, and of the option, not of the pairs."""
    pairs = tmp_path / "pairs.jsonl"
    lines = [{"user": f"What is {n}?", "system": "Be positive."} for n in range(4)]
    pairs.write_text("\n".join(map(json.dumps, lines)))
    asked = ("faithfulness", "--model", "nowhere", "--pairs", pairs, "--out", tmp_path / "x.html")
    code, _, said = run(*asked, "--baseline", "Be kind.", option, "Be kind.")
    assert code == 2
    assert "--baseline is 'Be kind.' already" in " ".join(said.split())


def test_explore_writes_one_page_with_places_for_files_of_one_method(
    run: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "x.html"
    for layer in (2, 4):
        steered = load_steering(files["caa"], steerlens.load("demo"))
        (_, steer), *_ = steered.placed
        at(layer, steer).save(tmp_path / f"joy_{layer}.safetensors", steerlens.load("demo"))
    given = [files["act_add"], tmp_path / "joy_2.safetensors", tmp_path / "joy_4.safetensors"]
    steerings = [word for path in given for word in ("--steering", path)]
    asked = ("explore", "--pairs", EXAMPLES / "pairs.jsonl", *steerings, "--out", out, *SHORT)
    code, said, _ = run(*asked, "--strengths", "0,1", "--texts", "1", "--no-lens", "--json")
    assert code == 0
    told = json.loads(said)
    assert told["texts"] == 1
    assert len(told["methods"]) == 2
    found = re.search(r'<script type="application/json">(.*?)</script>', out.read_text(), re.DOTALL)
    assert found is not None
    content = json.loads(found[1])
    assert [place["label"] for place in content["methods"][2]["places"]] == ["layer 2", "layer 4"]
    assert len(content["readings"]) == 1 + 2 + 4
    assert content["readings"][f"0|{told['methods'][1]}|1|1"]["text_state"] == "done"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--strengths", "0,strong"], "numbers with commas"),
        (["--strengths", "nan"], "numbers with commas"),
        (["--baseline", " "], "baseline=' '"),
        (["--out", "no/such/x.html"], "its folder does not exist"),
        (["--out", "."], "it is a folder"),
        (["--texts", "-1"], "--texts is how many of the pairs are shown"),
        (["--steering", "none.safetensors"], "There is no steering file"),
    ],
)
def test_explore_refuses_what_cannot_be_before_any_work(
    run: Any, files: dict[str, Path], tmp_path: Path, options: list[str], says: str
) -> None:
    usual = ["--pairs", EXAMPLES / "pairs.jsonl", "--steering", files["caa"]]
    usual += [] if "--out" in options else ["--out", tmp_path / "x.html"]
    code, _, said = run("explore", *usual, *options)
    assert code == 2
    assert says in said
    assert not (tmp_path / "x.html").exists()
