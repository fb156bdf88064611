"""Gradients of a loss: for activations at sites, and for the parameters below a site.

The model's own parameters are never written to: while a pass runs, others stand in their place.
The rows of several examples share a pass; each example's loss sees its own rows alone, as if they
had been passed by themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.identity import device_of, is_bridge
from steerlens.methods.cold.checks import (
    require_differentiation,
    require_finite_gradient,
    require_loss_value,
)
from steerlens.methods.cold.losses import Example, Logits, Loss, Rows
from steerlens.runtime.forward import logits
from steerlens.runtime.turns import alone_with, hooked
from steerlens.sites import Site
from steerlens.types import Hook, HookedModel, Residual

EMBEDDING, UNEMBEDDING = "embed.W_E", "unembed.W_U"
BATCH_SIZE = 8
"""Examples a pass, by default and at most."""
PASS_BYTES = {"cpu": 2**28, "cuda": 2**31}
"""What the activations and logits of a pass may take together: no pass of several examples exceeds
it. On a CPU larger passes are hardly faster."""
KEPT = (32, 6)
"""Numbers that a pass keeps for its gradients, a token: so many times the width, in each block, and
so many times the vocabulary. Measured on Llama and GPT-2."""


@dataclass(frozen=True, eq=False)
class Read:
    """The activation of each row's last prompt token, and the gradient of the loss for it."""

    activation: Float[Tensor, "row d_model"]
    gradient: Float[Tensor, "row d_model"]


def activation_gradients(
    model: HookedModel,
    examples: Sequence[Example],
    loss: Loss,
    sites: Sequence[Site],
    batch_size: int = BATCH_SIZE,
) -> Iterator[dict[Site, Read]]:
    """For each example, at each site, the total derivative of its loss."""
    require_differentiation()
    for some in _batches(model, examples, batch_size):
        yield from _activation_gradients(model, some, loss, sites)


@torch.enable_grad()
def _activation_gradients(
    model: HookedModel, examples: Sequence[Example], loss: Loss, sites: Sequence[Site]
) -> list[dict[Site, Read]]:
    held: dict[Site, Tensor] = {}

    def hook_of(site: Site) -> Any:
        def hook(activation: Residual, hook: Hook = None) -> Residual:
            follows = activation.requires_grad
            held[site] = activation if follows else activation.detach().requires_grad_()
            return held[site]

        return hook

    with hooked(model, [site.hook(hook_of(site)) for site in sites]):
        values = _values(model, examples, loss)
    # A row moves the loss of its own example alone, so the sum has the gradient of each.
    found = torch.autograd.grad(torch.stack(values).sum(), [held[site] for site in sites])
    row, reads = 0, []
    for example in examples:
        rows = range(row, row := row + len(example.rows))
        each = (list(rows), [one.response - 1 for one in example.rows])
        reads.append(
            {
                site: Read(held[site].detach()[each], gradient[each])
                for site, gradient in zip(sites, found, strict=True)
            }
        )
    return reads


@torch.enable_grad()
def mean_gradient(
    model: HookedModel,
    examples: Sequence[Example],
    loss: Loss,
    last: int | None,
    batch_size: int = BATCH_SIZE,
) -> dict[str, Float[Tensor, "..."]]:
    """The mean gradient of the loss for the parameters that act up to block `last`; None for all.

    In float32, or float64 where the model is; parameters that the loss does not depend on are left
    out. An embedding that is also the unembedding gets the gradient of both uses. It is held once,
    besides the gradient of one parameter and what a pass keeps.
    """
    require_differentiation()
    places, total = places_of(model, last), dict[str, Tensor]()
    leaves = {name: value.detach().requires_grad_() for name, value in weights_at(places).items()}
    for name, leaf in leaves.items():
        leaf.register_post_accumulate_grad_hook(partial(_add, total, name))
    for some in _batches(model, examples, batch_size):
        with alone_with(model), standing_in(places, leaves):
            value = torch.stack(_values(model, some, loss)).sum()
        value.backward()
    require_finite_gradient(total)
    return {name: total[name].div_(len(examples)) for name in leaves if name in total}


def _add(total: dict[str, Tensor], name: str, leaf: Tensor) -> None:
    """Add the gradient that a leaf has just got to the total, and take it off the leaf."""
    assert leaf.grad is not None
    found, leaf.grad = leaf.grad, None
    if name in total:
        total[name] += found
        return
    wide = found.to(torch.promote_types(found.dtype, torch.float32))
    total[name] = wide.detach().clone() if wide is found else wide


def _batches(
    model: HookedModel, examples: Sequence[Example], size: int
) -> Iterator[Sequence[Example]]:
    """The examples of each pass: `size` of them, or fewer where their tokens are many."""
    if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
        raise ValueError(f"batch_size is the number of examples a pass, 1 or more; found {size!r}.")
    most, some, rows = _tokens_a_pass(model), list[Example](), list[int]()
    for example in examples:
        lengths = [len(row.ids) for row in example.rows]
        padded = max(rows + lengths) * (len(rows) + len(lengths))
        if some and (len(some) == size or padded > most):
            yield some
            some, rows = [], []
        some.append(example)
        rows += lengths
    if some:
        yield some


def _tokens_a_pass(model: HookedModel) -> int:
    """How many tokens a pass may hold, so that what it keeps for its gradients stays in bounds."""
    cfg, (of_width, of_vocabulary) = model.cfg, KEPT
    numbers = of_width * cfg.n_layers * cfg.d_model + of_vocabulary * cfg.d_vocab_out
    device = device_of(model).type
    return PASS_BYTES.get(device, PASS_BYTES["cuda"]) // (4 * numbers)


def _values(model: HookedModel, examples: Sequence[Example], loss: Loss) -> list[Float[Tensor, ""]]:
    """The loss of each example, from one pass over the rows of all of them."""
    shared = Example(tuple(row for example in examples for row in example.rows)).batch(model)
    scores, row, values = logits(model, shared.tokens, shared.window), 0, []
    for example in examples:
        own = example.batch(model)
        n, width = own.tokens.shape
        values.append(_value(loss, scores[row : row + n, :width], own))
        row += n
    return values


def _value(loss: Loss, scores: Logits, batch: Rows) -> Float[Tensor, ""]:
    value = loss(scores, batch)
    require_loss_value(value)
    return value


class Place(NamedTuple):
    """Where a parameter is kept: a module's attribute, or the transpose of one."""

    module: nn.Module
    attribute: str
    transposed: bool = False


def places_of(
    model: HookedModel, last: int | None, unembedding: bool = True
) -> dict[str, list[Place]]:
    """Where the parameters are that act up to block `last`; one kept in two places has both.

    `last=None` is every parameter, the final norm and the unembedding too.

    `unembedding=False`, for a pass that ends before the unembedding, leaves out the comparison of
    the two embedding matrices, which takes time.
    """
    found: dict[int, tuple[str, list[Place]]] = {}
    # A bridge's own `named_modules` and `named_parameters` are those of the model it wraps.
    for path, module in nn.Module.named_modules(model):  # pyright: ignore[reportArgumentType]
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                name = f"{path}.{attribute}"
                found.setdefault(id(parameter), (name, []))[1].append(Place(module, attribute))
    places = {name: held for name, held in found.values() if _acts(name, last)}
    absent = [
        name
        for name, value in weights_at(places).items()
        # A bridge makes up the bias of the unembedding alone.
        if (not is_bridge(model) or name.startswith("unembed.")) and _filled_in(name, value)
    ]
    places = {name: held for name, held in places.items() if name not in absent}
    if unembedding:
        _tie(model, places)
    return places


def _acts(name: str, last: int | None) -> bool:
    """Whether the parameter called `name` acts at or below block `last`."""
    if last is None:
        return True
    first, _, rest = name.partition(".")
    if first == "blocks":
        return int(rest.partition(".")[0]) <= last
    return first not in ("ln_final", "unembed")


def _filled_in(name: str, value: Float[Tensor, "..."]) -> bool:
    """Whether TransformerLens made up this bias: it has zeros where the model has no bias."""
    return name.rpartition(".")[2].lstrip("_").startswith("b") and not bool(value.any())


def _tie(model: Any, places: dict[str, list[Place]]) -> None:
    """A HookedTransformer keeps a tied embedding twice, the second time transposed."""
    if EMBEDDING in places and torch.equal(model.unembed.W_U.T, model.embed.W_E):
        places.pop(UNEMBEDDING, None)  # one parameter, which has one gradient
        places[EMBEDDING].append(Place(model.unembed, "W_U", transposed=True))


def weights_at(places: Mapping[str, Sequence[Place]]) -> dict[str, Float[Tensor, "..."]]:
    """The parameter of each name."""
    held = {name: first[0].module._parameters[first[0].attribute] for name, first in places.items()}
    return {name: value for name, value in held.items() if value is not None}


@contextmanager
def standing_in(
    places: Mapping[str, Sequence[Place]], values: Mapping[str, Float[Tensor, "..."]]
) -> Iterator[None]:
    """`values` in place of the parameters of these names; afterwards the parameters are back."""
    before = [
        (place, place.module._parameters[place.attribute])
        for name in values
        for place in places[name]
    ]
    try:
        for name, value in values.items():
            for module, attribute, transposed in places[name]:
                # Assigning it to the module would ask for an nn.Parameter, which has no tangent.
                module._parameters[attribute] = value.T if transposed else value  # pyright: ignore
        yield
    finally:
        for (module, attribute, _), parameter in before:
            module._parameters[attribute] = parameter
