"""COLD-Steer: the derivative against autograd and differences, its cache, its scope, its cost."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import (
    BACKENDS,
    D_VOCAB,
    KINDS,
    PROMPTS,
    load,
    recorded_scores,
    write_folder,
)
from torch.autograd import forward_ad

import steerlens
from analysis.measures.coefficients import coefficients
from analysis.measures.faithfulness import faithfulness
from steerlens import (
    CAA,
    ColdFD,
    ColdKernel,
    Conversation,
    PromptPair,
    Site,
    Window,
    everywhere,
    response,
)
from steerlens.cli import main
from steerlens.combinators import bind, innermost
from steerlens.generation import stream
from steerlens.jsonl import read_wishes
from steerlens.methods.cold import checks, losses
from steerlens.methods.cold.dual_pass import SharedPass
from steerlens.methods.cold.examples import Examples, examples_of
from steerlens.methods.cold.gradients import (
    activation_gradients,
    mean_gradient,
    places_of,
    standing_in,
    weights_at,
)
from steerlens.methods.cold.losses import loss_named
from steerlens.methods.cold.released import LastTokenChange
from steerlens.methods.cold.tangent import Derivative, Difference
from steerlens.prompts import encode_all, stack
from steerlens.runtime.forward import Cache, logits
from steerlens.runtime.hooks import running, watching
from steerlens.scopes import Context
from steerlens.steering import Steering

POSITIVE, NEGATIVE = (
    [Conversation("What is it?", response=one), Conversation("I", response=other)]
    for one, other in ((" A good day.", " love"), (" I hate", " not"))
)
SITES = (Site(0), Site(2))
NOTHING, NOTHING_THERE = (steerlens.at(n, CAA(torch.ones(32))).scaled(0.0) for n in (3, 2))


@pytest.fixture(scope="module", params=BACKENDS)
def exact(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Any:
    """A GPT-2 in float64; it has no step in float32 on any backend."""
    return load(folders["gpt2"], request.param, torch.float64)


@cache
def fitted(model: Any, sites: tuple[Site, ...] = SITES) -> Steering:
    return ColdFD.fit(model, (POSITIVE, NEGATIVE), sites, scope=everywhere).steering


def step_of(cold: Steering) -> ColdFD:
    """The steer at the first site; all of one fit have the same gradient."""
    steer = innermost(cold.placed[0][1])
    assert isinstance(steer, ColdFD)
    return steer


def changed(cold: Steering, **options: Any) -> Steering:
    """The same fit with other options."""
    return Steering(tuple((s, replace(innermost(x), **options)) for s, x in cold.placed))


def derivative(model: Any, cold: Steering) -> Derivative:
    run = step_of(cold).along(model)
    assert isinstance(run, Derivative)
    return run


def batched(model: Any, prompts: Any = PROMPTS[:3]) -> tuple[torch.Tensor, Window]:
    return stack(encode_all(model, list(prompts)))


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@contextmanager
def counted_blocks(model: Any) -> Iterator[list[tuple[int, int]]]:
    """(block, tokens) of every block that runs inside."""
    seen: list[tuple[int, int]] = []

    def count(layer: int) -> Any:
        def hook(activation: torch.Tensor, hook: Any = None) -> None:
            seen.append((layer, activation.shape[1]))

        return hook

    hooks = [(Site(n, "resid_pre").hook_name, count(n)) for n in range(model.cfg.n_layers)]
    with model.hooks(fwd_hooks=hooks):
        yield seen


def fit_with(method: Any, model: Any, options: dict[str, Any]) -> Any:
    """A fit with options that are wrong in some way; the rest is right."""
    options = {"sites": 1, "positive": POSITIVE, "loss": "sft", **options}
    return method.fit(model, (options.pop("positive"), ()), options.pop("sites"), **options)


# The derivative -------------------------------------------------------------------------------


def double_backward(model: Any, cold: Steering, site: Site, tokens: Any, window: Window) -> Any:
    """J g as the derivative, for u, of the linear function (u' J) g."""
    places = places_of(model, 2)
    leaves = {n: w.detach().requires_grad_() for n, w in weights_at(places).items()}
    held: list[torch.Tensor] = []
    with (
        standing_in(places, leaves),
        model.hooks(fwd_hooks=[(site.hook_name, lambda activation, hook: held.append(activation))]),
    ):
        logits(model, tokens, window)
    u = torch.zeros_like(held[0], requires_grad=True)
    g = dict(zip(step_of(cold).names, step_of(cold).gradients, strict=True))
    back = torch.autograd.grad(
        held[0], [leaves[n] for n in g], u, create_graph=True, allow_unused=True
    )
    inner = sum((b * v).sum() for b, v in zip(back, g.values(), strict=True) if b is not None)
    return torch.autograd.grad(inner, u)[0].detach()


def test_the_derivative_is_that_of_double_backward_and_of_a_central_difference(exact: Any) -> None:
    cold = fitted(exact)
    tokens, window = batched(exact, PROMPTS[1:2])
    found = derivative(exact, cold).of(tokens, window)
    places = places_of(exact, 2)
    g = dict(zip(step_of(cold).names, step_of(cold).gradients, strict=True))
    ends = Difference(exact, SITES, places, g, 1e-6, -1e-6).of(tokens, window)
    for site in SITES:
        expected = double_backward(exact, cold, site, tokens, window)
        assert float(expected.norm()) > 0.01
        assert distance(found[site], expected) < 1e-8
        assert distance(ends[site], expected) < 1e-6


def test_the_gradient_is_the_mean_of_the_examples_and_leaves_the_model_alone(exact: Any) -> None:
    before = {name: w.clone() for name, w in weights_at(places_of(exact, 3)).items()}
    examples = examples_of(exact, "dpo", (POSITIVE, NEGATIVE))
    loss = loss_named("dpo")
    g = mean_gradient(exact, examples, loss, 1)
    after = weights_at(places_of(exact, 3))
    assert all(torch.equal(after[name], old) for name, old in before.items())
    assert not any(weight.requires_grad for weight in after.values())
    # Along g itself the loss falls by |g|^2 a unit step.
    values = []
    for step in (1e-5, -1e-5):
        places = places_of(exact, 1)
        moved = {n: w + step * g[n] for n, w in weights_at(places).items() if n in g}
        with standing_in(places, moved), torch.no_grad():
            batches = [example.batch(exact) for example in examples]
            rows = [loss(logits(exact, b.tokens, b.window), b) for b in batches]
        values.append(torch.stack(rows).mean())
    slope = float((values[0] - values[1]) / 2e-5)
    size = sum(float(value.pow(2).sum()) for value in g.values())
    assert slope == pytest.approx(size, rel=1e-6)


def test_parameters_above_the_site_are_neither_asked_for_nor_kept(exact: Any) -> None:
    names = step_of(fitted(exact, (Site(1),))).names
    assert any(name.startswith("blocks.1") for name in names)
    assert not any(
        name.startswith(("blocks.2", "blocks.3", "unembed", "ln_final")) for name in names
    )
    site = Site(1, "resid_pre")
    below = ColdFD.fit(exact, (POSITIVE, NEGATIVE), site).steers[site].names
    assert not any(name.startswith("blocks.1") for name in below)


@pytest.mark.skipif(len(BACKENDS) < 2, reason="only one backend is installed")
@pytest.mark.parametrize("name", ["demo", "llama"])
def test_both_backends_take_the_same_step(name: str, folders: dict[str, Path]) -> None:
    """With an embedding that is tied (demo), and without the biases that a Llama lacks."""
    source = folders.get(name, name)
    options = {"template": steerlens.PLAIN} if name == "demo" else {}
    models = [
        steerlens.load(source, backend=b, dtype=torch.float64, **options)
        for b in ("hooked", "bridge")
    ]
    found = []
    for model in models:
        cold = ColdFD.fit(model, (POSITIVE[:1], NEGATIVE[:1]), 1, loss="dpo").steering
        tokens, window = batched(model, PROMPTS[:1])
        found.append(derivative(model, cold).of(tokens, window)[Site(1)])
    assert distance(*found) < 1e-5


@pytest.mark.skipif(len(BACKENDS) < 2, reason="a bridge has the tied embedding once")
def test_an_embedding_that_was_untied_since_is_seen() -> None:
    model = steerlens.load("demo", backend="hooked")
    assert [len(places_of(model, 0)["embed.W_E"]) for _ in range(2)] == [2, 2]
    model.unembed.W_U.data[0, 0] += 1  # an edit that PyTorch counts nowhere
    assert len(places_of(model, 0)["embed.W_E"]) == 1


def test_float32_with_the_automatic_step_is_near_the_derivative(model: Any) -> None:
    cold = fitted(model)
    tokens, window = batched(model, PROMPTS[1:2])
    found = derivative(model, cold).of(tokens, window)
    for central in (False, True):
        run = step_of(changed(cold, mode="fd", central=central)).along(model)
        for site, value in run.of(tokens, window).items():
            assert distance(value, found[site]) < 1e-2


# The run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["jvp", "fd"])
def test_cached_passes_equal_the_whole_pass_in_a_left_padded_batch(exact: Any, mode: Any) -> None:
    cold = replace(step_of(fitted(exact)), mode=mode, eps=1e-4 if mode == "fd" else None)
    tokens, window = batched(exact)
    extra = torch.tensor([[7, 9], [11, 13], [15, 17]])
    run = cold.along(exact)
    pieces = [run.of(tokens, window)]
    for step in range(2):
        window = window.next()
        pieces.append(run.of(extra[:, step : step + 1], window))
    for row, prompt in enumerate(PROMPTS[:3]):
        ids = [*steerlens.encode(exact, prompt).ids, *extra[row].tolist()]
        alone = torch.tensor([ids])
        whole = cold.derivative(exact, alone, Window.of(torch.ones_like(alone).bool()))
        for site in SITES:
            joined = torch.cat([piece[site] for piece in pieces], dim=1)[row, -len(ids) :]
            assert distance(joined, whole[site][0]) < (1e-10 if mode == "jvp" else 1e-6)


def test_all_layers_are_moved_as_by_one_unsteered_pass(exact: Any) -> None:
    """The step at a layer does not see what the layer below it was steered by."""
    options = {"sites": SITES, "steering": fitted(exact)}
    given = steerlens.capture(exact, [PROMPTS[1]], **options, moment="before")
    after = steerlens.capture(exact, [PROMPTS[1]], **options)
    tokens, window = batched(exact, PROMPTS[1:2])
    alone = derivative(exact, fitted(exact)).of(tokens, window)
    for site in SITES:
        torch.testing.assert_close(after.at(site) - given.at(site), -alone[site][0])


def test_a_generated_token_costs_one_token_up_to_the_site_whatever_was_fitted_on(
    exact: Any,
) -> None:
    costs = []
    for examples in (1, 2):
        cold = ColdFD.fit(
            exact, (POSITIVE[:examples], ()), 1, loss="sft", scope=everywhere
        ).steering
        with counted_blocks(exact) as seen:
            steerlens.generate(exact, [PROMPTS[0]], cold, max_new_tokens=3, stop_at_end=False)
        costs.append(seen)
    assert costs[0] == costs[1]
    n = len(steerlens.encode(exact, PROMPTS[0]).ids)
    assert costs[0] == [(layer, width) for width in (n, 1, 1) for layer in range(4)]


@pytest.mark.parametrize(("mode", "alone", "beside"), [("jvp", 0, 1), ("fd", 1, 2)])
def test_passes_of_their_own_go_up_to_the_site(
    exact: Any, mode: Any, alone: int, beside: int
) -> None:
    """The derivative needs one, and a difference two, where something else is steered beside it."""
    cold = changed(fitted(exact, (Site(1),)), mode=mode)
    n = len(steerlens.encode(exact, PROMPTS[0]).ids)
    for steering, extra in ((cold, alone), (cold + NOTHING, beside)):
        with counted_blocks(exact) as seen:
            steerlens.generate(exact, [PROMPTS[0]], steering, max_new_tokens=3, stop_at_end=False)
        blocks = [*extra * [0, 1], 0, 1, 2, 3]
        assert seen == [(layer, width) for width in (n, 1, 1) for layer in blocks]


def untouched(model: Any) -> bool:
    """Whether nothing of ours is on the model: no forward in a block's place, its own weights."""
    replaced = [block for block in model.blocks if "forward" in vars(block)]
    weights = weights_at(places_of(model, model.cfg.n_layers - 1)).values()
    with forward_ad.dual_level():  # it cannot be opened within another one
        return not replaced and all(isinstance(w, torch.nn.Parameter) for w in weights)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_pass_that_ends_early_or_fails_leaves_nothing_on_the_model(
    exact: Any, layer: int
) -> None:
    cold = fitted(exact, (Site(1),))
    before = steerlens.capture(exact, [PROMPTS[0]], layer).at(layer)
    steerlens.capture(exact, [PROMPTS[0]], layer, steering=cold)
    assert untouched(exact)

    def fail(activation: torch.Tensor, hook: Any = None) -> None:
        raise ArithmeticError("in the middle of a block")

    with (
        pytest.raises(ArithmeticError),
        exact.hooks(fwd_hooks=[(Site(layer, "attn_out").hook_name, fail)]),
    ):
        steerlens.generate(exact, [PROMPTS[0]], cold, max_new_tokens=2)
    assert untouched(exact)
    assert torch.equal(steerlens.capture(exact, [PROMPTS[0]], layer).at(layer), before)


def test_between_two_pieces_nothing_is_on_the_model(exact: Any) -> None:
    cold = fitted(exact, (Site(1),))
    pieces = []
    for piece in stream(exact, PROMPTS[0], cold, max_new_tokens=3):
        assert untouched(exact)
        pieces.append(piece.token)
    at_once = steerlens.generate(exact, [PROMPTS[0]], cold, max_new_tokens=3)
    assert tuple(pieces) == at_once.response_ids(0)


def test_with_and_without_a_cache_the_carried_derivative_is_the_same(exact: Any) -> None:
    cold, found = fitted(exact, (Site(1),)), []
    for kept in (True, False):
        with recorded_scores() as seen:
            steerlens.generate(exact, PROMPTS[:3], cold, max_new_tokens=3, cache=kept)
        found.append(torch.stack(seen))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stream", ["resid_pre", "attn_out", "resid_post"])
def test_what_a_users_hook_changes_is_in_the_derivative(exact: Any, stream: Any) -> None:
    """Whoever multiplies the activation at the site multiplies its derivative too."""
    site = Site(1, stream)
    cold = fitted(exact, (site,))
    tokens, window = batched(exact, PROMPTS[:1])
    with exact.hooks(fwd_hooks=[(site.hook_name, lambda h, hook=None: 3 * h)]):
        before, after = (
            steerlens.capture(exact, PROMPTS[:1], site, steering=cold, moment=moment).at(site)
            for moment in ("before", "after")
        )
        dZ = step_of(cold).derivative(exact, tokens, window)[site][0]
    torch.testing.assert_close(after - before, -dZ)


def test_with_gradients_a_pass_of_its_own_leaves_the_parameters_in_place(exact: Any) -> None:
    tokens, window = batched(exact, PROMPTS[:1])
    cold = fitted(exact, (Site(1),))
    below = weights_at(places_of(exact, 0))
    weight = next(w for name, w in below.items() if name.startswith("blocks.0") and w.ndim > 1)
    weight.requires_grad_()
    try:
        with watching() as watch, running(exact, cold, watch) as run, torch.enable_grad():
            assert run is not None
            run.ready(tokens, window)
            top = logits(exact, tokens, window)[0, -1, 0]
            assert torch.autograd.grad(top, weight)[0].any()
    finally:
        weight.requires_grad_(False)


def test_a_forward_that_was_in_a_blocks_place_is_there_again(exact: Any) -> None:
    block, calls, cold = exact.blocks[0], [], fitted(exact, (Site(1),))
    original = block.forward

    def patched(*given: Any, **options: Any) -> Any:
        calls.append(1)
        return original(*given, **options)

    vars(block)["forward"] = patched
    try:
        steerlens.generate(exact, PROMPTS[:1], cold, max_new_tokens=2)
        assert vars(block)["forward"] is patched
        assert len(calls) == 2
    finally:
        del vars(block)["forward"]


def test_putting_hooks_on_prints_no_tensor(exact: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """TransformerLens takes the repr of every hook: of one with weights it takes half a second."""
    cold = fitted(exact, (Site(1),))
    monkeypatch.setattr(torch.Tensor, "__repr__", lambda *_, **__: pytest.fail("printed"))
    for steering in (cold, cold + NOTHING, changed(cold, mode="fd"), NOTHING):
        steerlens.generate(exact, PROMPTS[:1], steering, max_new_tokens=2)


def test_inference_mode_between_two_pieces_is_an_error(exact: Any) -> None:
    pieces = stream(exact, PROMPTS[0], fitted(exact, (Site(1),)), max_new_tokens=3)
    next(pieces)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference"):
        next(pieces)


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny OPT: in TransformerLens 3.9 its bridge calls PyTorch's fused attention."""
    from transformers import OPTConfig, OPTForCausalLM

    folder = tmp_path_factory.mktemp("opt")
    write_folder(folder, "gpt2")
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 64}
    more = {"vocab_size": D_VOCAB, "max_position_embeddings": 64, "word_embed_proj_dim": 32}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 0}
    config = OPTConfig(**sizes, **more, **ids)
    torch.manual_seed(0)
    OPTForCausalLM(config).save_pretrained(folder)
    return steerlens.load(folder, backend="bridge")


def test_with_fused_attention_layers_below_the_site_stay_as_they_are(opt: Any) -> None:
    cold = ColdFD.fit(opt, (POSITIVE, NEGATIVE), 1, scope=everywhere).steering
    plain = steerlens.capture(opt, PROMPTS[:3], [0, 2])
    steered = steerlens.capture(opt, PROMPTS[:3], [0, 2], steering=cold)
    assert torch.equal(steered.at(0), plain.at(0))
    assert not torch.allclose(steered.at(2), plain.at(2), atol=1e-3)
    apart = steerlens.capture(opt, PROMPTS[:3], 2, steering=cold + NOTHING_THERE)
    torch.testing.assert_close(steered.at(2), apart.at(2), rtol=1e-4, atol=1e-4)
    seen = []
    for steering in (cold, cold + NOTHING_THERE):
        with recorded_scores() as scores:
            steerlens.generate(opt, PROMPTS[:3], steering, max_new_tokens=3, temperature=0.0)
        seen.append(torch.stack(scores))
    torch.testing.assert_close(*seen, rtol=1e-4, atol=1e-4)


def test_a_part_of_a_text_has_no_derivative_of_its_own(exact: Any) -> None:
    tokens, window = batched(exact, PROMPTS[:1])
    with pytest.raises(ValueError, match="give whole texts"):
        step_of(fitted(exact)).derivative(exact, tokens[:, -1:], window.next())


def test_an_operation_without_a_derivative_says_what_to_do(
    exact: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("Trying to use forward AD with _grouped_mm")

    monkeypatch.setitem(vars(exact.blocks[0]), "forward", none)
    for steering in (fitted(exact, (Site(1),)), fitted(exact)):
        with pytest.raises(NotImplementedError, match=r"take mode='fd'.*_grouped_mm"):
            steerlens.generate(exact, PROMPTS[:1], steering, max_new_tokens=1)


@pytest.mark.parametrize("site", [Site(1), Site(2, "resid_pre"), Site(0, "resid_pre")])
def test_the_hooks_of_one_pass_do_not_serve_a_second(exact: Any, site: Site) -> None:
    tokens, window = batched(exact, PROMPTS[:1])
    cold = fitted(exact, (site,))
    with watching() as watch, running(exact, cold, watch) as run, torch.no_grad():
        assert run is not None
        run.ready(tokens, window)
        logits(exact, tokens, window)
        with pytest.raises(RuntimeError, match="ready the run before each pass"):
            logits(exact, tokens, window)


def test_a_cache_that_does_not_reach_the_blocks_is_an_error(exact: Any) -> None:
    tokens, window = batched(exact, PROMPTS[:1])
    cold = fitted(exact, (Site(1),))
    with watching() as watch, running(exact, cold, watch) as run, torch.no_grad():
        assert run is not None
        run.ready(tokens, window)
        logits(exact, tokens, window)
        run.ready(tokens[:, :1], window.next())
        with pytest.raises(RuntimeError, match=r"generate\(..., cache=False"):
            logits(exact, tokens[:, :1], window.next())
    assert untouched(exact)


def test_on_the_prompt_alone_a_generated_token_costs_nothing_more(exact: Any) -> None:
    cold = fitted(exact, (Site(1),)).only(steerlens.prompt)
    with counted_blocks(exact) as seen:
        steerlens.generate(exact, [PROMPTS[0]], cold, max_new_tokens=3, stop_at_end=False)
    n = len(steerlens.encode(exact, PROMPTS[0]).ids)
    assert seen == [(layer, width) for width in (n, 1, 1) for layer in range(4)]


@pytest.mark.parametrize(("name", "backend"), KINDS)
@pytest.mark.parametrize("mode", ["jvp", "fd"])
@pytest.mark.parametrize(
    "site",
    [Site(0), Site(0, "resid_pre"), Site(1, "attn_out"), Site(1, "resid_pre"), Site(3)],
    ids=str,
)
def test_carried_along_or_in_a_pass_of_its_own_the_derivative_is_the_same(
    name: str, backend: str, site: Site, mode: Any, folders: dict[str, Path]
) -> None:
    """Left padding and a cache; the nothing that is added keeps the second from sharing a pass."""
    # In float64 a Llama's bridge makes NaN of left padding: its softmax is in float32, where the
    # mask's least number is minus infinity.
    exact = (name, backend) != ("llama", "bridge")
    model = load(folders[name], backend, torch.float64 if exact else torch.float32)
    cold = ColdFD.fit(model, (POSITIVE, NEGATIVE), site, scope=everywhere, mode=mode).steering
    found = []
    for steering in (cold, cold + NOTHING, None):
        tokens, window = batched(model)
        passes = []
        with watching() as watch, running(model, steering, watch) as run, torch.no_grad():
            cache = Cache.empty(model, 3)
            for token in (5, 7, 9):
                if run is not None:
                    run.ready(tokens, window)
                passes.append(logits(model, tokens, window, "last", cache))
                if run is not None:
                    run.detach()
                tokens, window = torch.full_like(tokens[:, :1], token), window.next()
        found.append(torch.stack(passes))
    carried, apart, plain = found
    near = {("jvp", True): 1e-9, ("jvp", False): 1e-4}.get((mode, exact), 1e-3)
    torch.testing.assert_close(carried, apart, rtol=near, atol=near)
    assert (carried - plain).abs().amax(dim=-1).min() > 1e-2


def test_scopes_that_end_and_scopes_that_do_not() -> None:
    window = Window.of(torch.ones(2, 4).bool())
    later = window.next()
    for scope in (steerlens.prompt, steerlens.last, steerlens.positions(1, 3)):
        assert not scope.over(window)
        assert scope.over(later)
    for scope in (everywhere, response, steerlens.generated, steerlens.positions(9)):
        assert not scope.over(later)


def test_by_default_the_prompt_is_moved_and_nothing_else(exact: Any) -> None:
    cold = ColdFD.fit(exact, (POSITIVE, NEGATIVE), 1).steering
    text = [Conversation("What is it?", response=" It is a house.")]
    moves = [steerlens.capture(exact, text, 1, steering=s).at(1) for s in (None, cold)]
    changed = (moves[0] != moves[1]).any(dim=1).tolist()
    n = len(steerlens.encode(exact, Conversation("What is it?")).ids)
    assert changed == [True] * n + [False] * (len(changed) - n)


def test_bfloat16_has_the_derivative_and_no_difference(bfloat16_model: Any, model: Any) -> None:
    tokens, window = batched(model, PROMPTS[1:2])
    found = [
        derivative(one, fitted(one, (Site(1),))).of(tokens, window)[Site(1)].float()
        for one in (bfloat16_model, model)
    ]
    assert distance(*found) < 0.15
    with pytest.raises(ValueError, match="finite difference in half precision is all rounding"):
        ColdFD.fit(bfloat16_model, (POSITIVE, ()), 1, loss="sft", mode="fd")


def test_float16_is_refused(folders: dict[str, Path]) -> None:
    model = load(folders["gpt2"], KINDS[0][1], torch.float16)
    for method in (ColdFD, ColdKernel):
        with pytest.raises(ValueError, match="gradients underflow in float16"):
            method.fit(model, (POSITIVE, ()), 1, loss="sft")


# The kernel -----------------------------------------------------------------------------------


def only_steer(steering: Any) -> Any:
    ((_, steer),) = getattr(steering, "steering", steering).placed
    return innermost(steer)


def test_a_kernel_reads_the_last_prompt_token_of_each_row(exact: Any) -> None:
    steer = only_steer(ColdKernel.fit(exact, (POSITIVE, NEGATIVE), 2, kernel="dot"))
    rows = [row for pair in zip(POSITIVE, NEGATIVE, strict=True) for row in pair]
    read = steerlens.capture(exact, rows, 2, scope=steerlens.last).at(2)
    torch.testing.assert_close(steer.anchors, read)


def test_several_layers_get_the_total_derivative(exact: Any) -> None:
    example = examples_of(exact, "sft", (POSITIVE, ()))[0]
    (both,) = activation_gradients(exact, [example], loss_named("sft"), list(SITES))
    for site in SITES:
        (alone,) = activation_gradients(exact, [example], loss_named("sft"), [site])
        torch.testing.assert_close(both[site].gradient, alone[site].gradient)


def width_of_logits(logits: torch.Tensor, batch: Any) -> torch.Tensor:
    """A loss that sees how many rows and columns it was given."""
    return logits.mean() * logits.shape[0] + logits.shape[1] * logits[0, 0, 0]


@pytest.mark.parametrize(
    "loss", ["dpo", "sft", "negative_sft", pytest.param(width_of_logits, id="own")]
)
def test_the_batch_size_changes_no_gradient(exact: Any, loss: Any) -> None:
    both = [*POSITIVE, Conversation("What is it?", response=" A")], [*NEGATIVE, *NEGATIVE[:1]]
    given = {"sft": (both[0], ()), "negative_sft": ((), both[1])}.get(loss, both)
    examples, value = examples_of(exact, loss, given), loss_named(loss)
    assert len({len(row.ids) for example in examples for row in example.rows}) > 1
    ones, twos = (
        list(activation_gradients(exact, examples, value, list(SITES), size)) for size in (1, 2)
    )
    assert len(ones) == len(twos) == len(examples) == 3
    for one, two in zip(ones, twos, strict=True):
        for site in SITES:
            torch.testing.assert_close(two[site].activation, one[site].activation)
            torch.testing.assert_close(two[site].gradient, one[site].gradient)
    one, two = (mean_gradient(exact, examples, value, 1, size) for size in (1, 2))
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient)


def test_options_in_one_batch_keep_to_their_prompts(exact: Any) -> None:
    prompts = ["The dog", "I love you because you are", "What"]
    wishes = [{5: 0.5, 6: 0.5}, {7: 0.9, 8: 0.1}, {9: 0.2, 10: 0.3, 11: 0.5}]
    one, many = (
        ColdKernel.fit(
            exact, Examples(prompts, probabilities=wishes), 1, loss="options", batch_size=size
        )
        for size in (1, 3)
    )
    torch.testing.assert_close(only_steer(one).gradients, only_steer(many).gradients)


def test_below_the_first_block_cached_passes_equal_whole_ones(exact: Any) -> None:
    below = Site(0, "resid_pre")
    cold = ColdFD.fit(exact, (POSITIVE, NEGATIVE), below, eta=5.0, scope=everywhere).steering
    options: dict[str, Any] = {"max_new_tokens": 4, "temperature": 0.0}
    found = [
        steerlens.generate(exact, PROMPTS[:3], cold, cache=cache, **options).texts
        for cache in (True, False)
    ]
    assert found[0] == found[1]
    assert found[0] != steerlens.generate(exact, PROMPTS[:3], **options).texts


def test_inference_mode_is_an_error_and_not_a_derivative_of_zero(exact: Any) -> None:
    cold = fitted(exact)
    with torch.inference_mode():
        with pytest.raises(RuntimeError, match=r"Use torch.no_grad\(\) instead"):
            steerlens.generate(exact, PROMPTS[:1], cold, max_new_tokens=2)
        for method in (ColdFD, ColdKernel):
            with pytest.raises(RuntimeError, match=r"Use torch.no_grad\(\) instead"):
                method.fit(exact, (POSITIVE, NEGATIVE), 1)


def test_a_gradient_that_is_not_finite_is_an_error(exact: Any) -> None:
    def root_of_zero(logits: torch.Tensor, batch: Any) -> torch.Tensor:
        return torch.sqrt((0 * logits).sum())

    with pytest.raises(ValueError, match="though the loss is finite"):
        ColdFD.fit(exact, (POSITIVE, ()), 1, loss=root_of_zero)


@pytest.mark.parametrize("eta", [float("nan"), float("inf")])
def test_eta_is_a_finite_number(exact: Any, eta: float) -> None:
    with pytest.raises(ValueError, match="eta is the size of the step"):
        replace(step_of(fitted(exact)), eta=eta)
    with pytest.raises(ValueError, match="eta is the size of the step"):
        ColdKernel(torch.ones(1, 8), eta=eta)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"sites": ()}, "without its own"), ({"mode": "fd", "eps": float("inf")}, "must be finite")],
    ids=["sites", "eps"],
)
def test_parts_of_a_cold_fd_that_cannot_be_are_errors(
    exact: Any, change: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(step_of(fitted(exact)), **change)


def test_anchors_belong_to_kernels_that_look_at_them() -> None:
    rows = torch.ones(2, 8)
    with pytest.raises(ValueError, match="'unit' with"):
        ColdKernel(rows, rows)
    with pytest.raises(ValueError, match="'dot' without"):
        ColdKernel(rows, None, "dot")
    with pytest.raises(ValueError, match="anchors: 1 of 16 values are NaN"):
        ColdKernel(
            rows,
            rows.index_fill(0, torch.tensor([0]), 1).index_put(
                (torch.tensor([0]), torch.tensor([0])), torch.tensor(float("nan"))
            ),
            "dot",
        )


@pytest.mark.parametrize("wish", [{5.5: 0.5, 6: 0.5}, [0.5, 0.5]])
def test_options_that_are_no_token_ids_are_an_error(exact: Any, wish: Any, unchecked: Any) -> None:
    with pytest.raises(ValueError, match="whole numbers as ids"):
        ColdKernel.fit(exact, Examples(["The dog"], probabilities=[wish]), 1, loss="options")


def test_a_probability_that_is_no_number_is_an_error(exact: Any) -> None:
    wish = {5: float("nan"), 6: 0.5}
    with pytest.raises(ValueError, match="sum to 1; found 2 that sum to nan"):
        ColdKernel.fit(exact, Examples(["The dog"], probabilities=[wish]), 1, loss="options")


def test_no_example_a_pass_is_an_error(exact: Any) -> None:
    with pytest.raises(ValueError, match="batch_size is the number of examples a pass"):
        ColdFD.fit(exact, (POSITIVE, NEGATIVE), 1, batch_size=0)


def test_a_small_step_lowers_the_loss_of_its_examples(exact: Any) -> None:
    examples = [(row, "sft") for row in POSITIVE]
    for method, eta in ((ColdKernel, 1e-2), (ColdFD, 1e-4)):
        fit = method.fit(exact, (POSITIVE, ()), 2, loss="sft", eta=eta, scope=everywhere)
        values = []
        for acting in (None, fit.steering):
            total = 0.0
            for row, loss in examples:
                batch = examples_of(exact, loss, ([row], ()))[0].batch(exact)
                values_of = steered_logits(exact, acting, batch)
                total += float(loss_named(loss)(values_of, batch))
            values.append(total)
        assert values[1] < values[0] - 1e-6


def steered_logits(model: Any, steering: Any, batch: Any) -> torch.Tensor:
    with torch.no_grad():
        if steering is None:
            return logits(model, batch.tokens, batch.window)
        window = replace(batch.window, context=Context(model, batch.tokens))
        with steering.applied(model, window):
            return logits(model, batch.tokens, batch.window)


def test_as_released_a_kernel_asks_the_last_prompt_token(exact: Any) -> None:
    steering = ColdKernel.fit(
        exact, (POSITIVE, ()), 1, loss="sft", kernel="dot", compat="released", scope=everywhere
    ).steering
    ((_, steer),) = steering.placed
    assert isinstance(steer, LastTokenChange)
    text = [Conversation("What is it?", response=" It is a house.")]
    before, after = (
        steerlens.capture(exact, text, 1, steering=steering, moment=m).at(1)
        for m in ("before", "after")
    )
    moved, own = after - before, steer.steer(before[None])[0] - before
    n = len(steerlens.encode(exact, Conversation("What is it?")).ids)
    torch.testing.assert_close(moved[:n], own[n - 1].expand(n, -1))
    torch.testing.assert_close(moved[n:], own[n:])
    with pytest.raises(ValueError, match="a hook cannot see where that is"):
        steer(before[None])
    _, window = batched(exact, PROMPTS[:1])
    cut = Window(window.mask[:, :2], window.first, window.question, window.response, window.bos)
    with pytest.raises(ValueError, match="holds a prompt without its end"):
        steer.bind(cut)


def test_the_default_width_is_the_median_distance_of_the_anchors(exact: Any) -> None:
    steer = only_steer(ColdKernel.fit(exact, (POSITIVE, ()), 1, loss="sft", kernel="rbf"))
    assert steer.width == pytest.approx(float((steer.anchors[0] - steer.anchors[1]).norm()))
    given = only_steer(
        ColdKernel.fit(exact, (POSITIVE, ()), 1, loss="sft", kernel="rbf", width=2.0)
    )
    assert given.width == 2.0


# Measuring -------------------------------------------------------------------------------------


def test_the_tables_take_it_as_any_steering(gpt2: Any) -> None:
    pairs = [PromptPair.with_system("What is it?", "You are kind.", "It was a good day")]
    cold = fitted(gpt2, (Site(1),))
    measured = coefficients(gpt2, pairs * 2, [1, 2], {"COLD-FD": cold})
    along = measured[measured["method"] == "COLD-FD"]["along"]
    assert len(along) > 0
    assert (along.abs() > 0).all()
    table = faithfulness(gpt2, pairs, {"COLD-FD": cold})
    assert table["relative_rmse"].tolist()[0] == 1
    moved = table.loc[table["method"] == "COLD-FD", "relative_rmse"]
    assert (moved.to_numpy()[1:] != 1).all()


def test_it_adds_up_with_other_steerings_and_scales(exact: Any) -> None:
    """Together with a steering below it: the move is still that of the unsteered pass."""
    v = torch.ones(32, dtype=torch.float64)
    cold = fitted(exact, (Site(2),))
    both = steerlens.at(0, CAA(v)) + steerlens.scaled(cold, 2.0)
    moments = [
        steerlens.capture(exact, [PROMPTS[1]], 2, steering=both, moment=moment).at(2)
        for moment in ("before", "after")
    ]
    tokens, window = batched(exact, PROMPTS[1:2])
    alone = derivative(exact, cold).of(tokens, window)[Site(2)][0]
    torch.testing.assert_close(moments[1] - moments[0], -2 * alone)


def test_the_command_line_fits_and_generates(tmp_path: Path, capsys: Any) -> None:
    """COLD-Kernel and COLD-FD from contrast pairs, read back as steerings of the same model."""
    pairs = tmp_path / "pairs.jsonl"
    said = {"positive": "I loved it.", "negative": "I hated it."}
    sides = {name: {"user": "Review a film.", "response": text} for name, text in said.items()}
    pairs.write_text(json.dumps(sides))
    demo = steerlens.load("demo")
    for command, options, kind in (
        ("cold-kernel", ["--loss", "sft", "--kernel", "cosine"], "Steering"),
        ("cold-fd", ["--loss", "dpo", "--layers", "0"], "Steering"),
    ):
        out = tmp_path / f"{command}.safetensors"
        arguments = ["fit", command, "--pairs", str(pairs), "--layers", "1", "--out", str(out)]
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, *options])
        assert stopped.value.code == 0, capsys.readouterr().err
        steering = steerlens.load_steering(out, demo)
        assert type(steering).__name__ == kind
        asked = [Conversation("Review a film.")]
        assert steerlens.generate(demo, asked, steering, max_new_tokens=1).texts
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--loss", "likelihood"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "Unknown loss 'likelihood'. Use one of: dpo, sft, negative_sft, options" in said


@pytest.mark.parametrize(("command", "eta"), [("cold-kernel", 1), ("cold-fd", 0.01)])
def test_the_command_line_reads_options_and_makes_them_likelier(
    tmp_path: Path, command: str, eta: float
) -> None:
    wishes, out = tmp_path / "wishes.jsonl", tmp_path / "made.safetensors"
    line = {"prompt": {"user": "Review a film."}, "options": {"It": 0.9, "This": 0.1}}
    wishes.write_text(json.dumps(line))
    arguments = ["--pairs", str(wishes), "--loss", "options", "--layers", "3", "--eta", str(eta)]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", command, *arguments, "--out", str(out)])
    assert stopped.value.code == 0
    model = steerlens.load("demo")
    ids = [model.tokenizer.encode(word, add_special_tokens=False)[0] for word in line["options"]]
    loss = loss_named("options")
    wished = Examples([Conversation("Review a film.")], probabilities=[line["options"]])
    (example,) = examples_of(model, "options", wished)
    assert [token for token, _ in example.options] == ids
    batch, found = example.batch(model), []
    for steering in (None, steerlens.load_steering(out, model)):
        with watching() as watch, running(model, steering, watch) as run, torch.no_grad():
            if run is not None:
                run.ready(batch.tokens, batch.window)
            found.append(float(loss(logits(model, batch.tokens, batch.window), batch)))
    assert found[1] < found[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"prompt": "It was", "options": [0.5, 0.5]}, "line 1: the field 'options' must be"),
        ({"prompt": "It was", "options": {" a": 1}, "loss": 1}, "1 unknown field: loss"),
        (
            '{"prompt": "It was", "options": {" a": 1, " a": 0}}',
            "the field ' a' is there twice",
        ),
        ({"options": {" a": 1}}, "the field 'prompt' is missing"),
    ],
)
def test_a_bad_line_of_options_is_named(tmp_path: Path, line: Any, message: str) -> None:
    path = tmp_path / "wishes.jsonl"
    path.write_text(line if isinstance(line, str) else json.dumps(line))
    with pytest.raises(ValueError, match=message):
        read_wishes(path)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({" good day": 0.5, " bad": 0.5}, "' good day' of example 0 is 2 .* Give a shorter word"),
        ({"dog": 0.5, " bad": 0.5}, "'dog' of example 0 is 3 .* Give ' dog'"),
        ({" dog": 0.5, 3976: 0.5}, "not in this model's vocabulary"),
        ({"a": "much", "b": 0.5}, "must be numbers"),
    ],
)
def test_options_named_by_text_are_single_tokens(
    gpt2: Any, wish: Any, message: str, unchecked: Any
) -> None:
    with pytest.raises(ValueError, match=message):
        ColdKernel.fit(gpt2, Examples(["The dog"], probabilities=[wish]), 1, loss="options")


def test_numbers_of_numpy_are_numbers(gpt2: Any, unchecked: Any) -> None:
    wish = [{5: np.float32(0.5), 6: np.float32(0.5)}]
    size: Any = np.int64(2)
    options: Any = {"loss": "options", "batch_size": size}
    examples = Examples(["The dog"], probabilities=wish)
    assert ColdKernel.fit(gpt2, examples, 1, **options).steers


def test_one_token_is_one_option(gpt2: Any) -> None:
    twice = {"a": 0.5, gpt2.tokenizer.encode("a", add_special_tokens=False)[0]: 0.5}
    with pytest.raises(ValueError, match="names a token twice"):
        ColdKernel.fit(gpt2, Examples(["The dog"], probabilities=[twice]), 1, loss="options")


# Files and mistakes ---------------------------------------------------------------------------


def test_a_file_gives_back_the_same_moves(model: Any, tmp_path: Path) -> None:
    cold = fitted(model)
    read = steerlens.load_steering(cold.save(tmp_path / "cold.safetensors", model), model)
    assert isinstance(step_of(read), ColdFD)
    assert read.origin == cold.origin
    tokens, window = batched(model)
    for site, value in derivative(model, read).of(tokens, window).items():
        assert torch.equal(value, derivative(model, cold).of(tokens, window)[site])


@pytest.mark.skipif(len(BACKENDS) < 2, reason="only one backend is installed")
def test_a_gradient_of_the_other_backend_is_refused(folders: dict[str, Path]) -> None:
    hooked, bridge = (load(folders["gpt2"], backend) for backend in ("hooked", "bridge"))
    with pytest.raises(ValueError, match="was fitted on the other backend"):
        steerlens.generate(bridge, [PROMPTS[0]], fitted(hooked), max_new_tokens=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 1e-3}, "has no step: leave out eps and central"),
        ({"mode": "fd", "eps": -1.0}, "must be finite and above 0; found -1.0"),
        ({"compat": "released", "mode": "fd"}, "released code steps forward by 1e-06"),
        ({"sites": []}, "No sites were given"),
        ({"sites": 9}, "names the hook point"),
    ],
)
def test_mistakes_with_cold_fd_are_named(gpt2: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_with(ColdFD, gpt2, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "dot", "width": 1.0}, "Only the 'rbf' kernel has a width"),
        ({"kernel": "unit", "width": 1.0}, "Only the 'rbf' kernel has a width"),
        ({"kernel": "rbf", "width": -1.0}, "needs a width above 0, and finite; found -1.0"),
        ({"kernel": "rbf", "positive": POSITIVE[:1]}, "median distance is no width"),
    ],
)
def test_mistakes_with_a_kernel_are_named(gpt2: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_with(ColdKernel, gpt2, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": None}, "a text or a function for loss, as 'sft' or losses.DPO.*; found None"),
        ({"sites": 2.0}, r"Site\(layer=2.0\): a layer is a whole number"),
        ({"batch_size": 2.5}, "a whole number for batch_size; found float 2.5"),
        ({"batch_size": True}, "a whole number for batch_size; found bool True"),
        ({"loss": losses.DPO}, r"such as losses.DPO\(beta=0.1\); found <class"),
        ({"mode": "fd", "eps": "x"}, "a number or None for eps; found str 'x'"),
        ({"eta": True}, "a number for eta; found bool True"),
        ({"eta": "1"}, "a number for eta; found str '1'"),
    ],
)
def test_values_of_the_wrong_kind_are_named(
    exact: Any, options: dict[str, Any], message: str, unchecked: Any
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        fit_with(ColdFD, exact, options)


def test_a_width_that_is_no_number_is_an_error(exact: Any, unchecked: Any) -> None:
    wide: Any = "wide"
    with pytest.raises(TypeError, match="a number or None for width; found str"):
        ColdKernel.fit(exact, (POSITIVE, ()), 1, loss="sft", kernel="rbf", width=wide)


def test_a_loss_of_ours_is_the_same_by_name_and_by_itself(exact: Any) -> None:
    with pytest.raises(ValueError, match="'sft' does not look at the negative prompts"):
        ColdFD.fit(exact, (POSITIVE, NEGATIVE), 1, loss=losses.sft)
    with pytest.raises(ValueError, match="'options' without probabilities"):
        ColdFD.fit(exact, (["The dog"], ()), 1, loss=losses.options)
    wish = [{5: 0.25, 6: 0.75}]
    named, itself = (
        ColdFD.fit(exact, Examples(["The dog"], probabilities=wish), 1, loss=loss)
        .steers[Site(1)]
        .gradients
        for loss in ("options", losses.options)
    )
    assert all(map(torch.equal, named, itself))


@pytest.mark.parametrize("method", [ColdFD, ColdKernel])
def test_answers_that_are_all_the_same_have_no_gradient(exact: Any, method: Any) -> None:
    with pytest.raises(ValueError, match="of every example are the same"):
        method.fit(exact, (POSITIVE, POSITIVE), 1, loss="dpo")
    assert method.fit(exact, (POSITIVE, [NEGATIVE[0], POSITIVE[1]]), 1, loss="dpo") is not None


@pytest.mark.parametrize("mode", ["jvp", "fd"])
def test_the_derivative_by_itself_is_what_eta_multiplies(exact: Any, mode: Any) -> None:
    fit = ColdFD.fit(exact, (POSITIVE, NEGATIVE), SITES, eta=3.0, mode=mode)
    tokens, window = steerlens.batch(exact, list(PROMPTS[:3]))
    dZ = fit.steers[SITES[0]].derivative(exact, tokens, window)
    for site, steer in fit.steering.placed:
        h = torch.ones_like(dZ[site])
        asked = (window.positions < window.response[:, None])[..., None]
        expected = torch.where(asked, h - 3.0 * dZ[site], h)
        torch.testing.assert_close(bind(steer, window)(h, None)[window.mask], expected[window.mask])


def test_unknown_names_are_refused_where_no_types_are_checked(gpt2: Any, unchecked: Any) -> None:
    """In tests the type checker comes before our own checks, so these are called alone."""
    with pytest.raises(ValueError, match="Unknown kernel 'none'"):
        checks.require_kernel("none", None)
    with pytest.raises(ValueError, match="Unknown compat 'paper'"):
        checks.is_released("paper")
    steer = only_steer(ColdFD.fit(gpt2, (POSITIVE, ()), 1, loss="sft"))
    unknown: Any = "tangent"
    with pytest.raises(ValueError, match="Unknown mode 'tangent'"):
        replace(steer, mode=unknown)


def test_only_the_unit_kernel_has_a_direction_and_the_others_need_anchors(gpt2: Any) -> None:
    steer = only_steer(ColdKernel.fit(gpt2, (POSITIVE, ()), 1, loss="sft", kernel="dot"))
    with pytest.raises(ValueError, match="another direction for each token"):
        _ = steer.direction
    with pytest.raises(ValueError, match="found 'dot' without"):
        ColdKernel(steer.gradients, kernel="dot")


@pytest.mark.skipif(len(BACKENDS) < 2, reason="only a HookedTransformer folds")
def test_folded_weights_are_refused(folders: dict[str, Path]) -> None:
    folded = steerlens.load(folders["gpt2"], backend="hooked", processing="fold")
    with pytest.raises(ValueError, match="folded weights is another step"):
        ColdFD.fit(folded, (POSITIVE, ()), 1, loss="sft")


def test_a_run_that_begins_a_new_text_forgets_the_derivatives_of_the_last(exact: Any) -> None:
    """The keys and values of one text have no part in another's, of the same run or not."""
    cold, n = fitted(exact, (Site(2),)), exact.cfg.n_layers
    texts = [batched(exact, [text]) for text in (PROMPTS[1], PROMPTS[0], PROMPTS[2])]

    def scores_of(run: Any, tokens: torch.Tensor, window: Window) -> list[torch.Tensor]:
        """A text in two passes, with a cache of its own."""
        cache, found = Cache.empty(exact, 1), []
        first = replace(window, mask=window.mask[:, :-1], context=None)
        second = window.next(1)
        second = replace(second, first=second.first - 1)
        for some, part in ((tokens[:, :-1], first), (tokens[:, -1:], second)):
            run.ready(some, part)
            found.append(logits(exact, some, part, cache=cache))
            run.detach()
        return found

    def fresh(tokens: torch.Tensor, window: Window) -> list[torch.Tensor]:
        with watching() as watch, running(exact, cold, watch) as run, torch.no_grad():
            return scores_of(run, tokens, window)

    wanted = [fresh(*text) for text in texts]
    with watching() as watch, running(exact, cold, watch) as run, torch.no_grad():
        for text, expected in zip(texts, wanted, strict=True):
            torch.testing.assert_close(scores_of(run, *text), expected)
            (carried,) = (one for one in run.memory.values() if isinstance(one, SharedPass))
            assert sorted(carried.tangents) == [0, 1, 2] != list(range(n))
    assert untouched(exact)


def test_what_was_kept_of_one_text_is_gone_when_another_begins(exact: Any) -> None:
    _, window = batched(exact, PROMPTS[:1])
    carried = SharedPass.of(derivative(exact, fitted(exact, (Site(1),))))
    carried.begin(window)
    carried.tangents[0] = [torch.ones(1)]
    carried.begin(window.next())
    assert not carried.begins
    assert carried.tangents
    carried.begin(window)
    assert carried.begins
    assert not carried.tangents


def test_a_large_gradient_is_kept_in_half_of_the_numbers(
    model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("steerlens.methods.cold.finite_difference.MANY", 100)
    steers = {
        stored: ColdFD.fit(model, (POSITIVE, NEGATIVE), 1, stored=stored).steering
        for stored in ("auto", "float32")
    }
    kinds = [{g.dtype for g in step_of(steering).gradients} for steering in steers.values()]
    assert kinds == [{torch.bfloat16}, {torch.float32}]
    tokens, window = batched(model, PROMPTS[:2])
    half, whole = (derivative(model, s).of(tokens, window)[Site(1)] for s in steers.values())
    assert 0 < distance(half, whole) < 5e-3
    path = steers["auto"].save(tmp_path / "half.safetensors")
    again = derivative(model, steerlens.load_steering(path, model)).of(tokens, window)[Site(1)]
    assert torch.equal(again, half)


def test_a_pass_holds_no_more_tokens_than_fit(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = examples_of(gpt2, "sft", (POSITIVE, ()))
    widths: list[int] = []
    run = steerlens.methods.cold.gradients.logits

    def counted(model: Any, tokens: Any, window: Any) -> Any:
        widths.append(len(tokens))
        return run(model, tokens, window)

    monkeypatch.setattr("steerlens.methods.cold.gradients.logits", counted)
    whole = mean_gradient(gpt2, examples, loss_named("sft"), 1)
    monkeypatch.setattr("steerlens.methods.cold.gradients.PASS_BYTES", {"cpu": 1, "cuda": 1})
    alone = mean_gradient(gpt2, examples, loss_named("sft"), 1)
    assert widths == [len(examples), *[1] * len(examples)]
    for name in whole:
        torch.testing.assert_close(whole[name], alone[name], rtol=1e-4, atol=1e-6)
