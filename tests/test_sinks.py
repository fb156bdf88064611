"""Sinks: found by their norm, marked, counted, and left out of directions and statistics."""

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import KINDS, load, load_reference, write_folder

from analysis import coefficients, decodability, dispersion, faithfulness, rank_share, strengths
from analysis.measures.aligned import align
from analysis.measures.deltas import prompt_deltas
from analysis.measures.mean_push import leave_one_out
from steerlens import (
    CAA,
    PSR,
    Angular,
    Conversation,
    DirectionalAblation,
    InstructionVector,
    PromptPair,
    Site,
    SteeringWarning,
    at,
    capture,
    contrast_directions,
    difference_of_means,
    encode,
    everywhere,
    fit_direction,
    generate,
    generated,
    last,
    principal_direction,
    response,
)
from steerlens.demo import pirate
from steerlens.divergence import log_probabilities
from steerlens.methods.psr import difference_of_means as const_dim
from steerlens.runtime.hooks import Watch
from steerlens.sinks import SINK, is_sink

WIDTH, SUNK = 32, " the"
ANSWERS = (
    "I love the cat and you", "They went home by the sea", "It was a good day, the best",
    "the dog ran and ran", "You are kind to the dog and to me",
)  # fmt: skip
QUESTIONS = ("What is it?", "Do you love it?", "What do you think?", "Is it good?", "Where to?")
PAIRS = [
    PromptPair.with_system(question, "You are kind.", answer)
    for question, answer in zip(QUESTIONS, ANSWERS, strict=True)
]


@pytest.fixture(scope="module")
def sunk_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose embedding of " the" is fifty times as long: a sink at every layer."""
    made = tmp_path_factory.mktemp("sinks")
    folder = write_folder(made / "plain", "gpt2")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    (sunk,) = tokenizer.encode(SUNK, add_special_tokens=False)
    reference = load_reference(folder)
    with torch.no_grad():
        reference.transformer.wte.weight[sunk] *= 50
    reference.save_pretrained(made / "sunk")
    tokenizer.save_pretrained(made / "sunk")
    return made / "sunk"


@pytest.fixture(scope="module", params=sorted({backend for _, backend in KINDS}))
def sunk(sunk_folder: Path, request: pytest.FixtureRequest) -> Any:
    """That model on each backend."""
    return load(sunk_folder, request.param)


def rows(n: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


def with_sink(side: torch.Tensor, place: int) -> torch.Tensor:
    long = side.clone()
    long[place] *= 20
    return long


# -- directions from activations -------------------------------------------------------------------


def test_a_row_that_is_a_sink_has_no_part_in_a_difference_of_means() -> None:
    positive, negative = with_sink(rows(seed=1), 3), rows(9, seed=2)
    keep = torch.arange(12) != 3
    expected = positive[keep].mean(dim=0) - negative.mean(dim=0)
    torch.testing.assert_close(difference_of_means(positive, negative), expected)
    torch.testing.assert_close(
        difference_of_means(positive, negative, sinks=inf),
        positive.mean(dim=0) - negative.mean(dim=0),
    )
    turned = Angular.from_activations(positive, negative, 30.0).direction
    torch.testing.assert_close(turned, expected)


@pytest.mark.parametrize("side", [0, 1])
def test_a_pair_with_a_sink_on_either_side_is_left_out(side: int) -> None:
    pair = [rows(seed=1) + 1, rows(seed=2)]
    pair[side] = with_sink(pair[side], 5)
    keep = torch.arange(12) != 5
    few = [part[keep] for part in pair]
    for direction, expected in (
        (principal_direction(*pair), principal_direction(*few)),
        (CAA.from_activations(*pair).direction, (few[0] - few[1]).mean(dim=0)),
        (InstructionVector.from_activations(*pair).u, InstructionVector.from_activations(*few).u),
        (PSR.from_activations(*pair).Z[0], (few[1] - few[0]).mean(dim=0)),
    ):
        torch.testing.assert_close(direction, expected)


@pytest.mark.parametrize("kind", ["means", "pca", "ridge"])
def test_labelled_rows_that_are_sinks_are_left_out_and_counted(kind: Any) -> None:
    y = (torch.arange(24) % 2).float()
    x = rows(24, seed=3) + 2 * y[:, None]
    long = with_sink(x, 4)
    found = fit_direction(kind, long, y)
    gone = (4, 5) if kind == "pca" else (4,)  # for pca the partner goes too
    keep = torch.tensor([place not in gone for place in range(24)])
    assert found.n_sinks == len(gone)
    torch.testing.assert_close(found.direction, fit_direction(kind, x[keep], y[keep]).direction)
    assert fit_direction(kind, long, y, sinks=inf).n_sinks == 0


def test_a_side_of_sinks_alone_is_told_as_such() -> None:
    with pytest.raises(ValueError, match=r"All 3 positive activations are sinks.*sinks=inf"):
        difference_of_means(100 * rows(3), rows(9, seed=1))
    with pytest.raises(ValueError, match="All 4 pairs of activations are sinks"):
        CAA.from_activations(100 * rows(4), rows(4, seed=1))
    difference_of_means(100 * rows(3), rows(9, seed=1), sinks=inf)


@pytest.mark.parametrize("times", [1.0, 0.0, -2.0, float("nan")])
def test_how_many_medians_make_a_sink_is_above_1(times: float) -> None:
    with pytest.raises(ValueError, match="above 1"):
        difference_of_means(rows(), rows(seed=1), sinks=times)


def test_two_rows_have_no_typical_length() -> None:
    x, y = 100 * rows(1), rows(1, seed=1)
    torch.testing.assert_close(difference_of_means(x, y), (x - y)[0])


# -- sinks of a model ------------------------------------------------------------------------------


def is_sunk(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    return torch.tensor([model.tokenizer.decode([token]) == SUNK for token in tokens.tolist()])


@pytest.mark.parametrize("options", [{}, {"batch_size": 1}, {"side": "right"}])
def test_the_sinks_of_a_text_are_found_whatever_batch_they_are_in(
    sunk: Any, options: dict[str, Any]
) -> None:
    texts = ["I love the cat because you are kind", "They went", "the dog and the sun by the sea"]
    seen = capture(sunk, texts, range(4), **options)
    for layer in range(4):
        inner = seen.position > 0  # the first token may be one of its own
        assert torch.equal(seen.sinks(layer)[inner], is_sunk(sunk, seen.tokens)[inner])
        assert not bool(seen.sinks(layer, inf).any())


def test_a_sink_is_known_where_it_alone_is_read(sunk: Any) -> None:
    """The median is over all tokens of the text, not over those that are read."""
    seen = capture(sunk, ["They went to the", "I love the"], 1, scope=last)
    assert seen.sinks(1).tolist() == [True, True]


def test_caa_averages_the_tokens_of_a_response_that_are_no_sinks(sunk: Any) -> None:
    sides = [
        [Conversation("What is it?", response=text) for text in texts]
        for texts in (ANSWERS[:2], ("I hate the cat", "They ran to the door"))
    ]
    fit = CAA.fit(sunk, (sides[0], sides[1]), 1)
    means = []
    for side in sides:
        seen = capture(sunk, side, 1, scope=generated)
        kept = seen.without(is_sunk(sunk, seen.tokens))
        means.append(torch.stack([kept.of(row, 1).mean(dim=0) for row in range(2)]))
    torch.testing.assert_close(fit.steer.direction, (means[0] - means[1]).mean(dim=0))
    assert fit.sinks == {Site(1): 4}
    of_all = CAA.fit(sunk, (sides[0], sides[1]), 1, sinks=inf)
    assert of_all.sinks == {Site(1): 0}
    assert float((of_all.steer.direction - fit.steer.direction).norm()) > 1e-2


def test_a_pair_that_is_read_at_a_sink_alone_is_left_out_with_a_warning(sunk: Any) -> None:
    positive, negative = ["I love you", "They love the"], ["I hate you", "They hate it"]
    with pytest.warns(SteeringWarning, match="1 of 2 pairs at layer 1 resid_post are left out"):
        fit = CAA.fit(sunk, (positive, negative), 1)
    expected = CAA.fit(sunk, (positive[:1], negative[:1]), 1)
    torch.testing.assert_close(fit.steer.direction, expected.steer.direction)
    with pytest.raises(ValueError, match=r"All 1 pairs of prompts.* are sinks.*Read other tokens"):
        CAA.fit(sunk, (positive[1:], negative[1:]), 1)
    CAA.fit(sunk, (positive[1:], negative[1:]), 1, sinks=inf)


def test_directions_from_prompts_leave_sinks_out_too(sunk: Any) -> None:
    sides = [[Conversation("Why?", response=f"{a} the {b}") for b in ("cat", "dog", "sea", "sun")]
             for a in ("love", "hate")]  # fmt: skip
    found = contrast_directions(sunk, "means", sides[0], sides[1], [1])[Site(1)]
    assert found.n_sinks == 8
    seen = [capture(sunk, side, 1, scope=generated) for side in sides]
    assert bool((seen[0].sinks(1) == is_sunk(sunk, seen[0].tokens)).all())
    kept = contrast_directions(sunk, "means", sides[0], sides[1], [1], sinks=inf)[Site(1)]
    assert float((kept.direction - found.direction).norm()) > 1e-3


def test_const_dim_leaves_out_tokens_that_are_sinks_in_either_run(sunk: Any) -> None:
    made: Any = const_dim(sunk, PAIRS, 1).placed[0][1]
    aligned = align(sunk, PAIRS, [1], span=response)
    keep = ~aligned.sinks(Site(1))
    assert 0 < int((~keep).sum()) < 10
    delta = prompt_deltas(sunk, aligned)[Site(1)][keep].mean(dim=0)
    torch.testing.assert_close(made.steer.Z[0].double(), delta, rtol=1e-4, atol=1e-5)


# -- measures --------------------------------------------------------------------------------------


def test_sinks_are_marked_and_have_no_part_in_the_direction(sunk: Any) -> None:
    table = coefficients(sunk, PAIRS, [1, 2], {})
    assert table["sink"].dtype == bool
    assert (table["sink"] == (table["token"] == SUNK)).all()
    assert table["sink"].sum() == 2 * 4  # the answer that begins with "the" has no space before
    aligned = align(sunk, PAIRS, [1])
    deltas = prompt_deltas(sunk, aligned)[Site(1)]
    keep = ~is_sunk(sunk, aligned.plain.tokens)
    axes = leave_one_out(aligned, {Site(1): deltas})[Site(1)]
    expected = deltas[keep & (aligned.example != 0)].mean(dim=0)
    torch.testing.assert_close(axes[0], expected)
    every = coefficients(sunk, PAIRS, [1, 2], {}, sinks=inf)
    assert not every["sink"].any()


def test_every_statistic_has_its_number_with_sinks_beside_it(sunk: Any) -> None:
    steering = {"CAA": at(1, CAA(torch.linspace(-1, 1, WIDTH)))}
    options: dict[str, Any] = {"layers": [1], "folds": 5}
    calls: dict[str, Any] = {
        "share": lambda **more: rank_share(sunk, PAIRS, **options, **more),
        "r2": lambda **more: decodability(sunk, PAIRS, **options, **more),
        "relative_rmse": lambda **more: faithfulness(sunk, PAIRS, steering, layers=[1], **more),
        "gini": lambda **more: dispersion(coefficients(sunk, PAIRS, [1], steering, **more)),
    }
    for column, measure in calls.items():
        without, of_all = measure(), measure(sinks=inf)
        assert set(without["n_sinks"]) == {4}
        assert set(of_all["n_sinks"]) == {0}
        assert (without["n_tokens"] + 4 == of_all["n_tokens"]).all()
        np.testing.assert_allclose(without[f"{column}_with_sinks"], of_all[column], rtol=1e-6)
        np.testing.assert_allclose(of_all[f"{column}_with_sinks"], of_all[column], rtol=1e-6)
        assert not np.allclose(without[column], of_all[column], rtol=1e-4), column
        assert without.attrs["sinks"] == SINK


def test_faithfulness_without_sinks_is_the_ratio_over_the_other_tokens(sunk: Any) -> None:
    steering = at(1, CAA(torch.linspace(-1, 1, WIDTH)))
    found = faithfulness(sunk, PAIRS, {"CAA": steering}, layers=[1], any_instruction=False)
    aligned = align(sunk, PAIRS, [1])
    target = prompt_deltas(sunk, aligned)[Site(1)]
    keep = ~is_sunk(sunk, aligned.plain.tokens)
    missed = (torch.linspace(-1, 1, WIDTH).double() - target)[keep].square().sum()
    expected = float((missed / target[keep].square().sum()).sqrt())
    assert found["relative_rmse"].iloc[0] == pytest.approx(expected, rel=1e-4)


def test_a_token_is_a_sink_if_it_is_one_in_either_run(sunk: Any) -> None:
    aligned = align(sunk, PAIRS, [1])
    for times in (1.01, 1.2, SINK):
        both = aligned.plain.sinks(1, times) | aligned.prompted.sinks(1, times)
        assert torch.equal(aligned.sinks(Site(1), times), both)
    assert not torch.equal(aligned.plain.sinks(1, 1.01), aligned.sinks(Site(1), 1.01))


def test_strengths_of_a_text_mark_sinks(sunk: Any) -> None:
    steering = at(1, CAA(torch.linspace(-1, 1, WIDTH)))
    table = strengths(sunk, ["They love the cat"], {"CAA": steering}, span=everywhere)
    assert table.loc[table["token"] == SUNK, "sink"].all()
    assert not table.loc[table["token"].isin([" love", " cat"]), "sink"].any()
    np.testing.assert_allclose(
        table["along"], float(torch.linspace(-1, 1, WIDTH).norm()), rtol=1e-4
    )


def test_where_every_token_is_a_sink_the_measures_say_so(sunk: Any) -> None:
    all_sunk = [PromptPair.with_system(question, "You are kind.", SUNK) for question in QUESTIONS]
    for measure in (
        lambda: coefficients(sunk, all_sunk, [1], {}),
        lambda: faithfulness(sunk, all_sunk, {}, layers=[1]),
        lambda: rank_share(sunk, all_sunk, layers=[1]),
        lambda: decodability(sunk, all_sunk, layers=[1]),
    ):
        with pytest.raises(ValueError, match=r"sink"):
            measure()


def test_an_ordinary_model_has_no_sinks_and_the_same_numbers_with_and_without(gpt2: Any) -> None:
    table = faithfulness(gpt2, PAIRS, {})
    assert not table["n_sinks"].any()
    np.testing.assert_array_equal(table["relative_rmse"], table["relative_rmse_with_sinks"])


def test_the_command_lines_default_is_the_modules() -> None:
    from steerlens.cli.measure import SINK_TIMES

    assert SINK_TIMES == SINK


def test_nothing_is_long_beside_nothing() -> None:
    activation, typical = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.zeros(2)
    assert not is_sink(activation, typical).any()


PROJECTING: dict[str, Any] = {
    "InstructionVector": lambda model, sides, scope: (
        InstructionVector.fit(model, PAIRS, 1, **scope).steering
    ),
    "Angular": lambda model, sides, scope: Angular.fit(model, sides, 1, **scope).steering,
    "DirectionalAblation": lambda model, sides, scope: (
        DirectionalAblation.fit(model, sides, 1, written="where read", **scope).steering
    ),
    "DirectionalAblation, at every site": lambda model, sides, scope: (
        DirectionalAblation.fit(model, sides, 1, **scope).steering
    ),
    "DirectionalAblation.everywhere": lambda model, sides, scope: DirectionalAblation.everywhere(
        model, torch.linspace(-1, 1, WIDTH), **scope
    ),
}
"""What sets a part of the activations, as it is by default or on the tokens of a scope."""


@pytest.mark.parametrize("name", PROJECTING)
def test_what_sets_a_projection_leaves_the_first_token_alone(gpt2: Any, name: str) -> None:
    sides = (list(ANSWERS), list(QUESTIONS))
    text, site = "You love the dog", Site(1)
    plain = capture(gpt2, text, site).at(site)
    steered, whole = (
        capture(gpt2, text, site, steering=PROJECTING[name](gpt2, sides, scope)).at(site)
        for scope in ({}, {"scope": everywhere})
    )
    assert torch.equal(steered[0], plain[0])
    for moved in (steered[1:], whole):
        assert bool(((moved - plain[-len(moved) :]).norm(dim=-1) > 1e-4).all())


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:The model's chat template puts a system prompt")
@pytest.mark.parametrize("name", ["InstructionVector", "DirectionalAblation, at every site"])
def test_on_a_real_model_the_default_breaks_no_answer(one_smollm2: Any, name: str) -> None:
    """The text that the model writes by itself stays likely; with its sink moved it does not."""
    questions = [Conversation(q) for q in pirate.TEST[:4]]
    pairs = [PromptPair.with_system(q.user, pirate.INSTRUCTION, "Aye.") for q in questions]
    written = generate(one_smollm2, questions, temperature=0, max_new_tokens=16).texts
    rows = [
        encode(one_smollm2, replace(question, response=text))
        for question, text in zip(questions, written, strict=True)
    ]
    ids = torch.tensor([number for row in rows for number in row.ids[row.response :]])
    sides = ([pair.prompted for pair in pairs], [pair.plain for pair in pairs])

    def likely(scope: dict[str, Any]) -> float:
        """Mean log-probability of those texts' tokens, steered at layer 12."""
        if name == "InstructionVector":
            steering = InstructionVector.fit(one_smollm2, pairs, 12, **scope).steering
        else:
            steering = DirectionalAblation.fit(one_smollm2, sides, 12, **scope).steering
        found = log_probabilities(one_smollm2, rows, range(len(rows)), steering, Watch())
        return float(found.gather(1, ids[:, None]).mean())

    by_default, with_the_first = likely({}), likely({"scope": everywhere})
    assert by_default > -1.5
    assert with_the_first < by_default - 1
