"""Windows and scopes against a slow oracle: plain Python sets of absolute positions, row by row."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steerlens.scopes import (
    NAMED_SCOPES,
    PADDING,
    Combined,
    Listed,
    Scope,
    Window,
    after_first,
    everywhere,
    generated,
    last,
    last_k,
    marked,
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
    positions(-3),
    positions(-4, -1),
    positions(1, -1),
    positions(-2, 5),
    positions(None, -2),
    last_k(1),
    last_k(3),
    positions([2, 4, 7]),
    positions([-1, 0, -3]),
    prompt | positions([9]),
    last | generated.without_bos,
    everywhere & ~last_k(2),
    ~(prompt & ~positions(0, 2)),
    ~~question_and_response,
    ~generated,
    ~everywhere.without_bos,
    (positions(1) & positions(None, 6)) | last,
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
    if isinstance(scope, Combined):
        parts = [held(part, row) for part in scope.of]
        joined = {"|": set.union, "&": set.intersection, "~": lambda first: set(every) - first}
        inside = joined[scope.name](*parts)
        return inside - {0} if row.bos and not scope.bos else inside
    if isinstance(scope, Listed):
        inside = {p for p in every if p in scope.numbers or (p < n and p - n in scope.numbers)}
        return inside - {0} if row.bos and not scope.bos else inside
    start, stop = (
        n + end if end is not None and end < 0 else end for end in (scope.start, scope.stop)
    )
    inside = {
        "everywhere": set(every),
        "prompt": {p for p in every if p < n},
        "response": {n - 1} | {p for p in every if p >= n},
        "question_and_response": {p for p in every if p + 1 >= row.question},
        "generated": {p for p in every if p >= n},
        "last": {n - 1},
        "positions": {
            p for p in every if (start is None or start <= p) and (stop is None or p < stop)
        },
        "last_k": {p for p in every if start is not None and start <= p < n},
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
    assert {str(scope): scope for scope in [*NAMED, after_first]} == NAMED_SCOPES
    assert after_first == positions(1) == scope_named("positions(1, None)")
    assert {scope.without_bos.without_bos for scope in NAMED} == {s.without_bos for s in NAMED}


@pytest.mark.parametrize(
    ("start", "stop"), [(-2, -3), (-2, -2), (-1, 0), (None, 0), (3, 3), (4, 2), (0, 0)]
)
def test_positions_that_hold_nothing_are_refused(start, stop):
    with pytest.raises(ValueError, match=rf"positions\({start}, {stop}\)"):
        positions(start, stop)


# -- Positions from the end, lists, masks, and scopes joined ---------------------------------------


def test_more_scopes_of_one_hand_written_row():
    # BOS, two system tokens, two question tokens, two response tokens.
    row = Row(prompt_tokens=5, response_tokens=2, question=3, bos=True)
    window = window_of([row], [7], "left")
    expected = {
        positions(-3): {2, 3, 4, 5, 6},
        positions(-3, -1): {2, 3},
        positions(-9, 2): {0, 1},
        last_k(3): {2, 3, 4},
        last_k(9): {0, 1, 2, 3, 4},
        last_k(9).without_bos: {1, 2, 3, 4},
        positions([2, 4, 7]): {2, 4},
        positions([-1, -5, 6]): {0, 4, 6},
        positions([-1, -5, 6]).without_bos: {4, 6},
        prompt & ~last_k(2): {0, 1, 2},
        (last | generated).without_bos: {4, 5, 6},
        ~response: {0, 1, 2, 3},
        (~response).without_bos: {1, 2, 3},
        everywhere.without_bos | positions([0]): {0, 1, 2, 3, 4, 5, 6},
    }
    assert {scope: found(scope, window)[0] for scope in expected} == expected


@each_scope
@given(drawn=batches(), steps=st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_a_scope_that_is_over_holds_nothing_more(scope, drawn, steps):
    rows, side = drawn
    window, over, rest = window_of(rows, [row.prompt_tokens for row in rows], side), False, False
    for n in [0, *steps]:
        window = window.next(n) if n else window
        over, rest = over or scope.over(window), rest or scope.holds_rest(window)
        where = scope.where(window)
        assert not over or not bool(where.any())
        assert not rest or torch.equal(where, window.mask)


@pytest.mark.parametrize(
    ("scope", "after"),
    [
        (prompt, 1),
        (last_k(2), 1),
        (positions(-3, -1), 1),
        (positions(-2, 6), 2),
        (positions([-1]), 1),
        (positions([0, 6]), 3),
        (marked([False, True, True]), 1),
        (prompt | positions([6]), 3),
        (generated & prompt, 1),
        (~generated, 1),
        (~positions(2), 1),
        (~(generated | everywhere), 0),
        (~(everywhere & response), 1),
        (~~prompt, 1),
        (generated, None),
        (~prompt, None),
        (positions(-3), None),
        (prompt | generated, None),
        (~everywhere.without_bos, 1),
        (~marked([True]), None),
    ],
    ids=str,
)
def test_a_scope_is_over_as_soon_as_it_can_hold_no_more(scope, after):
    """So that what runs the model for it need not."""
    window = window_of([Row(5, 0, 3, bos=True)], [5], "left")
    over = []
    for _ in range(6):
        over.append(scope.over(window))
        window = window.next()
    assert over == [after is not None and step >= after for step in range(6)]


def test_a_mask_is_for_positions_row_by_row():
    rows = [Row(3, 0, 1, bos=True), Row(2, 0, 1, bos=False)]
    scope = marked([[True, False, True], [False, True]])
    for side in ("left", "right"):
        window = window_of(rows, [3, 2], side)
        assert found(scope, window) == [{0, 2}, {1}]
        assert found(scope.without_bos, window) == [{2}, {1}]
        assert found(scope, window.next(2)) == [set(), set()]
    swapped = replace(window_of(rows[::-1], [2, 3], "left"), row=torch.tensor([1, 0]))
    assert found(scope, swapped) == [{1}, {0, 2}]
    assert found(scope, swapped.next()) == [set(), set()]
    assert torch.equal(swapped.to("cpu").row, torch.tensor([1, 0]))


@pytest.mark.parametrize(
    "kind", [torch.tensor, np.array, list, lambda mask: [np.bool_(m) for m in mask]]
)
def test_a_mask_of_one_row_is_for_every_prompt(kind):
    rows = [Row(3, 0, 1, bos=True), Row(2, 0, 1, bos=False)]
    window = window_of(rows, [3, 2], "left")
    assert found(marked(kind([False, True])), window) == [{1}, {1}]


def test_a_mask_of_a_padded_batch_comes_with_its_window():
    rows = [Row(3, 0, 1, bos=True), Row(1, 0, 1, bos=False)]
    window = window_of(rows, [3, 1], "left")
    columns = torch.tensor([[False, True, True], [True, False, True]])  # the second row: padding
    assert found(marked(columns, window), window) == [{1, 2}, {0}]
    with pytest.raises(ValueError, match=r"token that its prompt has not.*marked\(mask, window\)"):
        marked(columns).where(window)
    with pytest.raises(ValueError, match="Take both from one batch"):
        marked(columns[:1], window)


@pytest.mark.parametrize("mask", [np.ones((1, 1, 1), bool), 3, [1.0]], ids=str)
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(ValueError, match="A mask"):
        marked(mask)


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("positions([2,4, 7])", positions([2, 4, 7])),
        ("last_k( 3 ).without_bos", last_k(3).without_bos),
        ("positions(-3, )", positions(-3)),
        ("prompt|generated", prompt | generated),
        ("(prompt & ~ last).without_bos", (prompt & ~last).without_bos),
        ("~(prompt | positions(, 5))", ~(prompt | positions(None, 5))),
    ],
)
def test_joined_scopes_may_be_written_loosely(text, scope):
    assert scope_named(text) == scope


@pytest.mark.parametrize(
    "text",
    [
        "prompt |",
        "prompt + last",
        "prompt or last",
        "prompt | 3",
        "last_k(3, 4)",
        "last_k([3])",
        "positions(__import__('os'))",
        "positions(start=2, stop=3)",
        "marked([True])",
        "-prompt",
        "prompt.where",
        "prompt\nlast",
    ],
)
def test_nothing_else_is_read_as_a_scope(text):
    with pytest.raises(ValueError, match=r"Unknown scope .*Use one of: .*\| \(either\)"):
        scope_named(text)


@pytest.mark.parametrize("number", [np.int64(2), np.int32(2), torch.tensor(2)], ids=type)
def test_positions_are_whole_numbers_of_any_library(number):
    assert positions(number, 5) == positions(2, 5)
    assert positions([number, 7]) == positions([2, 7])
    assert last_k(number) == last_k(2)
    assert type(positions(number, 5).start) is int


def test_positions_of_an_array_and_of_a_tensor():
    assert positions(np.array([2, -1])) == positions([2, -1]) == positions(torch.tensor([2, -1]))
    with pytest.raises(ValueError, match=r"for a mask write marked\(mask\)"):
        positions(np.array([True, False]))
    with pytest.raises(ValueError, match="has no stop"):
        positions([1, 2], 3)
    with pytest.raises(ValueError, match="whole number"):
        positions(2.5)
