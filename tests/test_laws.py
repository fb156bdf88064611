"""The laws that every catalogued steering obeys, on tensors and then on every model."""

import itertools
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import CATALOGUE, COMBINATORS, Entry, random
from hypothesis import given
from hypothesis import strategies as st
from oracles import Row, in_scope
from tiny_models import (
    BACKENDS,
    D_MODEL,
    D_VOCAB,
    PROMPTS,
    assert_same_tokens,
    greedy,
    load,
    response_rows,
)

import steerlens
from steerlens import CAA, Conversation, Window, at, methods
from steerlens.combinators import bind, masked, parts
from steerlens.runtime.forward import logits
from steerlens.scopes import NAMED_SCOPES, Context
from steerlens.steering import Steering

LENGTHS = (5, 9, 7)
DTYPES = (torch.float32, torch.bfloat16)

every_entry = pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE.keys())
SCOPES = sorted(NAMED_SCOPES)


def rows() -> list[Row]:
    generator = np.random.default_rng(7)
    spans = ((1, 4, True), (3, 6, True), (0, 3, False))
    return [
        Row(tuple(generator.integers(1, D_VOCAB, length).tolist()), *span)
        for length, span in zip(LENGTHS, spans, strict=True)
    ]


def padded(chosen: list[Row], side: str = "left") -> tuple[torch.Tensor, Window]:
    width = max(len(row.tokens) for row in chosen)
    tokens = torch.full((len(chosen), width), 99)
    mask = torch.zeros((len(chosen), width), dtype=torch.bool)
    for number, row in enumerate(chosen):
        n = len(row.tokens)
        filled = slice(width - n, None) if side == "left" else slice(n)
        tokens[number, filled] = torch.tensor(row.tokens)
        mask[number, filled] = True
    return tokens, Window.of(
        mask,
        question=torch.tensor([row.question for row in chosen]),
        response=torch.tensor([row.response for row in chosen]),
        bos=torch.tensor([row.bos for row in chosen]),
    )


def act(
    steering: Steering, model: Any, tokens: torch.Tensor, window: Window, h: torch.Tensor
) -> torch.Tensor:
    """`h` after every steer of the steering, all of which are at one site."""
    return act_in_run(steering, Context(model, tokens), window, h)


def act_in_run(
    steering: Steering, context: Context, window: Window, h: torch.Tensor
) -> torch.Tensor:
    """The same in a run of several passes, whose memory the context hands on."""
    window = replace(window, context=context)
    for _, steer in steering.placed:
        h = masked(bind(steer, window), window.mask)(h)
    return h


def activations_of(tokens: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return random(*tokens.shape, D_MODEL, seed=11).to(dtype)


def tensors_in(steering: Steering) -> list[torch.Tensor]:
    values = [
        getattr(part, item.name)
        for _, steer in steering.placed
        for part in parts(steer)
        if is_dataclass(part)
        for item in fields(part)
    ]
    flat = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
    return [item for item in flat if isinstance(item, torch.Tensor)]


def test_the_catalogue_holds_every_exported_method_and_combinator() -> None:
    covered = {entry.covers for entry in CATALOGUE.values()} - {None}
    assert covered == {*methods.__all__, *COMBINATORS}
    assert set(steerlens._HOME["combinators"]) == COMBINATORS
    assert set(steerlens._HOME["methods"]) == set(methods.__all__)


# Tensors --------------------------------------------------------------------------------------


@every_entry
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_steer_is_its_equation_token_by_token(entry: Entry, side: str, gpt2: Any) -> None:
    if entry.oracle is None:
        pytest.skip("The equation of this steering needs more than one row's activations.")
    chosen = rows()
    tokens, window = padded(chosen, side)
    h = activations_of(tokens)
    steered = act(entry.build(gpt2), gpt2, tokens, window, h)
    for number, row in enumerate(chosen):
        real = window.mask[number]
        expected = entry.oracle(h[number][real].double().numpy(), row)
        np.testing.assert_allclose(steered[number][real].double().numpy(), expected, atol=2e-6)
    assert not torch.equal(steered, h)


@every_entry
def test_padding_keeps_its_activation(entry: Entry, gpt2: Any) -> None:
    tokens, window = padded(rows())
    h = activations_of(tokens)
    steered = act(entry.build(gpt2), gpt2, tokens, window, h)
    assert torch.equal(steered[~window.mask], h[~window.mask])


@every_entry
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_steer_is_pure_and_keeps_dtype_and_device(
    entry: Entry, dtype: torch.dtype, gpt2: Any
) -> None:
    tokens, window = padded(rows())
    h = activations_of(tokens, dtype)
    before, steering = h.clone(), entry.build(gpt2)
    held = [tensor.clone() for tensor in tensors_in(steering)]
    assert held
    first = act(steering, gpt2, tokens, window, h)
    again = act(steering, gpt2, tokens, window, h)
    assert torch.equal(h, before)
    assert torch.equal(first, again)
    assert (first.dtype, first.device, first.shape) == (h.dtype, h.device, h.shape)
    for old, new in zip(held, tensors_in(steering), strict=True):
        assert torch.equal(old, new)


@every_entry
def test_the_rows_of_a_batch_do_not_touch_each_other(entry: Entry, gpt2: Any) -> None:
    chosen = rows()
    tokens, window = padded(chosen)
    h = activations_of(tokens)
    together = act(entry.build(gpt2), gpt2, tokens, window, h)
    for number, row in enumerate(chosen):
        alone_tokens, alone_window = padded([row])
        alone = h[number : number + 1, -len(row.tokens) :]
        steered = act(entry.build(gpt2), gpt2, alone_tokens, alone_window, alone)
        torch.testing.assert_close(
            together[number : number + 1, -len(row.tokens) :], steered, rtol=1e-6, atol=1e-6
        )


@every_entry
@given(cuts=st.sets(st.integers(1, 8), max_size=4))
def test_a_sequence_in_pieces_is_steered_as_a_whole(
    entry: Entry, folders: dict[str, Path], cuts: set[int]
) -> None:
    """What a KV cache asks for: the same tokens, split over passes in any way.

    In float64, since a steer that runs the model adds in another order when it runs it in pieces.
    """
    model = load(folders["gpt2"], BACKENDS[0], torch.float64)
    row = rows()[1]
    tokens, whole = padded([row])
    h = activations_of(tokens, torch.float64)
    expected = act(entry.build(model), model, tokens, whole, h)
    steering, memory = entry.build(model), {}
    pieces, bounds = [], [0, *sorted(cuts), 9]
    for first, stop in itertools.pairwise(bounds):
        part = slice(first, stop)
        ones = torch.ones((1, stop - first), dtype=torch.bool)
        seen = torch.tensor([first])
        window = Window(ones, seen, whole.question, whole.response, whole.bos)
        context = Context(model, tokens[:, part], memory)
        pieces.append(act_in_run(steering, context, window, h[:, part]))
    torch.testing.assert_close(torch.cat(pieces, dim=1), expected, rtol=1e-6, atol=1e-6)


@every_entry
def test_only_steers_that_say_so_depend_on_position(entry: Entry, gpt2: Any) -> None:
    steering = entry.build(gpt2)
    assert steering.positional == entry.positional
    if entry.positional:
        with pytest.raises(ValueError, match="depends on positions"):
            steering.hooks()
        return
    h = activations_of(torch.zeros(2, 6, dtype=torch.long))
    shuffled = torch.tensor([4, 2, 0, 5, 1, 3])
    for _, hook in steering.hooks():
        assert torch.equal(hook(h)[:, shuffled], hook(h[:, shuffled].contiguous()))


@every_entry
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_strength_0_is_the_identity_and_strength_1_the_steer_itself(
    entry: Entry, dtype: torch.dtype, gpt2: Any
) -> None:
    tokens, window = padded(rows())
    h = activations_of(tokens, dtype)
    steering = entry.build(gpt2)
    plain = act(steering, gpt2, tokens, window, h)
    assert not torch.equal(plain, h)
    off, on = steerlens.scaled(steering, 0.0), steerlens.scaled(steering, 1.0)
    assert torch.equal(act(off, gpt2, tokens, window, h), h)
    assert torch.equal(act(on, gpt2, tokens, window, h), plain)


@given(
    strength=st.floats(-4, 4, width=16),
    seed=st.integers(0, 1000),
)
def test_strength_is_linear_in_what_the_steer_adds(strength: float, seed: int) -> None:
    h, v = random(2, 3, D_MODEL, seed=seed), random(D_MODEL, seed=seed + 1)
    steered = steerlens.Scaled(CAA(v), strength)(h)
    torch.testing.assert_close(steered, h + strength * v, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SCOPES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_only_acts_on_exactly_the_tokens_of_its_scope(name: str, side: str) -> None:
    chosen = rows()
    tokens, window = padded(chosen, side)
    h = activations_of(tokens)
    for scope in (NAMED_SCOPES[name], NAMED_SCOPES[name].without_bos):
        ((_, hook),) = at(1, steerlens.Only(CAA(random(D_MODEL)), scope)).hooks(window)
        changed = (hook(h) != h).any(dim=-1)
        for number, row in enumerate(chosen):
            inside = [
                in_scope(name, t, row) and (scope.bos or t > 0 or not row.bos)
                for t in range(len(row.tokens))
            ]
            assert changed[number][window.mask[number]].tolist() == inside
        assert not changed[~window.mask].any()


# Models ---------------------------------------------------------------------------------------

MIXED = [
    PROMPTS[1],
    Conversation("Who sat on the mat by the sea?", "You are kind."),
    Conversation("I hate you"),
]


def as_tokens(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts as right-padded tokens and a mask, padded with a token that must not matter."""
    tokens, window = steerlens.batch(model, list(PROMPTS[2:]), side="right")
    return torch.where(window.mask, tokens, 77), window.mask


FORMS = {"strings and conversations": lambda model: MIXED, "tokens and mask": as_tokens}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def one_at_a_time(model: Any, prompts: Any, steering: Steering) -> list[tuple[int, ...]]:
    if isinstance(prompts, tuple):
        prompts = [(row[real][None], real[real][None]) for row, real in zip(*prompts, strict=True)]
    else:
        prompts = [[prompt] for prompt in prompts]
    return [
        response_rows(greedy(model, single, steering, max_new_tokens=5)[0])[0] for single in prompts
    ]


@every_entry
@every_form
def test_cached_generation_equals_recomputation_and_a_batch_its_single_rows(
    entry: Entry, form: Any, model: Any
) -> None:
    prompts, steering = form(model), entry.build(model)
    cached, scores = greedy(model, prompts, steering, max_new_tokens=5)
    recomputed, again = greedy(model, prompts, steering, max_new_tokens=5, cache=False)
    assert_same_tokens(response_rows(cached), response_rows(recomputed), scores)
    assert_same_tokens(response_rows(cached), one_at_a_time(model, prompts, steering), scores)
    # Nor are the tokens equal because the steering did nothing.
    _, plain = greedy(model, prompts, max_new_tokens=1)
    assert float((plain[0] - scores[0]).abs().max()) > 0.01
    assert float((again[0] - scores[0]).abs().max()) < 1e-4


@every_entry
def test_bfloat16_steers_the_same_positions_and_its_logits_are_near(
    entry: Entry, model: Any, bfloat16_model: Any
) -> None:
    changed = [steered_positions(m, entry.build(m)) for m in (model, bfloat16_model)]
    assert changed[0] == changed[1]
    assert changed[0]
    fine, coarse = (forced_logits(m, entry.build(m)) for m in (model, bfloat16_model))
    spread = float(fine.std())
    assert float((fine - coarse).abs().mean()) < 0.05 * spread
    assert float((fine - coarse).abs().max()) < 0.4 * spread


def steered_positions(model: Any, steering: Steering) -> set[tuple[int, int]]:
    """(row, position) of the tokens whose activation the steering changes at its own site."""
    site = steering.sites[0]
    captured = [
        steerlens.capture(model, TEACHER, site, steering=steering, moment=moment)
        for moment in ("before", "after")
    ]
    differ = (captured[0].at(site) != captured[1].at(site)).any(dim=-1)
    found = captured[0].row[differ], captured[0].position[differ]
    return set(zip(*(numbers.tolist() for numbers in found), strict=True))


def forced_logits(model: Any, steering: Steering) -> torch.Tensor:
    """Next-token logits at every real token of fixed texts, in float32."""
    tokens, window = steerlens.batch(model, TEACHER)
    with steering.applied(model, window), torch.no_grad():
        return logits(model, tokens, window)[window.mask].float()


TEACHER = [
    Conversation("What is it?", "You are kind.", response=" It is a house by the sea."),
    Conversation("Who sat on the mat?", response=" The cat."),
]


# Degenerate activations -----------------------------------------------------------------------


def directions_of(steering: Any, added: torch.Tensor) -> list[torch.Tensor]:
    """The directions of a steering: rows of its tensors that are as wide as the residual stream.

    And what it adds on average, for a steering that keeps its numbers elsewhere.
    """
    wide = [tensor for tensor in tensors_in(steering) if tensor.shape[-1:] == (D_MODEL,)]
    found = [row.float() for tensor in wide for row in tensor.reshape(-1, D_MODEL)]
    return [v for v in (*found[:8], added.float().reshape(-1, D_MODEL).mean(dim=0)) if v.any()]


@every_entry
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_zero_activation_and_one_parallel_to_the_direction_give_finite_numbers(
    entry: Entry, dtype: torch.dtype, gpt2: Any
) -> None:
    tokens, window = padded(rows())
    steering, h = entry.build(gpt2), activations_of(tokens, dtype)
    directions = directions_of(steering, act(steering, gpt2, tokens, window, h) - h)
    assert directions
    degenerate = [torch.zeros(D_MODEL), *(s * v for v in directions for s in (1.0, -3.0, 1e-20))]
    for activation in degenerate:
        h = activation.to(dtype).expand(*tokens.shape, D_MODEL).contiguous()
        steered = act(steering, gpt2, tokens, window, h)
        assert bool(torch.isfinite(steered).all()), activation
        assert steered.dtype == dtype
