"""Layers and vectors as people have them: NumPy's and torch's numbers, -1 for the last, arrays."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import D_MODEL, N_LAYERS, PROMPTS

import steerlens
from steerlens import (
    CAA,
    PSR,
    ActAdd,
    ColdFD,
    Conversation,
    InstructionVector,
    PromptPair,
    Schedule,
    Site,
    at,
    capture,
    generate,
    load_steering,
)
from steerlens.baselines import las
from steerlens.methods.psr import Gates
from steerlens.sites import as_sites

LAST = N_LAYERS - 1
V = torch.linspace(-1, 1, D_MODEL)
TWO = (["I love", "so kind"], ["I hate", "so bad"])
WHOLE = [np.int64(2), np.int32(2), np.array(2), torch.tensor(2), torch.tensor(2).int()]


@pytest.mark.parametrize("layer", WHOLE, ids=lambda one: f"{type(one).__name__} {one.dtype}")
def test_a_layer_is_a_whole_number_of_any_library(gpt2: Any, layer: Any) -> None:
    assert type(Site(layer).layer) is int
    assert Site(layer) == Site(2)
    assert at(layer, CAA(V)).sites == (Site(2),)
    assert CAA.fit(gpt2, TWO, layer).steering.sites == (Site(2),)
    assert ActAdd.fit(gpt2, ("love", "hate"), layer).steering.sites == (Site(2, "resid_pre"),)
    assert torch.equal(capture(gpt2, PROMPTS, layer).at(layer), capture(gpt2, PROMPTS, 2).at(2))


SEVERAL = [np.array([1, 3]), torch.tensor([1, 3]), range(1, 4, 2)]


@pytest.mark.parametrize("several", SEVERAL, ids=type)
def test_several_layers(several: Any) -> None:
    assert as_sites(several) == (Site(1), Site(3))


@pytest.mark.parametrize("layer", [True, np.True_, torch.tensor(True), 2.0, torch.tensor(2.0), "2"])
def test_what_is_no_whole_number_is_no_layer(layer: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"whole number|Site"):
        at(layer, CAA(V))


# -- Layers from the end -----------------------------------------------------------------------


def test_minus_one_is_the_last_layer_wherever_the_model_is_known(model: Any) -> None:
    absolute, counted = at(LAST, CAA(V)), at(-1, CAA(V))
    options = {"seed": 1, "max_new_tokens": 5}
    assert generate(model, PROMPTS, counted, **options).texts == (
        generate(model, PROMPTS, absolute, **options).texts
    )
    tokens, window = steerlens.batch(model, PROMPTS[:1])
    with torch.no_grad(), absolute.applied(model, window):
        wanted = model(tokens)
    with torch.no_grad(), counted.applied(model, window):
        assert torch.equal(model(tokens), wanted)
    assert [name for name, _ in counted.on(model).hooks()] == [f"blocks.{LAST}.hook_resid_post"]
    found = capture(model, PROMPTS, [-1, LAST, Site(-2, "resid_pre")], steering=counted)
    assert set(found.values) == {Site(LAST), Site(LAST - 1, "resid_pre")}
    assert torch.equal(found.at(-1), found.at(LAST))
    assert torch.equal(found.at(Site(-2, "resid_pre")), found.values[Site(LAST - 1, "resid_pre")])


def test_a_window_of_a_batch_tells_plain_hooks_which_layer_is_the_last(gpt2: Any) -> None:
    _, window = steerlens.batch(gpt2, PROMPTS[:1])
    assert at(-1, CAA(V)).hooks(window)[0][0] == f"blocks.{LAST}.hook_resid_post"


@pytest.mark.filterwarnings("ignore:1 steps", "ignore:No epoch had a lower validation loss")
def test_every_fit_records_the_absolute_layer(monkeypatch: pytest.MonkeyPatch, gpt2: Any) -> None:
    monkeypatch.setattr(gpt2.tokenizer, "chat_template", steerlens.PLAIN)
    pairs = [PromptPair.with_system(user, "Be kind.", " yes it is") for user in ("Hi", "So")]
    once = Schedule(epochs=1, batch_size=2, learning_rate=0.1)
    directions = {-1: V, np.int64(0): V}
    sides = [[Conversation("a", response=word)] for word in (" kind", " not")]
    fits = [
        CAA.fit(gpt2, TWO, [-1, 0]),
        InstructionVector.fit(gpt2, pairs, [-1, 0]),
        ColdFD.fit(gpt2, (sides[0], sides[1]), [-1, 0]),
        PSR.fit(gpt2, pairs, [-1, 0], schedule=once),
        PSR.fit(
            gpt2, pairs, [-1, 0], schedule=once,
            gates=Gates(directions={Site(-1): V[None], Site(0): V[None]}),
        ),
        steerlens.LoReFT.fit(gpt2, pairs, [-1, 0], rank=1, validation=pairs, schedule=once),
        steerlens.CLAS.fit(gpt2, pairs, directions=directions, validation=pairs, schedule=once),
    ]  # fmt: skip
    for fit in fits:
        assert set(fit.steering.sites) == {Site(0), Site(LAST)}, type(fit.steer)
        assert set(fit.steers) == {Site(0), Site(LAST)}
    act_add = ActAdd.fit(gpt2, ("love", "hate"), -1)
    assert act_add.steering.sites == (Site(LAST, "resid_pre"),)
    found = steerlens.contrast_directions(gpt2, "random", *TWO, [-1])
    assert list(found) == [Site(LAST)]


def test_a_site_that_is_given_twice_by_two_names_is_one(gpt2: Any) -> None:
    assert as_sites([-1, LAST, np.int64(-1)], gpt2) == (Site(LAST),)
    with pytest.raises(ValueError, match=rf"twice for layer {LAST}"):
        steerlens.CLAS.fit(gpt2, [], directions={-1: V, LAST: V}, validation=[])


def test_a_file_holds_the_absolute_layer(gpt2: Any, tmp_path: Any) -> None:
    path = at(-1, CAA(V)).save(tmp_path / "last.safetensors", gpt2)
    assert load_steering(path, gpt2).sites == (Site(LAST),)
    fitted = CAA.fit(gpt2, TWO, 1).steering + at(Site(-2, "attn_out"), CAA(V))
    path = fitted.save(tmp_path / "both.safetensors")  # its origin knows the model
    assert load_steering(path, gpt2).sites == (Site(1), Site(LAST - 1, "attn_out"))


def test_cold_may_be_placed_at_its_layer_from_the_end(
    monkeypatch: pytest.MonkeyPatch, gpt2: Any
) -> None:
    monkeypatch.setattr(gpt2.tokenizer, "chat_template", steerlens.PLAIN)
    sides = [[Conversation("a", response=word)] for word in (" kind", " not")]
    fit = ColdFD.fit(gpt2, (sides[0], sides[1]), -1, scope=steerlens.everywhere)
    placed = at(-1, fit.steer)
    options = {"seed": 1, "max_new_tokens": 3}
    wanted = generate(gpt2, PROMPTS[:1], fit.steering, **options)
    assert torch.equal(generate(gpt2, PROMPTS[:1], placed, **options).tokens, wanted.tokens)
    with pytest.raises(ValueError, match="was fitted for layer 3"):
        generate(gpt2, PROMPTS[:1], at(-2, fit.steer))


def test_measures_take_layers_from_the_end(monkeypatch: pytest.MonkeyPatch, gpt2: Any) -> None:
    from steerlens import analysis

    monkeypatch.setattr(gpt2.tokenizer, "chat_template", steerlens.PLAIN)
    pairs = [PromptPair.with_system(user, "Be kind.", " yes it is") for user in ("Hi", "So")]
    steering = {"CAA": at(-2, CAA(V))}
    table = analysis.coefficients(gpt2, pairs, -1, steering, {-1: V})
    assert set(table["layer"]) == {LAST}
    assert set(analysis.faithfulness(gpt2, pairs, steering, layers=[-1])["layer"]) == {LAST}
    assert set(analysis.strengths(gpt2, PROMPTS, steering, {-2: V})["layer"]) == {LAST - 1}
    absolute = analysis.least_squares_strength(gpt2, at(LAST - 1, CAA(V)), pairs)
    assert analysis.least_squares_strength(gpt2, steering["CAA"], pairs) == absolute


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("-1", [3]),
        ("0,-1", [0, 3]),
        ("-3--1", [1, 2, 3]),
        ("2--1", [2, 3]),
        (" 1 - 2 ,3", [1, 2, 3]),
        ("3,-1", [3]),
    ],
)
def test_layers_from_the_end_on_the_command_line(text: str, layers: list[int]) -> None:
    from steerlens.cli.inputs import layers_of

    assert layers_of(text, 4) == layers


@pytest.mark.parametrize("text", ["--1", "1-", "-9", "3-1", "-1-0", "a", "1.5"])
def test_other_layers_are_refused(text: str) -> None:
    from steerlens.cli.inputs import layers_of

    with pytest.raises(ValueError, match="layer"):
        layers_of(text, 4)


@pytest.mark.parametrize("layers", [["--layers", "-1"], ["--layers=0,-1"], ["--layers", "-2--1"]])
def test_the_command_line_takes_them(run: Any, tmp_path: Any, folders: Any, layers: Any) -> None:
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "out.safetensors"
    pairs.write_text('{"positive": "I love", "negative": "I hate"}\n' * 2)
    place = ["--model", folders["gpt2"], "--pairs", pairs, "--out", out]
    for scope in ("prompt & ~last_k(2)", "positions([1, -1])", "positions(-3, None).without_bos"):
        code, _, err = run("fit", "angular", *place, *layers, "--scope", scope)
        assert code == 0, err
        gpt2 = steerlens.load(folders["gpt2"])
        placed = load_steering(out, gpt2).placed
        last_layers = {"-1": [LAST], "--layers=0,-1": [0, LAST], "-2--1": [LAST - 1, LAST]}
        assert [site.layer for site, _ in placed] == last_layers[layers[-1]]
        assert {str(steer.scope) for _, steer in placed} == {scope}


def test_the_command_line_reads_the_last_tokens(run: Any, tmp_path: Any, folders: Any) -> None:
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "out.safetensors"
    pairs.write_text('{"positive": "I love", "negative": "I hate"}\n' * 2)
    place = ["--model", folders["gpt2"], "--pairs", pairs, "--out", out]
    code, _, err = run("fit", "caa", *place, "--layer", "-1", "--read", "last_k(2)")
    assert code == 0, err
    gpt2 = steerlens.load(folders["gpt2"])
    wanted = CAA.fit(gpt2, (["I love"] * 2, ["I hate"] * 2), LAST, read=steerlens.last_k(2))
    ((site, steer),) = load_steering(out, gpt2).placed
    assert site == Site(LAST)
    assert torch.equal(parts_of(steer), wanted.steer.direction)


def parts_of(steer: Any) -> Any:
    return steer.direction if isinstance(steer, CAA) else parts_of(steer.steer)


# -- Vectors -----------------------------------------------------------------------------------

VECTORS = {
    "array": V.numpy(),
    "float64": V.double().numpy(),
    "list": V.tolist(),
    "tuple": tuple(V.tolist()),
    "list of numbers of torch": list(V),
    "row": V[None],
    "column": V[:, None],
    "column of NumPy": V.numpy()[:, None],
    "strided": torch.stack([V, V]).T.numpy()[:, 0],
}


@pytest.mark.parametrize("given", VECTORS.values(), ids=VECTORS)
def test_a_direction_is_what_can_be_made_a_vector(gpt2: Any, given: Any) -> None:
    steer = CAA(given)
    assert steer.direction.shape == (D_MODEL,)
    assert steer.direction.dtype == torch.float32
    assert torch.equal(steer.direction, V)
    assert steer.d_model == D_MODEL
    tokens, window = steerlens.batch(gpt2, PROMPTS[:1])
    with at(1, steer).applied(gpt2, window):
        gpt2(tokens)


def test_an_array_that_is_changed_later_changes_no_steer() -> None:
    given = V.numpy().copy()
    steer = CAA(given)
    given[:] = 0
    assert torch.equal(steer.direction, V)


def test_other_tensors_of_methods_too(gpt2: Any, tmp_path: Any) -> None:
    rows = np.stack([V.numpy(), -V.numpy()])
    assert torch.equal(ActAdd(rows).v, torch.stack([V, -V]))
    assert torch.equal(ActAdd([V, -V]).v, torch.stack([V, -V]))
    psr = PSR(rows, [0, 1], rows.tolist())
    assert psr.b.dtype == torch.float32
    path = at(1, psr).save(tmp_path / "psr.safetensors", gpt2)
    assert load_steering(path, gpt2).sites == (Site(1),)
    steering = las.fixed({1: V.numpy(), -1: V[:, None]})
    assert steering.sites == (Site(-1), Site(1))


@pytest.mark.parametrize(
    "given",
    [np.ones((2, D_MODEL)), [[1.0, 2.0], [1.0]], "abc", [], 3, np.array(["a"]), torch.ones(2, 3)],
    ids=str,
)
def test_what_is_no_vector_says_what_is_needed(given: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="CAA"):
        CAA(given)
