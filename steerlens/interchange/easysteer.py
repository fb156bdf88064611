"""What EasySteer's fork of vLLM takes as the field `steering` of a request.

Its schema was read in the source (vllm/model_hooks/steering/payloads.py, docs of `VectorSpec` and
`ApplySpec`); it was not run here. A direction with the algorithm `direct` is added to the output of
decoder layer l, one with `erase` is taken out:

    direct  h' = h + scale v            erase  h' = h - (h v / |v|^2) v

and `apply` says at which tokens: "all" of the prompt or of what is generated, or positions of the
prompt. Several vectors act one after the other (`"conflict": "sequential"`), so a clamp to z is an
`erase` of u and then a `direct` of z u.

    {"steering": {"vectors": [{"data": ..., "algorithm": "direct", "scale": 1.0,
                               "apply": {...}}, ...], "conflict": "sequential"}}
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steerlens.forms import Added, Clamped, Form, Laid
from steerlens.interchange.prompt_vectors import forms_with_coefficients, whole_rows
from steerlens.interchange.request import NEAREST, UNSCOPED, ExportError, Request
from steerlens.parsing import few, parse_json
from steerlens.precision import wide
from steerlens.scopes import Scope, everywhere, generated, last, prompt, response
from steerlens.types import Direction
from steerlens.whole import write_whole

VERSION, KIND = 1, "direction"
LAYER = "layer."
APPLY: Mapping[Scope, dict[str, Any]] = {
    everywhere: {"prompt": "all", "generation": "all"},
    prompt: {"prompt": "all"},
    generated: {"generation": "all"},
    response: {"prompt_positions": [-1], "generation": "all"},
    last: {"prompt_positions": [-1]},
}
"""Our scopes where EasySteer has the same: its first decode step is our first generated token."""


def write(request: Request) -> list[Path]:
    """Write the part of a request; ExportError for what directions cannot do."""
    vectors: list[dict[str, Any]] = []
    for block, form in forms_with_coefficients(request):
        vectors += _specs(request, block, form)
    body = {"steering": {"vectors": vectors, "conflict": "sequential"}}
    return [write_whole(request.path, json.dumps(body, indent=1, allow_nan=False).encode())]


def read(path: str | Path) -> list[tuple[int, Form]]:
    """What a file of `write` does, by block; ValueError for one that is not of this schema.

    A clamp is read as what it was written as: u taken out, and z u added.
    """
    path = Path(path)
    try:
        steering = parse_json(path.read_bytes())["steering"]
        if set(steering) != {"vectors", "conflict"} or steering["conflict"] != "sequential":
            raise ValueError(f"its fields are {few(steering)}")
        return [_read(spec) for spec in steering["vectors"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no request of EasySteer ({type(error).__name__}: {error})."
        ) from error


def _specs(request: Request, block: int, form: Form) -> Iterator[dict[str, Any]]:
    if isinstance(form, Laid):
        for position, row in enumerate(whole_rows(form, request, block)):
            if bool(row.any()):
                yield _spec(block, row, "direct", {"prompt_positions": [position]})
        return
    apply = APPLY.get(form.scope)
    if apply is None:
        raise ExportError(
            f"{request.subject} has no tokens that are those of '{form.scope}' in every request. "
            f"It knows: {', '.join(map(str, APPLY))}. {UNSCOPED} {NEAREST}"
        )
    if isinstance(form, Added):
        yield _spec(block, wide(form.v), "direct", apply)
        return
    yield _spec(block, wide(form.u), "erase", apply)
    if form.z:
        yield _spec(block, form.z * wide(form.u), "direct", apply)


def _spec(block: int, v: Direction, algorithm: str, apply: dict[str, Any]) -> dict[str, Any]:
    return {"data": _wire(block, v), "algorithm": algorithm, "scale": 1.0, "apply": dict(apply)}


def _wire(block: int, v: Direction) -> dict[str, Any]:
    """One direction at one layer, with the digest by which the engine knows it again."""
    raw = v.detach().cpu().numpy().astype("<f4").tobytes()
    name, shape = f"{LAYER}{block}", [len(v)]
    return {
        "version": VERSION,
        "kind": KIND,
        "tensors": {name: {"shape": shape, "data": base64.b64encode(raw).decode("ascii")}},
        "extra": {},
        "sha256": _digest(name, shape, raw),
    }


def _digest(name: str, shape: list[int], raw: bytes) -> str:
    """SHA-256 over kind and version, name, shape as Python writes a tuple, and bytes."""
    digest = hashlib.sha256(f"{KIND}:{VERSION}".encode())
    digest.update(name.encode() + str(tuple(shape)).encode() + raw)
    return digest.hexdigest()


def _read(spec: Mapping[str, Any]) -> tuple[int, Form]:
    wire = spec["data"]
    ((name, tensor),) = wire["tensors"].items()
    raw = _bytes(tensor["data"])
    if wire["version"] != VERSION or wire["kind"] != KIND or not name.startswith(LAYER):
        raise ValueError(f"a payload of the kind {wire['kind']!r}, version {wire['version']!r}")
    if wire["sha256"] != _digest(name, tensor["shape"], raw):
        raise ValueError("its digest is not that of its numbers")
    block = int(name.removeprefix(LAYER))
    v = torch.from_numpy(np.frombuffer(raw, "<f4").reshape(tensor["shape"]).copy())
    v = v * spec["scale"]
    places, algorithm = spec["apply"], spec["algorithm"]
    scope = next((scope for scope, apply in APPLY.items() if apply == places), None)
    if algorithm == "erase" and scope is not None:
        return block, Clamped(v, 0.0, scope)
    if algorithm == "direct" and scope is not None:
        return block, Added(v, scope)
    (position,) = places["prompt_positions"]
    if algorithm != "direct" or set(places) != {"prompt_positions"} or position < 0:
        raise ValueError(f"the algorithm {algorithm!r} at {few(places)}")
    rows = v.new_zeros((position + 1, len(v)))
    rows[position] = v
    return block, Laid(rows)


def _bytes(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its numbers are no base64 ({error})") from error
