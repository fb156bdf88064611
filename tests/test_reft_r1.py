"""ReFT-r1: its two edits, its penalty, the unit direction, and what it is trained on."""

import warnings
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from test_coefficients import PAIRS
from tiny_models import D_MODEL

import steerlens
from steerlens import PromptPair, ReFTr1, Site, encode_pair, everywhere
from steerlens.methods import reft_r1
from steerlens.methods.reft_r1 import InTraining, split_latents
from steerlens.runtime.forward import logits
from steerlens.training.closing import Closed, require_open
from steerlens.training.schedule import Schedule
from steerlens.types import SteeringWarning

# Here a few steps are enough to compare; how far they reach is tested in test_training.
pytestmark = pytest.mark.filterwarnings("ignore:.* can move a parameter")

NEGATIVES = [PromptPair.with_system("What is it?", "", "the the the cat sat on the mat by")]
WHOLE = Schedule(epochs=4, batch_size=99, weight_decay=0.0, patience=None, clip=1.0)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fit(model: Any, **options: Any) -> Any:
    return ReFTr1.fit(model, PAIRS, options.pop("site", 1), **options)


# -- The two edits ---------------------------------------------------------------------------------


def test_the_largest_latents_and_the_others_by_hand() -> None:
    a = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 5.0, 0.0, 0.0], [1.0, 1.0, 1.0, 5.0]])
    where = torch.tensor([[True, True, True, False], [False, True, False, False], [True] * 4])
    top, rest = split_latents(a, where, 2)
    assert top.tolist() == [2.5, 5.0, 3.0]
    assert rest.tolist() == pytest.approx([1 / 3, 0.0, 2 / 4])
    assert split_latents(a, where, 99)[0].tolist() == pytest.approx([2.0, 5.0, 2.0])
    assert split_latents(a, where, 99)[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_edit_in_training_token_by_token(gpt2: Any, k: int, side: str) -> None:
    prompts = ["The dog ran", "I love you because you are kind and good", "What is it?"]
    tokens, window = steerlens.batch(gpt2, prompts, side=side)
    h, w = random(*tokens.shape, D_MODEL), random(D_MODEL, seed=1)
    edit = InTraining(w, k, everywhere.without_bos).bind(window)
    steered, latents = edit(h), edit.gates(h)[..., 0]
    _, rest = split_latents(latents, everywhere.without_bos.where(window), k)
    for number in range(len(prompts)):
        real = window.mask[number]
        row = h[number][real].double().numpy()
        expected, others = oracles.reft_r1_in_training(row, w.numpy(), k, lambda t: t > 0)
        np.testing.assert_allclose(steered[number][real], expected, rtol=1e-4, atol=1e-4)
        assert float(rest[number]) == pytest.approx(others, rel=1e-4, abs=1e-5)
        assert not latents[number][~real].any()
        assert latents[number][real][0] == 0


def test_the_latent_is_open_on_one_side_only() -> None:
    w = torch.nn.functional.normalize(random(D_MODEL), dim=0)
    h = torch.stack([2 * w, -2 * w])
    assert ReFTr1(w, 1.0).latents(h).tolist() == pytest.approx([2.0, 0.0])


# -- Training --------------------------------------------------------------------------------------


def reference_training(
    model: Any, l1: float, k: int, layers: tuple[int, ...] = (1,)
) -> list[torch.Tensor]:
    """The w of each layer after WHOLE on PAIRS and NEGATIVES, by plain passes of one row each."""
    rows = [encode_pair(model, pair)[0] for pair in [*PAIRS, *NEGATIVES]]
    generator = torch.Generator().manual_seed(WHOLE.seed)
    starts = [torch.randn(D_MODEL, generator=generator) for _ in layers]
    every = [(w / w.norm()).requires_grad_() for w in starts]
    optimiser = torch.optim.AdamW(every, weight_decay=0.0)
    for step in range(WHOLE.epochs):
        surprise, n_tokens, penalty = torch.zeros(()), 0, torch.zeros(())
        for row in rows:
            seen: list[torch.Tensor] = []
            hooks = []
            for layer, w in zip(layers, every, strict=True):

                def hook(
                    h: torch.Tensor, hook: Any, w: Any = w, seen: Any = seen, n: int = int(row.bos)
                ) -> torch.Tensor:
                    a = torch.relu(h[0, n:] @ w)
                    ordered = a.sort(descending=True).values
                    seen.append(ordered[k:].sum() / len(a))
                    return torch.cat([h[:, :n], h[:, n:] + ordered[:k].mean() * w], dim=1)

                hooks.append((Site(layer).hook_name, hook))
            tokens, window = steerlens.batch(model, [row])
            with model.hooks(fwd_hooks=hooks):
                scores = logits(model, tokens, window)[0]
            wanted = torch.tensor(row.ids[row.response :])
            surprise = surprise + torch.nn.functional.cross_entropy(
                scores[row.response - 1 : -1], wanted, reduction="sum"
            )
            n_tokens, penalty = n_tokens + len(wanted), penalty + torch.stack(seen).sum()
        optimiser.zero_grad()
        (surprise / n_tokens + step / WHOLE.epochs * l1 * penalty).backward()
        with torch.no_grad():
            for w in every:
                w.grad -= (w.grad @ w) * w
            torch.nn.utils.clip_grad_norm_(every, 1.0)
            optimiser.param_groups[0]["lr"] = 0.01 * (1 - step / WHOLE.epochs)
            optimiser.step()
            for w in every:
                w /= w.norm()
    return [w.detach() for w in every]


@pytest.mark.parametrize("l1", [0.0, 3.0])
def test_training_is_that_of_plain_full_passes(model: Any, l1: float) -> None:
    found = fit(model, negatives=NEGATIVES, l1=l1, k=2, schedule=WHOLE)
    (expected,) = reference_training(model, l1, 2)
    torch.testing.assert_close(found.steer.w, expected, rtol=0, atol=2e-4)
    assert found.trained.best_epoch == WHOLE.epochs


def test_several_sites_are_trained_at_once(model: Any) -> None:
    found = fit(model, site=[2, Site(1)], negatives=NEGATIVES, l1=3.0, k=2, schedule=WHOLE)
    assert found.steering.sites == tuple(found.steers) == (Site(1), Site(2))
    for site, expected in zip(found.steers, reference_training(model, 3.0, 2, (1, 2)), strict=True):
        torch.testing.assert_close(found.steers[site].w, expected, rtol=0, atol=2e-4)
        rows = [encode_pair(model, pair)[0] for pair in [*PAIRS, *NEGATIVES]]
        seen = steerlens.capture(model, rows, site, scope=everywhere.without_bos).at(site)
        largest = float((seen @ found.steers[site].w).max())
        assert found.steers[site].a_max == pytest.approx(largest, rel=1e-5)


def test_the_penalty_and_the_negatives_count(gpt2: Any) -> None:
    options = {"negatives": NEGATIVES, "l1": 3.0, "k": 2, "schedule": WHOLE}
    whole = fit(gpt2, **options).steer.w
    for left_out in ({"l1": 0.0}, {"negatives": []}, {"k": 1}):
        other = fit(gpt2, **(options | left_out)).steer.w
        assert float((whole - other).abs().max()) > 1e-3


def test_fitting_makes_responses_likelier_and_w_has_length_1(model: Any) -> None:
    found = fit(model, validation=PAIRS, schedule=Schedule(epochs=15, patience=None, clip=1.0))
    losses = [row["validation_loss"] for row in found.trained.rows]
    assert min(losses) < losses[0] - 0.01
    assert losses[found.trained.best_epoch] == min(losses)
    assert float(found.steer.w.norm()) == pytest.approx(1, abs=1e-5)


def test_the_strength_is_the_largest_latent_on_the_training_text(model: Any) -> None:
    found = fit(model, negatives=NEGATIVES, validation=PAIRS[:1])
    rows = [encode_pair(model, pair)[0] for pair in [*PAIRS, *NEGATIVES]]
    largest = 0.0
    for row in rows:
        seen = steerlens.capture(model, [row], 1, scope=everywhere.without_bos).at(1)
        largest = max([largest, *(float(h @ found.steer.w) for h in seen)])
    assert found.steer.a_max == pytest.approx(largest, rel=1e-5)
    only_pairs = steerlens.capture(model, rows[:-1], 1, scope=everywhere.without_bos).at(1)
    assert float((only_pairs @ found.steer.w).max()) <= found.steer.a_max + 1e-5


# -- A latent that closes --------------------------------------------------------------------------


def fit_on_one_token(model: Any, seed: int, **options: Any) -> Any:
    """With one token of one text, about half of the random starts are closed."""
    schedule = Schedule(epochs=4, batch_size=99, patience=None, clip=1.0, seed=seed, **options)
    return ReFTr1.fit(model, PAIRS[:1], 1, scope=steerlens.scope.last, schedule=schedule)


@pytest.mark.parametrize("when", ["in epoch 1", "at the end of training"])
def test_a_latent_that_closes_begins_anew_and_slower(when: str, gpt2: Any, bridge: Any) -> None:
    model, seed = (gpt2, 0) if when == "in epoch 1" else (bridge, 2)
    with pytest.warns(SteeringWarning, match=rf"on no token {when}.*learning rate of 0\.0033"):
        found = fit_on_one_token(model, seed)
    assert found.steer.a_max > 0
    assert found.steering.origin.seed == seed
    assert found.trained.rows[-1]["rate"] == pytest.approx(0.01 / 3)
    with pytest.warns(SteeringWarning, match="begins anew"):
        again = fit_on_one_token(model, seed)
    torch.testing.assert_close(found.steer.w, again.steer.w, rtol=0, atol=0)


def test_an_open_latent_is_trained_once(gpt2: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*begins anew")
        assert fit_on_one_token(gpt2, 3).steer.a_max > 0


def test_where_every_training_closes_it_is_an_error(bridge: Any) -> None:
    advice = r"all 4 trainings \(learning rates 0\.01, 0\.0033, 0\.0011, 0\.00037\).*more pairs"
    with pytest.warns(SteeringWarning, match="anew"), pytest.raises(ValueError, match=advice):
        fit_on_one_token(bridge, 4)


def test_with_validation_an_epoch_before_the_latent_closed_is_kept(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The closing is made here: after the second epoch w is turned away from all activations."""
    seen = steerlens.capture(model, [encode_pair(model, PAIRS[0])[0]], 1).at(1).mean(dim=0)
    made, steps = reft_r1._Modules.make_unit, []

    def closing(modules: Any, parameters: Any) -> None:
        made(modules, parameters)
        steps.append(len(steps))
        if len(steps) > 2:
            parameters["1.resid_post.w"].copy_(-seen / seen.norm())

    monkeypatch.setattr(reft_r1._Modules, "make_unit", closing)
    schedule = Schedule(epochs=4, batch_size=99, patience=None, clip=1.0, seed=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The validation loss ended")
        found = fit(model, validation=PAIRS, schedule=schedule, scope=steerlens.scope.last)
    assert (len(steps), found.trained.best_epoch) == (4, 2)


@pytest.mark.parametrize("given", [{"learning_rate": 0.01}, {"rates": {"w": 0.01}}], ids=str)
def test_a_learning_rate_that_was_given_is_not_changed(gpt2: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"in epoch 1.*was given \(.*0\.01.*another seed"):
        fit_on_one_token(gpt2, 0, **given)


def test_one_open_token_in_an_epoch_is_open() -> None:
    opened = {Site(1): torch.tensor([0.0, 0.01]), Site(2): True}
    require_open(opened, "in epoch 1")
    with pytest.raises(Closed, match="layer 2"):
        require_open(opened | {Site(2): torch.zeros(3)}, "in epoch 1")


def test_it_steers_everywhere_and_the_factor_is_the_strength(gpt2: Any, tmp_path: Any) -> None:
    found = fit(gpt2)
    again = steerlens.load_steering(found.steering.save(tmp_path / "r.safetensors"), gpt2)
    before = steerlens.capture(gpt2, "the cat", 1).at(1)
    after = steerlens.capture(gpt2, "the cat", 1, steering=again.scaled(0.5)).at(1)
    expected = (0.5 * found.steer.a_max * found.steer.w).expand_as(before)
    torch.testing.assert_close(after - before, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is at least 1 .* found k=0"),
        ({"l1": -1.0}, "found k=8 and l1=-1.0"),
        ({"l1": float("nan")}, "l1=nan"),
        ({"site": 9}, "layers, 0 to 3"),
    ],
    ids=str,
)
def test_bad_options_are_errors(gpt2: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(gpt2, **options)


def test_bad_values_are_errors() -> None:
    with pytest.raises(ValueError, match=r"must be above 0; found 0\.0.*another seed"):
        ReFTr1(random(D_MODEL), 0.0)
    with pytest.raises(ValueError, match="ReFTr1's w: 1 of 2 values"):
        ReFTr1(torch.tensor([1.0, torch.nan]), 1.0)


def test_no_pairs_are_an_error(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="No pairs were given"):
        ReFTr1.fit(gpt2, [], 1)
