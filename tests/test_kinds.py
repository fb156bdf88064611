"""Whatever is given to a public function is of the kind that its annotation says, or is refused.

The public functions are found by themselves, and every parameter of which a kind is known is given
something else: so a new method that forgets to ask is found here.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

import numpy as np
import pandas as pd
import pytest
import torch
from jaxtyping import Float
from public_functions import ASKING, V, called, kinds_asked, needed, plain

import steerlens as sl
from steerlens.analysis.judges.protocol import Judge  # pyright: ignore[reportMissingImports]
from steerlens.directions.rfm import RFM
from steerlens.kinds import _kind, _kinds_of, require_fields, require_kinds
from steerlens.methods.cast import PromptCondition
from steerlens.methods.psr import Gates
from steerlens.training.store import Storage
from steerlens.types import VectorLike

if TYPE_CHECKING:
    from decimal import Decimal

pytestmark = pytest.mark.usefixtures("unchecked")


class Wrong:
    """Of no kind that anything takes."""

    def __init__(self) -> None:
        self.cfg = None  # and half of a model


@pytest.mark.parametrize("name", ASKING)
def test_another_kind_is_told_by_function_and_parameter(name: str, values: list[Any]) -> None:
    given = needed(name, values)
    for one in kinds_asked(name):
        with pytest.raises(TypeError, match=rf"^{name} takes .* for {one}[,;] .*found a Wrong"):
            called(name, {**given, one: Wrong()})


def test_most_of_what_is_public_asks() -> None:
    assert len(ASKING) > 110
    assert {f"{method}.fit" for method in ("PSR", "CLAS", "LoReFT", "ReFTr1", "BiPO", "ITI")} <= {
        *ASKING
    }


VALUES = [
    (lambda wrong: sl.Schedule(rates=wrong), "rates"),
    (lambda wrong: sl.Schedule(falling=wrong), "falling"),
    (lambda wrong: Storage(memory=wrong), "memory"),
    (lambda wrong: Gates(rank=wrong), "rank"),
    (lambda wrong: Gates(constant=wrong), "constant"),
    (lambda wrong: sl.Template(text=wrong), "text"),
    (lambda wrong: sl.Scope("last", start=wrong), "start"),
    (lambda wrong: sl.PromptPair("a", "b", wrong), "response"),
    (lambda wrong: sl.Conversation("a", history=wrong), "history"),
    (lambda wrong: sl.Steering(wrong), "placed"),
    (lambda wrong: sl.Chain(wrong), "steers"),
    (lambda wrong: sl.Scaled(len, wrong), "strength"),
    (lambda wrong: PromptCondition(V, 0.0, wrong), "read_at"),
    (lambda wrong: PromptCondition(V, 0.0, sl.Site(1), above=wrong), "above"),
]


@pytest.mark.parametrize(("make", "field"), VALUES, ids=[name for _, name in VALUES])
def test_a_field_of_another_kind_is_told(make: Callable[[Any], Any], field: str) -> None:
    with pytest.raises(TypeError, match=rf"takes .* for {field}[,;] .*found a Wrong"):
        make(Wrong())


HOLDS: list[tuple[Any, list[Any], list[Any]]] = [
    (int, [1, np.int64(2), torch.tensor(3)], [True, 1.5, "1", 10**400, None]),
    (float, [1, 0.5, np.float32(1), torch.tensor(0.5)], [True, "1", 10**400, torch.ones(2)]),
    (float, [], [np.str_("1"), np.array("1"), np.complex64(1), torch.tensor(1 + 0j)]),
    (float, [Fraction(1, 2)], [torch.tensor(1 + 1j), torch.empty((), device="meta")]),
    (bool, [True, np.True_, torch.tensor(True)], [0, None, "no", torch.tensor(1)]),
    (str, ["", "a", np.str_("a")], [b"a", 1]),
    (Path, [Path("a")], ["a"]),
    (str | Path, ["a", Path("a")], [1]),
    (int | None, [1, None], ["a"]),
    (Literal["auto"] | int | None, ["auto", 3, None, np.str_("auto"), np.int64(3)], [1.5]),
    (Callable[[int], int], [len], [1]),
    (Sequence[str], [["a"], ("a",), []], ["ab", b"ab", [1], {"a": 1}, {"a"}, iter(["a"]), list]),
    (Sequence[str], [np.array(["a"]), np.array(["a"], object), pd.Series(["a"])], [np.array([1])]),
    (Sequence[float], [[1.0], np.ones(2), torch.ones(2)], [torch.tensor(1.0), ["a"]]),
    (Sequence[float], [pd.Series([1])], [pd.DataFrame(), torch.ones(1, 2), torch.ones(2) > 0]),
    (Sequence[float], [], [np.array(["1"]), np.ones(2) * 1j, torch.ones(2) * 1j]),
    (VectorLike, [], [np.ones(2) * 1j, torch.ones(2) * 1j, np.array(["1"])]),
    (Sequence[bool], [[True], torch.ones(2) > 0, np.array([True])], [[1], torch.ones(2)]),
    (Sequence[sl.PromptPair], [[]], [torch.empty(0), np.array([]), np.array([1], object)]),
    (tuple[int, ...], [(1, 2), ()], [("a",)]),
    (tuple[int, int], [(1, 2)], [(1,), (1, "a"), 3]),
    (Mapping[str, int], [{"a": 1}, {}], [{"a": "b"}, {1: 1}, [("a", 1)]]),
    (Mapping[sl.Site, int], [{1: 2, sl.Site(1): 3, np.int64(2): 4}], [{"a": 1}, {1.5: 1}]),
    (Float[torch.Tensor, "row d"], [torch.ones(2, 3)], [torch.ones(2), np.ones((2, 3)), [[1.0]]]),
    (Float[torch.Tensor, "row d"], [torch.ones(2, 3).half()], [torch.ones(2, 3).int()]),
    (VectorLike, [torch.ones(2), np.ones(2), [1.0], torch.ones(2).int()], ["a", torch.ones(2) > 0]),
    (VectorLike | None, [[[1.0, 2.0]], [torch.ones(2)], [np.ones(2)]], [["a"], [None], [V > 0]]),
    (Judge, [len, lambda texts: texts], [None, 3, "positive"]),
    (sl.Schedule, [sl.Schedule()], [sl.Schedule, {}, None]),
    (sl.Fit[sl.CAA], [], [3, "fit"]),
]


@pytest.mark.parametrize(("annotation", "right", "wrong"), HOLDS, ids=lambda one: str(one)[:40])
def test_a_kind_holds_what_its_annotation_says(
    annotation: Any, right: list[Any], wrong: list[Any]
) -> None:
    kind = _kind(annotation)
    assert kind is not None
    assert [value for value in right if not kind.holds(value)] == []
    assert [value for value in wrong if kind.holds(value)] == []


@pytest.mark.parametrize("annotation", [Any, object, SupportsIndex | sl.Site, "Elsewhere | None"])
def test_what_is_left_open_passes(annotation: Any) -> None:
    def asked(value: annotation) -> None:
        require_kinds(asked, locals())

    asked(Wrong())


def test_the_message_says_how_such_a_value_is_had(gpt2: Any) -> None:
    pairs = [sl.PromptPair("a", "b", "c")]
    with pytest.raises(TypeError) as caught:
        sl.PSR.fit(gpt2, pairs, 2, schedule={"epochs": 3})
    said = "PSR.fit takes a Schedule for schedule, as Schedule(steps=100); found a dict of int by "
    assert str(caught.value) == said + "str."
    with pytest.raises(TypeError, match=r"takes a list of texts .* found an empty dict"):
        sl.PersonaVector.rollouts(gpt2, [("a", "b")], {})
    with pytest.raises(
        TypeError, match=r"model for model, as steerlens.load\('demo'\) gives; found str 'd"
    ):
        sl.CAA.fit("demo", (["a"], ["b"]), 2)
    with pytest.raises(TypeError, match=r"found a Tensor \[3\] \(torch.float32\)"):
        sl.capture(gpt2, "a", 2, scope=torch.ones(3))
    with pytest.raises(TypeError, match="found the class Schedule itself"):
        sl.BiPO.fit(gpt2, (["a"], ["b"]), 2, schedule=sl.Schedule)
    with pytest.raises(TypeError) as caught:
        sl.Scope("last", start="x" * 10**6)
    assert len(str(caught.value)) < 200


WORDS = [
    (bool | None, "True or False, or None"),
    (Sequence[sl.Scope | None] | None, "a list of Scopes or None, or None"),
    (int | str | None, "a whole number, a text or None"),
    (RFM, "an RFM"),
    (sl.Sampling, "a Sampling"),
]


@pytest.mark.parametrize(("annotation", "words"), WORDS, ids=[words for _, words in WORDS])
def test_a_kind_in_words(annotation: Any, words: str) -> None:
    kind = _kind(annotation)
    assert kind is not None
    assert kind.words == words


@sl.steer
class Plain:
    """Written as many write it: None is not in the annotations."""

    v: torch.Tensor
    strength: float = None  # pyright: ignore[reportAssignmentType]
    name: str = None  # pyright: ignore[reportAssignmentType]

    def __call__(self, activation: Any, hook: Any = None) -> Any:
        return activation


def test_the_default_of_a_field_is_right() -> None:
    assert Plain(V).name is None
    with pytest.raises(TypeError, match="for name; found int 3"):
        Plain(V, name=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="strength is a number; found str"):
        Plain(V, strength="a")  # pyright: ignore[reportArgumentType]


def test_fields_that_are_left_out_are_not_asked() -> None:
    value = sl.Site(1)
    object.__setattr__(value, "layer", "a")
    with pytest.raises(TypeError, match="Site takes a whole number for layer"):
        require_fields(value)
    require_fields(value, but=("layer",))


def test_seeds_have_a_rule_of_their_own(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="seed must be a whole number from 0"):
        sl.Schedule(seed="a")  # pyright: ignore[reportArgumentType]
    assert "seed" not in dict(_kinds_of(plain(sl.calibrate)))


class Named(sl.CAA):
    """A class of somebody's own, whose `fit` takes other things under the same names."""

    @classmethod
    def fit(cls, model: Any, prompts: Any, sites: Any, *, read: str = "last") -> Any:  # pyright: ignore
        return super().fit(model, prompts, sites, read=sl.scope_named(read))


def test_a_subclass_may_ask_for_something_else(gpt2: Any) -> None:
    assert Named.fit(gpt2, (["I love you"], ["I hate you"]), 1, read="last").steering.sites


@dataclasses.dataclass
class Unreadable:
    """A class whose annotations only a type checker can read."""

    value: "Decimal"


def test_annotations_that_cannot_be_read_are_passed() -> None:
    require_fields(Unreadable(3))  # pyright: ignore[reportArgumentType]


class OtherPath:
    """A path of another library."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def test_other_kinds_of_lists_and_paths_are_taken(gpt2: Any, tmp_path: Path) -> None:
    pairs = [sl.PromptPair.with_system(q, "Be kind.", "Yes.") for q in ("What?", "How?")]
    fit = sl.InstructionVector.fit(gpt2, pd.Series(pairs), 1)
    assert torch.equal(fit.steer.u, sl.InstructionVector.fit(gpt2, pairs, 1).steer.u)
    saved = fit.steering.save(tmp_path / "a.safetensors", gpt2)
    assert sl.load_steering(OtherPath(saved), gpt2).sites == fit.steering.sites
    steerings = {"iv": fit.steering}
    with pytest.warns(sl.SteeringWarning):  # of few questions
        tables = [sl.analysis.sweep(gpt2, pairs, steerings, strengths=s) for s in (iter([1]), (1,))]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.parametrize("wrong", [[1, 2], 3])
def test_tables_of_runs_are_tables(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"the tables of the runs.*found a int"):
        sl.analysis.over_seeds(wrong, "relative_rmse")
