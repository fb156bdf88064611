"""The logit lens of directions and of changes, against the model's own weights."""

from typing import Any

import numpy as np
import pytest
import torch
from catalogue import halved, random
from tiny_models import D_MODEL, D_VOCAB, N_LAYERS, PROMPTS

import steerlens as sl
from steerlens import CAA, Site, at

V = random(D_MODEL, seed=1)


def by_hand(reference: Any, h: torch.Tensor) -> np.ndarray:
    """transformers' own final norm and unembedding, less the mean over the vocabulary."""
    inner = reference.model if hasattr(reference, "model") else reference.transformer
    norm = inner.norm if hasattr(inner, "norm") else inner.ln_f
    with torch.no_grad():
        scores = reference.lm_head(norm(h)).double()
    return (scores - scores.mean(dim=-1, keepdim=True)).numpy()


def test_a_direction_is_read_through_the_models_own_final_norm(model: Any, reference: Any) -> None:
    table = sl.lens(V, model, top=5)
    expected = by_hand(reference, V[None])[0] - by_hand(reference, torch.zeros(1, D_MODEL))[0]
    scores = expected - expected.mean()
    up, down = np.argsort(-scores)[:5], np.argsort(scores)[:5]
    assert table.query("side == 'up'")["id"].tolist() == up.tolist()
    assert table.query("side == 'down'")["id"].tolist() == down.tolist()
    np.testing.assert_allclose(table["score"], scores[[*up, *down]], atol=2e-3)
    assert table["layer"].isna().all()


def test_the_length_does_not_count_and_the_reverse_is_the_reverse(gpt2: Any) -> None:
    one, longer = sl.lens(V, gpt2), sl.lens(100 * V, gpt2)
    np.testing.assert_allclose(one["score"], longer["score"], atol=1e-3)
    reverse = sl.lens(-V, gpt2)
    up = one.query("side == 'up'")["id"].tolist()
    assert reverse.query("side == 'down'")["id"].tolist() == up


def test_directions_are_found_in_fits_steerings_and_mappings(gpt2: Any) -> None:
    fit = CAA.fit(gpt2, (["I love you"], ["I hate you"]), [1, -1])
    tables = [
        sl.lens(fit, gpt2, top=2),
        sl.lens(2.0 * fit.steering.only(sl.last), gpt2, top=2),
        sl.lens({site: steer.direction for site, steer in fit.steers.items()}, gpt2, top=2),
    ]
    for table in tables:
        assert sorted(set(table["layer"])) == [1, N_LAYERS - 1]
        assert len(table) == 8
        np.testing.assert_allclose(table["score"], tables[0]["score"], atol=1e-5)
    assert set(tables[0]["name"]) == {"CAA.direction"}
    rows = sl.lens(at(1, sl.ActAdd(random(3, D_MODEL, seed=2))), gpt2, top=1)
    assert set(rows["name"]) == {"ActAdd.v[0]", "ActAdd.v[1]", "ActAdd.v[2]"}


def test_a_change_is_the_mean_difference_of_the_lens(model: Any, reference: Any) -> None:
    steering = at(1, CAA(V))
    table = sl.lens_of_change(steering, model, list(PROMPTS), layers=[2], top=D_VOCAB)
    h = [
        sl.capture(model, list(PROMPTS), 2, scope=sl.last, steering=s).at(2)
        for s in (steering, None)
    ]
    keep = ~sl.capture(model, list(PROMPTS), 2, scope=sl.last).sinks(2)
    scores = by_hand(reference, h[0][keep]).mean(axis=0) - by_hand(reference, h[1][keep]).mean(
        axis=0
    )
    up = table.query("side == 'up'")
    np.testing.assert_allclose(up["score"], scores[up["id"]], atol=5e-3)
    assert set(table["name"]) == {"change"}


def test_below_the_steer_nothing_changes_and_all_layers_are_there(gpt2: Any) -> None:
    table = sl.lens_of_change(at(2, CAA(V)), gpt2, PROMPTS[0], top=3)
    assert sorted(set(table["layer"])) == list(range(N_LAYERS))
    assert (table.query("layer < 2")["score"].abs() < 1e-9).all()
    assert (table.query("layer >= 2 and side == 'up'")["score"] > 0.01).all()


def test_a_token_reads_as_the_tokenizer_writes_it(gpt2: Any) -> None:
    table = sl.lens(V, gpt2, top=50)
    for token, number in zip(table["token"], table["id"], strict=True):
        if "⟨" not in token:
            assert gpt2.tokenizer.decode([number]) == token
    assert not table["token"].str.contains("\ufffd").any()


def test_mistakes_are_told(gpt2: Any) -> None:
    with pytest.raises(ValueError, match="no direction of 32 numbers"):
        sl.lens(V[:5], gpt2)
    with pytest.raises(ValueError, match="no direction of 32 numbers"):
        sl.lens(at(1, halved), gpt2)
    with pytest.raises(ValueError, match="top is how many"):
        sl.lens(V, gpt2, top=0)
    with pytest.raises(TypeError, match="a whole number for top"):
        sl.lens(V, gpt2, top=True)
    for v in (0 * V, torch.nan * V):
        with pytest.raises(ValueError, match="points to no words"):
            sl.lens({2: v}, gpt2)
    with pytest.raises(ValueError, match="layers"):
        sl.lens_of_change(at(1, CAA(V)), gpt2, "I", layers=[9])
    assert sl.lens({Site(1): V}, gpt2, top=1)["stream"].tolist() == ["resid_post"] * 2


@pytest.mark.parametrize("layer", [99, -99])
def test_layers_that_the_model_does_not_have_are_refused(layer: int, gpt2: Any) -> None:
    v = torch.ones(gpt2.cfg.d_model)
    for what in ({layer: v}, sl.at(layer, sl.CAA(v))):
        with pytest.raises(ValueError, match=r"layers|does not have"):
            sl.lens(what, gpt2)
