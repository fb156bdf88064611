"""LoReFT: what changes in the subspace and what does not, how it begins, what it is trained on."""

from typing import Any

import pytest
import torch
from test_coefficients import PAIRS
from tiny_models import D_MODEL

import steerlens
from steerlens import LoReFT, Site, encode_pair
from steerlens.methods.loreft import _Modules, orthonormal
from steerlens.runtime.forward import logits
from steerlens.training.schedule import Schedule

SITES = (Site(0), Site(2))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fit(model: Any, **options: Any) -> Any:
    timing = {name: options.pop(name) for name in ("steps", "rate", "seed") if name in options}
    given = {"sites": SITES, "validation": PAIRS} | options
    return LoReFT.fit(model, PAIRS, schedule=Schedule.full_batch(**timing), **given)


def mean_surprise(model: Any, hooks: list[Any]) -> torch.Tensor:
    """The mean of -log p over all response tokens of all pairs, by full passes of one row each."""
    total, n_tokens = torch.zeros(()), 0
    for pair in PAIRS:
        row, _ = encode_pair(model, pair)
        tokens, window = steerlens.batch(model, [row])
        with model.hooks(fwd_hooks=hooks):
            scores = logits(model, tokens, window)[0]
        wanted = torch.tensor(row.ids[row.response :])
        total = total + torch.nn.functional.cross_entropy(
            scores[row.response - 1 : -1], wanted, reduction="sum"
        )
        n_tokens += len(wanted)
    return total / n_tokens


# -- The equation ----------------------------------------------------------------------------------


def test_inside_the_subspace_it_is_the_linear_map_and_outside_nothing_changes() -> None:
    R, W, b = orthonormal(random(3, D_MODEL)), random(3, D_MODEL, seed=1), random(3, seed=2)
    h = random(2, 5, D_MODEL, seed=3)
    steered = LoReFT(R, W, b)(h)
    torch.testing.assert_close(steered @ R.T, h @ W.T + b, rtol=1e-4, atol=1e-4)
    outside = torch.eye(D_MODEL) - R.T @ R
    torch.testing.assert_close(steered @ outside, h @ outside, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_begins_as_the_model_itself_to_the_bit(dtype: torch.dtype) -> None:
    modules = _Modules(SITES, 3, D_MODEL)
    h = random(2, 5, D_MODEL).to(dtype)
    for steer in modules.build(modules.begin(torch.Generator().manual_seed(1))).values():
        assert torch.equal(steer(h), h)
        assert steer(h).dtype == dtype


def test_orthonormal_rows_stay_and_others_keep_their_span() -> None:
    rows = random(4, D_MODEL)
    R = orthonormal(rows)
    torch.testing.assert_close(R @ R.T, torch.eye(4))
    torch.testing.assert_close((rows @ R.T) @ R, rows)
    torch.testing.assert_close(orthonormal(R), R)


# -- Training --------------------------------------------------------------------------------------


def reference_training(model: Any, steps: int) -> dict[Site, list[torch.Tensor]]:
    """r, W and b of rank 1, by AdamW on plain passes; of r's gradient only what is across r."""
    start = _Modules(SITES, 1, D_MODEL).begin(torch.Generator().manual_seed(0))
    held = {
        site: [start[f"{site.layer}.resid_post.{name}"].clone().requires_grad_() for name in "RWb"]
        for site in SITES
    }
    every = [value for values in held.values() for value in values]
    optimiser = torch.optim.AdamW(every, lr=3e-3, weight_decay=0.0)
    for _ in range(steps):
        hooks = []
        for site, (r, W, b) in held.items():

            def hook(h: torch.Tensor, hook: Any, r: Any = r, W: Any = W, b: Any = b) -> Any:
                return h + ((h @ W[0]) + b - (h @ r[0]))[..., None] * r[0]

            hooks.append((site.hook_name, hook))
        optimiser.zero_grad()
        mean_surprise(model, hooks).backward()
        with torch.no_grad():
            for r, _, _ in held.values():
                r.grad -= (r.grad @ r[0])[:, None] * r
            torch.nn.utils.clip_grad_norm_(every, 1.0)
            optimiser.step()
            for r, _, _ in held.values():
                r /= r.norm()
    return held


def test_training_is_that_of_plain_full_passes(model: Any) -> None:
    found = fit(model, steps=3)
    assert found.trained.best_epoch == 3
    for site, (r, W, b) in reference_training(model, 3).items():
        steer = found.steers[site]
        torch.testing.assert_close(steer.R, r.detach(), rtol=0, atol=1e-4)
        torch.testing.assert_close(steer.W, W.detach(), rtol=0, atol=1e-4)
        torch.testing.assert_close(steer.b, b.detach(), rtol=0, atol=1e-4)
        assert not torch.equal(steer.W, steer.R)


@pytest.mark.parametrize("rank", [1, 3])
def test_fitting_makes_the_responses_likelier_and_keeps_rows_orthonormal(
    model: Any, rank: int
) -> None:
    found = fit(model, rank=rank)
    losses = [row["validation_loss"] for row in found.trained.rows]
    assert min(losses) < losses[0] - 0.01
    for steer in found.steers.values():
        assert steer.R.shape == (rank, D_MODEL)
        torch.testing.assert_close(steer.R @ steer.R.T, torch.eye(rank), rtol=0, atol=1e-5)
    hooks = [(site.hook_name, steer) for site, steer in found.steers.items()]
    assert float(mean_surprise(model, hooks)) == pytest.approx(min(losses), abs=1e-4)


@pytest.mark.filterwarnings("ignore:No epoch had a lower validation loss")
def test_where_every_step_harms_the_model_itself_is_kept(gpt2: Any) -> None:
    other = [steerlens.PromptPair.with_system("What is it?", "", "the the the cat")]
    found = fit(gpt2, rate=3.0, steps=2, validation=other)
    assert found.trained.best_epoch == 0
    h = random(1, 3, D_MODEL)
    assert all(torch.equal(steer(h), h) for steer in found.steers.values())


def test_the_seed_chooses_the_subspace(gpt2: Any) -> None:
    one, same, other = (fit(gpt2, steps=1, seed=seed).steers[SITES[0]].R for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert abs(float((one * other).sum())) < 0.9


def test_the_scope_is_where_it_acts_and_is_saved(gpt2: Any, tmp_path: Any) -> None:
    found = fit(gpt2, sites=1, scope=steerlens.last)
    path = found.steering.save(tmp_path / "loreft.safetensors")
    again = steerlens.load_steering(path, gpt2)
    for name in "RWb":
        saved = getattr(again.placed[0][1].steer, name)
        assert torch.equal(saved, getattr(found.steers[Site(1)], name))
    both = [
        steerlens.capture(gpt2, "the cat", 1, moment=moment, steering=again).at(1)
        for moment in ("before", "after")
    ]
    changed = (both[0] != both[1]).any(dim=-1)
    assert changed.tolist() == [False] * (len(changed) - 1) + [True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": []}, "No validation pairs"),
        ({"rank": 0}, r"from 1 to d_model = 32; found 0"),
        ({"rank": 33}, r"found 33"),
        ({"sites": []}, "No sites were given"),
        ({"sites": 9}, "layers, 0 to 3"),
    ],
    ids=["validation", "rank 0", "rank 33", "no sites", "unknown site"],
)
def test_bad_options_are_errors(gpt2: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(gpt2, **options)


def test_rows_that_are_not_orthonormal_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"must be orthonormal.*off the identity by 3.*makes them"):
        LoReFT(2 * torch.eye(2, D_MODEL), torch.zeros(2, D_MODEL), torch.zeros(2))
    with pytest.raises(ValueError, match="LoReFT's W: 64 of 64 values are NaN"):
        LoReFT(torch.eye(2, D_MODEL), torch.full((2, D_MODEL), torch.nan), torch.zeros(2))
