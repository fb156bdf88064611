"""Sparse autoencoders on disk, of which one feature is read and not the gigabytes.

Which family a folder is of, its files say, in this order: `hyperparams.json` (Llama Scope),
`cfg.json` (SAELens), `params.npz` (Gemma Scope), `params.safetensors` (Gemma Scope 2).
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Literal, TypeAlias

from jaxtyping import Float
from torch import Tensor

from steerlens.interchange.arrays import Arrays
from steerlens.parsing import few, parse_json, short

Normalising = Literal["none", "layer_norm", "constant_norm_rescale"]
"""What is done to each activation, token by token, before it is encoded."""
NORMALISED = ("none", "expected_average_only_in", "layer_norm", "constant_norm_rescale")
"""What SAELens writes for normalize_activations."""
MOST_JSON = 16 << 20


@dataclass(frozen=True, eq=False)
class Slices:
    """The tensors of a safetensors file, of which none is read yet."""

    path: Path

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name, in capitals or not."""
        return any(key.lower() == name.lower() for key in self._keys())

    def shape(self, name: str) -> tuple[int, ...]:
        """The lengths of a tensor's axes."""
        return self._with(name, lambda file, key: tuple(file.get_slice(key).get_shape()))

    def whole(self, name: str) -> Float[Tensor, "..."]:
        """All of a tensor."""
        return self._with(name, lambda file, key: file.get_tensor(key))

    def line(self, name: str, index: int, axis: int = 0) -> Float[Tensor, " n"]:
        """One row of a matrix (or with axis 1 one column); the rest is not read."""

        def read(file: Any, key: str) -> Tensor:
            part = file.get_slice(key)
            return part[index] if axis == 0 else part[:, index]

        return self._with(name, read).reshape(-1)

    def _keys(self) -> list[str]:
        from safetensors import safe_open

        with _damage(self.path), safe_open(self.path, "pt") as file:
            return list(file.keys())

    def _with(self, name: str, read: Callable[[Any, str], Any]) -> Any:
        from safetensors import safe_open

        with _damage(self.path), safe_open(self.path, "pt") as file:
            keys = list(file.keys())
            key = next((key for key in keys if key.lower() == name.lower()), None)
            if key is None:
                raise ValueError(f"it has no tensor {name!r}, but {few(keys)}")
            return read(file, key)


Weights: TypeAlias = Slices | Arrays
"""Matrices and vectors in a file, found by name in small or capital letters."""


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Errors of a safetensors file as one ValueError that names it."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, ValueError, RuntimeError, IndexError, TypeError) as error:
        said = f"{error}".rstrip(".")
        raise ValueError(f"{path} is damaged, or is something else ({said}).") from error


@dataclass(frozen=True, eq=False)
class SAEFolder:
    """A sparse autoencoder as its files describe it; of the weights nothing is read yet.

    Activations are multiplied by `scale_in` before the encoder, and what the decoder gives is
    divided by `scale_out`; `mean_norm` says that these are not in the files. `hook` is where it
    reads, `hook_out` where it writes; `layer` is what is known where no hook is named. `centred`:
    the decoder's bias is taken off before. `by_norm`: the threshold, or the choice of the largest,
    is of activations times the length of the decoder's row. `axes` are those of the features in
    decoder and encoder, which `names` calls.
    """

    family: str
    weights: Weights
    architecture: str
    hook: str | None = None
    hook_out: str | None = None
    layer: int | None = None
    d_in: int | None = None
    d_sae: int | None = None
    scale_in: float = 1.0
    scale_out: float = 1.0
    mean_norm: bool = False
    normalising: Normalising = "none"
    centred: bool = False
    by_norm: bool = False
    threshold: float | None = None
    names: tuple[str, str, str, str] = ("W_dec", "W_enc", "b_dec", "b_enc")
    axes: tuple[int, int] = (0, 1)
    note: str = ""


def require_sizes(sae: SAEFolder, path: str | Path) -> None:
    """Raise ValueError unless all parts, and the description, have as many features."""
    decoder, encoder, _, bias = sae.names
    sizes = {decoder: sae.weights.shape(decoder)[sae.axes[0]]}
    if sae.weights.has(encoder) and len(sae.weights.shape(encoder)) == 2:
        sizes[encoder] = sae.weights.shape(encoder)[sae.axes[1]]
    per_feature = (bias, "threshold", "log_threshold", "b_gate", "b_mag", "r_mag", "scaling_factor")
    for name in per_feature:
        if sae.weights.has(name) and len(sae.weights.shape(name)) == 1:
            sizes[name] = sae.weights.shape(name)[0]
    if sae.d_sae is not None:
        sizes["d_sae"] = sae.d_sae
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(
            f"{path} is of several autoencoders: its parts have other numbers of features ({told})."
            " Copy its files again, from one folder."
        )


def sae_folder(path: str | Path) -> SAEFolder:
    """What the files at `path` describe: a folder, or a file in it; ValueError where unknown."""
    folder = Path(path)
    if folder.is_file():
        folder = folder.parent.parent if folder.parent.name == "checkpoints" else folder.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {path}. Give the one with the SAE's files.")
    for name, read in FAMILIES.items():
        if (folder / name).is_file():
            return read(folder)
    raise ValueError(
        f"{folder} holds {few(sorted(one.name for one in folder.iterdir())) or 'nothing'}, and "
        f"none of {', '.join(FAMILIES)}, by which sparse autoencoders are known. Of Gemma Scope "
        "give the innermost folder, as layer_12/width_16k/average_l0_82."
    )


def _llama_scope(folder: Path) -> SAEFolder:
    about = _json(folder / "hyperparams.json")
    reads, d_in = _text(about, "hook_point_in"), _number(about, "d_model")
    writes = about.get("hook_point_out", reads)
    norms = about.get("dataset_average_activation_norm")
    norms = norms if isinstance(norms, dict) else {}
    scaled = about.get("norm_activation", "dataset-wise") == "dataset-wise" and "in" in norms
    into = sqrt(d_in) / _positive(norms, "in") if scaled else 1.0
    out = sqrt(d_in) / _positive(norms, "out" if "out" in norms else "in") if scaled else 1.0
    # The threshold in the file is in the units of what is written, not of what is encoded.
    threshold = float(about.get("jump_relu_threshold") or 0.0) * out
    kinds = {"jumprelu": "jumprelu", "topk": "topk", "relu": "standard"}
    return SAEFolder(
        "Llama Scope",
        Slices(_there(folder / "checkpoints" / "final.safetensors")),
        kinds.get(about.get("act_fn", "jumprelu"), str(about.get("act_fn"))),
        hook=reads,
        hook_out=writes if isinstance(writes, str) else reads,
        d_in=int(d_in),
        d_sae=_size(about, "d_sae"),
        scale_in=into,
        scale_out=out,
        normalising="constant_norm_rescale"
        if about.get("norm_activation") == "token-wise"
        else "none",
        centred=about.get("apply_decoder_bias_to_pre_encoder") is True,
        by_norm=about.get("sparsity_include_decoder_norm") is True,
        threshold=threshold,
        names=("decoder.weight", "encoder.weight", "decoder.bias", "encoder.bias"),
        axes=(1, 0),
        note=f"activations times {into:.4g} are encoded" if scaled else "",
    )


def _saelens(folder: Path) -> SAEFolder:
    about = _json(folder / "cfg.json")
    inner = about.get("metadata")
    about = {**about, **(inner if isinstance(inner, dict) else {})}
    hook = about.get("hook_name", about.get("hook_point"))
    normalising = about.get("normalize_activations") or "none"
    normalising = "expected_average_only_in" if normalising is True else normalising
    if normalising not in NORMALISED:
        raise ValueError(
            f"{folder} normalises activations by {short(normalising)}, which is not known here, so "
            f"neither is the unit of its features. Known are {', '.join(NORMALISED)}."
        )
    kind = about.get("architecture", "standard")
    does = about.get("activation_fn_str", about.get("activation_fn")) or "relu"
    kind = kind if does == "relu" else does
    if about.get("hook_head_index", about.get("hook_point_head_index")) is not None:
        raise ValueError(f"{folder} is of one attention head, which is no stream that is steered.")
    writes = about.get("hook_name_out") or hook
    per_token = normalising in ("layer_norm", "constant_norm_rescale")
    note = f"for {short(about['model_name'], 80)}" if about.get("model_name") else ""
    note += "; in units of each token's own length" * per_token
    return SAEFolder(
        "SAELens",
        Slices(_there(folder / "sae_weights.safetensors")),
        str(kind),
        hook=hook if isinstance(hook, str) else None,
        hook_out=writes if isinstance(writes, str) else None,
        d_in=int(_number(about, "d_in")),
        d_sae=_size(about, "d_sae"),
        mean_norm=normalising == "expected_average_only_in",
        normalising=normalising if per_token else "none",
        centred=about.get("apply_b_dec_to_input", True) is not False,
        by_norm=about.get("rescale_acts_by_decoder_norm") is True,
        note=note,
    )


def _gemma_scope(folder: Path) -> SAEFolder:
    weights = Arrays.of(folder / "params.npz")
    named = [re.fullmatch(r"layer_(\d{1,4})", part) for part in folder.absolute().parts]
    layers = [int(found[1]) for found in named if found]
    if "embedding" in folder.absolute().parts:  # they were trained on embeddings / sqrt(d_model)
        root = sqrt(weights.shape("w_dec")[-1])
        return SAEFolder(
            "Gemma Scope",
            weights,
            "jumprelu",
            hook="blocks.0.hook_resid_pre",
            hook_out="blocks.0.hook_resid_pre",
            scale_in=1 / root,
            scale_out=1 / root,
            note="of the embedding",
        )
    return SAEFolder("Gemma Scope", weights, "jumprelu", layer=layers[-1] if layers else None)


OF_GEMMA = {
    "output": "hook_resid_post",
    "post_attention_layernorm.output": "hook_attn_out",
    "post_feedforward_layernorm.output": "hook_mlp_out",
    "self_attn.o_proj.input": "attn.hook_z",
}


def _gemma_scope_2(folder: Path) -> SAEFolder:
    about = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
    reads = _of_transformers(about.get("hf_hook_point_in"))
    writes = _of_transformers(about.get("hf_hook_point_out", about.get("hf_hook_point_in")))
    found = re.match(r"layer_(\d{1,4})(_|$)", folder.absolute().name)
    model = about.get("model_name")
    return SAEFolder(
        "Gemma Scope 2",
        Slices(folder / "params.safetensors"),
        "jumprelu" if about.get("type", "sae") == "sae" else str(about["type"]),
        hook=reads,
        hook_out=writes,
        layer=int(found[1]) if found else None,
        note=f"for {short(model, 80)}" if model else "",
    )


def _of_transformers(name: object) -> str | None:
    """A stream of transformers in TransformerLens' words; what is none stays as it is."""
    if not isinstance(name, str):
        return None
    found = re.fullmatch(r"(?:[A-Za-z_]\w*\.){0,4}?layers\.(\d{1,4})\.([\w.]+)", name)
    stream = OF_GEMMA.get(found[2]) if found else None
    return f"blocks.{found[1]}.{stream}" if found and stream else name


FAMILIES: dict[str, Callable[[Path], SAEFolder]] = {
    "hyperparams.json": _llama_scope,
    "cfg.json": _saelens,
    "params.npz": _gemma_scope,
    "params.safetensors": _gemma_scope_2,
}


# -- Their descriptions ----------------------------------------------------------------------------


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_JSON:
            raise ValueError(f"it has more than {MOST_JSON >> 20} MB")
        about = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read ({error}). Copy it again.") from error
    if not isinstance(about, dict):
        raise ValueError(f"{path} is no description of an SAE: it holds a {type(about).__name__}.")
    return {"": str(path), **about}


def _there(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"The weights are missing: there is no {path}. Copy them too.")
    return path


def _text(about: dict[str, Any], name: str) -> str:
    if not isinstance(about.get(name), str):
        raise ValueError(f"{about['']} says {short(about.get(name))} for {name}, which is no name.")
    return about[name]


def _number(about: dict[str, Any], name: str) -> float:
    value = about.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(f"{about.get('', 'The SAE')} says {short(value)} for {name}.")
    return float(value)


def _size(about: dict[str, Any], name: str) -> int | None:
    return None if about.get(name) is None else int(_number(about, name))


def _positive(norms: dict[str, Any], name: str) -> float:
    return _number(norms, name)
