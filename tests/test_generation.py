"""Generation: the loop against transformers', the sampler against NumPy, the window it keeps."""

from typing import Any

import numpy as np
import pytest
import torch
from catalogue import CATALOGUE, random
from hypothesis import given
from hypothesis import strategies as st
from oracles import next_token
from tiny_models import (
    D_MODEL,
    D_VOCAB,
    N_CTX,
    PROMPTS,
    assert_same_tokens,
    greedy,
    recorded_scores,
    response_rows,
)

import steerlens
from steerlens import CAA, Conversation, SteeringWarning, at
from steerlens.generation import Sampling, choose
from steerlens.runtime.forward import logits

V = random(D_MODEL, seed=5)


def sampled(model: Any, prompts: Any, steering: Any = None, **options: Any) -> Any:
    options = {"max_new_tokens": 8, "temperature": 1.0, **options}
    return steerlens.generate(model, prompts, steering, **options)


def by_place(written: steerlens.Generation) -> dict[tuple[int, int], tuple[int, ...]]:
    """The sampled ids of each (prompt, sample)."""
    places = zip(written.prompt, written.sample, strict=True)
    return dict(zip(places, response_rows(written), strict=True))


# The sampler ----------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_p=st.sampled_from([0.05, 0.3, 0.9, 1.0]),
    penalty=st.sampled_from([0.0, 1.0, -0.5, 4.0]),
)
def test_the_next_token_is_that_of_the_authors_sampler(
    seed: int, temperature: float, top_p: float, penalty: float
) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.normal(scale=3, size=(6, 12))
    counts = generator.integers(0, 4, size=(6, 12)).astype(float)
    uniforms = generator.random(6)
    found = choose(
        torch.tensor(scores),
        Sampling(1, temperature, top_p, penalty),
        torch.tensor(counts),
        torch.tensor(uniforms),
    )
    expected = [
        next_token(scores[row], counts[row], uniforms[row], temperature, top_p, penalty)
        for row in range(6)
    ]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("top_p", "uniform", "token"),
    [
        (0.3, 0.99, 1),  # 0.5 alone exceeds 0.3
        (0.6, 0.3, 0),  # 0.5 does not: 0.25 is kept too, and drawn first, in vocabulary order
        (0.6, 0.34, 1),
        (0.8, 0.99, 2),
        (1.0, 0.99, 3),
    ],
)
def test_top_p_keeps_the_smallest_set_that_exceeds_it(
    top_p: float, uniform: float, token: int
) -> None:
    probability = torch.tensor([[0.25, 0.5, 0.125, 0.125]])
    found = choose(
        probability.log(), Sampling(top_p=top_p), torch.zeros(1, 4), torch.tensor([uniform])
    )
    assert found.tolist() == [token]


def test_the_penalty_comes_after_the_temperature_and_before_top_p() -> None:
    scores, counts = torch.tensor([[4.0, 2.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    # 4 / 2 - 1.5 = 0.5 < 2 / 2: the other order, (4 - 1.5) / 2 = 1.25, would keep token 0.
    found = choose(scores, Sampling(1, 2.0, 0.01, 1.5), counts, torch.tensor([0.5]))
    assert found.tolist() == [1]


def test_greedy_ignores_penalty_and_top_p() -> None:
    scores, counts = torch.tensor([[4.0, 2.0, 0.0]]), torch.tensor([[9.0, 0.0, 0.0]])
    assert choose(scores, Sampling(1, 0.0, 0.01, 5.0), counts, torch.zeros(1)).tolist() == [0]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_whose_logits_are_not_finite_is_refused(temperature: float) -> None:
    scores = torch.tensor([[1.0, 2.0], [float("nan"), float("nan")]])
    with pytest.raises(ValueError, match=r"finite.*Lower the strength"):
        choose(scores, Sampling(temperature=temperature), torch.zeros(2, 2), torch.zeros(2))


def test_a_whole_sampled_completion_is_that_of_numpy_on_transformers(
    model: Any, reference: Any
) -> None:
    settings = {"temperature": 1.3, "top_p": 0.8, "frequency_penalty": 0.7}
    written = sampled(model, list(PROMPTS[:2]), n=2, seed=4, stop_at_end=False, **settings)
    for row, (prompt, sample) in enumerate(zip(written.prompt, written.sample, strict=True)):
        ids = list(steerlens.encode(model, PROMPTS[prompt]).ids)
        start = len(ids)
        uniforms = np.random.default_rng([4, 0, prompt, sample]).random(8)
        for uniform in uniforms:
            with torch.no_grad():
                scores = reference(torch.tensor([ids])).logits[0, -1].double().numpy()
            counts = np.bincount(ids, minlength=D_VOCAB)  # the BOS is counted
            ids.append(next_token(scores, counts, uniform, 1.3, 0.8, 0.7))
        assert written.response_ids(row) == tuple(ids[start:])


# The loop -------------------------------------------------------------------------------------


def test_greedy_is_what_transformers_generates_from_the_same_weights(
    model: Any, reference: Any
) -> None:
    written, scores = greedy(model, list(PROMPTS), max_new_tokens=12)
    tokens, window = steerlens.batch(model, list(PROMPTS))
    theirs = reference.generate(
        tokens,
        attention_mask=window.mask.long(),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=None,
    )
    expected = [tuple(row[tokens.shape[1] :].tolist()) for row in theirs]
    assert_same_tokens(response_rows(written), expected, scores)
    assert len(set(expected)) == len(expected)


def test_greedy_under_a_position_free_steering_is_the_models_own_generate(model: Any) -> None:
    steering = at(2, CAA(V))
    for prompt in PROMPTS[:2]:
        tokens, _ = steerlens.batch(model, [prompt])
        written, scores = greedy(model, [prompt], steering)
        plain, _ = greedy(model, [prompt])
        assert response_rows(written) != response_rows(plain)
        # Without its cache: under transformers 5.24 TransformerLens' own generation fills none.
        options = {"stop_at_eos": False, "use_past_kv_cache": False, "verbose": False}
        with steering.applied(model):
            theirs = model.generate(tokens, max_new_tokens=8, do_sample=False, **options)
        expected = [tuple(theirs[0, tokens.shape[1] :].tolist())]
        assert_same_tokens(response_rows(written), expected, scores)


def test_the_last_logits_of_the_first_pass_are_transformers(model: Any, reference: Any) -> None:
    _, scores = greedy(model, list(PROMPTS), max_new_tokens=1)
    for row, prompt in enumerate(PROMPTS):
        tokens, _ = steerlens.batch(model, [prompt])
        with torch.no_grad():
            expected = reference(tokens).logits[0, -1]
        torch.testing.assert_close(scores[0][row], expected, rtol=0, atol=1e-4)


def test_only_the_last_position_of_a_pass_is_unembedded(model: Any) -> None:
    widths: list[int] = []
    handle = model.unembed.register_forward_hook(
        lambda module, inputs, output: widths.append(output.shape[1])
    )
    try:
        greedy(model, list(PROMPTS), max_new_tokens=3)
    finally:
        handle.remove()
    assert widths == [1, 1, 1]


def test_noise_does_not_depend_on_batch_size_or_on_the_other_prompts(model: Any) -> None:
    steering = at(2, CAA(V))
    whole = sampled(model, list(PROMPTS), steering, n=2, seed=3)
    for size in (1, 3):
        parts = sampled(model, list(PROMPTS), steering, n=2, seed=3, batch_size=size)
        assert response_rows(parts) == response_rows(whole)
    fewer = sampled(model, list(PROMPTS[:2]), steering, n=3, seed=3)
    ours, theirs = by_place(fewer), by_place(whole)
    assert len(ours.keys() & theirs.keys()) == 4
    for place in ours.keys() & theirs.keys():
        assert ours[place] == theirs[place]


def test_n_samples_are_rows_of_their_own_and_differ(model: Any) -> None:
    written = sampled(model, list(PROMPTS[:2]), n=3, temperature=2.0)
    assert written.prompt == (0, 0, 0, 1, 1, 1)
    assert written.sample == (0, 1, 2, 0, 1, 2)
    assert len(set(response_rows(written))) == 6
    assert len(written.prompts) == 2
    assert written.prompts[1].endswith(PROMPTS[1])


def test_the_seed_decides(model: Any) -> None:
    first, again, other = (
        response_rows(sampled(model, list(PROMPTS[:2]), temperature=2.0, seed=seed))
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other
    with pytest.raises(ValueError, match="seed must be a whole number from 0"):
        sampled(model, list(PROMPTS[:2]), temperature=2.0, seed=-1)


def test_a_row_stops_at_its_end_token_while_the_others_go_on(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, _ = greedy(model, list(PROMPTS), max_new_tokens=8)
    end = free.response_ids(0)[2]  # declared the end token: row 0 stops at the latest after three
    monkeypatch.setattr(steerlens.generation, "end_tokens", lambda model: frozenset({end}))
    written, _ = greedy(model, list(PROMPTS), max_new_tokens=8, stop_at_end=True)
    for row in range(len(PROMPTS)):
        whole = free.response_ids(row)
        stop = whole.index(end) + 1 if end in whole else len(whole)
        assert written.response_ids(row) == whole[:stop]
        assert int(written.mask[row].sum()) == int(written.window.response[row]) + stop
    assert len(written.response_ids(0)) < 8
    assert written.texts[0] == model.tokenizer.decode(
        written.response_ids(0), skip_special_tokens=True
    )


def test_the_end_token_is_the_tokenizers_own(model: Any) -> None:
    assert steerlens.generation.end_tokens(model) == {model.tokenizer.eos_token_id}


def test_stream_gives_the_tokens_and_the_text_of_generate(model: Any) -> None:
    steering = at(2, CAA(V))
    whole = sampled(model, [PROMPTS[1]], steering, n=2, seed=9)
    pieces = list(
        steerlens.stream(
            model, PROMPTS[1], steering, max_new_tokens=8, temperature=1.0, n=2, seed=9
        )
    )
    for row in range(2):
        tokens = tuple(piece.token for piece in pieces if piece.row == row)
        text = "".join(piece.text for piece in pieces if piece.row == row)
        assert tokens == whole.response_ids(row)
        assert whole.texts[row].startswith(text)
        assert whole.texts[row][len(text) :].strip("\N{REPLACEMENT CHARACTER}") == ""


def forced(monkeypatch: pytest.MonkeyPatch, steps: list[list[int]]) -> None:
    """Let the sampler choose these tokens, one list a step."""
    left = iter(steps)
    monkeypatch.setattr(
        steerlens.generation, "choose", lambda scores, *rest: torch.tensor(next(left))
    )


def test_stream_holds_a_character_back_until_its_last_byte(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = gpt2.tokenizer("é☺ day", add_special_tokens=False)["input_ids"]
    forced(monkeypatch, [[token] for token in ids])
    pieces = list(steerlens.stream(gpt2, PROMPTS[0], max_new_tokens=len(ids)))
    assert len(pieces) == len(ids) > 4
    assert "".join(piece.text for piece in pieces) == "é☺ day"


def test_stream_says_no_more_of_a_row_that_has_ended(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = gpt2.tokenizer.eos_token_id
    forced(monkeypatch, [[40, 41], [end, 42], [43, 44], [45, end]])
    pieces = list(steerlens.stream(gpt2, PROMPTS[0], max_new_tokens=9, n=2))
    assert [(piece.row, piece.token) for piece in pieces] == [
        (0, 40),
        (1, 41),
        (0, end),
        (1, 42),
        (1, 44),
        (1, end),
    ]


@pytest.mark.parametrize("name", ["CAA", "ActAdd, middle", "Only, response", "wrapped together"])
def test_the_window_teacher_forces_what_cached_decoding_saw(name: str, model: Any) -> None:
    steering = CATALOGUE[name].build(model)
    prompts = [*PROMPTS[:3], Conversation("Who sat on the mat?", "You are kind.")]
    with recorded_scores() as scores:
        written = sampled(model, prompts, steering, stop_at_end=False)
    width = written.tokens.shape[1] - 8
    with steering.applied(model, written.window), torch.no_grad():
        forced = logits(model, written.tokens, written.window)
    for step, seen in enumerate(scores):
        torch.testing.assert_close(forced[:, width + step - 1], seen, rtol=0, atol=2e-4)


def test_the_window_of_rows_that_ended_early_masks_what_follows(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, _ = greedy(model, list(PROMPTS), max_new_tokens=6)
    end = free.response_ids(1)[1]
    monkeypatch.setattr(steerlens.generation, "end_tokens", lambda model: frozenset({end}))
    steering = at(2, steerlens.Only(CAA(V), steerlens.generated))
    with recorded_scores() as scores:
        written = steerlens.generate(
            model, list(PROMPTS), steering, max_new_tokens=6, temperature=0.0
        )
    width = written.tokens.shape[1] - len(scores)
    with steering.applied(model, written.window), torch.no_grad():
        forced = logits(model, written.tokens, written.window)
    for row in range(len(PROMPTS)):
        for step in range(len(written.response_ids(row))):
            torch.testing.assert_close(
                forced[row, width + step - 1], scores[step][row], rtol=0, atol=2e-4
            )


def test_a_conversation_and_its_rendered_tokens_are_completed_alike(model: Any) -> None:
    conversation = Conversation("What is it?", "You are kind.", response=" It is")
    tokens, window = steerlens.batch(model, [conversation])
    as_talk, _ = greedy(model, [conversation], at(2, CAA(V)))
    as_ids, _ = greedy(model, (tokens, window.mask), at(2, CAA(V)))
    n = int(window.mask.sum())
    assert as_talk.tokens[0, n:].tolist() == list(as_ids.response_ids(0))


def test_the_response_scope_starts_before_a_response_that_was_begun(model: Any) -> None:
    """A conversation's started response counts as response, with the cache and without."""
    conversation = Conversation("What is it?", response=" It is a good day")
    steering = at(2, steerlens.Only(CAA(V), steerlens.generated))
    cached, scores = greedy(model, [conversation, PROMPTS[0]], steering)
    recomputed, again = greedy(model, [conversation, PROMPTS[0]], steering, cache=False)
    assert response_rows(cached) == response_rows(recomputed)
    torch.testing.assert_close(scores[0], again[0], rtol=0, atol=1e-4)
    _, plain = greedy(model, [conversation, PROMPTS[0]], max_new_tokens=1)
    moved = (plain[0] - scores[0]).abs().amax(dim=1)
    assert float(moved[0]) > 0.01
    assert float(moved[1]) < 1e-4


def test_generation_past_the_context_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=f"this model's context holds {N_CTX}"):
        steerlens.generate(model, [PROMPTS[0]], max_new_tokens=N_CTX)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1"),
        ({"temperature": -1.0}, "temperature must be 0"),
        ({"temperature": float("inf")}, "temperature must be 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty must be finite"),
        ({"n": 0}, "must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_settings_without_a_meaning_are_refused(
    options: dict[str, Any], message: str, gpt2: Any
) -> None:
    with pytest.raises(ValueError, match=message):
        steerlens.generate(gpt2, [PROMPTS[0]], **options)


def test_generation_leaves_no_hooks_and_no_training_state(model: Any) -> None:
    before = model.training
    sampled(model, [PROMPTS[0]], at(2, CAA(V)))
    plain, _ = greedy(model, [PROMPTS[0]], max_new_tokens=2)
    again, _ = greedy(model, [PROMPTS[0]], max_new_tokens=2)
    assert response_rows(plain) == response_rows(again)
    assert model.training == before
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_a_steering_whose_scope_no_batch_meets_warns_once_and_names_the_scope(model: Any) -> None:
    steering = at(2, steerlens.Only(CAA(V), steerlens.positions(90, 95)))
    with pytest.warns(SteeringWarning, match=r"positions\(90, 95\)`") as caught:
        sampled(model, list(PROMPTS), steering, batch_size=2)
    assert len(caught) == 1


def test_a_steering_that_only_one_batch_meets_does_not_warn(model: Any) -> None:
    steering = at(2, steerlens.Only(CAA(V), steerlens.positions(12, 13)))
    sampled(model, list(PROMPTS), steering, batch_size=1, max_new_tokens=1)


def test_prompted_pairs_hold_responses_written_under_the_instruction(model: Any) -> None:
    questions = ["What is it?", "Who sat on the mat?"]
    pairs = steerlens.prompted_pairs(model, questions, "You are kind.", max_new_tokens=6, seed=2)
    talks = [Conversation(question, "You are kind.") for question in questions]
    written = sampled(model, talks, max_new_tokens=6, seed=2)
    end = model.tokenizer.eos_token_id
    assert [pair.response for pair in pairs] == [
        tuple(token for token in ids if token != end) for ids in response_rows(written)
    ]
    for pair in pairs:
        plain, prompted = steerlens.encode_pair(model, pair)
        assert plain.ids[plain.response :] == prompted.ids[prompted.response :] == pair.response
        assert len(prompted.ids) > len(plain.ids)
