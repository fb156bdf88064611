"""Strengths by their effect on the command line: found, told, written, refused."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

import steerlens
from steerlens import Conversation, calibrate, load_steering
from steerlens.cli.options import QUESTIONS, Strength

EXAMPLES = Path(__file__).parents[1] / "examples"
CONTRASTS, PAIRS = EXAMPLES / "contrasts.jsonl", EXAMPLES / "unseen.jsonl"
PROMPT = "Review a movie you watched."


@pytest.fixture(scope="module")
def caa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CAA vector as fitted."""
    model = steerlens.load("demo")
    fit = steerlens.CAA.fit(model, (["I loved it"], ["I hated it"]), 3)
    return fit.steering.only(steerlens.scope.response).save(
        tmp_path_factory.mktemp("caa") / "caa.safetensors"
    )


@pytest.mark.parametrize(
    ("options", "unit", "target"),
    [
        (("--strength", "auto"), "target_kl", 0.3),
        (("--strength", "auto", "--target-kl", "0.2"), "target_kl", 0.2),
        (("--share", "0.25"), "share", 0.25),
        (("--like", "Be positive."), "prompt", None),
        (("--like", "Be positive.", "--strength", "auto"), "prompt", None),
    ],
)
def test_generate_finds_the_strength_and_tells_it(
    run: Any, caa: Path, options: tuple[str, ...], unit: str, target: float | None
) -> None:
    command = ("generate", "--prompt", PROMPT, "--steering", caa, "--max-new-tokens", 8, *options)
    code, said, _ = run(*command, "--json")
    found = json.loads(said)
    assert code == 0
    assert found["unit"] == unit
    assert target is None or found["target"] == target
    assert found["effect"] == pytest.approx(found["target"], rel=0.1)
    model = steerlens.load("demo")
    steering = cast(Any, load_steering(caa, model)).scaled(found["strength"])
    asked = [Conversation(PROMPT)]
    expected = steerlens.generate(model, asked, steering, max_new_tokens=8, seed=0).texts
    assert found["steered"] == list(expected)
    _, said, _ = run(*command)
    assert f"at strength {found['strength']:.3g} (" in said


def test_a_number_is_as_ever(run: Any, caa: Path) -> None:
    command = ("generate", "--prompt", PROMPT, "--steering", caa, "--max-new-tokens", 8, "--json")
    assert json.loads(run(*command, "--strength", "-2.5")[1])["strength"] == -2.5
    assert json.loads(run(*command)[1])["strength"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--strength", "much"), "--strength is a number, or auto; found 'much'"),
        (("--strength", "inf"), "--strength is a finite number"),
        (("--strength", "2", "--share", "0.1"), "--strength and --share each choose"),
        (("--target-kl", "1", "--share", "0.1"), "--target-kl and --share each choose"),
        (("--target-kl", "0"), "--target-kl must be a number above 0"),
        (("--share", "nan"), "--share must be a number above 0"),
        (("--like", "Be kind.", "--share", "0.1"), "Leave out --target-kl and --share"),
        (("--like", "Be kind.", "--strength", "2"), "Leave out --strength 2"),
        (("--like", "Be kind.", "--raw"), "--like has no place"),
    ],
)
def test_what_contradicts_itself_is_an_error_before_the_model_is_loaded(
    run: Any, caa: Path, options: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steerlens.cli.inputs.load", None)
    code, _, err = run("generate", "--prompt", PROMPT, "--steering", caa, *options)
    assert code == 2
    assert message in err


def test_a_strength_without_a_steering_is_an_error(run: Any) -> None:
    code, _, err = run("generate", "--prompt", PROMPT, "--strength", "2")
    assert code == 2
    assert "and no steering: add --steering FILE" in err


ACT_ADD = ("act-add", "--positive", " good", "--negative", " bad", "--layer", "2")
CAA = ("caa", "--pairs", CONTRASTS, "--layer", "3")
ANGULAR = ("angular", "--pairs", CONTRASTS, "--layers", "3", "--scope", "response")
VECTOR = ("instruction", "--pairs", PAIRS, "--layers", "3", "--max-new-tokens", "8")
MEANS = ("psr", "--pairs", PAIRS, "--objective", "DiM", "--layers", "3", "--max-new-tokens", "8")
COLD = ("cold-kernel", "--pairs", CONTRASTS, "--layers", "2")


@pytest.mark.parametrize(
    ("command", "options", "unit"),
    [
        (ACT_ADD, ("--target-kl", "0.02"), "target_kl"),
        (CAA, ("--strength", "auto"), "target_kl"),
        (CAA, ("--share", "0.3"), "share"),
        (ANGULAR, ("--target-kl", "0.1"), "target_kl"),
        (VECTOR, ("--strength", "auto"), "prompt"),
        (MEANS, ("--strength", "auto"), "prompt"),
        (COLD, (), "target_kl"),
        (COLD, ("--share", "0.3"), "share"),
        (COLD, ("--eta", "1", "--strength", "auto"), "target_kl"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value[:1])),
)
def test_a_fit_writes_the_steering_at_the_strength_found(
    run: Any, tmp_path: Path, command: tuple[str, ...], options: tuple[str, ...], unit: str
) -> None:
    out = tmp_path / "made.safetensors"
    code, said, err = run("fit", *command, *options, "--json", "--out", out)
    assert code == 0, err
    found = json.loads(said)["strength"]
    assert found["unit"] == unit
    assert found["reached"]
    assert found["effect"] == pytest.approx(found["target"], rel=0.1)
    steering: Any = load_steering(out, steerlens.load("demo"))
    assert steering.placed[0][1].strength == pytest.approx(found["strength"])


def test_a_fit_with_a_number_is_scaled_and_without_one_is_as_it_was(
    run: Any, tmp_path: Path
) -> None:
    out, model = tmp_path / "made.safetensors", steerlens.load("demo")
    assert run("fit", *CAA, "--strength", "2.5", "--out", out)[0] == 0
    assert cast(Any, load_steering(out, model)).placed[0][1].strength == 2.5
    assert run("fit", *CAA, "--out", out)[0] == 0
    assert not hasattr(cast(Any, load_steering(out, model)).placed[0][1], "strength")
    assert run("fit", *COLD, "--eta", "3", "--out", out)[0] == 0
    assert cast(Any, load_steering(out, model)).placed[0][1].steer.eta == 3


def test_act_add_is_calibrated_on_questions_of_no_method(run: Any, tmp_path: Path) -> None:
    out, model = tmp_path / "made.safetensors", steerlens.load("demo")
    _, said, _ = run("fit", *ACT_ADD, "--target-kl", "0.02", "--json", "--out", out)
    fit = steerlens.ActAdd.fit(model, (" good", " bad"), 2)
    questions = [Conversation(question) for question in QUESTIONS]
    expected = calibrate(model, fit.steering, questions, target_kl=0.02)
    assert json.loads(said)["strength"]["strength"] == pytest.approx(expected.strength)


@pytest.mark.parametrize(
    ("options", "label"),
    [(("--share", "0.3"), None), (("--strength", "2"), "CAA at 2"), ((), "CAA")],
)
def test_comparisons_take_a_strength_and_name_it(
    run: Any, caa: Path, tmp_path: Path, options: tuple[str, ...], label: str | None
) -> None:
    command = ("compare", "--pairs", PAIRS, "--steering", caa, "--out", tmp_path / "r.html")
    code, said, _ = run(*command, "--max-new-tokens", "8", *options, "--json")
    assert code == 0
    rows = json.loads(said)["logit_shift"]
    (name,) = {row["method"] for row in rows} - {"prompt"}
    assert name == label if label else name.startswith("CAA at ")
    assert all("recovered" in row for row in rows)


def test_a_strength_that_is_to_be_found_says_so() -> None:
    assert [Strength(*given).by_effect for given in (("1",), ("auto",), (None, 0.5))] == [
        False,
        True,
        True,
    ]


def test_a_strength_of_1_is_a_strength_too(run: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--strength and --share each choose the strength"):
        Strength("1", share=0.2)
    out = tmp_path / "cold.safetensors"
    fit = ("fit", "cold-kernel", "--pairs", CONTRASTS, "--layers", 3, "--loss", "sft")
    code, said, _ = run(*fit, "--strength", 1, "--out", out, "--json")
    assert code == 0
    assert "strength" not in json.loads(said)  # as fitted, with the method's own eta


def test_a_search_that_finds_no_strength_loses_no_fit(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: Any, **options: Any) -> None:
        raise ValueError("no strength has an effect")

    monkeypatch.setattr("steerlens.calibration.calibrate", refuse)
    out = tmp_path / "caa.safetensors"
    fit = ("fit", "caa", "--pairs", CONTRASTS, "--layer", 3, "--strength", "auto", "--out", out)
    assert run(*fit)[0] == 2
    assert out.is_file()
