"""Digests over what a file holds, by which a changed one is told from the one that was written."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Shaped
from torch import Tensor

from steerlens.identity import bytes_of
from steerlens.parsing import few
from steerlens.whole import drafted


def digest_over(header: Mapping[str, Any], tensors: Mapping[str, Shaped[Tensor, "..."]]) -> str:
    """A digest of metadata, which is plain JSON, and tensors: SHA-256, 64 hexadecimal digits."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def signed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON file with a digest over the rest of it."""
    return {**content, "digest": digest_over(content, {})}


def require_signed(content: object, fields: set[str], *, unsigned: bool = False) -> dict[str, Any]:
    """The content without its digest; ValueError unless it has these fields and they are as signed.

    `unsigned` lets pass what has no digest, as files of earlier versions have none.
    """
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, where an object should be")
    rest = {name: value for name, value in content.items() if name != "digest"}
    if set(rest) != fields:
        lacking, beyond = few(fields - set(rest)), few(set(rest) - fields)
        raise ValueError(
            f"it lacks the fields {lacking or 'none'}, and has {beyond or 'none'} besides"
        )
    if "digest" not in content and unsigned:
        return rest
    try:
        whole = content.get("digest") == digest_over(rest, {})
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not whole:
        raise ValueError("it was changed after it was written: its digest is another")
    return rest


# -- Tensors in a file with their digest -----------------------------------------------------------


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Shaped[Tensor, "..."]], about: Mapping[str, str]
) -> None:
    """Write tensors and metadata, whole or not at all; OSError where that cannot be done."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with drafted(path) as draft:
        try:
            save_file(dict(tensors), draft, dict(about))
        except SafetensorError as error:  # as it calls what the system refuses
            raise OSError(str(error)) from error


def read_safetensors(path: str | Path) -> tuple[dict[str, str], dict[str, Shaped[Tensor, "..."]]]:
    """The metadata of a file and its tensors; SafetensorError or OSError where it cannot be read.

    The tensors are copies. What `get_tensor` gives lies in the mapped file: it changes with it, and
    at an address of any alignment a product can round otherwise than that of what was saved.
    """
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        return file.metadata() or {}, tensors


def write_tensors(
    path: str | Path, tensors: Mapping[str, Shaped[Tensor, "..."]], kind: str
) -> None:
    """Write tensors as safetensors, with what they are and a digest over them in the metadata."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"kind": kind}
    write_safetensors(path, held, {**about, "digest": digest_over(about, held)})


def read_tensors(
    path: str | Path, kind: str, *, unsigned: bool = False
) -> dict[str, Shaped[Tensor, "..."]]:
    """What `write_tensors` wrote as this kind; ValueError if it is damaged or something else.

    `unsigned` lets pass what has no metadata at all, as files of earlier versions have none.
    """
    from safetensors import SafetensorError

    try:
        about, tensors = read_safetensors(path)
        if unsigned and not about:
            return tensors
        if set(about) != {"kind", "digest"} or about["kind"] != kind:
            raise ValueError(f"it is no {kind} of this version")
        if about["digest"] != digest_over({"kind": kind}, tensors):
            raise ValueError("it was changed after it was written")
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or something else ({error})") from error
    return tensors
