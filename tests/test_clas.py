"""CLAS: its equation and special cases, what it is trained on, and that it may return the model."""

import inspect
from contextlib import nullcontext
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from test_coefficients import PAIRS
from tiny_models import D_MODEL, load

import steerlens
from steerlens import PromptPair, Site, Steering, at, encode_pair
from steerlens.methods.clas import CLAS
from steerlens.runtime.forward import logits
from steerlens.training.schedule import Schedule, Share

SITES = tuple(Site(layer) for layer in range(4))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


DIRECTIONS = {site: random(D_MODEL, seed=100 + site.layer) for site in SITES}


def fit(model: Any, pairs: Any = PAIRS, **options: Any) -> Any:
    """CLAS.fit by a schedule of these options: steps, rate, seed, and the rate or share of b."""
    rates: dict[str, Any] = {}
    if "bias_rate" in options:
        rates["b"] = options.pop("bias_rate")
    if "bias_share" in options:
        rates["b"] = Share(options.pop("bias_share"))
    timing = {name: options.pop(name) for name in ("steps", "rate", "seed") if name in options}
    given = {"validation": PAIRS, "directions": DIRECTIONS} | options
    return CLAS.fit(model, pairs, schedule=Schedule.full_batch(**timing, rates=rates), **given)


# -- The equation ----------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 0.5])
def test_the_equation_token_by_token(limit: float | None) -> None:
    c, b, v = random(2, D_MODEL), random(2, seed=1), random(2, D_MODEL, seed=2)
    h = random(1, 7, D_MODEL, seed=3)
    found = CLAS(c, b, v, limit)(h)[0].numpy()
    expected = oracles.clas(h[0].double().numpy(), c.numpy(), b.numpy(), v.numpy(), limit)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_with_nothing_sensed_it_is_linear_steering() -> None:
    h, v = random(2, 5, D_MODEL), random(D_MODEL, seed=1)
    torch.testing.assert_close(CLAS.fixed(v, 1.5)(h), h + 1.5 * v)


def test_ablation_leaves_nothing_along_the_direction() -> None:
    h, v = random(2, 5, D_MODEL), random(D_MODEL, seed=1)
    left = CLAS.ablation(v)(h)
    assert (left @ v).abs().max() < 1e-4
    torch.testing.assert_close(left + ((h - left) @ v / (v @ v))[..., None] * v, h)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_begins_as_the_model_itself(dtype: torch.dtype) -> None:
    h = random(2, 5, D_MODEL).to(dtype)
    zero = CLAS(torch.zeros(1, D_MODEL), torch.zeros(1), random(1, D_MODEL))
    assert torch.equal(zero(h), h)
    assert zero(h).dtype == dtype


def scores_under(model: Any, steering: Any) -> torch.Tensor:
    """All logits of two rows of different lengths under a steering, or of the model itself."""
    tokens, window = steerlens.batch(model, [encode_pair(model, pair)[0] for pair in PAIRS[:2]])
    with torch.no_grad(), steering.applied(model, window) if steering else nullcontext():
        return logits(model, tokens, window)


def nothing_sensed() -> Any:
    """CLAS at every block, as fitting begins."""
    c, b = torch.zeros(1, D_MODEL), torch.zeros(1)
    return Steering(tuple((site, CLAS(c, b, DIRECTIONS[site][None])) for site in SITES))


def test_at_zero_every_logit_is_the_models_to_the_bit(model: Any) -> None:
    with pytest.warns(steerlens.SteeringWarning, match="changed no activation"):
        steered = scores_under(model, nothing_sensed())
    assert torch.equal(steered, scores_under(model, None))


def test_in_bfloat16_zero_is_near_the_model(bfloat16_model: Any) -> None:
    with pytest.warns(steerlens.SteeringWarning, match="changed no activation"):
        steered = scores_under(bfloat16_model, nothing_sensed())
    torch.testing.assert_close(steered, scores_under(bfloat16_model, None))


def test_a_bias_alone_steers_the_model_as_a_constant_vector_does(model: Any) -> None:
    v = DIRECTIONS[Site(1)]
    ours = scores_under(model, at(1, CLAS.fixed(v, 0.7)))
    theirs = scores_under(model, at(1, steerlens.CAA(0.7 * v)))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, scores_under(model, None), atol=1e-2)


# -- What it is trained on -------------------------------------------------------------------------


def plain_loss(
    model: Any,
    parameters: dict[str, torch.Tensor],
    scope: Any = steerlens.everywhere,
    pairs: Any = PAIRS,
) -> torch.Tensor:
    """The mean of -log p over all response tokens of all pairs, by full passes of one row each."""
    total: Any = 0.0
    n_tokens = 0
    for pair in pairs:
        row, _ = encode_pair(model, pair)
        tokens, window = steerlens.batch(model, [row])
        where = scope.where(window)[..., None]
        hooks = []
        for site in SITES:
            c, b = (parameters[f"{site.layer}.resid_post.{name}"] for name in ("c", "b"))
            v = torch.nn.functional.normalize(DIRECTIONS[site], dim=0).to(c)

            def hook(
                h: torch.Tensor, hook: Any, c: Any = c, b: Any = b, v: Any = v, where: Any = where
            ) -> Any:
                return h + where * (h @ c.T + b) * v

            hooks.append((site.hook_name, hook))
        with model.hooks(fwd_hooks=hooks):
            scores = logits(model, tokens, window)[0]
        wanted = torch.tensor(row.ids[row.response :])
        losses = torch.nn.functional.cross_entropy(
            scores[row.response - 1 : -1], wanted, reduction="sum"
        )
        total, n_tokens = total + losses, n_tokens + len(wanted)
    return total / n_tokens


def task_and_parameters(model: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """What `CLAS.fit` trains on `PAIRS` at every block, and parameters away from its start."""
    from steerlens.methods.clas import _Modules
    from steerlens.scopes import everywhere
    from steerlens.training.imitation import Imitation
    from steerlens.training.objectives import LL

    units = {site: torch.nn.functional.normalize(v, dim=0)[None] for site, v in DIRECTIONS.items()}
    modules = _Modules(SITES, units, "contextual", False, None)
    task = Imitation(model, PAIRS, modules, scope=everywhere, objective=LL(by_token=True))
    start = modules.begin(torch.Generator())
    return task, {
        name: (0.02 * random(*value.shape, seed=i)).requires_grad_()
        for i, (name, value) in enumerate(start.items())
    }


def test_the_loss_counts_tokens_and_its_gradient_reaches_every_layer(model: Any) -> None:
    task, parameters = task_and_parameters(model)
    assert sum(value.numel() for value in parameters.values()) == 4 * (D_MODEL + 1)
    task.loss(parameters, range(len(PAIRS))).backward()
    found = {name: value.grad.clone() for name, value in parameters.items()}
    for value in parameters.values():
        value.grad = None
    expected = plain_loss(model, parameters)
    assert task.loss(parameters, range(len(PAIRS))).item() == pytest.approx(expected.item(), 1e-4)
    expected.backward()
    for name, value in parameters.items():
        torch.testing.assert_close(found[name], value.grad, rtol=2e-3, atol=1e-6)
        assert found[name].abs().max() > 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_gradients_are_central_differences_of_a_float64_model(
    model: Any, kind: Any, folder: Any
) -> None:
    task, parameters = task_and_parameters(model)
    task.loss(parameters, range(len(PAIRS))).backward()
    exact = load(folder, kind.backend, torch.float64)
    begun = {name: value.detach().double() for name, value in parameters.items()}
    for i, (name, value) in enumerate(parameters.items()):
        # transformers' norm computes in float32 always: a smaller step would drown in rounding.
        step = 1e-3 * torch.nn.functional.normalize(random(*value.shape, seed=50 + i), dim=-1)
        with torch.no_grad():
            up, down = (
                float(plain_loss(exact, {**begun, name: begun[name] + sign * step.double()}))
                for sign in (1, -1)
            )
        along = float((value.grad.double() * step.double()).sum())
        assert along == pytest.approx((up - down) / 2, rel=5e-3, abs=1e-6)


@pytest.mark.parametrize("scope", [steerlens.everywhere, steerlens.response], ids=str)
def test_training_is_that_of_plain_full_passes(model: Any, scope: Any) -> None:
    rates, steps = {"c": 1e-2, "b": 0.2}, 4
    short = [PromptPair.with_system("What is it?", "", text) for text in (" love", " hate")]
    options = {"steps": steps, "rate": rates["c"], "bias_rate": rates["b"], "scope": scope}
    found = fit(model, short, validation=short, **options)
    shapes = {"c": (1, D_MODEL), "b": (1,)}
    parameters = {
        f"{site.layer}.resid_post.{name}": torch.zeros(shape, requires_grad=True)
        for site in SITES
        for name, shape in shapes.items()
    }
    groups = [{"params": [value], "lr": rates[name[-1]]} for name, value in parameters.items()]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.0)
    norms = []
    for _ in range(steps):
        optimiser.zero_grad()
        plain_loss(model, parameters, scope, short).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)))
        optimiser.step()
    assert max(norms) > 1.05  # so that clipping is seen
    assert found.trained.best_epoch == steps
    for name, value in parameters.items():
        trained = found.trained.parameters[name]
        torch.testing.assert_close(trained, value.detach(), rtol=0, atol=1e-4)
        assert trained.abs().max() > 1e-3


def test_the_choice_among_steps_does_not_depend_on_how_many_train(gpt2: Any) -> None:
    one = fit(gpt2, PAIRS[:1], steps=1)
    all_of_them = fit(gpt2, steps=1)
    begun = [found.trained.rows[0]["validation_loss"] for found in (one, all_of_them)]
    assert begun[0] == pytest.approx(begun[1], rel=1e-6)


def test_the_first_step_moves_every_bias_by_its_rate(model: Any) -> None:
    one = fit(model, steps=1, bias_rate=1e-3, rate=1e-4)
    assert one.trained.best_epoch == 1
    for steer in one.steers.values():
        assert abs(float(steer.b)) == pytest.approx(1e-3, rel=1e-3)
        assert steer.c.abs().max() == pytest.approx(1e-4, rel=1e-2)


def test_the_rate_of_the_bias_follows_the_size_of_the_activations(gpt2: Any) -> None:
    rows = [encode_pair(gpt2, pair)[0] for pair in PAIRS]
    seen = steerlens.capture(gpt2, rows, list(SITES), scope=steerlens.everywhere.without_bos)
    found = fit(gpt2, steps=1, kind="layerwise", bias_share=1e-4)
    assert found.trained.best_epoch == 1
    for site, steer in found.steers.items():
        size = float(seen.at(site).norm(dim=-1).median())
        assert abs(float(steer.b)) == pytest.approx(1e-4 * size, rel=1e-3)


def test_the_rate_of_the_bias_is_that_of_the_tokens_in_scope(gpt2: Any) -> None:
    rows = [encode_pair(gpt2, pair)[0] for pair in PAIRS]
    seen = steerlens.capture(gpt2, rows, list(SITES), scope=steerlens.last)
    found = fit(gpt2, steps=1, kind="layerwise", bias_share=1e-4, scope=steerlens.last)
    assert found.trained.best_epoch == 1
    for site, steer in found.steers.items():
        size = float(seen.at(site).norm(dim=-1).median())
        assert abs(float(steer.b)) == pytest.approx(1e-4 * size, rel=1e-3)


def test_a_single_bias_has_the_mean_rate_of_the_sites_in_any_share(gpt2: Any) -> None:
    layerwise = fit(gpt2, steps=1, kind="layerwise", bias_share=0.02).steers.values()
    single = fit(gpt2, steps=1, kind="single", bias_share=0.02).steers.values()
    mean = sum(abs(float(steer.b)) for steer in layerwise) / len(SITES)
    assert mean > 0
    assert abs(float(next(iter(single)).b)) == pytest.approx(mean, rel=1e-3)
    halved = fit(gpt2, steps=1, kind="single", bias_share=0.01).steers.values()
    assert abs(float(next(iter(halved)).b)) == pytest.approx(mean / 2, rel=1e-3)


@pytest.mark.parametrize("strength", ["contextual", "layerwise", "single"])
def test_fitting_makes_the_responses_likelier(model: Any, strength: Any) -> None:
    found = fit(model, kind=strength)
    losses = [row["validation_loss"] for row in found.trained.rows]
    assert min(losses) < losses[0]
    biases = {float(steer.b) for steer in found.steers.values()}
    assert len(biases) == (1 if strength == "single" else 4)
    sensing = [bool(steer.c.any()) for steer in found.steers.values()]
    assert all(sensing) == any(sensing) == (strength == "contextual")
    for site, steer in found.steers.items():
        cosine = torch.cosine_similarity(steer.v[0], DIRECTIONS[site], dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-5)
        assert float(steer.v.norm()) == pytest.approx(1, abs=1e-5)


def test_learnt_directions_leave_the_given_ones_at_one_rate_for_everything(gpt2: Any) -> None:
    found = fit(gpt2, learn_directions=True)
    assert found.trained.best_epoch > 0
    given = fit(gpt2, learn_directions=True, bias_rate=3e-3)
    for name, value in given.trained.parameters.items():
        assert torch.equal(found.trained.parameters[name], value)
    for site, steer in found.steers.items():
        assert abs(float(torch.cosine_similarity(steer.v[0], DIRECTIONS[site], dim=0))) < 0.9


@pytest.mark.parametrize("kind", ["contextual", "layerwise", "single"])
def test_several_directions_at_a_site_have_a_strength_each(
    gpt2: Any, kind: Any, tmp_path: Any
) -> None:
    v = random(3, D_MODEL, seed=7)
    found = fit(gpt2, directions={1: v, 2: v[0]}, kind=kind, bias_share=0.001)
    assert found.trained.best_epoch > 0
    wide, narrow = found.steers[Site(1)], found.steers[Site(2)]
    assert [list(part.shape) for part in (wide.c, wide.b, wide.v)] == [[3, 32], [3], [3, 32]]
    assert list(narrow.c.shape) == [1, 32]
    torch.testing.assert_close(wide.v, torch.nn.functional.normalize(v, dim=-1))
    assert len(set(wide.b.tolist())) == (1 if kind == "single" else 3)
    assert bool(wide.c.any(dim=1).all()) == (kind == "contextual")
    saved = steerlens.load_steering(found.steering.save(tmp_path / "s.safetensors"), gpt2)
    assert torch.equal(saved.placed[0][1].b, wide.b)
    learnt = fit(gpt2, directions={1: v}, learn_directions=True, steps=1)
    assert learnt.steers[Site(1)].v.shape == (3, D_MODEL)


def test_sites_choose_among_the_directions(gpt2: Any) -> None:
    some = fit(gpt2, sites=[Site(3), 1], steps=1)
    assert list(some.steers) == [Site(1), Site(3)]
    only = fit(gpt2, directions={site: DIRECTIONS[site] for site in some.steers}, steps=1)
    for site, steer in some.steers.items():
        assert torch.equal(steer.c, only.steers[site].c)
        assert steer.b.any()


@pytest.mark.filterwarnings("ignore:No epoch had a lower validation loss")
def test_where_every_step_harms_the_model_itself_is_kept(model: Any) -> None:
    other = [steerlens.PromptPair.with_system("What is it?", "", "the the the cat")]
    found = fit(model, bias_rate=1e4, validation=other)
    assert found.trained.best_epoch == 0
    h = random(1, 3, D_MODEL)
    assert all(torch.equal(steer(h), h) for steer in found.steers.values())


def test_the_prompted_side_of_a_pair_is_not_used(gpt2: Any) -> None:
    same = [steerlens.PromptPair(pair.plain, pair.plain, pair.response) for pair in PAIRS]
    one = fit(gpt2)
    two = fit(gpt2, same, validation=same)
    for site in SITES:
        assert torch.equal(one.steers[site].c, two.steers[site].c)


def test_positions_and_limits_are_kept(gpt2: Any, tmp_path: Any) -> None:
    found = fit(gpt2, scope=steerlens.everywhere.without_bos, limit=0.01)
    given = steerlens.capture(gpt2, ["a b c"], 0, moment="before", steering=found.steering).at(0)
    after = steerlens.capture(gpt2, ["a b c"], 0, steering=found.steering).at(0)
    moved = (after - given).norm(dim=-1)
    assert moved[0] == 0
    assert (moved[1:] <= 0.01 + 1e-6).all()
    assert (moved[1:] > 0).all()
    path = tmp_path / "clas.safetensors"
    found.steering.save(path)
    again = steerlens.load_steering(path, gpt2)
    assert torch.equal(again.placed[0][1].steer.c, found.steers[SITES[0]].c)
    assert again.placed[0][1].steer.limit == 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": {}}, "No directions"),
        ({"validation": []}, "No validation pairs"),
        ({"directions": {Site(1): torch.zeros(D_MODEL)}}, "cannot be normalised"),
        ({"directions": {1: torch.ones(D_MODEL + 3)}}, r"layer 1 resid_post have shape \[1, 35\]"),
        ({"directions": {9: torch.ones(D_MODEL)}}, "which this model does not have"),
        ({"directions": {1: random(D_MODEL), Site(1): random(D_MODEL)}}, "given twice"),
        ({"bias_rate": -0.5}, "The rate of b must be a finite number, 0 or more; found -0.5"),
        ({"bias_rate": float("nan")}, "The rate of b must be a finite number"),
        ({"bias_share": -1.0}, "The rate of b must be a finite number, 0 or more; found -1"),
        ({"sites": [2], "directions": {1: random(D_MODEL)}}, "no directions at layer 2 resid_post"),
        ({"steps": 0}, "steps is a number of updates"),
        ({"rate": 0.0}, "the learning rate, must be finite and above 0"),
        ({"limit": 0.0}, "must be above 0"),
        ({"scope": steerlens.positions(5000, 5001)}, "The scope holds no token"),
        (
            {"scope": steerlens.positions(5000, 5001), "bias_rate": 0.1},
            "No token of these 6 pairs lies in the scope",
        ),
    ],
    ids=str,
)
def test_bad_options_are_errors(gpt2: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(gpt2, **options)


def test_no_pairs_to_fit_on_are_an_error(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="No pairs were given to fit on"):
        fit(gpt2, [], bias_rate=0.1)


def test_an_unknown_kind_is_an_error(gpt2: Any) -> None:
    unchecked = inspect.unwrap(CLAS.fit.__func__)  # beartype would say it in its own words
    with pytest.raises(ValueError, match=r"'global'.*contextual"):
        unchecked(CLAS, gpt2, PAIRS, directions=DIRECTIONS, validation=PAIRS, kind="global")


@pytest.mark.parametrize("shapes", [((1, 8), (2,), (2, 8)), ((1, 9), (1,), (1, 8))])
def test_parts_that_do_not_belong_together_are_an_error(shapes: Any) -> None:
    steer = object.__new__(CLAS)  # beartype would refuse the shapes in its own words
    for name, shape in zip("cbv", shapes, strict=True):
        object.__setattr__(steer, name, torch.ones(shape))
    with pytest.raises(
        ValueError, match=r"c \[rank, d_model\], b \[rank\], v \[rank, d_model\].*found c \[1, "
    ):
        steer.__post_init__()


def test_a_bound_below_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="above 0"):
        CLAS(random(1, D_MODEL), random(1), random(1, D_MODEL), limit=-1.0)


def test_steered_generation_differs_from_the_models(gpt2: Any) -> None:
    steering = at(1, CLAS.fixed(random(D_MODEL), 30.0))
    texts = [
        steerlens.generate(gpt2, ["a b c"], way, max_new_tokens=5, temperature=0.0).texts
        for way in (None, steering)
    ]
    assert texts[0] != texts[1]
