"""`steerlens fit NAME` as it is made from a method's `fit`."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from typer.main import get_command

import steerlens
from steerlens import Angular, LoReFT, PromptPair, Scope, load_steering, methods
from steerlens.cli import app
from steerlens.cli.fit import BY_HAND, generated_names
from steerlens.cli.fit.generated import Generated
from steerlens.cli.fit.keywords import keywords_of
from steerlens.combinators import Only, parts
from steerlens.prompts import Prompts
from steerlens.training.fit import Fit
from steerlens.training.schedule import Schedule

EXAMPLES = Path(__file__).parents[1] / "examples"
CONTRASTS = EXAMPLES / "contrasts.jsonl"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A pairs file with two pairs that need no answer any more."""
    path = tmp_path / "pairs.jsonl"
    asked = ("Review a film.", "Write a movie review.")
    lines = [{"user": user, "system": "Be positive.", "response": "Superb!"} for user in asked]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_every_exported_method_has_a_command() -> None:
    by_hand = {method for method, _ in BY_HAND.values() if method}
    assert by_hand | set(generated_names().values()) == set(methods.__all__)
    fit: Any = get_command(app)
    assert set(fit.commands["fit"].commands) == {*BY_HAND, *generated_names()}


def test_the_list_of_commands_needs_no_torch_and_names_every_method() -> None:
    code = (
        "import sys\nfrom steerlens.cli import main\n"
        "try:\n    main(['fit', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in generated_names():
        assert f"{name} " in said.stdout
    assert "Angular steering: each activation turned" in said.stdout


def test_help_has_the_options_and_what_the_docstring_says_of_them(
    run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    code, said, _ = run("fit", "angular", "--help")
    assert code == 0
    for text in (
        "Angular steering: each activation turned towards a direction",
        '{"positive": ..., "negative": ...}',
        "`angle` is in degrees, negative ones turn away. [default: 30.0]",
        "`scope` has the tokens that are turned. [default: after_first]",
    ):
        assert text in said
    for option in ("--layers", "--read", "--out", "--model", "--backend", "--device", "--json"):
        assert option in said
    assert "--max-new-tokens" not in said
    _, said, _ = run("fit", "loreft", "--help")
    for text in ('{"user": ..., "system"', "--validation", "--rank", "--epochs", "[default: 8]"):
        assert text in said


@pytest.mark.parametrize("scope", ["everywhere", "response"])
def test_a_method_of_contrasts_is_fitted_and_written(
    run: Callable[..., Any],
    tmp_path: Path,
    scope: str,
) -> None:
    out = tmp_path / "angular.safetensors"
    command = ("fit", "angular", "--pairs", CONTRASTS, "--layers", "2-3", "--out", out)
    code, said, err = run(*command, "--angle", 50, "--scope", scope, "--json")
    assert (code, err) == (0, "")
    expected = {"file": str(out), "method": "Angular", "layers": [2, 3], "pairs": 4}
    assert json.loads(said) == expected
    model = steerlens.load("demo")
    steering: Any = load_steering(out, model)
    assert [site.layer for site in steering.sites] == [2, 3]
    for _, steer in steering.placed:
        scopes = [str(part.scope) for part in parts(steer) if isinstance(part, Only)]
        assert set(scopes) <= {scope}
        (angular,) = (part for part in parts(steer) if isinstance(part, Angular))
        assert angular.angle == 50.0
    generate = ("generate", "--prompt", "Review a film.", "--max-new-tokens", 8, "--json")
    texts = json.loads(run(*generate, "--steering", out)[1])
    assert texts["steered"] != texts["unsteered"]


@pytest.mark.filterwarnings("ignore:.*validation loss")
def test_a_method_of_pairs_is_trained_and_the_model_answers_first(
    run: Callable[..., Any],
    pairs: Path,
    tmp_path: Path,
) -> None:
    out, lines = tmp_path / "loreft.safetensors", tmp_path / "asked.jsonl"
    lines.write_text(json.dumps({"user": "Review a film.", "system": "Be positive."}) + "\n")
    command = ("fit", "loreft", "--pairs", lines, "--validation", pairs, "--layers", "all")
    options = ("--rank", 2, "--epochs", 1, "--max-new-tokens", 6, "--scope", "response")
    code, said, err = run(*command, *options, "--json", "--out", out)
    assert code == 0
    assert "fit:" not in err  # no progress bar beside JSON
    told = json.loads(said)
    assert (told["method"], told["pairs"], told["layers"]) == ("LoReFT", 1, list(range(6)))
    assert told["validation_loss"][1] <= told["validation_loss"][0]
    steering: Any = load_steering(out, steerlens.load("demo"))
    (loreft,) = (part for part in parts(steering.placed[0][1]) if isinstance(part, LoReFT))
    assert loreft.R.shape == (2, 192)
    assert run(*command, *options, "--seed", 3, "--out", out)[0] == 0


def test_instruction_vectors_say_what_they_were_fitted_from(
    run: Callable[..., Any],
    pairs: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "u.safetensors"
    code, said, _ = run("fit", "instruction", "--pairs", pairs, "--layers", 3, "--out", out)
    assert (code, said) == (0, f"Wrote {out}: InstructionVector from 2 pairs\n")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"--pairs": "no.jsonl"}, "There is no file no.jsonl"),
        ({"--pairs": EXAMPLES / "pairs.jsonl"}, "line 1: the field 'positive' is missing"),
        ({"--scope": "middle"}, "Unknown scope 'middle'"),
        ({"--read": "middle"}, "Unknown scope 'middle'"),
        ({"--out": "no/such/folder/x"}, "its folder does not exist"),
    ],
    ids=str,
)
def test_mistakes_are_one_line_before_the_model_is_loaded(
    run: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changed: dict[str, Any],
    says: str,
) -> None:
    monkeypatch.setattr("steerlens.cli.inputs.load", lambda *_: pytest.fail("loaded"))
    options = {"--pairs": CONTRASTS, "--layers": 2, "--out": tmp_path / "x", **changed}
    code, said, err = run("fit", "angular", *(word for pair in options.items() for word in pair))
    assert (code, said) == (2, "")
    assert err.startswith("error: ")
    assert says in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_the_fit_refuses_and_what_is_no_option_is_an_error_too(
    run: Callable[..., Any],
    tmp_path: Path,
) -> None:
    command = ("fit", "angular", "--pairs", CONTRASTS, "--layers", "2", "--out", tmp_path / "x")
    for more, says in (
        (("--angle", "nan"), "--angle must be a finite number"),
        (("--layers", "two"), '"2-5" or "all"'),
        (("--layers", "77"), "does not have"),
        (("--angle", "wide"), "--angle"),
        (("--rank", "2"), "--rank"),
    ):
        code, _, err = run(*command, *more)
        assert code == 2
        assert says in err
    assert run("fit", "angled", "--help")[0] == 2
    assert not list(tmp_path.iterdir())


# -- Signatures ------------------------------------------------------------------------------------


FOUR_EPOCHS = Schedule(epochs=4, clip=1.0)


class Method:
    """A method that takes every kind of keyword."""

    given: dict[str, Any]

    @classmethod
    def fit(
        cls,
        model: Any,
        data: Sequence[PromptPair],
        sites: int | list[int],
        *,
        way: Literal["up", "down"] = "up",
        often: bool = False,
        note: str | None = None,
        place: str | Path | None = None,
        dims: tuple[int, int] | None = None,
        pair: tuple[int, int] = (1, 2),
        labels: Sequence[str] = (),
        read: Scope | None = None,
        scope: Scope = steerlens.response.without_bos,
        schedule: Schedule = FOUR_EPOCHS,
        negatives: Sequence[PromptPair] = (),
        progress: bool = False,
    ) -> Fit[Any]:
        """Fit. The `way` is up; `note` is kept, and then `often` is too."""
        raise NotImplementedError


def test_the_options_are_the_keywords_that_fit_on_a_command_line() -> None:
    keywords = {keyword.name: keyword for keyword in keywords_of(Method.fit)}
    offered = ("way", "often", "note", "place", "read", "scope", "schedule", "negatives")
    assert tuple(keywords) == offered
    options = {item.name: item for word in keywords.values() for item in word.options}
    assert options["way"].default == "up"
    assert options["scope"].default == "response.without_bos"
    assert options["read"].default == ""
    assert options["epochs"].default == 4
    helps = {name: item.annotation.__metadata__[0].help for name, item in options.items()}
    assert helps["way"] == "The `way` is up; One of: up, down."
    assert helps["note"] == "`note` is kept, and then `often` is too."
    assert helps["place"] == "The method's place."


def test_the_values_of_options_become_those_of_keywords() -> None:
    keywords = {keyword.name: keyword for keyword in keywords_of(Method.fit)}
    given = {item.name: item.default for word in keywords.values() for item in word.options}
    values = {name: word.value(given) for name, word in keywords.items()}
    assert values["scope"] == steerlens.response.without_bos
    assert values["schedule"] == FOUR_EPOCHS
    assert (values["read"], values["negatives"]) == (None, ())
    given |= {"epochs": 9, "seed": 5, "read": "last", "way": "down"}
    values = {name: word.value(given) for name, word in keywords.items()}
    assert values["schedule"] == Schedule(epochs=9, clip=1.0, seed=5)
    assert (values["read"], values["way"]) == (steerlens.last, "down")
    with pytest.raises(ValueError, match=r"Unknown way 'left'\. Use one of: up, down"):
        keywords["way"].value(given | {"way": "left"})


def test_a_fit_that_makes_no_command_says_why() -> None:
    class Needs:
        @classmethod
        def fit(cls, model: Any, data: tuple[Prompts, Prompts], sites: int, *, v: dict) -> None:
            """Fit."""

    class Other:
        @classmethod
        def fit(cls, model: Any, data: str, sites: int) -> None:
            """Fit."""

    with pytest.raises(TypeError, match=r"Needs\.fit needs v, which no option can give"):
        Generated.of(Needs)
    with pytest.raises(TypeError, match=r"Other\.fit takes neither .* but <class 'str'>"):
        Generated.of(Other)
