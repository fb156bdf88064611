"""Capture against three oracles: one text at a time, the backend's own cache, and transformers."""

from contextlib import contextmanager
from typing import Any

import pytest
import torch
from catalogue import CATALOGUE, random
from tiny_models import D_MODEL, N_LAYERS, PROMPTS

import steerlens
from steerlens import CAA, Activations, Conversation, Site, at, capture, capture_stream
from steerlens.activations import joined

V = random(D_MODEL, seed=6)
STREAMS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
TEXTS = [*PROMPTS, Conversation("What is it?", "You are kind.", response=" It is")]


def clean(model: Any, prompt: Any, site: Site) -> torch.Tensor:
    """The activation at `site` of one unpadded text, by the backend's own `run_with_cache`."""
    ids = torch.tensor([steerlens.encode(model, prompt).ids])
    with torch.no_grad():
        _, cache = model.run_with_cache(ids, names_filter=[site.hook_name])
    return cache[site.hook_name][0]


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-5 of the residual norm, and at a cosine above 0.99999, token by token."""
    assert found.shape == expected.shape
    size = expected.norm(dim=-1)
    assert float(((found - expected).abs().amax(dim=-1) / size).max()) < 1e-5
    assert float(torch.cosine_similarity(found, expected, dim=-1).min()) > 0.99999


def assert_same(found: Activations, expected: Activations) -> None:
    for name in ("row", "position", "tokens"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    assert list(found.values) == list(expected.values)
    for site in found.values:
        assert_near(found.at(site), expected.at(site))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("batch_size", [2, 16])
def test_a_padded_batch_holds_what_each_text_alone_does(
    side: str, batch_size: int, model: Any
) -> None:
    sites = [Site(0, "resid_pre"), Site(1), Site(N_LAYERS - 1)]
    together = capture(model, TEXTS, sites, side=side, batch_size=batch_size)
    for number, text in enumerate(TEXTS):
        for site in sites:
            assert_near(together.of(number, site), clean(model, text, site))


@pytest.mark.parametrize("stream", STREAMS)
def test_every_stream_is_the_one_of_that_name_in_the_backends_own_cache(
    stream: str, model: Any
) -> None:
    site = Site(2, stream)
    assert_near(capture(model, [PROMPTS[1]], site).at(site), clean(model, PROMPTS[1], site))


def test_activations_are_transformers_own_hidden_states(model: Any, reference: Any) -> None:
    sites = [Site(layer, "resid_pre") for layer in range(N_LAYERS)]
    captured = capture(model, list(PROMPTS), [*sites, Site(N_LAYERS - 2)])
    for number, prompt in enumerate(PROMPTS):
        ids = torch.tensor([steerlens.encode(model, prompt).ids])
        with torch.no_grad():
            states = reference(ids, output_hidden_states=True).hidden_states
        for site in sites:
            assert_near(captured.of(number, site), states[site.layer][0])
        assert_near(captured.of(number, N_LAYERS - 2), states[N_LAYERS - 1][0])


def test_rows_positions_and_tokens_say_what_each_activation_is_of(model: Any) -> None:
    captured = capture(model, TEXTS, 1, batch_size=2)
    encoded = [steerlens.encode(model, text).ids for text in TEXTS]
    assert captured.row.tolist() == [n for n, ids in enumerate(encoded) for _ in ids]
    assert captured.position.tolist() == [p for ids in encoded for p in range(len(ids))]
    assert captured.tokens.tolist() == [token for ids in encoded for token in ids]


def test_only_the_wanted_sites_are_kept_and_another_is_an_error(model: Any) -> None:
    captured = capture(model, [PROMPTS[0]], [2, Site(1, "resid_pre")])
    assert set(captured.values) == {Site(2), Site(1, "resid_pre")}
    with pytest.raises(ValueError, match="Nothing was captured at layer 1 resid_post; captured"):
        captured.at(1)


@contextmanager
def counted(model: Any, layers: range) -> Any:
    """Which blocks, and whether the unembedding, ran inside."""
    seen: list[str] = []

    def counter(name: str) -> Any:
        def count(*_: Any, **__: Any) -> None:
            seen.append(name)

        return count

    hooks = [(f"blocks.{layer}.hook_resid_post", counter(str(layer))) for layer in layers]
    handle = model.unembed.register_forward_hook(counter("unembed"))
    try:
        with model.hooks(fwd_hooks=hooks):
            yield seen
    finally:
        handle.remove()


def test_the_pass_stops_after_the_deepest_wanted_site(model: Any) -> None:
    tokens, _ = steerlens.batch(model, [PROMPTS[0]])
    with counted(model, range(N_LAYERS)) as seen, torch.no_grad():
        model(tokens)
    assert seen == ["0", "1", "2", "3", "unembed"]
    with counted(model, range(N_LAYERS)) as seen:
        capture(model, [PROMPTS[0]], [Site(1, "resid_mid"), Site(2, "resid_pre")])
    assert seen == ["0", "1"]
    with counted(model, range(N_LAYERS)) as seen:
        capture(model, [PROMPTS[0]], N_LAYERS - 1)
    assert seen == ["0", "1", "2", "3"]


def test_capture_leaves_no_hooks_behind(model: Any) -> None:
    capture(model, [PROMPTS[0]], [0, 2], steering=at(1, CAA(V)))
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (steerlens.everywhere, lambda row: range(len(row.ids))),
        (steerlens.everywhere.without_bos, lambda row: range(1, len(row.ids))),
        (steerlens.last, lambda row: [row.response - 1]),
        (steerlens.prompt, lambda row: range(row.response)),
        (steerlens.response, lambda row: range(row.response - 1, len(row.ids))),
        (
            steerlens.question_and_response,
            lambda row: range(max(row.question - 1, 0), len(row.ids)),
        ),
        (steerlens.positions(1, 3), lambda row: [1, 2]),
    ],
    ids=lambda value: str(value) if isinstance(value, steerlens.Scope) else "",
)
def test_a_scope_selects_its_tokens_of_every_row(scope: Any, expected: Any, model: Any) -> None:
    whole = capture(model, TEXTS, 1)
    chosen = capture(model, TEXTS, 1, scope=scope, batch_size=4)
    for number, text in enumerate(TEXTS):
        wanted = list(expected(steerlens.encode(model, text)))
        assert chosen.position[chosen.row == number].tolist() == wanted
        assert_near(chosen.of(number, 1), whole.of(number, 1)[wanted])


def test_a_scope_that_meets_no_token_at_all_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match="The scope holds no token of these prompts"):
        capture(model, list(PROMPTS), 1, scope=steerlens.generated)


def test_row_means_are_the_means_of_each_rows_tokens(model: Any) -> None:
    captured = capture(model, TEXTS, 1, scope=steerlens.everywhere.without_bos)
    for number, mean in enumerate(captured.row_means(1)):
        torch.testing.assert_close(mean, captured.of(number, 1).mean(dim=0))


@pytest.mark.parametrize("buffer", [1, 2, 64])
def test_the_stream_holds_the_same_activations(buffer: int, model: Any) -> None:
    pieces = list(
        capture_stream(
            model, iter(TEXTS), [1, 2], scope=steerlens.response, batch_size=2, buffer=buffer
        )
    )
    assert len(pieces) == 3
    assert_same(joined(pieces), capture(model, TEXTS, [1, 2], scope=steerlens.response))


def test_the_stream_reads_no_further_than_its_buffer(model: Any) -> None:
    read: list[int] = []

    def texts() -> Any:
        for number in range(50):
            read.append(number)
            yield PROMPTS[number % len(PROMPTS)]

    next(capture_stream(model, texts(), 1, batch_size=2, buffer=3))
    assert len(read) == 6


def by_hand(model: Any, prompt: str, change: Any, name: str, site: Site) -> torch.Tensor:
    """`site` in a pass whose hook point `name` goes through `change`, by TransformerLens alone."""
    ids = torch.tensor([steerlens.encode(model, prompt).ids])
    kept = {}

    def keep(activation: torch.Tensor, hook: Any = None) -> None:
        kept[0] = activation[0].clone()

    hooks = [(name, lambda activation, hook: change(activation)), (site.hook_name, keep)]
    with torch.no_grad():
        model.run_with_hooks(ids, fwd_hooks=hooks)
    return kept[0]


def test_steering_in_capture_is_the_steer_applied_by_hand(model: Any) -> None:
    sites = [Site(1), Site(3)]
    captured = capture(model, list(PROMPTS), sites, steering=at(1, steerlens.Scaled(CAA(V), 2.0)))
    for number, prompt in enumerate(PROMPTS):
        for site in sites:
            expected = by_hand(model, prompt, lambda h: h + 2 * V, Site(1).hook_name, site)
            assert_near(captured.of(number, site), expected)


@pytest.mark.parametrize("name", ["ActAdd, back", "Only, response", "a steer that sees the tokens"])
def test_a_batch_under_a_positional_steering_is_its_single_texts(name: str, model: Any) -> None:
    steering = CATALOGUE[name].build(model)
    together = capture(model, TEXTS, [1, 2], steering=steering, batch_size=4)
    for number, text in enumerate(TEXTS):
        alone = capture(model, [text], [1, 2], steering=steering)
        for layer in (1, 2):
            assert_near(together.of(number, layer), alone.at(layer))
    assert not torch.equal(together.at(2), capture(model, TEXTS, 2).at(2))


def test_a_steered_site_is_read_after_its_steer_or_before_it_on_request(model: Any) -> None:
    steering = at(1, CAA(V)) + at(1, CAA(V))
    plain = capture(model, TEXTS, 1)
    assert_near(capture(model, TEXTS, 1, steering=steering).at(1), plain.at(1) + 2 * V)
    before = capture(model, TEXTS, [1, 2], steering=steering, moment="before")
    assert_near(before.at(1), plain.at(1))
    after = capture(model, TEXTS, [1, 2], steering=steering)
    assert_near(before.at(2), after.at(2))


def test_activations_keep_the_models_dtype(bfloat16_model: Any) -> None:
    assert capture(bfloat16_model, [PROMPTS[0]], 1).at(1).dtype == torch.bfloat16


def test_activations_that_are_not_finite_are_refused(model: Any) -> None:
    def explode(activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        return activation * float("inf")

    with pytest.raises(ValueError, match="4 of 4 activations at layer 1 resid_post are NaN or inf"):
        capture(model, [PROMPTS[0]], 1, steering=at(1, explode))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sites": []}, "No sites were given"),
        ({"sites": 1, "batch_size": 0}, "batch_size must be at least 1"),
        ({"sites": 1, "side": "middle"}, "padding side is 'left' or 'right'; found 'middle'"),
        ({"sites": 9}, "names the hook point 'blocks.9.hook_resid_post', which this model"),
    ],
)
def test_requests_without_a_meaning_are_refused(
    options: dict[str, Any], message: str, model: Any
) -> None:
    with pytest.raises(ValueError, match=message):
        capture(model, [PROMPTS[0]], **options)
