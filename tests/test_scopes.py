"""Windows and scopes against a slow oracle: plain Python sets of absolute positions, row by row."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steerlens.scopes import (
    NAMED_SCOPES,
    PADDING,
    Scope,
    Window,
    everywhere,
    generated,
    last,
    positions,
    prompt,
    question_and_response,
    response,
    scope_named,
)

NAMED = [everywhere, prompt, response, question_and_response, generated, last]
SCOPES = [
    *NAMED,
    positions(2, 5),
    positions(0, 1),
    positions(3),
    positions(None, 4),
    positions(),
    positions(40, 50),
]
SCOPES += [scope.without_bos for scope in SCOPES]
each_scope = pytest.mark.parametrize("scope", SCOPES, ids=str)


@dataclass(frozen=True)
class Row:
    """One row as a person would write it down."""

    prompt_tokens: int
    response_tokens: int
    question: int
    bos: bool

    @property
    def length(self) -> int:
        return self.prompt_tokens + self.response_tokens


def held(scope: Scope, row: Row) -> set[int]:
    """The absolute positions of `row` that `scope` holds: its docstring, as sets."""
    n, every = row.prompt_tokens, range(row.length)
    inside = {
        "everywhere": set(every),
        "prompt": {p for p in every if p < n},
        "response": {n - 1} | {p for p in every if p >= n},
        "question_and_response": {p for p in every if p + 1 >= row.question},
        "generated": {p for p in every if p >= n},
        "last": {n - 1},
        "positions": {
            p
            for p in every
            if (scope.start is None or scope.start <= p) and (scope.stop is None or p < scope.stop)
        },
    }[scope.name]
    return inside - {0} if row.bos and not scope.bos else inside


def window_of(rows: list[Row], lengths: list[int], side: str) -> Window:
    """The window of a first pass that holds `lengths[i]` tokens of row i."""
    width = max(lengths)
    mask = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, length in enumerate(lengths):
        mask[number, width - length :] = side == "left"
        if side == "right":
            mask[number, :length] = True
    return Window.of(
        mask,
        question=torch.tensor([row.question for row in rows]),
        response=torch.tensor([row.prompt_tokens for row in rows]),
        bos=torch.tensor([row.bos for row in rows]),
    )


def found(scope: Scope, window: Window) -> list[set[int]]:
    """The positions that `scope` holds in this pass, row by row; no column may count twice."""
    where, at = scope.where(window), window.positions
    picked = [at[row][where[row]].tolist() for row in range(len(where))]
    assert all(len(row) == len(set(row)) for row in picked)
    return [set(row) for row in picked]


@st.composite
def batches(draw: st.DrawFn) -> tuple[list[Row], str]:
    rows = []
    for _ in range(draw(st.integers(1, 4))):
        n, bos = draw(st.integers(1, 7)), draw(st.booleans())
        rows.append(
            Row(
                prompt_tokens=n,
                response_tokens=0,
                question=draw(st.integers(min(int(bos), n), n)),
                bos=bos,
            )
        )
    return rows, draw(st.sampled_from(["left", "right"]))


def grown(rows: list[Row], n: int) -> list[Row]:
    return [Row(row.prompt_tokens, n, row.question, row.bos) for row in rows]


@each_scope
@given(drawn=batches(), n=st.integers(0, 5))
def test_a_scope_holds_what_the_oracle_says_in_one_full_pass(scope, drawn, n):
    rows, side = drawn[0], drawn[1]
    rows = grown(rows, n)
    window = window_of(rows, [row.length for row in rows], side)
    assert found(scope, window) == [held(scope, row) for row in rows]


@each_scope
@given(drawn=batches(), steps=st.lists(st.integers(1, 3), max_size=4))
def test_cached_passes_cover_the_positions_of_one_full_pass_each_once(scope, drawn, steps):
    rows, side = drawn
    whole = grown(rows, sum(steps))
    window = window_of(rows, [row.prompt_tokens for row in rows], side)
    passes = [found(scope, window)]
    for n in steps:
        window = window.next(n)
        assert window.mask.shape == (len(rows), n)
        passes.append(found(scope, window))
    full = found(scope, window_of(whole, [row.length for row in whole], side))
    for number in range(len(rows)):
        union = set().union(*(one[number] for one in passes))
        assert sum(len(one[number]) for one in passes) == len(union)
        assert union == full[number] == held(scope, whole[number])


@each_scope
@given(drawn=batches(), steps=st.lists(st.integers(1, 3), max_size=4))
def test_an_extended_window_is_that_of_the_longer_full_pass(scope, drawn, steps):
    rows, _ = drawn
    window = window_of(rows, [row.prompt_tokens for row in rows], "left")
    for n in steps:
        window = window.extended(n)
    whole = grown(rows, sum(steps))
    full = window_of(whole, [row.length for row in whole], "left")
    torch.testing.assert_close(window.mask, full.mask)
    torch.testing.assert_close(window.positions, full.positions)
    assert found(scope, window) == [held(scope, row) for row in whole]


@given(drawn=batches(), steps=st.lists(st.integers(1, 3), max_size=3))
def test_positions_count_real_tokens_from_0_and_padding_has_none(drawn, steps):
    rows, side = drawn
    window = window_of(rows, [row.prompt_tokens for row in rows], side)
    counted = [[] for _ in rows]
    for n in [0, *steps]:
        window = window.next(n) if n else window
        for row, (at, real) in enumerate(zip(window.positions, window.mask, strict=True)):
            assert set(at[~real].tolist()) <= {PADDING}
            counted[row] += at[real].tolist()
    for row, at in zip(grown(rows, sum(steps)), counted, strict=True):
        assert at == list(range(row.length))


def test_scopes_of_one_hand_written_row():
    # BOS, two system tokens, two question tokens, two response tokens.
    row = Row(prompt_tokens=5, response_tokens=2, question=3, bos=True)
    window = window_of([row], [7], "left")
    expected = {
        everywhere: {0, 1, 2, 3, 4, 5, 6},
        everywhere.without_bos: {1, 2, 3, 4, 5, 6},
        prompt: {0, 1, 2, 3, 4},
        response: {4, 5, 6},
        question_and_response: {2, 3, 4, 5, 6},
        generated: {5, 6},
        last: {4},
        positions(1, 3): {1, 2},
    }
    assert {scope: found(scope, window)[0] for scope in expected} == expected


def test_without_bos_leaves_position_0_alone_where_it_is_no_bos():
    rows = [Row(3, 0, 1, bos=True), Row(3, 0, 0, bos=False)]
    window = window_of(rows, [3, 3], "left")
    assert found(prompt.without_bos, window) == [{1, 2}, {0, 1, 2}]


def test_without_bos_does_not_take_the_first_token_of_a_later_pass():
    rows = [Row(3, 0, 1, bos=True)]
    window = window_of(rows, [3], "left").next()
    assert found(everywhere.without_bos, window) == [{3}]


def test_a_window_without_spans_is_all_prompt_and_its_question_follows_the_bos():
    mask = torch.tensor([[False, True, True], [True, True, True]])
    window = Window.of(mask, bos=True)
    assert window.response.tolist() == [2, 3]
    assert window.question.tolist() == [1, 1]
    assert Window.of(mask).question.tolist() == [0, 0]
    assert found(last, window) == [{1}, {2}]
    assert found(generated, window) == [set(), set()]
    assert found(generated, window.next(2)) == [{2, 3}, {3, 4}]


def test_padded_says_whether_any_column_is_padding():
    rows = [Row(3, 0, 1, bos=True), Row(2, 0, 1, bos=True)]
    window = window_of(rows, [3, 2], "left")
    assert window.padded
    assert not window.next().padded
    assert not window_of(rows[:1], [3], "left").padded


def test_a_window_on_another_device_keeps_every_field():
    rows = [Row(3, 2, 2, bos=True), Row(2, 2, 1, bos=False)]
    window = window_of(rows, [3, 2], "left").next(2)
    moved = window.to("meta")
    for name in ("mask", "first", "question", "response", "bos"):
        assert getattr(moved, name).device.type == "meta", name
        assert torch.equal(getattr(window.to("cpu"), name), getattr(window, name)), name


@each_scope
def test_the_name_of_a_scope_makes_the_same_scope_again(scope):
    assert scope_named(str(scope)) == scope
    assert scope_named(f"  {scope} ") == scope


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("positions(2,5)", positions(2, 5)),
        ("positions(2, )", positions(2)),
        ("positions(, 5)", positions(None, 5)),
        ("positions(None, None).without_bos", positions().without_bos),
    ],
)
def test_positions_may_be_written_loosely(text, scope):
    assert scope_named(text) == scope


@pytest.mark.parametrize(
    "text",
    [
        "respnse",
        "",
        "Response",
        "response.with_bos",
        "response.without_bos.without_bos",
        "positions",
        "positions(2)",
        "positions(a, b)",
        "positions(2.5, 3)",
        "positions(2, 5).with_bos",
        "positions(1, 2, 3)",
    ],
)
def test_no_other_text_names_a_scope(text):
    with pytest.raises(ValueError, match=r"Unknown scope .*Use one of: .*response.*positions"):
        scope_named(text)


def test_every_named_scope_is_listed_by_its_own_name():
    assert {scope.name: scope for scope in NAMED} == NAMED_SCOPES
    assert {scope.without_bos.without_bos for scope in NAMED} == {s.without_bos for s in NAMED}


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, -2), (None, -1), (3, 3), (4, 2), (0, 0)])
def test_positions_that_hold_nothing_or_count_from_the_end_are_refused(start, stop):
    with pytest.raises(ValueError, match=rf"positions\({start}, {stop}\)"):
        positions(start, stop)
