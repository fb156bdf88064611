"""Requests for vllm-lens and EasySteer: written and read back by schema, and what is refused.

Neither engine runs here. What stands in for one is `acted`, which does what its source says it does
with a request, on our own model with plain hooks.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import BACKENDS, D_MODEL

import steerlens as sl
from analysis.measures.coefficients import strengths
from steerlens import (
    CAA,
    CLAS,
    PSR,
    ActAdd,
    InstructionVector,
    LoReFT,
    Site,
    after_first,
    at,
    generated,
    last,
    prompt,
    response,
)
from steerlens.forms import Added, Clamped, Laid, Sensed
from steerlens.interchange import easysteer, vllm_lens
from steerlens.interchange.request import ExportError

V = torch.linspace(-1, 1, D_MODEL)
U = torch.ones(D_MODEL) / D_MODEL**0.5
ROWS = torch.randn(3, D_MODEL, generator=torch.Generator().manual_seed(3))
ACT_ADD = at(Site(2, "resid_pre"), ActAdd(ROWS, c=2.0))
CONSTANT = 2.0 * at([1, 2], CAA(V)) + at(2, CAA(U))
READ = {"vllm-lens": vllm_lens.read, "easysteer": easysteer.read}


def exported(steering: Any, to: str, model: Any, tmp_path: Path, **options: Any) -> Path:
    done = steering.export(tmp_path / "request.json", to=to, model=model, **options)
    assert done.files == (tmp_path / "request.json",)
    return done.files[0]


def vectors_of(path: Path) -> list[dict[str, Any]]:
    """What vllm-lens gets: a list that is JSON inside a string."""
    body = json.loads(path.read_text())
    assert list(body) == ["vllm_xargs"]
    return json.loads(body["vllm_xargs"]["apply_steering_vectors"])


def decoded(held: dict[str, Any]) -> np.ndarray:
    """A tensor as vllm-lens decodes it where nothing is compressed."""
    assert "compression" not in held
    array = np.frombuffer(base64.b64decode(held["data"]), np.dtype(held["dtype"]))
    return array.reshape(held["shape"])


def test_constants_are_one_vector_a_layer_at_every_token(model, tmp_path):
    (vector,) = vectors_of(exported(CONSTANT, "vllm-lens", model, tmp_path))
    assert decoded(vector.pop("activations")) == pytest.approx(
        torch.stack([2 * V, 2 * V + U]).numpy(), abs=1e-6
    )
    assert vector == {
        "layer_indices": [1, 2],
        "scale": 1.0,
        "norm_match": False,
        "position_indices": None,
    }


def test_act_add_is_a_vector_for_each_position(model, tmp_path):
    (vector,) = vectors_of(exported(ACT_ADD, "vllm-lens", model, tmp_path))
    assert vector["position_indices"] == [0, 1, 2]
    assert vector["layer_indices"] == [1], "the input of block 2 is the output of block 1"
    assert decoded(vector["activations"]) == pytest.approx(2 * ROWS[None].numpy())


def acted(model: Any, forms: list[tuple[int, Any]], ids: torch.Tensor) -> torch.Tensor:
    """The logits where each form acts at the output of its block, one after the other."""

    def hook(form: Any) -> Any:
        def steered(h: torch.Tensor, hook: Any = None) -> torch.Tensor:
            if isinstance(form, Added):
                return h + form.v
            if isinstance(form, Sensed):
                return h + (h @ form.c.T + form.b) @ form.v
            h = h.clone()
            h[:, : len(form.v)] += form.v
            return h

        return steered

    hooks = [(f"blocks.{block}.hook_resid_post", hook(form)) for block, form in forms]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        return model(ids)


@pytest.mark.parametrize("to", READ)
@pytest.mark.parametrize("steering", [CONSTANT, ACT_ADD, CONSTANT + ACT_ADD])
def test_what_is_read_back_does_to_a_model_what_the_steering_does(model, tmp_path, steering, to):
    from steerlens import batch

    forms = READ[to](exported(steering, to, model, tmp_path))
    tokens, window = batch(model, ["The dog ran to the house"])
    with torch.no_grad(), steering.applied(model, window):
        wanted = model(tokens)
    assert float((acted(model, forms, tokens) - wanted).abs().max()) < 1e-4
    off = [(block + 1, form) for block, form in forms]
    assert float((acted(model, off, tokens) - wanted).abs().max()) > 1e-2


SENSED = {
    "CLAS": CLAS(0.1 * ROWS[:2], torch.tensor([0.5, -1.0]), ROWS[1:]),
    "LoReFT": LoReFT(torch.eye(D_MODEL)[:2], 0.2 * ROWS[:2], torch.tensor([1.0, 2.0])),
}


def engine_of_easysteer(spec: dict[str, Any], h: torch.Tensor) -> torch.Tensor:
    """Its algorithm loreft, as algorithms/loreft.py writes it."""
    held = {name: torch.from_numpy(array(one)) for name, one in spec["data"]["tensors"].items()}
    rotated = h @ held["rotate_layer"]
    learned = h @ held["learned_source_weight"].T + held["learned_source_bias"]
    return h + spec["scale"] * ((learned - rotated) @ held["rotate_layer"].T)


def array(held: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(held["data"]), "<f4").reshape(held["shape"]).copy()


@pytest.mark.parametrize("strength", [1.0, -0.5])
@pytest.mark.parametrize("name", SENSED)
def test_what_reads_activations_is_a_loreft_of_easysteer(model, tmp_path, name, strength):
    steering = strength * at(1, SENSED[name])
    path = exported(steering, "easysteer", model, tmp_path)
    (spec,) = json.loads(path.read_text())["steering"]["vectors"]
    assert (spec["algorithm"], spec["scale"]) == ("loreft", 1.0)
    assert spec["data"]["extra"] == {"layer": 1}
    shapes = {part: held["shape"] for part, held in spec["data"]["tensors"].items()}
    assert shapes == {
        "rotate_layer": [D_MODEL, 2],
        "learned_source_weight": [2, D_MODEL],
        "learned_source_bias": [2],
    }
    h = torch.randn(1, 5, D_MODEL, generator=torch.Generator().manual_seed(1))
    ((_, steer),) = steering.placed
    torch.testing.assert_close(engine_of_easysteer(spec, h), steer(h), rtol=1e-4, atol=1e-4)
    forms = easysteer.read(path)
    tokens = torch.arange(20, 30)[None]
    with torch.no_grad(), steering.applied(model):
        wanted = model(tokens)
    assert float((acted(model, forms, tokens) - wanted).abs().max()) < 1e-4
    off = [(block + 1, form) for block, form in forms]
    assert float((acted(model, off, tokens) - wanted).abs().max()) > 1e-2


def test_what_reads_activations_keeps_its_scope_and_is_no_vector_of_others(gpt2, tmp_path):
    steering = at(1, SENSED["LoReFT"])
    ((_, form),) = easysteer.read(exported(steering.only(response), "easysteer", gpt2, tmp_path))
    assert str(form.scope) == "response"
    for to in ("vllm-lens", "gguf"):
        with pytest.raises(ExportError, match="cannot compute what LoReFT"):
            steering.export(tmp_path / to, to=to, model=gpt2)
    bounded = at(1, CLAS(ROWS[:1], torch.zeros(1), ROWS[:1], limit=2.0))
    with pytest.raises(ExportError, match="cannot compute what CLAS"):
        exported(bounded, "easysteer", gpt2, tmp_path)


@pytest.mark.skipif("hooked" not in BACKENDS, reason="no HookedTransformer here")
def test_a_folded_model_has_other_activations_than_the_engine(folders, tmp_path):
    folded = sl.load(folders["gpt2"], backend="hooked", processing="fold")
    for steer in (SENSED["CLAS"], CLAS.ablation(U)):
        with pytest.raises(ExportError, match=r"folded and centred.*processing='none'"):
            exported(at(1, steer), "easysteer", folded, tmp_path)


@pytest.mark.parametrize("to", READ)
def test_the_coefficients_of_a_prompt_are_laid_on_its_tokens(gpt2, tmp_path, to):
    gate = CLAS(0.05 * V[None], torch.tensor([0.3]), U[None])
    table = strengths(gpt2, ["What is it?"], {"CLAS": at(1, gate)}, {1: U})
    path = exported(at(1, CAA(U)), to, gpt2, tmp_path, coefficients=table)
    rows = [form.v for _, form in READ[to](path)]
    along = torch.tensor(table.sort_values("token_index")["along"].to_numpy())
    assert len(set(along.tolist())) > 2
    laid = sum(torch.nn.functional.pad(row, (0, 0, 0, len(along) - len(row))) for row in rows)
    assert torch.allclose(laid.double(), along[:, None] * U.double(), atol=1e-6)
    assert {block for block, _ in READ[to](path)} == {1}
    listed = exported(at(1, CAA(U)), to, gpt2, tmp_path, coefficients={1: along.tolist()})
    assert str(READ[to](listed)) == str(READ[to](path))
    from_json = exported(at(1, CAA(U)), to, gpt2, tmp_path, coefficients={"1": along.tolist()})
    assert str(READ[to](from_json)) == str(READ[to](path))


def test_a_table_of_several_prompts_or_of_a_part_of_one_is_refused(gpt2, tmp_path):
    steering = at(1, CAA(U))
    two = strengths(gpt2, ["What is it?", "Who?"], {"CAA": steering}, {1: U})
    part = strengths(gpt2, ["What is it?"], {"CAA": steering}, {1: U}).iloc[1:]
    for given, error, said in (
        (two, ValueError, r"several of 'example'.*table\['example'\]"),
        (part, ValueError, "leaves tokens of the prompt out"),
        (two.drop(columns="along"), ValueError, "no column along"),
        ({2: [1.0]}, ValueError, r"missing at the output of the blocks 1, 2"),
        ({1: [[1.0]]}, ValueError, "one for each token"),
        ({1: []}, ValueError, "one for each token"),
        ({1: [float("nan")]}, ValueError, "finite"),
        ([1.0], TypeError, "found list"),
    ):
        with pytest.raises(error, match=said):
            exported(steering, "vllm-lens", gpt2, tmp_path, coefficients=given)
    both = {1: [1.0], 2: [1.0, 2.0]}
    with pytest.raises(ValueError, match="one number of tokens"):
        exported(at([1, 2], CAA(U)), "easysteer", gpt2, tmp_path, coefficients=both)
    with pytest.raises(ValueError, match=r"has no option 'prompt'\. It has coefficients"):
        exported(steering, "vllm-lens", gpt2, tmp_path, prompt="Who?")


@pytest.mark.parametrize(
    ("steering", "to", "said"),
    [
        (at(1, CAA(V)).only(response), "vllm-lens", r"limited to 'response'.*to='easysteer'"),
        (at(1, InstructionVector(U, 3.0)), "vllm-lens", "clamps a projection"),
        (at(1, PSR(V[None], V[:1], V[None])), "vllm-lens", "cannot compute what PSR"),
        (at(1, PSR(V[None], V[:1], V[None])), "easysteer", "cannot compute what PSR"),
        (at(1, CAA(V)).only(response.without_bos), "easysteer", "no tokens that are those"),
        (at(1, CAA(V)).only(after_first), "easysteer", "with the scope everywhere is written"),
        (at(1, CAA(V)).only(after_first), "vllm-lens", r"limited to 'after_first'\. approximate="),
        (ACT_ADD.only(last), "vllm-lens", "limited to 'last'"),
        (at(Site(0, "resid_pre"), CAA(V)), "vllm-lens", "the embeddings"),
        (at(Site(0, "resid_pre"), CAA(V)), "easysteer", "the embeddings"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(gpt2, tmp_path, steering, to, said):
    with pytest.raises(ExportError, match=said):
        exported(steering, to, gpt2, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("scope", "apply"),
    [
        (None, {"prompt": "all", "generation": "all"}),
        (response, {"prompt_positions": [-1], "generation": "all"}),
        (generated, {"generation": "all"}),
        (prompt, {"prompt": "all"}),
        (last, {"prompt_positions": [-1]}),
    ],
)
def test_easysteer_knows_scopes(gpt2, tmp_path, scope, apply):
    steering = at(1, CAA(V)) if scope is None else at(1, CAA(V)).only(scope)
    path = exported(steering, "easysteer", gpt2, tmp_path)
    body = json.loads(path.read_text())["steering"]
    assert body["conflict"] == "sequential", "its default takes the first vector alone"
    (spec,) = body["vectors"]
    assert (spec["algorithm"], spec["scale"], spec["apply"]) == ("direct", 1.0, apply)
    ((block, form),) = easysteer.read(path)
    assert (block, str(form.scope)) == (1, str(scope or "everywhere"))
    assert torch.equal(form.v, V)


def test_a_clamp_is_taken_out_and_added_for_easysteer(gpt2, tmp_path):
    path = exported(at(1, InstructionVector(U, 3.0)), "easysteer", gpt2, tmp_path)
    (_, erased), (_, added) = easysteer.read(path)
    assert isinstance(erased, Clamped)
    assert erased.z == 0
    assert torch.allclose(erased.u, U)
    assert isinstance(added, Added)
    assert torch.allclose(added.v, 3 * U)
    path = exported(at(1, CLAS.ablation(V)), "easysteer", gpt2, tmp_path)
    assert len(easysteer.read(path)) == 1


def test_the_digest_of_a_payload_is_that_of_the_engine(gpt2, tmp_path):
    """As `_wire_digest` of vllm/model_hooks/steering/payloads.py makes it."""
    path = exported(at(1, CAA(V)), "easysteer", gpt2, tmp_path)
    wire = json.loads(path.read_text())["steering"]["vectors"][0]["data"]
    assert {k: wire[k] for k in ("version", "kind", "extra")} == {
        "version": 1,
        "kind": "direction",
        "extra": {},
    }
    ((name, tensor),) = wire["tensors"].items()
    digest = hashlib.sha256(b"direction:1")
    for part in (name, str(tuple(tensor["shape"]))):
        digest.update(part.encode())
    digest.update(base64.b64decode(tensor["data"]))
    assert wire["sha256"] == digest.hexdigest()
    path = exported(at(1, SENSED["CLAS"]), "easysteer", gpt2, tmp_path)
    wire = json.loads(path.read_text())["steering"]["vectors"][0]["data"]
    digest = hashlib.sha256(b"reft:1")
    for part in ("learned_source_bias", "learned_source_weight", "rotate_layer"):
        held = wire["tensors"][part]
        digest.update(part.encode())
        digest.update(str(tuple(held["shape"])).encode())
        digest.update(base64.b64decode(held["data"]))
    digest.update(b"layer=1")
    assert wire["sha256"] == digest.hexdigest()
    assert (name, tensor["shape"]) == ("layer.1", [D_MODEL])


def damaged(to: str) -> list[Any]:
    """Changes of a request that make it another one, or none."""
    if to == "vllm-lens":
        return [
            lambda b: b.pop("vllm_xargs"),
            lambda b: b["vllm_xargs"].update(apply_steering_vectors="[{}]"),
            lambda b: b["vllm_xargs"].update(apply_steering_vectors="no JSON"),
        ]
    first = lambda b: b["steering"]["vectors"][0]  # noqa: E731
    return [
        lambda b: b["steering"].update(conflict="priority"),
        lambda b: first(b)["data"].update(sha256="0"),
        lambda b: first(b)["data"].update(kind="linear"),
        lambda b: first(b).update(algorithm="replace"),
        lambda b: first(b)["data"]["tensors"]["layer.1"].update(data="?"),
        lambda b: b["steering"].update(more=1),
    ]


@pytest.mark.parametrize("to", READ)
def test_what_is_no_request_is_not_read(gpt2, tmp_path, to):
    path = exported(at(1, CAA(V)), to, gpt2, tmp_path)
    text = path.read_text()
    for change in damaged(to):
        body = json.loads(text)
        change(body)
        path.write_text(json.dumps(body))
        with pytest.raises(ValueError, match=r"request.json is no request of"):
            READ[to](path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="is no request of"):
        READ[to](path)


def test_laid_rows_are_read_as_laid(gpt2, tmp_path):
    path = exported(ACT_ADD, "easysteer", gpt2, tmp_path)
    found = easysteer.read(path)
    assert [len(form.v) for _, form in found] == [1, 2, 3]
    assert all(isinstance(form, Laid) for _, form in found)
