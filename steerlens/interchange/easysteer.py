"""What EasySteer's fork of vLLM takes as the field `steering` of a request.

Its schema was read in the source (vllm/model_hooks/steering/payloads.py, docs of `VectorSpec` and
`ApplySpec`); it was not run here. A direction with the algorithm `direct` is added to the output of
decoder layer l, one with `erase` is taken out:

    direct  h' = h + scale v            erase  h' = h - (h v / |v|^2) v

a matrix R of columns, W of rows and b with `loreft`

    h' = h + scale R (W h + b - R^T h)

which is LoReFT's, and with W = c + R^T adds (c h + b) R, as CLAS does;

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
from jaxtyping import Float
from torch import Tensor

from steerlens.forms import Added, Clamped, Form, Laid, Sensed
from steerlens.interchange.prompt_vectors import forms_with_coefficients, whole_rows
from steerlens.interchange.request import NEAREST, UNSCOPED, ExportError, Request
from steerlens.parsing import few, parse_json
from steerlens.precision import wide
from steerlens.scopes import Scope, everywhere, generated, last, prompt, response
from steerlens.types import Direction
from steerlens.whole import write_whole

VERSION, KIND, REFT = 1, "direction", "reft"
LAYER = "layer."
PARTS: tuple[str, ...] = ("learned_source_bias", "learned_source_weight", "rotate_layer")
"""The tensors of a `reft`, in the order of their names."""
APPLY: Mapping[Scope, dict[str, Any]] = {
    everywhere: {"prompt": "all", "generation": "all"},
    prompt: {"prompt": "all"},
    generated: {"generation": "all"},
    response: {"prompt_positions": [-1], "generation": "all"},
    last: {"prompt_positions": [-1]},
}
"""Our scopes where EasySteer has the same: its first decode step is our first generated token."""


def write(request: Request) -> list[Path]:
    """Write the part of a request; ExportError for what its algorithms cannot do."""
    vectors: list[dict[str, Any]] = []
    for block, form in forms_with_coefficients(request, sensed=True):
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
    request.require_unfolded()
    if isinstance(form, Sensed):
        yield {
            "data": _reft(block, form),
            "algorithm": "loreft",
            "scale": 1.0,
            "apply": dict(apply),
        }
        return
    yield _spec(block, wide(form.u), "erase", apply)
    if form.z:
        yield _spec(block, form.z * wide(form.u), "direct", apply)


def _spec(block: int, v: Direction, algorithm: str, apply: dict[str, Any]) -> dict[str, Any]:
    data = _wire(KIND, {f"{LAYER}{block}": v}, {})
    return {"data": data, "algorithm": algorithm, "scale": 1.0, "apply": dict(apply)}


def _reft(block: int, form: Sensed) -> dict[str, Any]:
    c, v = wide(form.c), wide(form.v)
    parts: dict[str, Tensor] = dict(zip(PARTS, (wide(form.b), c + v, v.T), strict=True))
    return _wire(REFT, parts, {"layer": block})


def _wire(
    kind: str, tensors: Mapping[str, Float[Tensor, "..."]], extra: dict[str, Any]
) -> dict[str, Any]:
    """Tensors by name, with the digest by which the engine knows them again."""
    arrays = {name: one.detach().cpu().numpy().astype("<f4") for name, one in tensors.items()}
    return {
        "version": VERSION,
        "kind": kind,
        "tensors": {
            name: {
                "shape": list(one.shape),
                "data": base64.b64encode(one.tobytes()).decode("ascii"),
            }
            for name, one in arrays.items()
        },
        "extra": extra,
        "sha256": _digest(kind, arrays, extra),
    }


def _digest(
    kind: str, arrays: Mapping[str, Float[np.ndarray, "..."]], extra: Mapping[str, Any]
) -> str:
    """SHA-256 over kind and version, then names, shapes as Python writes tuples, and bytes."""
    digest = hashlib.sha256(f"{kind}:{VERSION}".encode())
    for name, one in sorted(arrays.items()):
        digest.update(name.encode() + str(one.shape).encode() + one.tobytes())
    for name, value in sorted(extra.items()):
        digest.update(f"{name}={value!r}".encode())
    return digest.hexdigest()


def _read(spec: Mapping[str, Any]) -> tuple[int, Form]:
    wire = spec["data"]
    arrays = {name: _array(held) for name, held in wire["tensors"].items()}
    if wire["version"] != VERSION or wire["kind"] not in (KIND, REFT):
        raise ValueError(f"a payload of the kind {wire['kind']!r}, version {wire['version']!r}")
    if wire["sha256"] != _digest(wire["kind"], arrays, wire["extra"]):
        raise ValueError("its digest is not that of its numbers")
    tensors = {name: torch.from_numpy(one.copy()) for name, one in arrays.items()}
    places, algorithm = spec["apply"], spec["algorithm"]
    scope = next((scope for scope, apply in APPLY.items() if apply == places), None)
    if wire["kind"] == REFT:
        if algorithm != "loreft" or scope is None:
            raise ValueError(f"the algorithm {algorithm!r} at {few(places)}")
        b, weight, columns = (tensors[name] for name in PARTS)
        form = Sensed(weight - columns.T, b, spec["scale"] * columns.T, scope)
        return int(wire["extra"]["layer"]), form
    ((name, v),) = tensors.items()
    block, v = int(name.removeprefix(LAYER)), v * spec["scale"]
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


def _array(held: Mapping[str, Any]) -> Float[np.ndarray, "..."]:
    try:
        raw = base64.b64decode(held["data"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"its numbers are no base64 ({error})") from error
    return np.frombuffer(raw, "<f4").reshape(held["shape"])
