"""GGUF files: unpacked once, by transformers, into a folder of the cache that loads in seconds.

The folder's name holds a digest of the file and of what unpacked it, so another file, or another
version of transformers, gives another folder. The cache is the user's own (`STEERLENS_CACHE` names
another place). A folder is written beside its place and renamed, so it is whole or not there.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from steerlens.gguf_header import MAGIC, require_header
from steerlens.parsing import parse_json

INSTALL = 'pip install "gguf>=0.18"'
NOTE = "steerlens.json"
_FORMAT = 1  # of the folders below: another number makes them all anew
_DIGITS = ("smollm", "starcoder", "refact", "command-r")
"""Vocabularies whose digits stand alone, by llama.cpp's name (`tokenizer.ggml.pre`)."""
_SPECIAL = {
    "bos_token": "bos",
    "eos_token": "eos",
    "unk_token": "unknown",
    "pad_token": "padding",
}
_FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Unpacked:
    """What a folder of the cache was made of: the file, its digest, and how its weights were kept.

    `quantisation` is llama.cpp's name, as "Q4_1" or "Q4_K_M"; `name` is what the file calls its
    model; `fingerprint` is that of the weights as they were written; `left_out` says what of the
    file has no place in transformers' model.
    """

    file: str
    sha256: str
    quantisation: str
    name: str
    architecture: str
    converter: str
    fingerprint: str
    licence: str = ""
    left_out: str = ""

    def __str__(self) -> str:
        return f"{self.quantisation} of {self.name}"


def is_gguf(path: Path) -> bool:
    """Whether a path is meant as a GGUF file: by its name, or by how the file begins."""
    if path.suffix.lower() == ".gguf":
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def files_in(folder: Path) -> list[Path]:
    """The GGUF models in a folder; what only sees or hears (`mmproj`) is none."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".gguf")
    return [path for path in found if not path.name.lower().startswith("mmproj")]


def cache() -> Path:
    """Where unpacked models are kept."""
    from platformdirs import user_cache_path

    given = os.environ.get("STEERLENS_CACHE")
    return Path(given).expanduser() if given else user_cache_path("steerlens", appauthor=False)


def note_in(folder: Path | None) -> Unpacked | None:
    """What a folder was unpacked from, or None if it was not made here."""
    try:
        content = parse_json((folder / NOTE).read_text(encoding="utf-8")) if folder else None
        return None if content is None else Unpacked(**content)
    except (OSError, ValueError, TypeError):
        return None


def unpacked(file: Path, dtype: torch.dtype | str | None = None, digest: str = "") -> Path:
    """The folder of the cache that holds what `file` does, made if it is not there.

    `dtype` is the one that the weights are wanted in; None is float32, "auto" that of a file whose
    weights are plain. `digest` is the sha256 that the file must have.
    """
    found = _require_file(file, digest)
    if (folder := kept(found, file.stem, dtype)) is not None:
        return folder
    _require_gguf_package()
    target = _folder(found, file.stem, dtype)
    with _alone(target):
        if not target.is_dir():  # else another process has made it in the meantime
            _unpack(file, found, target, dtype)
    return target


def kept(digest: str, stem: str, dtype: torch.dtype | str | None = None) -> Path | None:
    """The folder of the cache for a file of this digest, if there is one."""
    folder = _folder(digest, stem, dtype)
    return folder if folder.is_dir() else None


def _folder(digest: str, stem: str, dtype: torch.dtype | str | None) -> Path:
    made_by = hashlib.sha256(f"{_converter()} {_FORMAT}".encode()).hexdigest()
    wanted = "float32" if dtype is None else str(dtype).removeprefix("torch.")
    return cache() / "gguf" / f"{stem[:80]}-{digest[:16]}-{made_by[:8]}-{wanted}"


def _converter() -> str:
    return f"transformers {importlib.metadata.version('transformers')}"


# -- Before anything is unpacked ------------------------------------------------------------------


def _require_file(file: Path, digest: str) -> str:
    """The sha256 of a GGUF file; ValueError if it is none, or has another one than `digest`."""
    if not file.is_file():
        raise ValueError(f"There is no file {file}. Give the path of a GGUF file that is here.")
    sha256 = hashlib.sha256()
    with file.open("rb") as content:
        start = content.read(4)
        if start != MAGIC:
            raise ValueError(
                f"{file} is no GGUF file: it begins with {start!r} in place of {MAGIC!r}. Fetch it "
                "again; a small text file in its place is a pointer of Git LFS."
            )
        sha256.update(start)
        while block := content.read(1 << 24):
            sha256.update(block)
    if digest and sha256.hexdigest() != digest:
        raise ValueError(
            f"{file} is not the file that was released: its sha256 is {sha256.hexdigest()}, and "
            f"that of the release is {digest}. Install the package again."
        )
    return sha256.hexdigest()


def _require_gguf_package() -> None:
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(
            f"Reading a GGUF file needs the package gguf, which is not installed: {INSTALL}."
        )


@dataclass(frozen=True)
class _Header:
    """What is known of a file before its weights are unpacked."""

    file: Path
    fields: dict[str, Any]
    tensors: dict[str, tuple[str, int]]  # of each tensor the type and the number of elements

    @property
    def types(self) -> Counter[str]:
        """How many elements are kept in each type."""
        counts: Counter[str] = Counter()
        for kind, number in self.tensors.values():
            counts[kind] += number
        return counts

    @property
    def quantisation(self) -> str:
        """llama.cpp's name for how the file is quantised; the most frequent type if it has none."""
        from gguf import LlamaFileType

        try:
            known = LlamaFileType(int(self.fields["general.file_type"])).name
        except (KeyError, TypeError, ValueError):
            known = self.types.most_common(1)[0][0]
        return known.removeprefix("MOSTLY_").removeprefix("ALL_")

    def dtype(self, wanted: torch.dtype | str | None) -> torch.dtype | str:
        """The dtype to unpack into; "auto" keeps 16 bits where every matrix has them."""
        if wanted != "auto":
            return torch.float32 if wanted is None else wanted
        halves = [name for name in ("BF16", "F16") if name in self.types]
        plain = set(self.types) <= set(_FLOATS)
        return _FLOATS[halves[0]] if plain and halves else torch.float32


def _header_of(file: Path) -> _Header:
    from gguf import GGUFReader

    require_header(file)

    try:
        reader = GGUFReader(file)
        fields = {
            name: field.contents()
            for name, field in reader.fields.items()
            # The vocabulary's hundred thousand strings take seconds.
            if not name.startswith("tokenizer.ggml.") or len(field.data) == 1
        }
        tensors = {one.name: (one.tensor_type.name, int(one.n_elements)) for one in reader.tensors}
        examples = {one.tensor_type: one for one in reversed(reader.tensors)}
    except Exception as error:  # the reader raises whatever it meets in a damaged file
        raise ValueError(
            f"{file} is damaged or cut off, or newer than the package gguf "
            f"{importlib.metadata.version('gguf')} ({type(error).__name__}: {error}). Fetch it "
            "again, or upgrade gguf."
        ) from error
    header = _Header(file, fields, tensors)
    _require_a_model(header)
    for kind, tensor in examples.items():
        _require_dequantisable(file, kind, tensor)
    return header


def _require_a_model(header: _Header) -> None:
    """Raise ValueError unless the file holds a whole language model."""
    kind, file = header.fields.get("general.type", "model"), header.file
    if kind != "model" or header.fields.get("general.architecture") == "clip":
        raise ValueError(f"{file} holds no language model, but what GGUF calls {kind!r}.")
    parts = header.fields.get("split.count", 0)
    if parts and int(parts) > 1:
        raise ValueError(
            f"{file} is one of {parts} parts of a model. Put them together: llama-gguf-split "
            "--merge FIRST_PART WHOLE.gguf, a program of llama.cpp."
        )
    if not header.tensors:
        raise ValueError(f"{file} holds no weights, perhaps only a vocabulary.")


def _require_dequantisable(file: Path, kind: Any, tensor: Any) -> None:
    """Raise ValueError with the type's name if its numbers cannot be unpacked."""
    from gguf import dequantize

    try:
        dequantize(tensor.data.reshape(-1, tensor.data.shape[-1])[:1], kind)
    except Exception as error:  # NotImplementedError, or what a wrong shape gives
        raise ValueError(
            f"{file} keeps {tensor.name!r} as {kind.name}, which cannot be unpacked here "
            f"({type(error).__name__}: {error}). Take the same model in another quantisation, as "
            "Q8_0 or Q4_K_M."
        ) from error


# -- Unpacking -------------------------------------------------------------------------------------


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """One process at a time for a folder; what an earlier one left unfinished is cleared away."""
    from filelock import FileLock, Timeout

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.parent / f".{target.name}.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            _say(f"Another process is unpacking {target.name}; waiting for it.")
            lock.acquire()
    except OSError as error:
        raise ValueError(
            f"Cannot write to the cache {cache()} ({error.strerror or error}). Name another place "
            "by the environment variable STEERLENS_CACHE."
        ) from error
    try:
        for stale in target.parent.glob(f".{target.name}.part-*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield
    finally:
        lock.release()


def _unpack(file: Path, digest: str, target: Path, wanted: torch.dtype | str | None) -> None:
    from steerlens.fingerprints import of_transformers

    header = _header_of(file)
    dtype = header.dtype(wanted)
    _require_space(header, dtype, target.parent)
    _say(
        f"Unpacking {file.name} ({header.quantisation}) once, into the cache {target.parent}; "
        "later it loads from there."
    )
    model, tokenizer = _read(header, dtype)
    note = Unpacked(
        file=file.name,
        sha256=digest,
        quantisation=header.quantisation,
        name=str(header.fields.get("general.name") or file.stem),
        architecture=str(header.fields.get("general.architecture")),
        converter=_converter(),
        fingerprint=of_transformers(model),
        licence=str(header.fields.get("general.license") or ""),
        left_out=_left_out(header, model),
    )
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.part-", dir=target.parent))
    try:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        (draft / NOTE).write_text(json.dumps(asdict(note), indent=1), encoding="utf-8")
        umask = os.umask(0)
        os.umask(umask)
        draft.chmod(0o777 & ~umask)  # a cache may be shared; a temporary folder is for one user
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _require_space(header: _Header, dtype: Any, folder: Path) -> None:
    numbers = header.types.total() if hasattr(Counter, "total") else sum(header.types.values())
    needed = numbers * torch.empty(0, dtype=dtype).element_size()
    free = shutil.disk_usage(folder).free
    if needed > 0.98 * free:
        raise ValueError(
            f"Unpacked, {header.file.name} takes {needed / 1e9:.1f} GB, and the cache {cache()} "
            f"has {free / 1e9:.1f} GB left. Make room, name another place by the environment "
            "variable STEERLENS_CACHE, or ask for dtype='bfloat16', which takes half."
        )


def _read(header: _Header, dtype: Any) -> tuple[Any, Any]:
    """The model and its tokenizer as transformers reads them, every weight a plain number."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, file = str(header.file.parent), header.file.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=file, trust_remote_code=False)
        read: Any = AutoModelForCausalLM.from_pretrained(
            where,
            gguf_file=file,
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=False,
            **_plain(),
        )
        model, info = read
    except Exception as error:  # transformers raises many kinds; all mean "not read"
        raise ValueError(
            f"{_converter()} cannot read {header.file} (GGUF architecture "
            f"{header.fields.get('general.architecture')!r}): {error}. Take the same model as a "
            "Hugging Face folder or hub name, or another version of transformers."
        ) from error
    absent = sorted(info["missing_keys"])
    if absent:
        raise ValueError(
            f"{header.file} lacks {len(absent)} tensors of its model, {absent[0]!r} first. Take "
            "the same model as a Hugging Face folder or hub name."
        )
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):  # the weights written below are plain numbers
        del model.config.quantization_config
    _split_digits(header, tokenizer)
    _name_special_tokens(header, tokenizer)
    return model.eval(), tokenizer


def _plain() -> dict[str, Any]:
    """What asks transformers for plain weights: older versions always give them."""
    try:
        from transformers import GgufConfig  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _left_out(header: _Header, model: Any) -> str:
    """The numbers in the file that have no place in transformers' model, in words."""
    held = {parameter.data_ptr(): parameter.numel() for parameter in model.parameters()}
    beyond = sum(number for _, number in header.tensors.values()) - sum(held.values())
    lost = [name for name in header.tensors if name.startswith("rope_freqs") or ".nextn." in name]
    which = ", ".join(lost) if lost else "which ones, transformers does not say"
    return f"{beyond} numbers ({which})" if beyond > 0 else ""


def _split_digits(header: _Header, tokenizer: Any) -> None:
    """Let digits stand alone where the vocabulary was learned so; GGUF only names the rule."""
    if header.fields.get("tokenizer.ggml.pre") not in _DIGITS:
        return
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _name_special_tokens(header: _Header, tokenizer: Any) -> None:
    """Take the special tokens from the file; older transformers leave some out, or guess."""
    for token, field in _SPECIAL.items():
        number = header.fields.get(f"tokenizer.ggml.{field}_token_id")
        if number is not None:
            setattr(tokenizer, token, tokenizer.convert_ids_to_tokens(int(number)))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
