"""Loading models: the embedded demonstration model, a local folder, a hub name; both backends.

Nothing is folded or centred unless asked for, so activations equal transformers' and directions
move between HookedTransformer and TransformerBridge. The network is used for hub names alone.
"""

import difflib
import importlib.util
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from steerlens.checks import require_choice
from steerlens.identity import _LOADED, Loaded
from steerlens.types import HookedModel

Backend = Literal["auto", "hooked", "bridge"]
Processing = Literal["none", "fold"]

DEMO = Path(__file__).parent / "demo" / "model"


def load(
    name_or_folder: str | Path = "demo",
    *,
    backend: Backend = "auto",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    processing: Processing = "none",
    template: str | None = None,
) -> HookedModel:
    """A model with its tokenizer, ready to steer.

    `name_or_folder` is "demo", a local Hugging Face folder, or a hub name. `backend="auto"` is
    HookedTransformer where the installed TransformerLens has it and can hold the architecture, else
    TransformerBridge. `processing="fold"` folds layer norms and centres weights (HookedTransformer
    only); its directions fit no unprocessed model. `template` is the chat template from now on, in
    place of the tokenizer's own: `steerlens.PLAIN` for a model that has none.
    """
    require_choice("backend", backend, get_args(Backend))
    require_choice("processing", processing, get_args(Processing))
    with quietly():
        import transformer_lens  # noqa: F401  in a notebook its import warns about progress bars
    folder = local_folder(name_or_folder)
    _require_device(device)
    name = str(name_or_folder)
    source = str(folder) if folder else hub_names().get(name, name)
    hf_model, tokenizer = _from_transformers(source, dtype)
    chosen = backend
    if chosen == "auto":
        chosen = "hooked" if _hooked_can_hold(source, folder) else "bridge"
    if chosen == "bridge" and processing == "fold":
        raise ValueError(
            "processing='fold' needs backend='hooked' (transformer-lens 3.x): a bridge keeps the "
            "weights as they are. Leave processing at 'none'."
        )
    build = _hooked if chosen == "hooked" else _bridge
    model = build(_Source(source, hf_model, tokenizer, device, dtype, processing == "fold"))
    model.eval()
    model.requires_grad_(False)
    if template is not None:
        model.tokenizer.chat_template = template
    ends = _ends(hf_model)
    _LOADED[model] = Loaded(name, folder, chosen, processing, ends)
    return model


def _ends(hf_model: Any) -> frozenset[int]:
    """The ids that end a turn, by the model's generation config (a chat model may have several)."""
    found = getattr(hf_model.generation_config, "eos_token_id", None)
    return frozenset(found if isinstance(found, list) else () if found is None else (found,))


def local_folder(name_or_folder: str | Path) -> Path | None:
    """The folder that is meant, or None for a hub name; ValueError for neither."""
    if str(name_or_folder) == "demo":
        return _require_whole(DEMO)
    path = Path(name_or_folder).expanduser()
    if path.is_dir():
        return _require_whole(path)
    name, known = str(name_or_folder), hub_names()
    if isinstance(name_or_folder, str) and name in known:
        return None
    looks_local = (
        isinstance(name_or_folder, Path)
        or name.startswith((".", "/", "~"))
        or path.suffix in (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".json")
    )
    if not looks_local and name.count("/") == 1 and all(name.split("/")):
        return None
    near = difflib.get_close_matches(name, ["demo", *known], n=5, cutoff=0.3)
    raise ValueError(
        f"Unknown model {name!r}: it is neither 'demo', nor a folder that exists, nor a hub name "
        f"('owner/name', or one that TransformerLens knows). Close to it: "
        f"{', '.join(near) or 'demo'}."
    )


def hub_names() -> dict[str, str]:
    """The hub name of every model name and alias that the installed TransformerLens knows."""
    from transformer_lens import supported_models

    official = {name: name for name in supported_models.OFFICIAL_MODEL_NAMES}
    aliases = supported_models.MODEL_ALIASES
    short = {alias: name for name, known in aliases.items() for alias in known}
    return dict(sorted((short | official).items()))


def _require_whole(folder: Path) -> Path:
    for needed in ("config.json", "tokenizer.json"):
        if not (folder / needed).is_file():
            raise ValueError(
                f"{folder} has no {needed}, so it is no Hugging Face model folder. It should hold "
                "config.json, model.safetensors, tokenizer.json and tokenizer_config.json."
            )
    if not list(folder.glob("*.safetensors")):
        raise ValueError(
            f"{folder} has no .safetensors weights. Convert it: model.save_pretrained(folder)."
        )
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{folder / 'config.json'} is not JSON ({error}). Fetch it again."
        ) from error
    return folder


def _require_device(device: str | torch.device) -> None:
    here = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    here += ["mps"] if torch.backends.mps.is_available() else []
    try:
        found = torch.device(device).type
    except RuntimeError:
        found = ""
    if found not in here:
        raise ValueError(f"Unknown or absent device {str(device)!r}. Here are: {', '.join(here)}.")


def _from_transformers(source: str, dtype: torch.dtype) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quietly():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
            read: Any = AutoModelForCausalLM.from_pretrained(
                source, dtype=dtype, output_loading_info=True
            )
            model, info = read
        except Exception as error:  # transformers raises many kinds; all mean "not loaded"
            raise ValueError(
                f"transformers could not load {source!r}: {error}. If it is a hub name, check the "
                "connection and HF_HUB_OFFLINE; if a folder, whether its files are complete."
            ) from error
    absent = sorted(info["missing_keys"])
    if absent:
        # transformers fills these with random numbers, and only logs it.
        raise ValueError(
            f"The weights of {source!r} lack {len(absent)} tensors of its configuration, "
            f"{absent[0]!r} first. Fetch its .safetensors files again, all of them."
        )
    return model.eval(), tokenizer


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


def has_hooked_transformer() -> bool:
    """Whether the installed TransformerLens has HookedTransformer (3.x does, 4.x does not)."""
    return importlib.util.find_spec("transformer_lens.HookedTransformer") is not None


def _hooked_can_hold(source: str, folder: Path | None) -> bool:
    if not has_hooked_transformer():
        return False
    if folder is None:
        return source in hub_names()
    try:
        _hooked_config(folder)
    except Exception:  # whatever the converter raises, the bridge is then the backend
        return False
    return True


def _hooked_config(folder: Path) -> dict[str, Any]:
    """HookedTransformerConfig fields of a local folder.

    The converter guesses the architecture from the whole path ("llama" in it means Llama), so it
    is shown a copy of config.json in a folder whose name says nothing. It also reads GPT-2's
    `n_ctx`, which transformers 5 no longer writes.
    """
    from transformer_lens import loading_from_pretrained as loading

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "n_positions" in config:
        config.setdefault("n_ctx", config["n_positions"])
    with tempfile.TemporaryDirectory(prefix="steer_") as neutral:
        (Path(neutral) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        fields = loading.convert_hf_model_config(neutral)
    return fields


@dataclass(frozen=True)
class _Source:
    """What a model is built of: its weights in transformers' own class, and how it is wanted."""

    name: str
    hf_model: Any
    tokenizer: Any
    device: str | torch.device
    dtype: torch.dtype
    fold: bool

    @property
    def processing(self) -> dict[str, Any]:
        """TransformerLens' options of what is done to the weights: all of it, or nothing."""
        options = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
        return dict.fromkeys(options, self.fold)


def _hooked(source: _Source) -> Any:
    if not has_hooked_transformer():
        raise ValueError(
            "backend='hooked' needs transformer-lens 3.x (4.0 removed HookedTransformer). Use "
            "backend='bridge' or 'auto'."
        )
    if Path(source.name).is_dir():
        return _hooked_from_folder(source)
    from transformer_lens import HookedTransformer

    return HookedTransformer.from_pretrained(
        source.name,
        hf_model=source.hf_model,
        tokenizer=source.tokenizer,
        device=str(source.device),
        dtype=source.dtype,  # pyright: ignore[reportArgumentType]  annotated str, means a dtype
        **source.processing,
    )


def _hooked_from_folder(source: _Source) -> Any:
    from transformer_lens import HookedTransformer
    from transformer_lens import loading_from_pretrained as loading
    from transformer_lens.config.hooked_transformer_config import HookedTransformerConfig

    dtype = source.dtype
    fields = _hooked_config(Path(source.name))
    fields |= {"model_name": Path(source.name).name, "device": str(source.device), "dtype": dtype}
    cfg = HookedTransformerConfig.from_dict(fields | {"default_prepend_bos": True})
    if source.fold:
        cfg.normalization_type = f"{cfg.normalization_type}Pre"
    state = loading.get_pretrained_state_dict(
        source.name, cfg, hf_model=source.hf_model, dtype=dtype
    )
    with quietly():
        model = HookedTransformer(cfg, tokenizer=source.tokenizer, move_to_device=False)
    model.load_and_process_state_dict(state, **source.processing)
    return model.to(source.device, print_details=False)


def _bridge(source: _Source) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    with quietly():
        return TransformerBridge.boot_transformers(
            source.name,
            hf_model=source.hf_model.to(source.device),
            tokenizer=source.tokenizer,
            device=str(source.device),
            dtype=source.dtype,
        )
