"""A model and its tokenizer in transformers' own classes, checked to be whole."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from steerlens.fingerprints import is_quantised
from steerlens.models.gguf import note_in
from steerlens.models.names import hub_names
from steerlens.models.released import how_to_get
from steerlens.types import SteeringWarning


@dataclass(frozen=True)
class Wanted:
    """Where the weights are to be, in which dtype, and whether they are to be folded."""

    device: str | torch.device | None = None
    device_map: Any = None
    dtype: torch.dtype | str | None = None
    fold: bool = False

    def __post_init__(self) -> None:
        if self.device is not None and self.device_map is not None:
            raise ValueError("Give device or device_map, not both: a map says where each part is.")
        device_named("cpu" if self.device is None else self.device)
        dtype_named(self.dtype)


@dataclass(frozen=True)
class Source:
    """What a backend is built of: weights in transformers' own class, and how they are wanted.

    `spread` says that the weights lie where they must stay (a device map, or quantised weights);
    `known` that `name` is one by which TransformerLens can look the model up.
    """

    name: str
    hf_model: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    fold: bool
    spread: bool
    known: bool = False

    @property
    def rounding(self) -> torch.dtype:
        """The dtype whose rounding is to be expected: a coarse one for quantised weights."""
        return torch.bfloat16 if is_quantised(self.hf_model) else self.dtype

    @property
    def processing(self) -> dict[str, Any]:
        """TransformerLens' options of what is done to the weights: all of it, or nothing."""
        options = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
        return dict.fromkeys(options, self.fold)

    def renewed(self, state: dict[str, Any]) -> "Source":
        """The same with a new model that holds the tensors `state`.

        A bridge takes the model apart that it is built around, so another backend needs a new one.
        """
        fresh = type(self.hf_model)(copy.deepcopy(self.hf_model.config))
        fresh.load_state_dict(state)
        return replace(self, hf_model=fresh.to(dtype=self.dtype, device=self.device).eval())


def from_name(source: str, tokenizer: Any, wanted: Wanted) -> Source:
    """The weights of a folder or a hub name, read by transformers."""
    tokenizer = None if tokenizer is None else _with_name(tokenizer, source)
    hf_model, tokenizer = _read(source, wanted, tokenizer)
    made = _source(source, hf_model, tokenizer, wanted)
    return replace(made, known=source in hub_names() and not Path(source).is_dir())


def from_model(hf_model: Any, tokenizer: Any, wanted: Wanted) -> Source:
    """The weights of a model that the caller has loaded."""
    _require_plain(hf_model)
    if tokenizer is None:
        raise ValueError(
            "hf_model needs its tokenizer: steerlens.load(hf_model=model, "
            "tokenizer=AutoTokenizer.from_pretrained(name))."
        )
    if wanted.device_map is not None:
        raise ValueError(
            "hf_model is loaded already, so device_map comes too late. Give it to "
            "AutoModelForCausalLM.from_pretrained(name, device_map=...)."
        )
    dtype = dtype_named(wanted.dtype)
    if wanted.dtype is not None and dtype not in ("auto", hf_model.dtype):
        raise ValueError(
            f"hf_model is in {hf_model.dtype}, and {dtype} was asked for. Convert it before "
            f"(hf_model.to({dtype})), or leave dtype out."
        )
    name = getattr(hf_model, "name_or_path", "") or type(hf_model).__name__
    return _source(name, hf_model.eval(), _with_name(tokenizer, name), wanted)


def _source(name: str, hf_model: Any, tokenizer: Any, wanted: Wanted) -> Source:
    mapped = wanted.device_map is not None or bool(getattr(hf_model, "hf_device_map", None))
    spread = mapped or is_quantised(hf_model)
    device = hf_model.device if wanted.device is None else device_named(wanted.device)
    moved = hf_model if spread else hf_model.to(device)
    return Source(name, moved, tokenizer, device, hf_model.dtype, wanted.fold, spread)


def _read(source: str, wanted: Wanted, tokenizer: Any) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    placed = {} if wanted.device_map is None else {"device_map": wanted.device_map}
    with quietly():
        try:
            if tokenizer is None:
                tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
            read: Any = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=dtype_named(wanted.dtype),
                output_loading_info=True,
                trust_remote_code=False,  # None would ask on the terminal
                use_safetensors=True if Path(source).is_dir() else None,
                **placed,
            )
            model, info = read
        except Exception as error:  # transformers raises many kinds; all mean "not loaded"
            raise ValueError(
                f"transformers could not load {source!r}: {error}. {_advice(error, source)}"
            ) from error
    absent = sorted(info["missing_keys"])
    if absent:
        # transformers fills these with random numbers, and only logs it.
        raise ValueError(
            f"The weights of {source!r} lack {len(absent)} tensors of its configuration, "
            f"{absent[0]!r} first. Fetch its .safetensors files again, all of them."
        )
    beyond = sorted(info["unexpected_keys"])
    if beyond:
        # transformers leaves these out, and only logs it: a model with layers cut off.
        raise ValueError(
            f"The weights of {source!r} have {len(beyond)} tensors that its configuration has no "
            f"place for, {beyond[0]!r} first, so it is not the configuration of these weights. "
            "Fetch config.json and the .safetensors files again, from one place."
        )
    _warn_of_plain_weights(source, model)
    return model.eval(), tokenizer


def _with_name(tokenizer: Any, name: str) -> Any:
    """The tokenizer as TransformerLens can take it: one that was made in memory has no name.

    TransformerLens reads a tokenizer again by its name, to have it write BOS, unless it does so
    already. steerlens never asks it to, and writes BOS itself.
    """
    from transformers import PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise TypeError(
            "tokenizer is a tokenizer of transformers, such as AutoTokenizer.from_pretrained(name)"
            f"; found {type(tokenizer).__name__}."
        )
    if "name_or_path" in getattr(tokenizer, "init_kwargs", {"name_or_path": ""}):
        return tokenizer
    named = copy.deepcopy(tokenizer)
    named.init_kwargs |= {"name_or_path": name, "add_bos_token": True}
    return named


def _advice(error: Exception, source: str) -> str:
    if isinstance(error, ImportError):
        return "Install what it names, or load a model that does not need it."
    if note_in(Path(source)) is not None:
        return f"Delete the folder {source}: it is made again from its GGUF file."
    if Path(source).is_dir():
        return "Look whether its files are complete."
    if not isinstance(error, OSError):  # so the model was found
        return "Another version of transformers may load it, or another copy of the model."
    advice = how_to_get(source) or "Look at the name, and check the connection and HF_HUB_OFFLINE."
    if source.lower().endswith("gguf"):
        advice += " If the hub has it as GGUF files, fetch one of them and give its path."
    return advice


def _is_packed(model: Any) -> bool:
    """Whether some matrix is in a quantiser's layout: of other numbers, or of its own class."""
    plain = {*DTYPES.values(), torch.bool}
    tensors = [*model.parameters(), *model.buffers()]
    return any(
        type(weight.data) is not torch.Tensor or (weight.dim() > 1 and weight.dtype not in plain)
        for weight in tensors
    )


def _warn_of_plain_weights(source: str, model: Any) -> None:
    """Warn where a configuration says quantised, and what was loaded are plain numbers."""
    quantised = getattr(model.config, "quantization_config", None)
    if quantised and not _is_packed(model):
        way = getattr(quantised, "quant_method", None) or "in some way"
        warnings.warn(
            f"The configuration of {source!r} says that its weights are quantised ({way}), and "
            "what transformers loaded are plain numbers. Its activations are those of these.",
            SteeringWarning,
            stacklevel=2,
        )


DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def dtype_named(dtype: torch.dtype | str | None) -> torch.dtype | str:
    """The dtype that is meant by "bfloat16" or "torch.bfloat16"; "auto" stays; None is float32."""
    if dtype is None:
        return torch.float32
    if isinstance(dtype, str) and dtype == "auto":
        return dtype
    named = DTYPES.get(str(dtype).removeprefix("torch."))
    if named is None:
        raise ValueError(
            f"Unknown dtype {dtype!r}. Use 'float32', 'bfloat16', 'float16', 'float64', or 'auto' "
            "for the one that the weights are stored in."
        )
    return named


def device_named(device: str | torch.device) -> torch.device:
    """The device that is meant, if this machine has it."""
    here = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    here += ["mps"] if torch.backends.mps.is_available() else []
    try:
        named = torch.device(device)
    except RuntimeError:
        named = None
    if named is None or named.type not in here:
        raise ValueError(f"Unknown or absent device {str(device)!r}. Here are: {', '.join(here)}.")
    return named


def _require_plain(hf_model: Any) -> None:
    """Raise an error unless `hf_model` is a causal language model of transformers, unwrapped."""
    if not hasattr(hf_model, "config") or not hasattr(hf_model, "get_output_embeddings"):
        raise TypeError(
            "hf_model is a model of transformers, such as AutoModelForCausalLM.from_pretrained("
            f"name); found {type(hf_model).__name__}."
        )
    config = hf_model.config
    if getattr(config, "is_encoder_decoder", False) or hf_model.get_output_embeddings() is None:
        raise ValueError(
            f"hf_model is a {type(hf_model).__name__}, and what is steered here writes text one "
            "token after the other: take AutoModelForCausalLM.from_pretrained(name)."
        )
    if any("_original_component" in name for name, _ in hf_model.named_modules()):
        raise ValueError(
            "hf_model is inside a TransformerBridge already. Use that bridge as it is: every "
            "function of steerlens takes it. Or load the weights again."
        )


def ends_of(model: Any) -> frozenset[int]:
    """The ids that end a turn, by the generation config (a chat model may have several).

    `model` is one of transformers, a bridge around one, or a HookedTransformer, which keeps no
    generation config: there it is the one beside the tokenizer's files, if those are here.
    """
    inner = getattr(model, "original_model", model)
    config = getattr(inner, "generation_config", None) or _config_beside(model)
    listed = getattr(config, "eos_token_id", None)
    several = isinstance(listed, list | tuple)
    return frozenset(listed if several else () if listed is None else (listed,))


def _config_beside(model: Any) -> Any:
    from transformers import GenerationConfig

    name = getattr(getattr(model, "tokenizer", None), "name_or_path", "")
    try:
        return GenerationConfig.from_pretrained(name, local_files_only=True) if name else None
    except (OSError, ValueError):  # there is none, or its files are not here
        return None


@contextmanager
def quietly() -> Iterator[None]:
    """No progress bars for a local load that takes a second."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
