"""Steerings on a model: hooks that come and go, order, nesting, warnings, combinators, files."""

import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import CATALOGUE, LAYER, ByToken, Entry, cold_fd, first_positive, halved, random
from tiny_models import (
    BACKENDS,
    D_MODEL,
    N_LAYERS,
    PROMPTS,
    greedy,
    load,
    response_rows,
    write_folder,
)

import steerlens
from steerlens import (
    CAA,
    ActAdd,
    Chain,
    ColdFD,
    Conversation,
    Only,
    Scaled,
    Site,
    Steering,
    SteeringWarning,
    When,
    Window,
    at,
    capture,
)
from steerlens.combinators import bind
from steerlens.identity import is_bridge
from steerlens.runtime.forward import logits
from steerlens.saving import saveable

V = random(D_MODEL, seed=8)
U = random(D_MODEL, seed=9)


def pass_of(model: Any, prompts: Any = PROMPTS) -> tuple[torch.Tensor, Window]:
    return steerlens.batch(model, list(prompts))


def forward(model: Any, prompts: Any = PROMPTS) -> torch.Tensor:
    """Logits of one pass at every real token, under whatever hooks are on."""
    tokens, window = pass_of(model, prompts)
    with torch.no_grad():
        return logits(model, tokens, window)[window.mask]


def hook_counts(model: Any) -> int:
    return sum(len(point.fwd_hooks) for point in model.hook_dict.values())


def seen_at(model: Any, layer: int, steering: Any) -> torch.Tensor:
    return steerlens.capture(model, list(PROMPTS), layer, steering=steering).at(layer)


class Looks:
    """A steer that must see the run: `look` is shown each pass and says what to do in it."""

    needs_window = True
    needs_run = True

    def __init__(self, look: Callable[[Window], Any]) -> None:
        self.look = look

    def bind(self, window: Window) -> Any:
        return self.look(window)

    def __call__(self, activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        raise ValueError("Looks must see the run.")


# Hooks on a model -----------------------------------------------------------------------------


def test_applied_steers_every_pass_inside_and_none_after(model: Any) -> None:
    plain = forward(model)
    with at(1, CAA(V)).applied(model):
        first, second = forward(model), forward(model, PROMPTS[:2])
    assert float((first - plain).abs().max()) > 0.01
    assert float((second - forward(model, PROMPTS[:2])).abs().max()) > 0.01
    assert torch.equal(forward(model), plain)
    assert hook_counts(model) == 0


def test_plain_hooks_are_valid_fwd_hooks_of_transformer_lens(model: Any) -> None:
    steering = at(1, CAA(V)) + at(Site(2, "resid_pre"), halved)
    tokens, _ = pass_of(model, PROMPTS[:1])
    with torch.no_grad():
        ours = model.run_with_hooks(tokens, fwd_hooks=steering.hooks())
    with torch.no_grad(), steering.applied(model):
        assert torch.equal(model(tokens), ours)
        # Our own pass of a bridge gives attention its mask, and some machines then round otherwise.
        torch.testing.assert_close(forward(model, PROMPTS[:1]), ours[0], rtol=1e-4, atol=1e-4)
    assert [name for name, _ in steering.hooks()] == [
        "blocks.1.hook_resid_post",
        "blocks.2.hook_resid_pre",
    ]


def test_hooks_of_a_window_are_the_same_steering_for_one_pass(model: Any) -> None:
    steering = at(1, Only(CAA(V), steerlens.last))
    tokens, window = pass_of(model)
    with torch.no_grad(), model.hooks(fwd_hooks=steering.hooks(window)):
        by_hooks = logits(model, tokens, window)[window.mask]
    with steering.applied(model, window):
        assert torch.equal(forward(model), by_hooks)


def test_hooks_are_gone_after_an_exception_inside_the_block(model: Any) -> None:
    plain = forward(model)
    with pytest.raises(KeyError), at(1, CAA(V)).applied(model):
        raise KeyError
    assert hook_counts(model) == 0
    assert torch.equal(forward(model), plain)


def failing(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
    raise ArithmeticError("the steer failed")


def run_applied(model: Any, steering: Steering) -> None:
    with steering.applied(model):
        forward(model)


RUNS = {
    "applied": run_applied,
    "generate": lambda model, s: steerlens.generate(model, list(PROMPTS), s, max_new_tokens=2),
    "capture": lambda model, s: steerlens.capture(model, list(PROMPTS), 2, steering=s),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
def test_hooks_are_gone_after_an_exception_inside_a_steer(run: Any, model: Any) -> None:
    plain = forward(model)
    with pytest.raises(ArithmeticError, match="the steer failed"):
        run(model, at(1, failing))
    assert hook_counts(model) == 0
    assert torch.equal(forward(model), plain)


def test_a_steer_that_fails_in_a_later_pass_leaves_no_hooks(model: Any) -> None:
    def third_fails(window: Window) -> Any:
        assert window.context is not None
        passes = window.context.remembered("passes", list)
        passes.append(window)
        return CAA(V) if len(passes) < 3 else failing

    with pytest.raises(ArithmeticError):
        steerlens.generate(
            model, [PROMPTS[0]], at(1, Looks(third_fails)), max_new_tokens=5, stop_at_end=False
        )
    assert hook_counts(model) == 0


def test_nested_blocks_both_act_and_the_inner_one_ends_first(model: Any) -> None:
    outer, inner = at(1, CAA(V)), at(2, CAA(-V))
    with (outer + inner).applied(model):
        both = forward(model)
    with outer.applied(model):
        alone = forward(model)
    with outer.applied(model):
        with inner.applied(model):
            assert torch.equal(forward(model), both)
        assert torch.equal(forward(model), alone)
    assert float((both - alone).abs().max()) > 0.01


def test_nested_blocks_at_one_site_both_act_the_outer_first(model: Any) -> None:
    with (at(1, CAA(V)) + at(1, halved)).applied(model):
        expected = forward(model)
    with at(1, CAA(V)).applied(model), at(1, halved).applied(model):
        torch.testing.assert_close(forward(model), expected)


def test_steering_reaches_generation_and_capture_inside_a_block(model: Any) -> None:
    with at(1, CAA(V)).applied(model):
        outer, _ = greedy(model, [PROMPTS[0]], at(2, CAA(V)))
        inside = seen_at(model, 1, None)
    both, _ = greedy(model, [PROMPTS[0]], at(1, CAA(V)) + at(2, CAA(V)))
    assert response_rows(outer) == response_rows(both)
    torch.testing.assert_close(inside, seen_at(model, 1, at(1, CAA(V))))


def test_a_second_pass_under_one_window_is_refused(model: Any) -> None:
    _, window = pass_of(model)
    with at(1, CAA(V)).applied(model, window):
        forward(model)
        with pytest.raises(RuntimeError, match="A second forward pass ran inside"):
            forward(model)
    assert hook_counts(model) == 0


def test_a_pass_that_is_not_the_windows_is_refused(model: Any) -> None:
    _, window = pass_of(model)
    with (
        pytest.raises(ValueError, match="The window describes"),
        at(1, CAA(V)).applied(model, window),
    ):
        forward(model, PROMPTS[:2])


def test_a_positional_steering_without_a_window_is_refused_before_anything_runs(
    model: Any,
) -> None:
    for steer in (Only(CAA(V), steerlens.last), Scaled(Only(CAA(V), steerlens.last), 2.0)):
        with pytest.raises(ValueError, match="depends on positions"):
            at(1, steer).applied(model)
    with pytest.raises(ValueError, match=r"Only\(.* depends on positions"):
        Only(CAA(V), steerlens.last)(torch.zeros(1, 2, D_MODEL))


def test_two_steers_at_one_site_act_in_order(model: Any) -> None:
    plain = seen_at(model, 1, None)
    torch.testing.assert_close(
        seen_at(model, 1, at(1, CAA(V)) + at(1, halved)), (plain + V) / 2, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        seen_at(model, 1, at(1, halved) + at(1, CAA(V))), plain / 2 + V, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "bad",
    [
        lambda h, hook=None: h[:, :1],
        lambda h, hook=None: h.double(),
        lambda h, hook=None: None,
        lambda h, hook=None: 3,
    ],
)
def test_a_steer_that_returns_another_kind_of_tensor_is_refused(bad: Any, model: Any) -> None:
    for steer in (bad, Scaled(bad, 2.0), When(bad, first_positive)):
        with pytest.raises(ValueError, match="must return a tensor like the activation"):
            run_applied(model, at(1, steer))
        assert hook_counts(model) == 0


def test_a_condition_that_is_not_one_bool_a_token_is_refused(model: Any) -> None:
    with (
        pytest.raises(ValueError, match=r"one bool a token, torch\.bool \(\d+, \d+\);"),
        at(1, When(CAA(V), lambda h: h > 0)).applied(model),
    ):
        forward(model)


def test_a_hook_point_the_model_lacks_is_refused_by_name(model: Any) -> None:
    with (
        pytest.raises(ValueError, match=rf"layers, 0 to {N_LAYERS - 1}"),
        at(N_LAYERS, CAA(V)).applied(model),
    ):
        pass
    with pytest.raises(ValueError, match="does not have"):
        steerlens.generate(model, [PROMPTS[0]], at(N_LAYERS, CAA(V)), max_new_tokens=1)


def test_a_steer_of_another_width_is_refused_wherever_it_is_wrapped(model: Any) -> None:
    narrow = CAA(random(D_MODEL - 1))
    for steer in (
        narrow,
        Scaled(narrow, 2.0),
        Chain((halved, narrow)),
        Only(narrow, steerlens.last),
    ):
        with pytest.raises(ValueError, match=f"d_model {D_MODEL - 1}, this model has d_model"):
            steerlens.generate(model, [PROMPTS[0]], at(1, steer), max_new_tokens=1)


@pytest.mark.parametrize("run", ["applied", "hooks"])
def test_padding_keeps_its_activation_in_a_pass(run: str, model: Any) -> None:
    tokens, window = pass_of(model)
    seen: list[torch.Tensor] = []

    def keep(activation: torch.Tensor, hook: Any = None) -> None:
        seen.append(activation.clone())

    def steered() -> Any:
        if run == "applied":
            return at(1, CAA(V)).applied(model, window)
        return model.hooks(fwd_hooks=at(1, CAA(V)).hooks(window))

    keeping = [(Site(1).hook_name, keep)]
    with torch.no_grad(), model.hooks(fwd_hooks=keeping):
        logits(model, tokens, window)
    with torch.no_grad(), steered(), model.hooks(fwd_hooks=keeping):
        logits(model, tokens, window)
    plain, after = seen
    assert torch.equal(after[~window.mask], plain[~window.mask])
    assert (after[window.mask] != plain[window.mask]).any(dim=1).all()


# Warnings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steer", "message"),
    [
        (CAA(torch.zeros(D_MODEL)), "returned activations as they came"),
        (Only(CAA(V), steerlens.positions(50, 60)), r"scope `positions\(50, 60\)` met no token"),
        (When(CAA(V), lambda h: h[..., 0] > 1e9), r"its gate <function .*> never opened"),
        (Chain((Only(CAA(V), steerlens.generated),)), "scope `generated` met no token"),
    ],
)
def test_a_steering_that_did_nothing_warns_and_says_why(
    steer: Any, message: str, model: Any
) -> None:
    _, window = pass_of(model)
    with (
        pytest.warns(SteeringWarning, match=f"{type(steer).__name__} at layer 1.*{message}"),
        at(1, steer).applied(model, window),
    ):
        forward(model)
    with pytest.warns(SteeringWarning, match=message):
        steerlens.generate(model, list(PROMPTS), at(1, steer), max_new_tokens=1)
    with pytest.warns(SteeringWarning, match=message):
        steerlens.capture(model, list(PROMPTS), 2, steering=at(1, steer))


def test_one_idle_steer_among_working_ones_is_named_alone(model: Any) -> None:
    steering = at(1, CAA(V)) + at(2, Only(CAA(V), steerlens.positions(70, 80)))
    with pytest.warns(SteeringWarning, match="layer 2") as caught:
        steerlens.generate(model, list(PROMPTS), steering, max_new_tokens=1)
    assert len(caught) == 1


def test_strength_0_does_not_warn(model: Any) -> None:
    for steer in (Scaled(CAA(V), 0.0), Scaled(Only(CAA(V), steerlens.positions(70, 80)), 0.0)):
        steerlens.generate(model, list(PROMPTS), at(1, steer), max_new_tokens=1)
    with at(1, CAA(V)).scaled(0.0).applied(model):
        forward(model)


def fail_after(model: Any, steering: Steering) -> None:
    with steering.applied(model):
        forward(model)
        raise KeyError


def test_no_warning_hides_an_exception_that_is_under_way(model: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(KeyError):
            fail_after(model, at(1, CAA(torch.zeros(D_MODEL))))
    assert not [w for w in caught if issubclass(w.category, SteeringWarning)]


def test_a_steer_that_saw_the_tokens_and_did_nothing_warns(model: Any) -> None:
    idle = at(LAYER, ByToken(torch.zeros(D_MODEL)))
    with pytest.warns(SteeringWarning, match="ByToken at layer 1 .*changed no activation"):
        steerlens.generate(model, [PROMPTS[0]], idle, max_new_tokens=3)


def test_a_steer_that_acted_in_its_first_pass_only_does_not_warn(model: Any) -> None:
    steering = at(LAYER, ByToken(V)).only(steerlens.prompt)
    steerlens.generate(model, list(PROMPTS), steering, max_new_tokens=3, stop_at_end=False)


def test_the_reason_is_drawn_from_all_batches(model: Any) -> None:
    """Only the second prompt is long enough for the scope; its direction is what is idle."""
    steering = at(1, Only(CAA(torch.zeros(D_MODEL)), steerlens.positions(12, 13)))
    with pytest.warns(SteeringWarning, match="returned activations as they came"):
        steerlens.generate(model, list(PROMPTS[:2]), steering, max_new_tokens=1, batch_size=1)


def failing_on_long_passes(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
    if activation.shape[1] > 5:
        raise ArithmeticError("the steer failed")
    return activation / 2


def test_no_warning_hides_an_exception_in_a_later_batch(model: Any) -> None:
    steering = at(1, CAA(torch.zeros(D_MODEL))) + at(2, failing_on_long_passes)
    with pytest.raises(ArithmeticError):
        steerlens.generate(model, list(PROMPTS[:2]), steering, max_new_tokens=1, batch_size=1)


# Values and their algebra ---------------------------------------------------------------------


def test_a_bare_layer_is_its_resid_post() -> None:
    assert at(3, CAA(V)).sites == (Site(3, "resid_post"),)
    assert Site(3).hook_name == "blocks.3.hook_resid_post"
    assert Site(0, "attn_out").hook_name == "blocks.0.hook_attn_out"


@pytest.mark.parametrize("layer", [1.5, True])
def test_a_layer_is_a_whole_number(layer: Any, unchecked: Any) -> None:
    with pytest.raises(ValueError, match="counting from 0"):
        Site(layer)


def test_sites_are_listed_once_in_order_of_placement() -> None:
    steering = at(3, CAA(V)) + at(1, CAA(V)) + at(3, halved)
    assert steering.sites == (Site(3), Site(1))
    assert len(steering.placed) == 3


def test_what_holds_no_steer_is_refused() -> None:
    with pytest.raises(ValueError, match="steers nothing"):
        Steering(())
    with pytest.raises(ValueError, match="holds no steer"):
        Chain(())


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_a_strength_that_is_no_number_is_refused(strength: float) -> None:
    for scaled in (
        lambda: Scaled(CAA(V), strength),
        lambda: at(1, CAA(V)).scaled(strength),
        lambda: steerlens.scaled(at(1, ByToken(V)), strength),
        lambda: strength * at(1, CAA(V)),
    ):
        with pytest.raises(ValueError, match="strength must be a finite number"):
            scaled()


def test_scaled_and_only_on_a_steering_wrap_every_steer(model: Any) -> None:
    pair = at(1, CAA(V)) + at(2, CAA(-V))
    both = pair.scaled(0.5).only(steerlens.last)
    by_hand = at(1, Only(Scaled(CAA(V), 0.5), steerlens.last)) + at(
        2, Only(Scaled(CAA(-V), 0.5), steerlens.last)
    )
    assert torch.equal(seen_at(model, 3, both), seen_at(model, 3, by_hand))
    assert torch.equal(
        seen_at(model, 3, both),
        seen_at(model, 3, steerlens.only(steerlens.scaled(pair, 0.5), steerlens.last)),
    )
    assert not torch.equal(seen_at(model, 3, both), seen_at(model, 3, pair))


def test_wrapping_twice_multiplies_strengths_and_intersects_scopes(model: Any) -> None:
    twice = at(1, Scaled(Scaled(CAA(V), 3.0), 0.5))
    torch.testing.assert_close(
        seen_at(model, 1, twice), seen_at(model, 1, at(1, Scaled(CAA(V), 1.5))), rtol=0, atol=1e-5
    )
    narrow = at(1, Only(Only(CAA(V), steerlens.positions(0, 3)), steerlens.positions(2, 9)))
    assert torch.equal(
        seen_at(model, 1, narrow), seen_at(model, 1, at(1, Only(CAA(V), steerlens.positions(2, 3))))
    )


def test_a_chain_is_the_sum_of_steerings_at_its_site(model: Any) -> None:
    chain = at(1, Chain((CAA(V), halved, Only(CAA(V), steerlens.last))))
    pieces = at(1, CAA(V)) + at(1, halved) + at(1, Only(CAA(V), steerlens.last))
    assert torch.equal(seen_at(model, 2, chain), seen_at(model, 2, pieces))


def test_a_gate_looks_at_the_activation_it_is_given(model: Any) -> None:
    plain = seen_at(model, 1, None)
    steered = seen_at(model, 1, at(1, When(CAA(V), first_positive)))
    changed = (plain != steered).any(dim=1)
    assert torch.equal(changed, plain[:, 0] > 0)
    assert changed.any()
    assert not changed.all()


def test_a_gate_inside_a_chain_sees_what_the_steers_before_it_did(model: Any) -> None:
    push = torch.zeros(D_MODEL)
    push[0] = 1e3
    opened = seen_at(model, 1, at(1, Chain((CAA(push), When(CAA(V), first_positive)))))
    torch.testing.assert_close(opened, seen_at(model, 1, None) + push + V, rtol=0, atol=1e-3)


# The algebra of steerings -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "strength"),
    [
        (lambda s: 2.0 * s, 2.0),
        (lambda s: s * 2.0, 2.0),
        (lambda s: np.float64(2) * s, 2.0),
        (lambda s: s * np.float64(2), 2.0),
        (lambda s: -s, -1.0),
        (lambda s: s.scaled(0.5), 0.5),
        (lambda s: steerlens.scaled(s, 0.5), 0.5),
    ],
)
def test_a_number_times_a_steering_is_it_at_that_strength(
    made: Callable[[Steering], Any], strength: float
) -> None:
    steering = with_origin(at(1, CAA(V)) + at(2, ByToken(U)))
    scaled = made(steering)
    assert type(scaled) is Steering
    assert scaled.origin is steering.origin
    assert scaled.sites == steering.sites
    for (_, wrapped), (_, steer) in zip(scaled.placed, steering.placed, strict=True):
        assert (type(wrapped), type(wrapped.strength)) == (Scaled, float)
        assert (wrapped.steer, wrapped.strength) == (steer, strength)


def with_origin(steering: Steering) -> Steering:
    """The same steering with an origin, so that what loses it is seen."""
    from steerlens.identity import ModelIdentity, Origin

    return Steering(steering.placed, Origin(ModelIdentity("a", 4, D_MODEL, "none"), seed=3))


def test_whole_numbers_and_numpys_are_strengths_too(unchecked: Any) -> None:
    for number in (2, np.int64(2), np.float32(2)):
        for product in (number * at(1, CAA(V)), at(1, CAA(V)) * number):
            assert type(product) is Steering
            ((_, steer),) = product.placed
            assert steer.strength == 2.0


@pytest.mark.parametrize(
    "product",
    [
        lambda s: "2" * s,
        lambda s: s * "2",
        lambda s: s * True,
        lambda s: True * s,
        lambda s: s * None,
        lambda s: s * s,
        lambda s: s * torch.ones(3),
        lambda s: s * np.ones(2),
        lambda s: np.ones(2) * s,
    ],
)
def test_what_is_no_number_is_no_strength(product: Any, unchecked: Any) -> None:
    with pytest.raises(TypeError, match=r"A strength is a number: 2\.0 \* steering"):
        product(at(1, CAA(V)))


def test_a_difference_is_a_sum_with_the_other_reversed(model: Any) -> None:
    first, second = at(1, CAA(V)), at(1, CAA(U)) + at(2, halved)
    assert type(first - second) is Steering
    found = seen_at(model, 2, first - second)
    assert torch.equal(found, seen_at(model, 2, first + second.scaled(-1.0)))
    assert not torch.equal(found, seen_at(model, 2, second - first))
    with pytest.raises(TypeError, match="was to be added to a int"):
        first - 5


def test_a_sum_of_a_list_is_all_of_them_in_order(model: Any) -> None:
    one, two, three = at(1, CAA(V)), at(1, halved), at(2, CAA(U))
    total: Any = sum([one, two, three])
    assert type(total) is Steering
    assert total.placed == (one + two + three).placed
    assert sum([one]) is one


class HasSteering:
    """As a fit has one."""

    steering = at(1, CAA(V))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (5, r"to a int\. For another strength write 5 \* steering"),
        (0.0, r"to a float\. For another strength write 0\.0 \* steering"),
        (None, r"to a NoneType\. Add a steering to a steering, as in caa \+ act_add"),
        ("caa", r"to a str\. Add a steering to a steering"),
        (CAA(V), r"to a CAA\. Say where it acts: at\(6, steer\)"),
        (halved, r"to a function\. Say where it acts: at\(6, steer\)"),
        (HasSteering(), r"to a HasSteering\. Add its steering: fit\.steering"),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("swapped", [False, True], ids=["after", "before"])
def test_only_steerings_add_up(other: Any, message: str, swapped: bool) -> None:
    sides = (other, at(1, CAA(V))) if swapped else (at(1, CAA(V)), other)
    with pytest.raises(TypeError, match=f"A Steering was to be added {message}"):
        operator.add(*sides)


def test_nothing_but_the_zero_of_sum_is_left_out() -> None:
    steering = at(1, CAA(V))
    assert 0 + steering is steering
    with pytest.raises(TypeError, match="For another strength"):
        steering + 0


def test_one_steer_is_placed_at_each_of_several_sites() -> None:
    steer = CAA(V)
    listed = at([2, Site(3, "attn_out"), 2], steer)
    assert listed.sites == (Site(2), Site(3, "attn_out"))
    assert all(placed is steer for _, placed in listed.placed)
    assert at((1,), steer).sites == (Site(1),)
    with pytest.raises(ValueError, match="No sites were given"):
        at([], steer)


def test_a_whole_number_of_numpy_is_a_layer(unchecked: Any) -> None:
    found = at(np.int64(2), CAA(V)).sites
    assert found == (Site(2),)
    assert type(found[0].layer) is int
    assert at(list(np.arange(2)), CAA(V)).sites == (Site(0), Site(1))


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_to_moves_every_tensor_and_nothing_else(device: str) -> None:
    shared = CAA(V)
    origin = with_origin(at(1, shared)).origin
    chain = Chain((shared, halved, ActAdd(random(2, D_MODEL))))
    steering = Steering(
        (
            (Site(1), Scaled(Only(chain, steerlens.last), 0.5)),
            (Site(2), When(CAA(V), first_positive)),
            (Site(3), steerlens.PSR(random(3, D_MODEL), torch.ones(3), random(3, D_MODEL))),
        ),
        origin,
    )
    moved = steering.to(device)
    assert type(moved) is Steering
    assert moved.origin is origin
    assert moved.sites == steering.sites
    before, after = tensors_of(steering.placed), tensors_of(moved.placed)
    assert len(before) == 6
    assert {tensor.device.type for tensor in after} == {device}
    assert [tensor.shape for tensor in after] == [tensor.shape for tensor in before]
    if device == "cpu":
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    else:
        # Where they stood twice they are still one; the steering itself stays where it was.
        assert after[0] is after[2]
        assert {tensor.device.type for tensor in before} == {"cpu"}
    wrapped = moved.placed[0][1].steer
    assert (wrapped.scope, wrapped.steer.steers[1]) == (steerlens.last, halved)
    assert moved.placed[1][1].condition is first_positive


def tensors_of(value: Any) -> list[torch.Tensor]:
    """Every tensor in a tree of steers, in order, as often as it stands there."""
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value if isinstance(value, tuple) else vars(value).values() if is_steer(value) else ()
    return [tensor for part in inner for tensor in tensors_of(part)]


def is_steer(value: Any) -> bool:
    return hasattr(value, "__dataclass_fields__") and not isinstance(value, type)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_catalogued_steering_moves(name: str, gpt2: Any) -> None:
    steering = CATALOGUE[name].build(gpt2)
    moved = steering.to("meta")
    assert moved.sites == steering.sites
    before, after = tensors_of(steering.placed), tensors_of(moved.placed)
    assert [tensor.shape for tensor in after] == [tensor.shape for tensor in before]
    assert all(tensor.is_meta for tensor in after)


def test_a_moved_steering_steers_alike_and_its_file_is_the_same(gpt2: Any, tmp_path: Path) -> None:
    steering = cold_fd(gpt2) + at(LAYER, CAA(V)) + at(2, CAA(V))
    moved = steering.to("cpu")
    assert torch.equal(seen_at(gpt2, 2, moved), seen_at(gpt2, 2, steering))
    files = [s.save(tmp_path / f"{n}.st") for n, s in enumerate((steering, moved))]
    assert files[0].read_bytes() == files[1].read_bytes()


# Steers that must see the run -------------------------------------------------------------------


def test_such_a_steer_is_bound_once_a_pass_and_remembers_for_one_batch(model: Any) -> None:
    log: list[Any] = []

    def look(window: Window) -> Any:
        context = window.context
        assert context is not None
        assert context.model is model
        context.remembered("start", lambda: log.append(("start", len(context.tokens))))
        log.append((tuple(context.tokens.shape), window.first.tolist()))
        return CAA(V)

    steering = at(1, Looks(look))
    assert (steering.needs_run, steering.positional) == (True, True)
    assert not at(1, CAA(V)).needs_run
    steerlens.generate(
        model, list(PROMPTS[:3]), steering, max_new_tokens=3, batch_size=2, stop_at_end=False
    )
    assert log == [
        ("start", 2),
        ((2, 13), [0, 0]),
        ((2, 1), [4, 13]),
        ((2, 1), [5, 14]),
        ("start", 1),
        ((1, 12), [0]),
        ((1, 1), [12]),
        ((1, 1), [13]),
    ]


def test_it_sees_the_tokens_that_the_pass_holds(model: Any) -> None:
    seen: list[list[int]] = []

    def look(window: Window) -> Any:
        assert window.context is not None
        seen.append(window.context.tokens[0].tolist())
        return CAA(V)

    written, _ = greedy(model, [PROMPTS[0]], at(1, Looks(look)), max_new_tokens=4)
    assert seen[0] == list(steerlens.encode(model, PROMPTS[0]).ids)
    assert [step[0] for step in seen[1:]] == list(written.response_ids(0)[:3])


def test_what_belongs_to_one_pass_is_new_in_each_and_shared_within_it(model: Any) -> None:
    seen: list[Any] = []

    def look(window: Window) -> Any:
        context = window.context
        assert context is not None
        seen.append((dict(context.this_pass), dict(context.memory)))
        context.this_pass[len(seen)] = context.memory[len(seen)] = True
        return CAA(V)

    pair = at(1, Looks(look)) + at(2, Looks(look))
    steerlens.generate(model, [PROMPTS[0]], pair, max_new_tokens=2, stop_at_end=False)
    assert seen == [
        ({}, {}),
        ({1: True}, {1: True}),
        ({}, {1: True, 2: True}),
        ({3: True}, {1: True, 2: True, 3: True}),
    ]


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: s.scaled(0.5).only(steerlens.response)])
def test_alone_is_the_one_steer_of_a_pass_out_of_its_wrappers(wrap: Any, gpt2: Any) -> None:
    seen: list[object] = []

    def look(window: Window) -> Any:
        assert window.context is not None
        seen.append(window.context.alone)
        return CAA(V)

    steer = Looks(look)
    chain = Chain((steer,))
    for steering in (at(1, steer), at(1, chain), at(1, steer) + at(2, CAA(V))):
        steerlens.capture(gpt2, [PROMPTS[0]], 1, steering=wrap(steering))
        tokens, window = pass_of(gpt2, PROMPTS[:1])
        with wrap(steering).applied(gpt2, window), torch.no_grad():
            logits(gpt2, tokens, window)
    # Inside `applied` nobody is told so: another `with` block may follow.
    assert seen == [steer, None, chain, None, None, None]


def test_a_step_may_run_the_model_and_finds_nothing_of_ours_on_it(model: Any) -> None:
    hooks: list[int] = []

    def look(window: Window) -> Any:
        context = window.context
        assert context is not None
        hooks.append(hook_counts(model))
        with torch.no_grad():
            context.model(context.tokens)
        return CAA(V)

    asking = at(1, Looks(look)) + at(2, CAA(U)) + at(2, Looks(look))
    plain = at(1, CAA(V)) + at(2, CAA(U)) + at(2, CAA(V))
    found, _ = greedy(model, list(PROMPTS[:2]), asking, max_new_tokens=3)
    fixed, _ = greedy(model, list(PROMPTS[:2]), plain, max_new_tokens=3)
    assert response_rows(found) == response_rows(fixed)
    assert hooks == [0] * 6
    assert torch.equal(seen_at(model, 3, asking), seen_at(model, 3, plain))


def test_between_two_streamed_pieces_nothing_of_it_is_on_the_model(model: Any) -> None:
    steering = at(LAYER, ByToken(5 * V)) + at(2, CAA(V))
    tokens = []
    pieces = steerlens.stream(model, PROMPTS[0], steering, max_new_tokens=4, temperature=0.0)
    for piece in pieces:
        assert hook_counts(model) == 0
        tokens.append(piece.token)
    whole = steerlens.generate(model, PROMPTS[0], steering, max_new_tokens=4, temperature=0.0)
    assert tuple(tokens) == whole.response_ids(0)


def test_a_fixed_steer_that_it_binds_to_gives_the_same_tokens(model: Any) -> None:
    inner = Only(CAA(V), steerlens.response)
    fixed, _ = greedy(model, list(PROMPTS), at(1, Looks(lambda window: bind(inner, window))))
    plain, _ = greedy(model, list(PROMPTS), at(1, inner))
    assert response_rows(fixed) == response_rows(plain)


def test_it_adds_in_order_from_either_side(model: Any) -> None:
    h = seen_at(model, LAYER, None)
    by_token = at(LAYER, ByToken(V))
    toy = seen_at(model, LAYER, by_token) - h
    assert float(toy.abs().max()) > 0.1
    before, after = at(LAYER, halved) + by_token, by_token + at(LAYER, halved)
    torch.testing.assert_close(seen_at(model, LAYER, before), h / 2 + toy, rtol=0, atol=1e-5)
    torch.testing.assert_close(seen_at(model, LAYER, after), (h + toy) / 2, rtol=0, atol=1e-5)
    pair = (at(LAYER, halved) + at(LAYER, CAA(V))) + by_token
    torch.testing.assert_close(seen_at(model, LAYER, pair), h / 2 + V + toy, rtol=0, atol=1e-5)
    three = before + at(LAYER, CAA(V))
    torch.testing.assert_close(seen_at(model, LAYER, three), h / 2 + toy + V, rtol=0, atol=1e-5)
    scaled = steerlens.scaled(by_token, 2.0) + at(LAYER, halved)
    torch.testing.assert_close(seen_at(model, LAYER, scaled), (h + 2 * toy) / 2, rtol=0, atol=1e-5)
    chain = at(LAYER, Chain((halved, ByToken(V))))
    assert torch.equal(seen_at(model, LAYER, chain), seen_at(model, LAYER, before))


def test_two_in_one_steering_share_nothing(model: Any) -> None:
    h = seen_at(model, LAYER, None)
    first, second = at(LAYER, ByToken(V)), at(LAYER, ByToken(U))
    changes = [seen_at(model, LAYER, each) - h for each in (first, second)]
    pair = first + second
    torch.testing.assert_close(seen_at(model, LAYER, pair), h + sum(changes), rtol=0, atol=1e-5)
    # With a cache each must go on from its own sum: without one there is nothing to mix up.
    cached, scores = greedy(model, list(PROMPTS), pair, max_new_tokens=4)
    whole, again = greedy(model, list(PROMPTS), pair, max_new_tokens=4, cache=False)
    assert response_rows(cached) == response_rows(whole)
    torch.testing.assert_close(torch.stack(scores), torch.stack(again), rtol=0, atol=1e-3)


def test_only_and_scaled_reach_inside_it(model: Any) -> None:
    by_token = at(LAYER, ByToken(V))
    steering = steerlens.only(steerlens.scaled(by_token, 2.0), steerlens.last)
    h = steerlens.capture(model, list(PROMPTS), LAYER)
    toy = seen_at(model, LAYER, by_token) - h.at(LAYER)
    found = seen_at(model, LAYER, steering) - h.at(LAYER)
    lengths = torch.tensor([len(steerlens.encode(model, prompt).ids) for prompt in PROMPTS])
    is_last = h.position == lengths[h.row] - 1
    torch.testing.assert_close(found[is_last], 2 * toy[is_last], rtol=0, atol=1e-5)
    assert not found[~is_last].any()


def test_hooks_and_a_block_with_a_window_show_it_the_tokens(model: Any) -> None:
    steering = at(LAYER, ByToken(V)).scaled(2.0) + at(2, CAA(U))
    tokens, window = pass_of(model)
    expected = seen_at(model, 3, steering)
    seen: list[torch.Tensor] = []
    keeping = [(Site(3).hook_name, lambda h, hook: seen.append(h[window.mask]))]
    with torch.no_grad(), model.hooks(fwd_hooks=[*steering.hooks(window), *keeping]):
        logits(model, tokens, window)
    with torch.no_grad(), steering.applied(model, window), model.hooks(fwd_hooks=keeping):
        logits(model, tokens, window)
    order = torch.arange(len(PROMPTS)).repeat_interleave(window.mask.sum(dim=1))
    assert torch.equal(order, steerlens.capture(model, list(PROMPTS), 3).row)
    for found in seen:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"ByToken at layer 1 .*depends on positions"):
        at(LAYER, ByToken(V)).hooks()


def test_a_window_of_a_later_pass_forgets_the_run(gpt2: Any) -> None:
    tokens, window = pass_of(gpt2)
    assert window.context is not None
    assert window.context.model is gpt2
    assert torch.equal(window.context.tokens, tokens)
    for later in (window.next(), window.next(3), window.extended(), window.extended(2)):
        assert later.context is None


def test_it_is_not_bound_where_its_scope_is_over(gpt2: Any) -> None:
    passes: list[tuple[int, ...]] = []

    def look(window: Window) -> Any:
        passes.append(tuple(window.mask.shape))
        return CAA(V)

    for scope, n in (
        (steerlens.prompt, 1),
        (steerlens.positions(0, 5), 2),
        (steerlens.response, 4),
    ):
        passes.clear()
        steering = at(1, Looks(look)).only(scope)
        steerlens.generate(gpt2, [PROMPTS[0]], steering, max_new_tokens=4, stop_at_end=False)
        assert len(passes) == n, scope


# COLD-FD as one of them -------------------------------------------------------------------------


@saveable
@dataclass(frozen=True, eq=False)
class Reversed:
    """A user's own wrapper: h - (steer(h) - h)."""

    steer: Any

    def bind(self, window: Window) -> "Reversed":
        return Reversed(bind(self.steer, window))

    def __call__(self, activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        return 2 * activation - self.steer(activation, hook)


@pytest.fixture(scope="module", params=BACKENDS)
def exact(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Any:
    """A GPT-2 in float64."""
    return load(folders["gpt2"], request.param, torch.float64)


def test_in_a_chain_or_a_wrapper_the_derivative_is_that_of_the_unsteered_model(exact: Any) -> None:
    """Were the steered pass shared, its derivative would go through what acts before COLD-FD."""
    h = seen_at(exact, LAYER, None)
    cold = cold_fd(exact)
    ((_, steer),) = cold.placed
    move = seen_at(exact, LAYER, cold) - h
    assert float(move.abs().max()) > 1e-4
    ways = {
        "placed": at(LAYER, CAA(V)) + at(LAYER, halved) + cold,
        "chain": at(LAYER, Chain((CAA(V), halved, steer))),
        "in two": at(LAYER, Chain((CAA(V), halved))) + cold,
    }
    for name, steering in ways.items():
        found = seen_at(exact, LAYER, steering)
        torch.testing.assert_close(found, (h + V) / 2 + move, rtol=0, atol=1e-9, msg=name)
    pair = at(LAYER, CAA(V)) + cold
    chain = at(LAYER, Chain((CAA(V), steer)))
    for steering in (pair, chain):
        torch.testing.assert_close(seen_at(exact, LAYER, steering), h + V + move, rtol=0, atol=1e-9)
    wrapped = seen_at(exact, LAYER, at(LAYER, Reversed(Chain((halved, steer)))))
    torch.testing.assert_close(wrapped, 2 * h - (h / 2 + move), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        seen_at(exact, LAYER, at(LAYER, Reversed(steer))), h - move, rtol=0, atol=1e-9
    )


def test_below_another_steer_or_above_it_the_derivative_is_that_of_the_unsteered_model(
    exact: Any,
) -> None:
    cold = cold_fd(exact)
    move = seen_at(exact, LAYER, cold) - seen_at(exact, LAYER, None)
    under = at(0, halved)
    for pair in (under + cold, cold + under):
        found = seen_at(exact, LAYER, pair) - seen_at(exact, LAYER, under)
        torch.testing.assert_close(found, move, rtol=0, atol=1e-9)


def test_its_sites_are_those_that_it_was_fitted_at(gpt2: Any) -> None:
    pair = ([Conversation("I", response=" love")], [Conversation("I", response=" hate")])
    assert ColdFD.fit(gpt2, pair, 3).steering.sites == (Site(3),)
    fit = ColdFD.fit(gpt2, pair, [3, Site(1, "resid_pre")])
    assert fit.steering.sites == (Site(1, "resid_pre"), Site(3)) == tuple(fit.steers)


def test_cold_and_caa_together_are_scaled_limited_hooked_and_saved(
    gpt2: Any, tmp_path: Path
) -> None:
    both = (cold_fd(gpt2) + at(LAYER, CAA(V))).scaled(2.0).only(steerlens.prompt)
    assert type(both) is Steering
    h = seen_at(gpt2, LAYER, None)
    move = seen_at(gpt2, LAYER, cold_fd(gpt2)) - h
    found = seen_at(gpt2, LAYER, both)
    torch.testing.assert_close(found, h + 2 * move + 2 * V, rtol=0, atol=1e-4)
    loaded = steerlens.load_steering(both.save(tmp_path / "both.st", gpt2), gpt2)
    assert torch.equal(seen_at(gpt2, LAYER, loaded), found)
    assert loaded.origin == both.origin == cold_fd(gpt2).origin
    tokens, window = pass_of(gpt2)
    seen: list[torch.Tensor] = []
    keeping = [(Site(LAYER).hook_name, lambda h, hook: seen.append(h[window.mask]))]
    with torch.no_grad(), gpt2.hooks(fwd_hooks=[*both.hooks(window), *keeping]):
        logits(gpt2, tokens, window)
    torch.testing.assert_close(seen[0], found, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: s.scaled(2.0), lambda s: s + at(2, halved)]
)
def test_its_hooks_and_its_block_are_the_capture_under_it(wrap: Any, exact: Any) -> None:
    steering = wrap(cold_fd(exact))
    tokens, window = pass_of(exact)
    expected = seen_at(exact, 3, steering)
    seen: list[torch.Tensor] = []
    keeping = [(Site(3).hook_name, lambda h, hook: seen.append(h[window.mask]))]
    hooks = steering.hooks(window)
    with torch.no_grad(), exact.hooks(fwd_hooks=[*hooks, *keeping]):
        logits(exact, tokens, window)
    with torch.no_grad(), steering.applied(exact, window), exact.hooks(fwd_hooks=keeping):
        logits(exact, tokens, window)
    assert len(seen) == 2
    for found in seen:
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert hook_counts(exact) == 0


@pytest.mark.parametrize("use", ["hooks", "applied"])
def test_a_window_serves_twice_and_remembers_nothing_of_the_first_time(
    use: str, exact: Any
) -> None:
    """Between the uses the model gets another hook, which is in the derivative then."""
    steering = cold_fd(exact) + at(2, CAA(V))
    seen: list[torch.Tensor] = []

    def run(window: Window) -> torch.Tensor:
        tokens = pass_of(exact)[0]
        block = (
            steering.applied(exact, window)
            if use == "applied"
            else exact.hooks(fwd_hooks=steering.hooks(window))
        )
        keeping = [(Site(LAYER).hook_name, lambda h, hook: seen.append(h[window.mask]))]
        with torch.no_grad(), block, exact.hooks(fwd_hooks=keeping):
            logits(exact, tokens, window)
        return seen[-1]

    window, new = pass_of(exact)[1], pass_of(exact)[1]
    first = run(window)
    with at(0, halved).applied(exact):
        again, expected = run(window), run(new)
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(run(window), first, rtol=0, atol=1e-12)
    assert new.context is not None
    assert not (new.context.memory)
    assert not (new.context.this_pass)
    assert not (new.context.around)


def test_the_model_of_a_block_is_the_one_that_is_steered(gpt2: Any, exact: Any) -> None:
    models: list[Any] = []

    def look(window: Window) -> Any:
        assert window.context is not None
        models.append(window.context.model)
        return CAA(V)

    tokens, window = pass_of(gpt2)
    with at(1, Looks(look)).applied(exact, window), torch.no_grad():
        logits(exact, tokens, window)
    assert models == [exact]


def test_a_window_that_does_not_know_the_tokens_is_refused_with_advice(gpt2: Any) -> None:
    _, window = pass_of(gpt2)
    for unknown in (window.next(), Window.of(window.mask)):
        for call in (
            lambda unknown=unknown: cold_fd(gpt2).hooks(unknown),
            lambda unknown=unknown: cold_fd(gpt2).applied(gpt2, unknown).__enter__(),
        ):
            with pytest.raises(ValueError, match=r"does not know them.*steerlens\.batch\(model"):
                call()
    with pytest.raises(ValueError, match=r"ColdFD at layer 1 .*depends on positions"):
        cold_fd(gpt2).applied(gpt2)
    assert hook_counts(gpt2) == 0


# Files ----------------------------------------------------------------------------------------

UNSAVEABLE = {
    "Chain",
    "When",
    "When, of a scope",
    "a steer that sees the tokens after a steering",
}  # plain functions inside


# A gradient is kept under the names of one backend's parameters: test_cold has its error.
ELSEWHERE = [
    name for name in CATALOGUE if name not in UNSAVEABLE and CATALOGUE[name].covers != "ColdFD"
]


@pytest.mark.parametrize("entry", [CATALOGUE[name] for name in ELSEWHERE], ids=ELSEWHERE)
def test_a_file_saved_on_one_backend_steers_the_other_alike(
    entry: Entry, both_backends: tuple[Any, Any], tmp_path: Path
) -> None:
    first, second = both_backends
    steering = entry.build(first)
    path = steering.save(tmp_path / "steering.safetensors", first)
    loaded = steerlens.load_steering(path, second)
    ours, scores = greedy(first, list(PROMPTS), steering, max_new_tokens=4)
    theirs, again = greedy(second, list(PROMPTS), loaded, max_new_tokens=4)
    assert response_rows(ours) == response_rows(theirs)
    torch.testing.assert_close(scores[0], again[0], rtol=0, atol=1e-4)


def test_a_fitted_steering_keeps_its_origin_through_a_file(
    both_backends: tuple[Any, Any], tmp_path: Path
) -> None:
    first, second = both_backends
    fitted = ActAdd.fit(first, ("I love", "I hate"), 1).steering
    loaded = steerlens.load_steering(fitted.save(tmp_path / "a.safetensors"), second)
    assert isinstance(loaded, Steering)
    assert loaded.origin == fitted.origin
    other = CAA.from_prompts(second, ["I love you"], ["I hate you"], 1)
    assert len((loaded + other).placed) == 2


def test_a_steering_of_another_model_is_refused(
    model: Any, kind: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = CAA.from_prompts(model, ["I love you"], ["I hate you"], 1).save(tmp_path / "a.st")
    folder = write_folder(tmp_path_factory.mktemp("other"), kind.architecture, seed=1)
    other = load(folder, kind.backend)
    with pytest.raises(ValueError, match="is a steering for another model"):
        steerlens.load_steering(path, other)
    stranger = CAA.from_prompts(other, ["I love you"], ["I hate you"], 1)
    with pytest.raises(ValueError, match="fitted on different models"):
        stranger + steerlens.load_steering(path, model)
    with pytest.raises(ValueError, match="fitted on another model"):
        stranger.save(tmp_path / "b.st", model)


def test_a_plain_function_cannot_be_saved_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    with pytest.raises(ValueError, match="cannot be saved"):
        at(1, halved).save(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stream", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"])
def test_what_is_written_at_a_stream_does_the_same_on_both_backends(
    stream: Any, both_backends: tuple[Any, Any]
) -> None:
    """`resid_mid` of a bridge is refused: there a steer would only reach the MLP."""
    steering = at(
        Site(1, stream), CAA(3 * torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0)))
    )
    found = []
    for model in both_backends:
        if stream == "resid_mid" and is_bridge(model):
            with pytest.raises(ValueError, match=r'Steer Site\(1, "attn_out"\)'):
                capture(model, ["The dog ran"], 3, steering=steering)
            found.append(
                capture(
                    model,
                    ["The dog ran"],
                    3,
                    steering=at(Site(1, "attn_out"), steering.placed[0][1]),
                ).at(3)
            )
        else:
            found.append(capture(model, ["The dog ran"], 3, steering=steering).at(3))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-3)
    plain = capture(both_backends[0], ["The dog ran"], 3).at(3)
    assert not torch.allclose(plain, found[0], atol=0.1)


@pytest.mark.parametrize("mode", ["jvp", "fd"])
def test_two_steerings_applied_one_inside_the_other_are_the_same_with_and_without_gradients(
    gpt2: Any, mode: Any
) -> None:
    """COLD-FD must not take the activations for unsteered ones because it was applied alone."""
    liked = [Conversation("What is it?", response=" A good day.")]
    hated = [Conversation("What is it?", response=" I hate it.")]
    cold = ColdFD.fit(gpt2, (liked, hated), 2, scope=steerlens.everywhere, mode=mode).steering
    below, (tokens, window) = at(1, halved), steerlens.batch(gpt2, [PROMPTS[0]])
    rows = []
    for context in (torch.no_grad, torch.enable_grad):
        with cold.applied(gpt2, window), below.applied(gpt2, window), context():
            rows.append(logits(gpt2, tokens, window).detach())
    torch.testing.assert_close(*rows)


def test_a_steer_is_refused_elsewhere_than_where_it_was_fitted(gpt2: Any) -> None:
    liked = [Conversation("What is it?", response=" A good day.")]
    cold = ColdFD.fit(gpt2, (liked, ()), 2, loss="sft").steers[Site(2)]
    with pytest.raises(ValueError, match=r"fitted for layer 2 .* placed at layer 1"):
        at(1, Chain((cold,)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: at(3, CAA), "was given the class CAA itself. Make one"),
        (lambda: at("3", CAA(V)), r"Write Site\(3, '3'\)"),
        (lambda: at(CAA(V), 3), r"order is fit\(model, data, sites\), and at\(sites, steer\)"),
    ],
    ids=["class", "text", "order"],
)
def test_what_cannot_be_placed_says_what_to_write(build: Any, message: str, unchecked: Any) -> None:
    with pytest.raises(TypeError, match=message):
        build()
