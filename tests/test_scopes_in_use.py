"""The scopes of lists, masks and joined scopes on a model: with a cache and without, in files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import D_MODEL, PROMPTS

import steerlens
from steerlens import (
    CAA,
    Only,
    PromptPair,
    Schedule,
    Scope,
    Site,
    at,
    capture,
    capture_stream,
    everywhere,
    generate,
    generated,
    last,
    last_k,
    load_steering,
    marked,
    positions,
    prompt,
)

V = torch.linspace(-1, 1, D_MODEL)
SCOPES = [
    positions([1, -1]),
    positions(-3),
    positions(1, -1),
    last_k(2),
    last | generated.without_bos,
    (prompt & ~last_k(2)).without_bos,
    ~generated,
    marked([False, True, True]),
    ~marked([True, True]),
]


def moved(model: Any, scope: Scope, prompts: Any = PROMPTS, **options: Any) -> list[set[int]]:
    """The positions at which a steering limited to `scope` changes the activation of its site."""
    steering = at(1, CAA(V)).only(scope)
    runs = [capture(model, prompts, 1, steering=s, **options) for s in (steering, None)]
    changed = (runs[0].at(1) != runs[1].at(1)).any(dim=1)
    rows = range(int(runs[0].row.max()) + 1)
    return [set(runs[0].position[(runs[0].row == row) & changed].tolist()) for row in rows]


@pytest.mark.parametrize("scope", SCOPES, ids=str)
def test_a_cached_run_is_a_run_without_cache(model: Any, scope: Scope) -> None:
    steering, options = at(1, CAA(6 * V)).only(scope), {"seed": 2, "max_new_tokens": 5}
    cached = generate(model, PROMPTS, steering, **options)
    whole = generate(model, PROMPTS, steering, cache=False, batch_size=2, **options)
    assert cached.texts == whole.texts
    assert cached.texts != generate(model, PROMPTS, **options).texts


@pytest.mark.parametrize("scope", [*SCOPES, marked(np.eye(4, dtype=bool))], ids=str)
def test_a_scope_goes_into_a_file_and_comes_back(gpt2: Any, scope: Scope, tmp_path: Path) -> None:
    path = at(1, CAA(V)).only(scope).save(tmp_path / "scope.safetensors", gpt2)
    ((_, loaded),) = load_steering(path, gpt2).placed
    assert isinstance(loaded, Only)
    assert str(loaded.scope) == str(scope)
    assert type(loaded.scope) is type(scope)
    prompts = PROMPTS[:4]
    assert moved(gpt2, loaded.scope, prompts) == moved(gpt2, scope, prompts)


def test_tokens_that_meet_a_condition_are_a_scope(model: Any) -> None:
    """A mask made from the tokens of a padded batch, as one makes it."""
    tokens, window = steerlens.batch(model, PROMPTS)
    wanted = [set(window.positions[row][(tokens % 2 == 0)[row] & window.mask[row]].tolist())
              for row in range(len(PROMPTS))]  # fmt: skip
    scope = marked(tokens % 2 == 0, window)
    # Rows are sorted by length, and batches are of two: the mask still finds its own rows.
    assert moved(model, scope, batch_size=2) == wanted
    assert moved(model, scope, batch_size=2, side="right") == wanted
    assert [
        set(found.position[found.row == row].tolist())
        for found in [capture(model, PROMPTS, 1, scope=scope, batch_size=2)]
        for row in range(len(PROMPTS))
    ] == wanted
    streamed = [set[int]() for _ in PROMPTS]
    for piece in capture_stream(model, PROMPTS, 1, scope=scope, batch_size=1, buffer=2):
        for row, position in zip(piece.row.tolist(), piece.position.tolist(), strict=True):
            streamed[row].add(position)
    assert streamed == wanted


def test_every_sample_of_a_prompt_has_the_marks_of_its_prompt(model: Any) -> None:
    marks = [[False] * n + [True] for n in (1, 2, 1, 2, 1)]
    options: dict[str, Any] = {"seed": 1, "max_new_tokens": 4, "n": 3}
    steering = at(1, CAA(6 * V))
    found = generate(model, PROMPTS, steering.only(marked(marks)), batch_size=4, **options)
    for number in range(len(PROMPTS)):
        alone = generate(model, PROMPTS, steering.only(marked(marks[number])), **options)
        own = slice(3 * number, 3 * number + 3)
        assert found.texts[own] == alone.texts[own]
    # The window of what was written knows which prompt a row is, for a pass of one's own.
    with steering.only(marked(marks)).applied(model, found.window), torch.no_grad():
        model(found.tokens, attention_mask=found.mask.long())


def test_a_mask_for_too_few_prompts_is_refused_before_a_pass(gpt2: Any) -> None:
    steering = at(1, CAA(V)).only(marked([[True], [True]]))
    with pytest.raises(ValueError, match="marks 2 prompts"):
        generate(gpt2, PROMPTS, steering, batch_size=2)


def test_methods_are_trained_and_read_on_such_scopes(
    monkeypatch: pytest.MonkeyPatch, gpt2: Any
) -> None:
    monkeypatch.setattr(gpt2.tokenizer, "chat_template", steerlens.PLAIN)
    pairs = [PromptPair.with_system(user, "Be kind.", " yes it is") for user in ("Hi", "So")]
    rows = [steerlens.encode_pair(gpt2, pair)[0] for pair in pairs]
    marks = [[False] * (len(row.ids) - n) + [True] * n for n, row in enumerate(rows, start=1)]
    once = Schedule(epochs=1, batch_size=1, learning_rate=0.1)
    with pytest.warns(steerlens.SteeringWarning, match="2 steps"):
        fit = steerlens.LoReFT.fit(
            gpt2, pairs, 1, rank=1, validation=pairs[:1], schedule=once, scope=last_k(2)
        )
    assert str(fit.steering.placed[0][1].scope) == "last_k(2)"
    found = capture(gpt2, rows, 1, scope=marked(marks))
    assert found.row.tolist() == [0, 1, 1]
    sides = ["I love it", "I hate it"]
    caa = CAA.fit(gpt2, ([sides[0]], [sides[1]]), Site(2), read=last_k(2))
    means = [capture(gpt2, [side], 2, scope=everywhere).at(2)[-2:].mean(dim=0) for side in sides]
    torch.testing.assert_close(caa.steer.direction, means[0] - means[1])
