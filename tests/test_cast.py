"""CAST: the condition that is found, when it is read, and what it then does, on every model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import TELLING, random
from tiny_models import D_MODEL, N_LAYERS

import steerlens as sl
from steerlens import CAA, CAST, Conversation, Site
from steerlens.directions.thresholds import best_threshold
from steerlens.methods.cast import PromptCondition
from steerlens.scopes import Context, Window

V = 3 * random(D_MODEL, seed=1)
LOVED = ["I love you", "I love the cat", "I love the sea and the sun", "I love a good day",
         "I love the dog", "I love it, very good", "I love the house", "I love all"]  # fmt: skip
ASKED = ["What is it?", "What do you think?", "What is the weather?", "What is a house?",
         "What of the dog?", "What of the cat", "What of it?", "What is the door?"]  # fmt: skip
SIDES = ([Conversation("Q", response="I love you")] * 2, [Conversation("Q", response="Not")] * 2)


def test_the_condition_tells_prompts_apart_that_it_was_not_found_on(model: Any) -> None:
    train = (LOVED[:6], ASKED[:6])
    condition, f1 = PromptCondition.fit(model, train, range(N_LAYERS))
    assert f1 == 1.0
    steering = CAST.conditional(sl.at(-1, CAA(V)).on(model), condition)
    h = {}
    for moment in ("before", "after"):
        seen = sl.capture(
            model, [*LOVED[6:], *ASKED[6:]], -1, scope=sl.last, steering=steering, moment=moment
        )
        h[moment] = seen.at(-1)
    changed = (h["after"] - h["before"]).norm(dim=1) > 1
    assert changed.tolist() == [True, True, False, False]


def test_the_fit_is_caa_under_the_condition(gpt2: Any) -> None:
    fit = CAST.fit(gpt2, SIDES, [2, 3], condition=(LOVED, ASKED))
    caa = CAA.fit(gpt2, SIDES, [2, 3])
    for site in (Site(2), Site(3)):
        torch.testing.assert_close(fit.steers[site].steer.direction, caa.steers[site].direction)  # type: ignore[attr-defined]
    when = fit.steers[Site(2)].condition
    assert fit.steering.sites[0] == when.read_at
    assert when.read_at.layer <= 2
    assert f"{when.threshold:.3g}" in fit.name
    assert "F1 1.00" in fit.name


def test_rows_of_one_batch_are_decided_each_by_itself_with_and_without_a_cache(model: Any) -> None:
    condition, _ = PromptCondition.fit(model, (LOVED, ASKED), [1])
    asked = [LOVED[0], ASKED[2], LOVED[2], ASKED[1]]
    steered = CAST.conditional(sl.at([1, 2], CAA(V)), condition)
    always = sl.at([1, 2], CAA(V)).only(sl.response)
    made = [
        sl.generate(model, asked, s, temperature=0, max_new_tokens=6, cache=cache).texts
        for s, cache in ((steered, True), (steered, False), (always, True), (None, True))
    ]
    assert made[0] == made[1]
    assert [made[0][i] for i in (0, 2)] == [made[2][i] for i in (0, 2)]
    assert [made[0][i] for i in (1, 3)] == [made[3][i] for i in (1, 3)]
    assert made[2] != made[3]


def test_two_steerings_may_share_a_condition_of_a_prompt_that_comes_in_pieces(gpt2: Any) -> None:
    """A token counts once, however many steerings ask."""
    h = torch.randn(1, 6, D_MODEL, generator=torch.Generator().manual_seed(1))
    condition, memory = PromptCondition(TELLING, 0.0, Site(1)), dict[Any, Any]()
    for first, stop in ((0, 4), (4, 6)):
        ones = torch.ones((1, stop - first), dtype=torch.bool)
        window = replace(
            Window.of(ones, response=torch.tensor([6])),
            first=torch.tensor([first]),
            context=Context(gpt2, torch.ones((1, stop - first), dtype=torch.long), memory),
        )
        for _ in range(3):
            condition.bind(window)(h[:, first:stop])
    (seen,) = memory.values()
    assert seen.counts.tolist() == [6]
    torch.testing.assert_close(seen.sums, torch.nn.functional.normalize(h, dim=-1).sum(dim=1))


@pytest.mark.parametrize("above", [True, False])
def test_it_is_read_from_the_prompt_alone(gpt2: Any, above: bool) -> None:
    """What is answered, and how long that is, has no part in it."""
    row = Conversation("What is it?", response="")
    longer = Conversation("What is it?", response=" I love you because you are kind")
    condition = PromptCondition(TELLING, 0.0, Site(1), above)
    steering = CAST.conditional(sl.at(2, CAA(V)), condition)
    first, second = (
        sl.capture(gpt2, [one], 2, scope=sl.last, steering=steering).at(2) for one in (row, longer)
    )
    torch.testing.assert_close(first, second)


def test_only_still_reads_the_prompt_and_strength_scales(gpt2: Any) -> None:
    condition, _ = PromptCondition.fit(gpt2, (LOVED, ASKED), [1])
    whole = CAST.conditional(sl.at(2, CAA(V)), condition)
    seen = {
        name: sl.capture(gpt2, [LOVED[0]], 2, scope=sl.last, steering=s).at(2)
        for name, s in (("one", whole), ("two", (2.0 * whole).only(sl.response)), ("none", None))
    }
    torch.testing.assert_close(seen["one"] - seen["none"], V[None], atol=1e-4, rtol=0)
    torch.testing.assert_close(seen["two"] - seen["none"], 2 * V[None], atol=1e-4, rtol=0)


def test_a_sink_counts_as_one_token_among_many(gpt2: Any) -> None:
    """The mean is over directions, so that one long activation does not decide."""
    condition = PromptCondition(V, 0.1, Site(1))
    h = random(1, 5, D_MODEL, seed=3)
    window = sl.Window.of(torch.ones(1, 5, dtype=torch.bool))
    window = sl.Window(
        window.mask, window.first, window.question, window.response, window.bos,
        sl.Context(gpt2, torch.zeros(1, 5, dtype=torch.long)),
    )  # fmt: skip
    reading = condition.bind(window)
    assert reading(h) is h
    before = reading.seen.sums
    long = h.clone()
    long[0, 0] *= 1000
    condition.bind(window)(long)
    torch.testing.assert_close(reading.seen.sums, before)


def test_the_authors_similarity_has_no_sign() -> None:
    m = random(4, D_MODEL, seed=5)
    condition = PromptCondition(V, 0.0, Site(1), similarity="projected")
    s = condition.similarities(m)
    torch.testing.assert_close(s, condition.similarities(-m))
    assert bool((s >= 0).all())
    v = V.double().numpy()
    p = np.outer(v, v) @ m[0].double().numpy() / (v @ v)
    t = np.tanh(p)
    expected = (
        m[0].double().numpy() @ t / (np.linalg.norm(m[0].double().numpy()) * np.linalg.norm(t))
    )
    assert float(s[0]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("wanted", "others", "expected"),
    [
        ([3.0, 4.0], [1.0, 2.0], (1.0, 1.0, 2.5, True)),
        ([1.0, 2.0], [3.5, 4.0], (1.0, 1.5, 2.75, False)),
        ([1.0, 5.0], [3.0, 4.0], (2 / 3, 2.0, 2.0, False)),
        ([1.0], [1.0], (0.0, 0.0, 1.0, True)),
    ],
)
def test_the_threshold_has_the_best_f1_and_the_widest_gap(
    wanted: Any, others: Any, expected: Any
) -> None:
    found = best_threshold(torch.tensor(wanted), torch.tensor(others))
    assert found[3] == expected[3]
    assert found[:3] == pytest.approx(expected[:3])


def test_it_is_saved_and_read_and_does_the_same(gpt2: Any, tmp_path: Path) -> None:
    steering = 2.0 * CAST.fit(gpt2, SIDES, 2, condition=(LOVED, ASKED)).steering
    read = sl.load_steering(steering.save(tmp_path / "c.safetensors"), gpt2)
    asked = [LOVED[0], ASKED[0]]
    one, other = (sl.capture(gpt2, asked, 3, steering=s).at(3) for s in (steering, read))
    torch.testing.assert_close(one, other)


def test_the_command_takes_the_conditions_prompts_from_a_file(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    file, out = tmp_path / "when.jsonl", tmp_path / "cast.safetensors"
    lines = [{"positive": p, "negative": n} for p, n in zip(LOVED, ASKED, strict=True)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    contrasts = Path(__file__).parents[1] / "examples" / "contrasts.jsonl"
    command = ("fit", "cast", "--pairs", contrasts, "--layers", "2,3", "--out", out)
    code, said, err = run(*command, "--condition", file)
    assert (code, err) == (0, "")
    assert "CAST, where layer" in said
    assert "F1" in said
    assert len(sl.load_steering(out, sl.load("demo")).placed) == 3
    code, _, err = run(*command, "--condition", tmp_path / "no.jsonl")
    assert code != 0
    assert "There is no file" in err


def test_mistakes_are_told(gpt2: Any) -> None:
    condition = PromptCondition(V, 0.0, Site(2))
    with pytest.raises(ValueError, match="at least 4 pairs, better 50; found 3"):
        PromptCondition.fit(gpt2, (LOVED[:3], ASKED[:3]), 1)
    with pytest.raises(ValueError, match="after layer 1 resid_post is steered"):
        CAST.conditional(sl.at(1, CAA(V)), condition)
    with pytest.raises(ValueError, match="needs pairs"):
        PromptCondition.fit(gpt2, (LOVED, ASKED[:5]), 1)
    with pytest.raises(ValueError, match="before its condition was read"):
        sl.capture(gpt2, ["I"], 2, steering=sl.at(2, CAST(CAA(V), condition)))
    with pytest.raises(ValueError, match="depends on positions"):
        CAST.conditional(sl.at(2, CAA(V)), condition).hooks()
    with pytest.raises(ValueError, match="no principal direction"):
        PromptCondition.fit(gpt2, (LOVED, LOVED), 1)
    window = sl.Window.of(torch.ones(1, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="CAST must know which run"):
        CAST.conditional(sl.at(2, CAA(V)), condition).hooks(window)
