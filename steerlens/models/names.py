"""What a name means: the embedded model, a folder on this machine, or a model of the hub."""

import difflib
import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from steerlens.digests import require_signed, signed
from steerlens.models import gguf
from steerlens.models.released import RELEASED, released_folder
from steerlens.models.sizes import require_regular, require_sizes
from steerlens.parsing import parse_json, text_of_input
from steerlens.whole import write_whole

DEMO = Path(__file__).parent.parent / "demo" / "model"
DIGESTS, SHIPPED = "digests.json", (".json", ".safetensors")
"""Where the digests of the embedded model are, beside its folder, and of which of its files."""

# Each set of files is enough for a tokenizer.
TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.json", "merges.txt"),
    ("tokenizer.model",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("vocab.txt",),
)
PLAIN_TYPES = {"F64", "F32", "F16", "BF16"}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
QUANTISERS = {
    "bitsandbytes": "bitsandbytes",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "aqlm": "aqlm",
    "hqq": "hqq",
    "compressed-tensors": "compressed-tensors",
    "torchao": "torchao",
    "eetq": "eetq",
    "vptq": "vptq",
    "auto-round": "auto-round",
}
"""The package that each way of storing quantised weights needs, by its name in config.json."""


def local_folder(
    name_or_folder: str | Path, *, tokenizer: bool = True, dtype: Any = None
) -> Path | None:
    """The folder that is meant, or None for a hub name; ValueError for neither.

    `tokenizer=False` asks for no tokenizer in it. A GGUF file is unpacked, the first time; `dtype`
    is the one that its weights are wanted in.
    """
    if str(name_or_folder) == "demo":
        require_as_shipped(DEMO)
        return _require_whole(DEMO, tokenizer)
    path = Path(name_or_folder).expanduser()
    if path.is_dir():
        file = _gguf_in(path)
        return _require_whole(path, tokenizer) if file is None else gguf.unpacked(file, dtype)
    if gguf.is_gguf(path):
        return gguf.unpacked(path, dtype)
    if str(name_or_folder) in RELEASED:
        return released_folder(str(name_or_folder), dtype)
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
    near = difflib.get_close_matches(name, ["demo", *RELEASED, *known], n=5, cutoff=0.3)
    raise ValueError(
        f"Unknown model {name!r}: it is none of {', '.join(['demo', *RELEASED])}, nor a folder "
        "that exists, nor a GGUF file, nor a hub name ('owner/name', or one that TransformerLens "
        f"knows). Close to it: {', '.join(near) or 'demo'}."
    )


def hub_names() -> dict[str, str]:
    """The hub name of every model name and alias that the installed TransformerLens knows."""
    from transformer_lens import supported_models

    official = {name: name for name in supported_models.OFFICIAL_MODEL_NAMES}
    aliases = supported_models.MODEL_ALIASES
    short = {alias: name for name, known in aliases.items() for alias in known}
    return dict(sorted((short | official).items()))


def has_hooked_transformer() -> bool:
    """Whether the installed TransformerLens has HookedTransformer (3.x does, 4.x does not)."""
    return importlib.util.find_spec("transformer_lens.HookedTransformer") is not None


def _require_whole(folder: Path, tokenizer: bool) -> Path:
    if not (folder / "config.json").is_file():
        _require_no_other_kind(folder)
        raise ValueError(
            f"{folder} has no config.json, so it is no Hugging Face model folder. It should hold "
            "config.json, model.safetensors, tokenizer.json and tokenizer_config.json."
        )
    has_tokenizer = any(all((folder / name).is_file() for name in names) for names in TOKENIZERS)
    if tokenizer and not has_tokenizer:
        raise ValueError(
            f"{folder} has no tokenizer.json, nor vocab.json and merges.txt, nor tokenizer.model. "
            "Copy the tokenizer's files there (tokenizer.save_pretrained(folder)), or pass one: "
            "steerlens.load(folder, tokenizer=...)."
        )
    _require_safetensors(folder)
    require_regular(folder)
    config = _config_of(folder)
    _require_no_code(folder, config)
    require_sizes(folder, config)
    _require_causal(folder, config)
    _require_quantiser(folder, config)
    return folder


def _require_no_code(folder: Path, config: dict[str, Any]) -> None:
    """Raise ValueError where the folder brings code of its own, and no other can read it.

    transformers would ask on the terminal whether to run it, and take the answer of `yes |`.
    """
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if "auto_map" in config and (not isinstance(kind, str) or kind not in CONFIG_MAPPING):
        raise ValueError(
            f"{folder / 'config.json'} says that the model ({kind!r}) needs Python code from the "
            "folder itself (auto_map), and steerlens runs no code of a model. Take a version of "
            "the model that transformers knows, or load it yourself and give it as "
            "steerlens.load(hf_model=..., tokenizer=...)."
        )


def require_as_shipped(folder: Path) -> None:
    """Raise ValueError where a file of the embedded model is not as it came with the package."""
    try:
        content = parse_json(folder.with_name(DIGESTS).read_text(encoding="utf-8"))
        files = require_signed(content, {"files"})["files"]
        changed = [name for name, digest in files.items() if _digest(folder / name) != digest]
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The embedded model is damaged ({error}). Reinstall steerlens."
        ) from error
    if changed:
        raise ValueError(
            f"The embedded model is damaged: {folder / changed[0]} is not as it came with the "
            "package. Reinstall steerlens."
        )


def write_digests(folder: Path) -> None:
    """Write down what the files of the embedded model are, after it was made anew."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in SHIPPED)
    content = signed({"files": {name: _digest(folder / name) for name in names}})
    write_whole(folder.with_name(DIGESTS), f"{json.dumps(content, indent=1)}\n".encode())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _require_causal(folder: Path, config: Any) -> None:
    if isinstance(config, dict) and config.get("is_encoder_decoder"):
        raise ValueError(
            f"{folder} holds an encoder and a decoder ({config.get('model_type', 'no type')}). "
            "What is steered here writes text one token after the other: take a causal language "
            "model, as GPT, Llama, Qwen or Gemma are."
        )


def _require_no_other_kind(folder: Path) -> None:
    """Raise ValueError with the way to convert it if the folder holds another kind of file."""
    if (folder / "adapter_config.json").is_file():
        raise ValueError(
            f"{folder} holds an adapter (LoRA), not a whole model. Put it into the model that it "
            "was trained on: AutoPeftModelForCausalLM.from_pretrained(folder).merge_and_unload()"
            ".save_pretrained(new_folder), with the package peft."
        )


def _gguf_in(folder: Path) -> Path | None:
    """The GGUF file that a folder without safetensors holds; ValueError where it holds several."""
    if any(folder.glob("*.safetensors")):
        return None
    files = gguf.files_in(folder)
    if len(files) > 1:
        sizes = ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.0f} MB)" for path in files)
        raise ValueError(
            f"{folder} holds several GGUF files: {sizes}. Give the path of the one that you want: "
            f"{str(files[0])!r}."
        )
    return files[0] if files else None


def _require_safetensors(folder: Path) -> None:
    if list(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickled:
        raise ValueError(
            f"{folder} has its weights as pickle ({pickled[0]}), which can run code when it is "
            "opened, so steerlens never does. If you trust the file, convert it once: "
            f'python -c "from transformers import AutoModelForCausalLM as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}')\" writes "
            "model.safetensors beside it."
        )
    raise ValueError(
        f"{folder} has no .safetensors weights. Convert it: model.save_pretrained(folder)."
    )


def _config_of(folder: Path) -> dict[str, Any]:
    try:
        config = parse_json(text_of_input(folder / "config.json"))
    except ValueError as error:
        raise ValueError(
            f"{folder / 'config.json'} is not JSON ({error}). Fetch it again."
        ) from error
    if not isinstance(config, dict):
        raise ValueError(
            f"{folder / 'config.json'} holds a {type(config).__name__}, where an object should be. "
            "Fetch it again."
        )
    return config


def _require_quantiser(folder: Path, config: dict[str, Any]) -> None:
    """Raise ValueError if the weights are quantised in a way that needs a package not here."""
    quantised = config.get("quantization_config") if isinstance(config, dict) else None
    if not isinstance(quantised, dict):
        return
    way = str(quantised.get("quant_method", ""))
    if not way and (quantised.get("load_in_4bit") or quantised.get("load_in_8bit")):
        way = "bitsandbytes"
    _require_quantised(folder, way or "unnamed")
    package = QUANTISERS.get(way)
    if package and importlib.util.find_spec(package.replace("-", "_")) is None:
        raise ValueError(
            f"The weights in {folder} are quantised ({way}), and reading them needs the package "
            f"{package}, which is not installed: pip install {package}. Or load the model that "
            "they were made of, whose weights are plain."
        )


def _require_quantised(folder: Path, way: str) -> None:
    """Raise ValueError if weights that are said to be quantised are plain numbers."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}). Fetch it again.") from error
        if not types <= PLAIN_TYPES:
            return
    raise ValueError(
        f"{folder / 'config.json'} says that the weights are quantised ({way}), and they are plain "
        "numbers. If they were unpacked, take 'quantization_config' out of config.json; if not, "
        "fetch the quantised ones."
    )
