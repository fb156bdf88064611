"""Values that no function can do anything with, given to the public functions: each is refused.

First what is of another kind than a parameter's annotation, for every public function and every
parameter. Then values of the right kind, which used to end inside in an error of another library,
to hang, or to be passed over in silence.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from public_functions import ASKING, PUBLIC, V, called, kinds_asked, needed

import steerlens as sl
from steerlens import analysis
from steerlens.interchange.folders import require_folder_place
from steerlens.methods.psr import Gates
from steerlens.training.store import Storage
from steerlens.whole import CannotWrite

pytestmark = pytest.mark.usefixtures("unchecked")
SIDES = (["I love you", "I love it"], ["I hate you", "I hate it"])
PAIR = sl.PromptPair.with_system("Who are you?", "Be good.", "I love you all.")
BIG = 10**400
HALF = "a\ud800"

Call = Callable[[Any], Any]
REFUSED: dict[str, tuple[Call, str]] = {
    # Sites.
    "bytes for sites": (lambda m: sl.at(b"x", sl.CAA(V)), "found a bytes"),
    "a layer of many digits": (lambda m: sl.at(BIG, sl.CAA(V)), r"1000.*\(401 characters\)"),
    "a million layers below": (
        lambda m: sl.CAST.fit(m, SIDES, 10**6 - 1, condition=SIDES),
        "does not have",
    ),
    "a stream that is an array": (lambda m: sl.Site(1, np.array([])), "Unknown stream"),
    "gates at a layer too high": (
        lambda m: sl.PSR.fit(m, [PAIR], 1, gates=Gates(directions={99: V[None], 1: V[None]})),
        "does not have",
    ),
    # Numbers.
    "a strength of many digits": (lambda m: sl.at(1, sl.CAA(V)).scaled(BIG), "finite number"),
    "a steer's number of many digits": (lambda m: sl.Angular(V, BIG), "NaN or infinite"),
    "no a_max": (lambda m: sl.ReFTr1(V, None), "a_max is a number; found NoneType"),
    "eta of many digits": (lambda m: sl.ColdKernel(V[None], eta=BIG), "eta .* finite number"),
    "a width without its kernel": (
        lambda m: sl.ColdKernel.from_activations(V[None], V[None], width=2.0),
        "Only the 'rbf' kernel has a width",
    ),
    "more samples than are kept": (lambda m: sl.generate(m, "a", n=10**9), "is at most 100000"),
    "no resamples": (lambda m: analysis.dispersion(TABLE, n_bootstrap=0), "1 or more; found 0"),
    "a negative memory": (lambda m: Storage(memory=-1), "0 or more; found -1"),
    "a rank beyond the width": (
        lambda m: sl.LoRA.fit(m, [PAIR], validation=[PAIR], rank=10**9),
        "rank is from 1 to",
    ),
    "no tokens to write": (
        lambda m: sl.calibrate(m, sl.at(1, sl.CAA(V)), [PAIR], max_new_tokens=0),
        "max_new_tokens must be at least 1",
    ),
    "a row below the first": (lambda m: sl.capture(m, "a b", 1).of(-1, 1), "Rows count from 0"),
    "a record that is not there": (lambda m: pairs().where(7), "records 0 to 1; found 7"),
    # Nothing.
    "an empty vector": (lambda m: sl.DirectionalAblation.everywhere(m, []), "one that is empty"),
    "words for a vector": (lambda m: sl.lens("love", m), "a vector of numbers; found str"),
    "no labels": (lambda m: sl.PSR.fit(m, [PAIR], 1, labels=[]), "each of the 1 pairs .* found 0"),
    "an empty Z": (lambda m: sl.PSR.constant(torch.empty(0)), "PSR's Z: empty"),
    "no read-outs": (
        lambda m: analysis.decodability(m, [PAIR] * 5, readouts=()),
        "No read-outs were given",
    ),
    # Texts.
    "half of a character in a prompt": (lambda m: sl.encode(m, HALF), r"holds half of a character"),
    "half of one in a turn": (lambda m: sl.encode(m, sl.Conversation(HALF)), "half of a character"),
    "half of one in an instruction": (
        lambda m: analysis.likelihood(m, HALF, ["a"]),
        "half of a character",
    ),
    "half of one in a scope": (lambda m: sl.scope_named(HALF), "Unknown scope"),
    "half of one in a folder": (lambda m: require_folder_place(HALF), "Choose another name"),
    "NUL in a folder": (lambda m: require_folder_place("a\0b"), "null byte. Choose another name"),
    "a device that is none": (lambda m: sl.at(1, sl.CAA(V)).to("gpu9"), "is no device, as"),
    "a padding that is no token": (
        lambda m: sl.ActAdd.fit(m, (" a", " b"), 1, padding="."),
        "padding is 'space', a token id, or None",
    ),
    "no prompts but a number": (lambda m: sl.capture(m, 3, 1), "Prompts are a text.* found int"),
    "one text for a stream of them": (
        lambda m: next(sl.capture_stream(m, "love", 1)),
        "takes a list for prompts; found str 'love'",
    ),
    "a method without a name": (
        lambda m: analysis.explore(m, steerings={3: sl.at(1, sl.CAA(V))}, pairs=[PAIR]),
        'steerings is {"name": steering',
    ),
    # What would have been passed over.
    "texts for an exact export": (
        lambda m: sl.at(1, sl.CAA(V)).export("x", to="gguf", model=m, texts=["a"]),
        "approximate=True measures",
    ),
    "a model for vectors that name none": (
        lambda m: sl.load_steering(V, m, sites=1, fitted_on="demo"),
        "vectors of other tools name none",
    ),
    "a start for a scope without one": (
        lambda m: sl.Scope("response", start=3),
        "'response' has no start and stop",
    ),
    "a dims that is no range": (
        lambda m: sl.ActAdd.fit(m, (" a", " b"), 1, dims=3),
        r"takes a tuple \(a whole number, a whole number\) or None for dims",
    ),
    "a table of faithfulness that is none": (
        lambda m: sl.push(sl.at(1, sl.CAA(V)), "a/b", model=m, licence="mit", faithfulness=3),
        "faithfulness= is",
    ),
}
TABLE: Any = None


def pairs() -> sl.Pairs:
    return sl.read_pairs(FILE)


FILE = ""


@pytest.fixture(autouse=True)
def files(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    rows = {"layer": [1, 1], "method": ["CAA"] * 2, "strength": [""] * 2, "norm": [1.0, 2.0]}
    path = tmp_path / "two.csv"
    path.write_text("positive,negative\na,b\nc,d\n")
    monkeypatch.setitem(globals(), "TABLE", pd.DataFrame({**rows, "example": [0, 1]}))
    monkeypatch.setitem(globals(), "FILE", str(path))
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore:dispersion. over 2 examples")
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_in_words_of_ours(name: str, gpt2: Any, tmp_path: Any) -> None:
    call, says = REFUSED[name]
    before = sorted(tmp_path.iterdir())
    with pytest.raises((ValueError, TypeError, CannotWrite), match=says) as caught:
        call(gpt2)
    deepest = caught.traceback[-1]
    assert {"steerlens", "analysis"} & {*deepest.path.parts}
    assert "raise" in str(deepest.statement)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


WRONG: dict[str, Any] = {
    "nothing": None,
    "a whole number": 3,
    "a number": -1.5,
    "NaN": float("nan"),
    "one of many digits": BIG,
    "a truth value": True,
    "a text": "no such thing",
    "bytes": b"no",
    "an empty list": [],
    "a list of nothing": [None],
    "a list of two kinds": ["a", 3],
    "an empty dictionary": {},
    "a dictionary": {"a": None},
    "a tuple": (1, 2, 3),
    "a set": {"a"},
    "a generator": (one for one in "ab"),
    "a class": int,
    "a function": lambda: None,
    "an array": np.ones((2, 2, 2, 2)),
    "a tensor": torch.ones(2, 2, 2, 2) > 0,
    "an object": object(),
}


@pytest.mark.parametrize("name", ASKING)
def test_every_wrong_kind_is_told_with_its_parameter(name: str, values: list[Any]) -> None:
    given = needed(name, values)
    for one, kind in kinds_asked(name).items():
        for wrong in (value for value in WRONG.values() if not kind.holds(value)):
            with pytest.raises(TypeError, match=rf"^{name} takes .* for {one}[,;] ") as caught:
                called(name, {**given, one: wrong})
            assert len(str(caught.value)) < 400
            assert "\n" not in str(caught.value)


OPEN = {
    "A site is a layer|Sites are a layer": ("sites", "where", "layers", "condition_sites", "up_to"),
    "takes both sides|Prompts are a text": ("prompts", "condition", "positive", "negative"),
    "Prompts are a text": ("texts",),
    "The examples are": ("examples",),
    "lint looks at": ("pairs", "test", "paraphrases"),
    "A method is a name|A function has no name": ("method",),
    "A direction is|holds no direction": ("what",),
    "needs a steer": ("steer",),
    "load_steering takes a path": ("path",),
    "A mask is": ("mask",),
    "A position is": ("start", "stop"),
    "faithfulness= is": ("faithfulness",),
    "steerings is|takes steerings by name": ("steerings",),
    "hf_model is": ("hf_model",),
    "tokenizer is": ("tokenizer",),
}
"""What is said of the parameters that are asked for where they are used."""
UNASKED = {
    "load.device_map": "transformers says itself what it takes, and load passes it on",
    "sae_feature.site": "what the folder says of it is read first",
    "at_layers.data": "the method that is fitted says what it needs",
    "over_seeds.tables": "any iterable of tables; that each is one it asks itself (test_kinds.py)",
}
"""Parameters of which nothing is asked here, and why."""
SAID = {one: says for says, names in OPEN.items() for one in names}
PLAIN: dict[str, Any] = {
    "prompts": SIDES,
    "condition": SIDES,
    "sites": 1,
    "where": 1,
    "steer": sl.CAA(V),
    "positive": SIDES[0],
    "negative": SIDES[1],
    "texts": "a",
    "pairs": [PAIR],
    "method": "caa",
    "path": V,
    "data": SIDES,
}
OF_ITS_OWN: dict[str, dict[str, Any]] = {
    "ActAdd.fit": {"prompts": (" a", " b")},
    "CAST.fit": {"condition": (SIDES[0] * 4, SIDES[1] * 4)},
    "capture": {"prompts": "a"},
    "capture_stream": {"prompts": ["a"]},
    "lint": {"steering": sl.at(1, sl.CAA(V))},
    "CLAS.fit": {"directions": {1: V}},
    "contrast_directions": {"kind": "means"},
    "push": {"steering": sl.at(1, sl.CAA(V)), "repo": "a/b", "licence": "mit"},
    "strengths": {"steerings": {"CAA": sl.at(1, sl.CAA(V))}},
}
"""What the other arguments are, so that nothing else is found first."""


def left_open() -> list[tuple[str, str]]:
    every = ((name, one) for name in PUBLIC for one in inspect.signature(PUBLIC[name]).parameters)
    return [(n, one) for n, one in every if one in SAID and one not in kinds_asked(n)]


def test_every_parameter_is_asked_or_listed() -> None:
    every = {(n, one) for n in PUBLIC for one in inspect.signature(PUBLIC[n]).parameters}
    asked = {(n, one) for n in PUBLIC for one in kinds_asked(n)}
    unasked = every - asked - {*left_open()}
    rest = {f"{n}.{one}" for n, one in unasked if one not in ("self", "seed", "options")}
    assert rest == {*UNASKED}


@pytest.mark.parametrize(("name", "one"), left_open())
def test_what_is_left_open_is_told_in_words_of_ours(
    name: str,
    one: str,
    values: list[Any],
    gpt2: Any,
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    given, asked = needed(name, values), kinds_asked(name)
    given |= {other: PLAIN[other] for other in given if other in PLAIN and other not in asked}
    given |= OF_ITS_OWN.get(name, {})
    given |= {"model": gpt2} if "model" in inspect.signature(PUBLIC[name]).parameters else {}
    for wrong in (object(), int):
        with pytest.raises((ValueError, TypeError), match=SAID[one]) as caught:
            called(name, {**given, one: wrong})
        assert "raise" in str(caught.traceback[-1].statement)
        assert "\n" not in str(caught.value)
