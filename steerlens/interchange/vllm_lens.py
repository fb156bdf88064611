"""What vllm-lens takes with a request: vectors for all tokens, or one for each prompt position.

Its `SteeringVector` (vllm_lens/_helpers/types.py; run by scripts/docs/in_vllm.py) adds to the
output of decoder layer l

    h' = h + scale v[l]                 activations of shape (layer, d_model): at every token
    h' = h + scale v[l, p]              (layer, position, d_model): at position_indices[p]

The file is what is merged into a request over HTTP, in which the vectors are JSON inside a string:

    {"vllm_xargs": {"apply_steering_vectors": "[{...}, ...]"}}
"""

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.forms import Added, Form, Laid
from steerlens.interchange.easysteer import APPLY
from steerlens.interchange.prompt_vectors import forms_with_coefficients, whole_rows
from steerlens.interchange.request import NEAREST, ExportError, Request
from steerlens.parsing import few, parse_json
from steerlens.precision import wide
from steerlens.scopes import everywhere
from steerlens.whole import write_whole

XARGS, VECTORS = "vllm_xargs", "apply_steering_vectors"
FIELDS = {"activations", "layer_indices", "scale", "norm_match", "position_indices"}
TENSOR = {"data", "dtype", "original_dtype", "shape"}


def write(request: Request) -> list[Path]:
    """Write the part of a request; ExportError for what vectors alone cannot do."""
    constants: dict[int, Tensor] = {}
    laid: list[tuple[int, Tensor]] = []
    for block, form in forms_with_coefficients(request):
        if isinstance(form, Laid):
            laid.append((block, whole_rows(form, request, block)))
        elif isinstance(form, Added) and form.scope == everywhere:
            v = wide(form.v).detach().cpu()
            constants[block] = constants[block] + v if block in constants else v
        else:
            raise ExportError(_refusal(request, block, form))
    vectors = [_vector(rows[None], [block], list(range(len(rows)))) for block, rows in laid]
    if constants:
        blocks = sorted(constants)
        stacked = torch.stack([constants[block] for block in blocks])
        vectors.insert(0, _vector(stacked.float(), blocks, None))
    body = {XARGS: {VECTORS: json.dumps(vectors, allow_nan=False)}}
    return [write_whole(request.path, json.dumps(body, indent=1).encode())]


def read(path: str | Path) -> list[tuple[int, Form]]:
    """What a file of `write` does, by block; ValueError for one that is not of this schema."""
    path = Path(path)
    try:
        body = parse_json(path.read_bytes())
        vectors = parse_json(body[XARGS][VECTORS])
        return [entry for vector in vectors for entry in _forms(vector)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is no request of vllm-lens ({type(error).__name__}: {error})."
        ) from error


def _refusal(request: Request, block: int, form: Form) -> str:
    if isinstance(form, Added):
        other = "EasySteer can do that (to='easysteer'). " if form.scope in APPLY else ""
        return (
            f"{request.subject} adds a vector to every token, or to given positions of a prompt; "
            f"this steering is limited to '{form.scope}'. {other}{NEAREST}"
        )
    return (
        f"{request.subject} takes vectors that are added; at the output of block {block} this "
        "steering clamps a projection, for which it would want pickled code, and steerlens writes "
        f"none. {NEAREST}"
    )


def _vector(
    activations: Float[Tensor, "layer *position d_model"],
    layers: list[int],
    positions: list[int] | None,
) -> dict[str, Any]:
    array = activations.numpy().astype("<f4")
    held = {
        "data": base64.b64encode(array.tobytes()).decode("ascii"),
        "dtype": "float32",
        "original_dtype": "torch.float32",
        "shape": list(array.shape),
    }
    return {
        "activations": held,
        "layer_indices": layers,
        "scale": 1.0,
        "norm_match": False,
        "position_indices": positions,
    }


def _forms(vector: Mapping[str, Any]) -> list[tuple[int, Form]]:
    held = vector["activations"]
    if set(vector) != FIELDS or set(held) != TENSOR:
        raise ValueError(f"its fields are {few([*vector, *held])}")
    if held["dtype"] != "float32" or vector["norm_match"]:
        raise ValueError(
            f"numbers of the kind {held['dtype']!r}, norm_match {vector['norm_match']}"
        )
    array = _array(held["data"], held["shape"]) * np.float32(vector["scale"])
    layers, positions = vector["layer_indices"], vector["position_indices"]
    if array.ndim not in (2, 3) or len(array) != len(layers):
        raise ValueError(f"vectors of shape {list(array.shape)} for {len(layers)} layers")
    values = torch.from_numpy(array)
    if array.ndim == 2 and positions is None:
        return [(layer, Added(v)) for layer, v in zip(layers, values, strict=True)]
    if positions != list(range(array.shape[1])):
        raise ValueError(f"vectors of shape {list(array.shape)} at the positions {few(positions)}")
    return [(layer, Laid(v)) for layer, v in zip(layers, values, strict=True)]


def _array(data: str, shape: list[int]) -> Float[np.ndarray, "..."]:
    try:
        raw = base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"its numbers are no base64 ({error})") from error
    return np.frombuffer(raw, "<f4").reshape(shape).copy()
