"""How near COLD comes to a gradient step: the limit it must have, and every number by hand."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_gradient_step import NEGATIVE, POSITIVE
from tiny_models import BACKENDS, load

import steerlens as sl
from analysis.measures import approximation
from analysis.measures.approximation import EXACT, FD, step_approximation
from analysis.measures.approximation_summary import approximation_summary
from steerlens import ColdFD, ColdKernel, Conversation, GradientStep, Site

UNIT = "ColdKernel, unit"
TEXTS = [
    "I love you because you are kind and good to the cat",
    Conversation("What is it?", response="It was a good day, a very good day indeed."),
    "Once upon a time there was a house by the sea",
]
EXAMPLES = (POSITIVE, ())


@pytest.fixture(scope="module", params=BACKENDS)
def exact_model(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Any:
    return load(folders["llama"], request.param, torch.float64)


def last_scores(model: Any, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([ids]))[0].log_softmax(-1)


@pytest.mark.filterwarnings("ignore:approximation_summary:steerlens.SteeringWarning")
def test_as_eta_goes_to_0_cold_fd_is_the_step_and_its_kernel_is_not(exact_model: Any) -> None:
    etas = (1e-2, 1e-3, 1e-4)
    table = step_approximation(exact_model, EXAMPLES, [0, 2], TEXTS, etas=etas)
    summary = approximation_summary(table).set_index(["method", "layer", "eta"])
    for layer in (0, 2):
        errors = [summary.loc[(FD, layer, eta), "relative_error"] for eta in etas]
        assert errors[0] > 1e-4, "the step is too short to have a second order"
        for larger, smaller in pairwise(errors):
            assert smaller == pytest.approx(larger / 10, rel=0.2)
        assert summary.loc[(FD, layer, 1e-4), "cosine"] > 0.9999
        assert summary.loc[(UNIT, layer, 1e-4), "relative_error"] > 0.3


def test_the_demo_model_in_float64_has_the_limit_too() -> None:
    model = sl.load("demo", dtype="float64")
    examples = ([Conversation("Review a film.", response="A joy, a wonderful film.")], ())
    texts = ["It was a good film, and well played."]
    table = step_approximation(model, examples, 3, texts, etas=(1e-3, 1e-4))
    errors = table.loc[table["method"] == FD].groupby("eta")["relative_error"].max()
    assert errors[1e-4] < 0.02
    assert errors[1e-4] == pytest.approx(errors[1e-3] / 10, rel=0.3)


@pytest.mark.parametrize("loss", ["sft", "dpo"])
def test_every_number_is_what_it_says(exact_model: Any, loss: str) -> None:
    model, eta, site = exact_model, 0.05, Site(1)
    examples = (POSITIVE, NEGATIVE if loss == "dpo" else ())
    table = step_approximation(model, examples, site, TEXTS, loss=loss, etas=[eta])
    assert list(table["method"].unique()) == [EXACT, FD, UNIT]
    rows = [sl.encode(model, text) for text in TEXTS]
    starts = [1, rows[1].response, 1]
    step = GradientStep.fit(model, examples, loss=loss, eta=eta)
    everywhere = {"loss": loss, "eta": eta, "scope": sl.everywhere}
    steerings = {
        FD: ColdFD.fit(model, examples, site, **everywhere).steering,
        UNIT: ColdKernel.fit(model, examples, site, **everywhere).steering,
    }
    for number, row in enumerate(rows):
        n = slice(starts[number] - 1, len(row.ids) - 1)
        plain, plain_Z = last_scores(model, row.ids)[n], sl.capture(model, [row], site).at(site)[n]
        with step.applied(model):
            moved, moved_Z = (
                last_scores(model, row.ids)[n],
                sl.capture(model, [row], site).at(site)[n],
            )
        exact = (moved_Z - plain_Z).numpy()
        for method, steering in steerings.items():
            got = table.loc[(table["method"] == method) & (table["text"] == number)]
            assert list(got["position"]) == list(range(n.start, n.stop))
            steered_Z = sl.capture(model, [row], site, steering=steering).at(site)[n]
            found = (steered_Z - plain_Z).numpy()
            tokens, window = sl.batch(model, [row])
            with steering.applied(model, window), torch.no_grad():
                there = model(tokens)[0].log_softmax(-1)[n]
            wanted = {
                "norm": np.linalg.norm(found, axis=1),
                "norm_exact": np.linalg.norm(exact, axis=1),
                "relative_error": np.linalg.norm(found - exact, axis=1)
                / np.linalg.norm(exact, axis=1),
                "cosine": (found * exact).sum(1)
                / np.linalg.norm(found, axis=1)
                / np.linalg.norm(exact, axis=1),
                "kl_step": (moved.exp() * (moved - plain)).sum(-1).numpy(),
                "kl_found": (there.exp() * (there - plain)).sum(-1).numpy(),
                "kl_left": (moved.exp() * (moved - there)).sum(-1).numpy(),
            }
            for name, value in wanted.items():
                np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=2e-6, err_msg=name)
            tokens_of = "".join(got["token"])
            assert tokens_of.strip()


def test_the_exact_change_at_the_site_misses_only_what_is_above_it(exact_model: Any) -> None:
    last = Site(exact_model.cfg.n_layers - 1)
    table = step_approximation(exact_model, EXAMPLES, [0, last], TEXTS, etas=[0.01])
    exact = table.loc[table["method"] == EXACT]
    assert (exact["relative_error"] == 0).all()
    assert exact["cosine"].to_numpy() == pytest.approx(1.0)
    assert (exact["kl_left"] > 1e-9).any()  # the final norm and the unembedding move as well
    left = exact.groupby("layer")["kl_left"].mean()
    assert left[last.layer] < left[0]


@pytest.mark.filterwarnings("ignore:approximation_summary:steerlens.SteeringWarning")
def test_the_summary_pools_over_tokens_and_leaves_out_sinks(exact_model: Any) -> None:
    table = step_approximation(exact_model, EXAMPLES, 1, TEXTS, etas=[0.1])
    table.loc[table["position"] == 2, "sink"] = True
    kept = table.loc[(table["method"] == FD) & (table["position"] != 2)]
    summary = approximation_summary(table)
    row = summary.loc[summary["method"] == FD].iloc[0]
    exact = kept["norm_exact"] ** 2
    pooled = np.sqrt((exact * kept["relative_error"] ** 2).sum() / exact.sum())
    assert row["relative_error"] == pytest.approx(pooled)
    assert row["relative_error_low"] < pooled < row["relative_error_high"]
    assert row["recovered"] == pytest.approx(1 - kept["kl_left"].sum() / kept["kl_step"].sum())
    assert row["recovered_low"] <= row["recovered"] <= row["recovered_high"]
    scales = np.linspace(-0.5, 1.5, 40001)
    along = (kept["cosine"] * kept["norm"] * kept["norm_exact"]).sum()
    squares = scales**2 * (kept["norm"] ** 2).sum() - 2 * scales * along + exact.sum()
    assert row["best_scale"] == pytest.approx(scales[squares.argmin()], abs=1e-4)
    assert row["error_at_best_scale"] == pytest.approx(np.sqrt(squares.min() / exact.sum()))
    assert row["norm_ratio"] == pytest.approx(np.sqrt((kept["norm"] ** 2).sum() / exact.sum()))
    assert (row["n_texts"], row["n_tokens"]) == (3, len(kept))
    with_sinks = approximation_summary(table, sinks=True)
    assert with_sinks["n_tokens"].iloc[0] == (table["method"] == FD).sum()


def test_a_token_is_a_sink_in_either_run(exact_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximation, "SINK", 1.05)
    site, eta, row = Site(1), 0.3, sl.encode(exact_model, TEXTS[0])
    table = step_approximation(exact_model, EXAMPLES, site, TEXTS[:1], etas=[eta])
    plain = sl.capture(exact_model, [row], site)
    with GradientStep.fit(exact_model, EXAMPLES, loss="sft", eta=eta).applied(exact_model):
        moved = sl.capture(exact_model, [row], site)
    expected = plain.sinks(site, 1.05) | moved.sinks(site, 1.05)
    assert bool((moved.sinks(site, 1.05) & ~plain.sinks(site, 1.05)).any())
    assert list(table.loc[table["method"] == FD, "sink"]) == expected[:-1].tolist()


def test_the_released_step_is_a_variant_and_kernels_are_named(gpt2: Any) -> None:
    options = {"etas": [0.1], "kernels": ("unit", "cosine"), "released": True}
    table = step_approximation(gpt2, EXAMPLES, 1, TEXTS[:1], **options)
    assert set(table["method"]) == {EXACT, FD, "ColdFD, released", UNIT, "ColdKernel, cosine"}
    errors = table.groupby("method")["relative_error"].mean()
    # A step of 1e-6 is too short for float32.
    assert errors["ColdFD, released"] > errors[FD]


def test_the_model_is_as_it_was(gpt2: Any) -> None:
    before = last_scores(gpt2, sl.encode(gpt2, TEXTS[0]).ids)
    step_approximation(gpt2, EXAMPLES, 1, TEXTS[:1], etas=[0.1])
    assert torch.equal(last_scores(gpt2, sl.encode(gpt2, TEXTS[0]).ids), before)


def test_texts_may_be_cut_and_mistakes_are_said(gpt2: Any) -> None:
    table = step_approximation(gpt2, EXAMPLES, 1, TEXTS[:1], etas=[0.1], max_tokens=4)
    assert list(table.loc[table["method"] == FD, "position"]) == [0, 1, 2]
    with pytest.raises(ValueError, match="etas are one or more sizes"):
        step_approximation(gpt2, EXAMPLES, 1, TEXTS, etas=[0.0])
    asked = replace(TEXTS[1], response="")  # pyright: ignore
    with pytest.raises(ValueError, match="a conversation without a response"):
        step_approximation(gpt2, EXAMPLES, 1, [asked], etas=[0.1])
    with pytest.raises(ValueError, match="max_tokens is 2 or more"):
        step_approximation(gpt2, EXAMPLES, 1, TEXTS, max_tokens=1)
    with pytest.raises(ValueError, match="No prompts were given"):
        step_approximation(gpt2, EXAMPLES, 1, [], etas=[0.1])
