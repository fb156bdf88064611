"""Vectors on single tokens of one prompt, as engines take them that know positions.

A steering that adds one vector v_l at block l, and a coefficient c for each token of a
prompt, make

    h'[l, p] = h[l, p] + c[l, p] v_l    at position p of the prompt, from 0 for its first token
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.forms import Form, Laid
from steerlens.interchange.request import ExportError, Request
from steerlens.parsing import few, short
from steerlens.precision import wide
from steerlens.sites import Site, by_site

OPTION = "coefficients"
COLUMNS = ("token_index", "layer", "stream", "along")
"""Of a table of `analysis.strengths`."""
ONE = ("example", "method", "strength")
"""Columns of such a table that may hold one value alone."""


def forms_with_coefficients(request: Request, *, sensed: bool = False) -> list[tuple[int, Form]]:
    """The forms of a steering; with the option `coefficients`, laid on a prompt's tokens.

    `sensed` is as in `Request.forms`. ValueError for another option, and for coefficients that are
    not those of one prompt.
    """
    request.require_options(OPTION)
    given = request.options.get(OPTION)
    if given is None:
        forms = request.forms(sensed=sensed)
        request.require_above_embeddings(block for block, _ in forms)
        return forms
    constants = request.constants()
    request.require_above_embeddings(constants)
    numbers = _by_block(request, given)
    missing = sorted(set(constants) ^ set(numbers))
    if missing:
        raise ValueError(
            "Coefficients are needed where the steering acts, and nowhere else. One of the two is "
            f"missing at the output of the blocks {few(missing)}."
        )
    laid: list[tuple[int, Form]] = []
    for block, v in constants.items():
        c = numbers[block].to(v)
        laid.append((block, Laid(c[:, None] * v)))
    return laid


def whole_rows(form: Laid, request: Request, block: int) -> Float[Tensor, "position d_model"]:
    """The rows of a matrix on the first positions, in float32; ExportError for a limited one."""
    if form.scope.name not in ("everywhere", "prompt") or not form.scope.bos:
        raise ExportError(
            f"{request.subject} takes the vectors of a prompt's positions as they are; at the "
            f"output of block {block} they are limited to '{form.scope}'. Leave the scope out."
        )
    return wide(form.v).detach().cpu().float()


def _by_block(request: Request, given: Any) -> dict[int, Float[Tensor, " position"]]:
    """The coefficients of each block: of a table, or of lists by layer or site."""
    by_place = _of_table(given) if hasattr(given, "columns") else given
    if not isinstance(by_place, Mapping):
        raise TypeError(
            f"{OPTION} is a table of analysis.strengths, or {{layer: one number a token}}; found "
            f"{type(given).__name__}."
        )
    found: dict[int, Tensor] = {}
    # In JSON, as the command line reads it, the name of a layer is text.
    named: dict[Any, Any] = {
        int(k) if isinstance(k, str) and k.isdigit() else k: v for k, v in by_place.items()
    }
    for site, numbers in by_site(named, request.model).items():
        if site.stream not in ("resid_pre", "resid_post"):
            raise ExportError(
                f"{request.subject} writes to the residual stream; there are {OPTION} for {site}."
            )
        block = site.layer - (site.stream == "resid_pre")
        found[block] = _row(numbers, site)
    lengths = {len(row) for row in found.values()}
    if len(lengths) > 1:
        raise ValueError(f"A prompt has one number of tokens; the {OPTION} are {sorted(lengths)}.")
    return found


def _row(numbers: Any, site: Site) -> Float[Tensor, " position"]:
    row = torch.as_tensor(numbers, dtype=torch.float64)
    if row.dim() != 1 or not len(row) or not bool(row.isfinite().all()):
        raise ValueError(
            f"The {OPTION} at {site} must be finite numbers, one for each token of the prompt; "
            f"found shape {list(row.shape)}."
        )
    return row


def _of_table(table: Any) -> dict[Site, Sequence[float]]:
    """The column `along` by site, in the order of the tokens, of which none may be left out."""
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise ValueError(
            f"A table of {OPTION} is one of analysis.strengths; this one has no column "
            f"{few(missing)}."
        )
    for name in ONE:
        if name in table.columns and table[name].nunique() > 1:
            raise ValueError(
                f"The table holds several of '{name}' ({short(list(table[name].unique()))}), and a "
                f"request has one prompt and one steering. Choose: "
                f"table[table['{name}'] == ...]."
            )
    found: dict[Site, Sequence[float]] = {}
    for (layer, stream), rows in table.groupby(["layer", "stream"]):
        rows = rows.sort_values("token_index")
        if list(rows["token_index"]) != list(range(len(rows))):
            raise ValueError(
                "The table leaves tokens of the prompt out, or has some twice: its token_index "
                f"at layer {layer} is {short(list(rows['token_index']))}. Measure all of the "
                "prompt: analysis.strengths(model, [prompt], ...)."
            )
        found[Site(int(layer), stream)] = rows["along"].tolist()
    return found
