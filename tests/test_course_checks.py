"""What the checks of the course say: of each common mistake, in words, and never a bare error."""

import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checks import NotYet, Unit, called, expect
from checks.answers import described, require_answer, require_given
from checks.arguments import copied, is_as_before
from checks.units import exercises

X = torch.arange(12.0).reshape(3, 4) + 1


def test_right_answers_are_accepted_up_to_rounding():
    expect(X * (1 + 1e-6), X)
    expect(2.0, 2.0)
    expect(torch.tensor(2.0), 2.0)
    expect([1, 2], [1, 2])


def nan():
    holed = X.clone()
    holed[0] = math.nan
    return holed


def one_off():
    changed = X.clone()
    changed[1, 2] = 0
    return changed


@pytest.mark.parametrize(
    ("got", "wanted", "message"),
    [
        (-X, X, "wrong sign everywhere"),
        (X.T, X, "It is transposed"),
        (X[:3, :3].T, X[:3, :3], "transposed"),
        (X[None], X, "an axis of length 1"),
        (X[:2], X, "Off by one along axis 0"),
        (X.sum(dim=0), X.sum(dim=1), "right axis"),
        (X.roll(1, dims=0), X, "shifted by one along axis 0"),
        (X.roll(-1, dims=1), X, "shifted by one along axis 1"),
        (3 * X, X, "3 times as large"),
        (torch.zeros_like(X), X, "zero everywhere"),
        (nan(), X, "NaN or infinity"),
        (X.double(), X, "as torch.float64"),
        (one_off(), X, r"1 of 12 numbers; the first is at \[1, 2\]: 0, where 7 should be"),
        (X.numpy(), X, r"should be a tensor; found an array of shape \[3, 4\]"),
        (2.5, X, r"should be a tensor; found float 2.5.*\n.*torch throughout"),
        ("x", X, "should be a tensor"),
        (X, 2.0, r"should be one number.*\n.*Over which axis"),
        ("x", 2.0, "should be a number; found the text 'x'"),
        ("2.0", 2.0, "should be a number; found the text '2.0'"),
        (True, 1.0, "should be a number; found bool True"),
        (torch.tensor(True), 1.0, r"should be a number; found a tensor of shape \[\]"),
        ([2.0], 2.0, "should be one number"),
        (0.0, 2.0, "is 0; it should be 2"),
        (math.nan, 2.0, r"is nan\.\n.*divided by zero"),
        ((1 + 1e-4) * X.bfloat16() + 0.03, X, "as torch.bfloat16"),
        (3.0, 2.0, "is 3; it should be 2"),
        (-2.0, 2.0, r"wrong sign\."),
        (4, 3, "off by one"),
        (7, 3, "is 7; it should be 3"),
        ([1], [1, 2], "has 1 entries; there should be 2"),
        ([1, 3], [1, 2], "differs first at place 1: 3, where 2 should be"),
        ("a", [1, 2], "should be a list"),
        ("a", 1, "should be an int"),
    ],
)
def test_a_mistake_that_nobody_listed_is_named(got, wanted, message):
    with pytest.raises(NotYet, match=message):
        expect(got, wanted)


def test_a_listed_mistake_goes_before_all_others():
    for got, wanted, gives in ((-X, X, -X), ([2], [1], [2]), (-2.0, 2.0, -2.0)):
        with pytest.raises(NotYet, match="from the list"):
            expect(got, wanted, [(gives, "from the list")])
    with pytest.raises(NotYet, match="from the list"):
        expect(X[0], X, [(X[0], "from the list")])


def double(x):
    return 2 * x


def stub(x):
    """Doubled."""
    ...


def silent(x):
    2 * x


def holed(x):
    twice = ...
    return twice * x


def dots(x):
    return ...


def unfinished(x):
    raise NotImplementedError


def misspelt(x):
    return 2 * y


def in_place(x):
    x *= 2
    return x


def none_of_it(x):
    return {}.get(len(x))


def unfinished_in_torch(x):
    return 2 ^ x


def past_the_end(x):
    return [1, 2][2]


class Steer:
    def __call__(self, x):
        strength = ...
        return strength * x


class FailingSteer:
    def __call__(self, x):
        return x["blocks"]


def misfit(x):
    return x + torch.zeros(7)


def failing(x):
    raise KeyError("blocks")


def no_argument():
    return 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (stub, "still as it was given"),
        (silent, "returns nothing.*\n.*after `return`"),
        (holed, "still a `...` in `holed`"),
        (dots, r"still returns `\.\.\.`"),
        (unfinished, "still says that it is not implemented"),
        (misspelt, "a name that does not exist: name 'y' is not defined.*\n.*at: `return 2"),
        (in_place, "wrote into the tensor that it was given\\."),
        (none_of_it, "returns None.*\n.*or what stands after it is None"),
        (unfinished_in_torch, "stopped with NotImplementedError: .*\n.*at: `return 2 \\^ x`"),
        (past_the_end, "list index out of range.*\n.*The list is shorter than that"),
        (Steer(), r"still a `\.\.\.` in `the answer`"),
        (FailingSteer(), "stopped with(.|\n)*at: `return x"),
        (misfit, "RuntimeError(.|\n)*often a wrong axis"),
        (failing, "stopped with KeyError"),
        (no_argument, "does not take what it should take"),
        (X, "should be a function; found a tensor of shape"),
        (partial(failing), "`the answer` stopped with KeyError"),
    ],
)
def test_what_goes_wrong_in_a_students_function_is_said(function, message):
    given = X.clone()
    with pytest.raises(NotYet, match=message):
        called(function, given)
    assert torch.equal(given, X)


def writing(given):
    given["g"] -= 1


def adding(given):
    given["new"] = 1
    return given


def replacing(given):
    given[0] = torch.zeros(2)
    return given


def shortening(given):
    return given.pop()


def writing_inside(given):
    given[0][1][0] = 7
    return given


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        (writing, {"g": torch.ones(2)}, "the dict that it was given, or into what is in it"),
        (adding, {"g": torch.ones(2)}, "the dict that it was given"),
        (replacing, [torch.ones(2), 3], "the list that it was given"),
        (shortening, ["a", "b"], "the list that it was given"),
        (writing_inside, ({1: np.ones(2)},), "the tuple that it was given"),
        (in_place, np.ones(2), r"the array that it was given\."),
    ],
)
def test_what_was_given_is_put_back_when_a_student_writes_into_it(function, given, message):
    before = copied(given)
    with pytest.raises(NotYet, match=f"wrote into {message}"):
        called(function, given)
    assert is_as_before(given, before)


def test_who_reads_what_was_given_has_not_written_into_it():
    given = {"g": [torch.ones(2), np.ones(2), "a", 3.5, (1, None)]}
    assert called(len, given) == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "None"),
        (Steer, "the class `Steer`"),
        (Steer(), "a Steer"),
        ({"name": "a" * 80}, "a dict"),
        (X, "a tensor of shape [3, 4]"),
        (X.numpy(), "an array of shape [3, 4]"),
        (double, "the function `double`"),
        (2.5, "float 2.5"),
        ("a" * 80, "a str"),
    ],
)
def test_a_value_is_described_in_a_few_words(value, words):
    assert described(value) == words


def test_a_function_that_works_gives_what_it_returns():
    assert torch.equal(called(double, X), 2 * X)
    with pytest.raises(NotYet, match="your hook returns nothing"):
        called(silent, X, name="your hook")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({}, "There is no `x`"),
        ({"x": ...}, r"`x` is still `\.\.\.`"),
        ({"x": None}, "`x` is None"),
        ({"x": stub}, "`x` is still as it was given"),
    ],
)
def test_an_answer_that_is_not_there_is_no_name_error(names, message):
    with pytest.raises(NotYet, match=message):
        require_answer("x", names)


def test_what_the_notebook_gives_must_have_been_run():
    with pytest.raises(NotYet, match=r"the notebook's own `model`(.|\n)*Run the cells above"):
        require_given("model", {})


def test_a_notebook_shows_the_reason_alone():
    reason = NotYet("the sign is wrong.", "What is subtracted?")
    first, second = reason._render_traceback_()
    assert "Not yet: the sign is wrong." in first
    assert second == "Hint: What is subtracted?"
    assert str(NotYet("no.")) == "Not yet: no."


@pytest.fixture
def unit(monkeypatch):
    """A unit of one exercise, whose check fails on strings with an error of its own."""

    def one(one, *, given):
        expect(one + 0, given)
        return "It is the same."

    def _private():
        raise AssertionError

    module = SimpleNamespace(one=one, _private=_private, expect=expect, __name__=__name__)
    monkeypatch.setattr("checks.units.importlib.import_module", lambda name: module)
    return Unit("99", {"given": 3})


def test_a_unit_finds_answers_by_name_and_counts_points(unit, capsys):
    unit._names["one"] = 3
    unit.points(one=2)
    unit.one()
    unit.points(one=2)
    said = capsys.readouterr().out
    assert said.index("0 of 2 points") < said.index("Right. It is the same.")
    assert said.index("Right. It") < said.index("2 of 2 points")
    unit._names["one"] = 4
    with pytest.raises(NotYet, match="off by one"):
        unit.one()
    unit.points(one=2)
    assert "0 of 2 points" in capsys.readouterr().out


def test_a_unit_turns_whatever_goes_wrong_into_a_reason(unit):
    right, said = unit.verdict("one", {"given": 3, "one": "three"})
    assert not right
    assert "could make nothing of it (TypeError" in said
    assert "There is no `one`" in unit.verdict("one")[1]
    with pytest.raises(AttributeError, match="no exercise 'two'"):
        unit.two  # noqa: B018


def test_a_units_exercises_are_the_public_functions_of_its_file(unit):
    assert exercises(unit._module) == ["one"]
    assert "one" in dir(unit)
