"""What a prompt or a steering did to the activations, token by token, on the same response.

accumulated   the steered (or prompted) run less the plain run, on the same response ids.
local         what a steering adds at its own site to the activation it is given there; for a
              prompt, the part that a layer adds because of the prompt (arXiv 2605.03907),
              A_l(prompted) - F_l(A_{l-1}(prompted)), with F_l the layer in the plain run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from steerlens.activations import Activations, capture
from steerlens.prompts import Encoded, PromptPair, Prompts, encode_all, encode_pair
from steerlens.scopes import Scope, Window, everywhere, generated
from steerlens.sites import Site
from steerlens.steering import AnySteering, Steering, at
from steerlens.types import Hook, HookedModel, Residual, Steer, Where

View = Literal["accumulated", "local"]
Deltas: TypeAlias = dict[Site, Float[Tensor, "token d_model"]]


@dataclass(frozen=True, eq=False)
class Aligned:
    """Pairs as aligned token rows, with the activations of both runs on the span.

    `example`, `token_index` and `tokens` say for each measured token which pair it belongs to, its
    place in the span (0 first), and its id. `questions` numbers the plain prompts: responses to the
    same one are no independent examples.
    """

    plain_rows: tuple[Encoded, ...]
    prompted_rows: tuple[Encoded, ...]
    plain: Activations
    prompted: Activations
    token_index: Int[Tensor, "token"]
    span: Scope
    questions: tuple[int, ...]

    @property
    def example(self) -> Int[Tensor, "token"]:
        """The pair that each token belongs to."""
        return self.plain.row

    @property
    def question(self) -> Int[Tensor, "token"]:
        """The question that each token belongs to."""
        return torch.tensor(self.questions)[self.example]

    def by_question(self, values: Float[Tensor, "token"]) -> Float[np.ndarray, " question"]:
        """The sum over the tokens of each question."""
        return torch.bincount(self.question, values).numpy()

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that were read."""
        return tuple(self.plain.values)


def align(
    model: HookedModel,
    pairs: Sequence[PromptPair],
    sites: Sequence[Site],
    *,
    span: Scope = generated,
    template: str | None = None,
) -> Aligned:
    """Run every pair plain and prompted, and read both on the tokens of `span`.

    `generated` is the response tokens; `response` adds the last prompt token before them.
    """
    if not pairs:
        raise ValueError("No pairs were given. steerlens.prompted_pairs(model, ...) makes some.")
    rows = [encode_pair(model, pair, template) for pair in pairs]
    plain_rows, prompted_rows = zip(*rows, strict=True)
    plain = capture(model, plain_rows, sites, scope=span)
    prompted = capture(model, prompted_rows, sites, scope=span)
    if not torch.equal(plain.tokens, prompted.tokens):
        raise ValueError(
            f"The scope `{span}` holds other tokens in the prompted run than in the plain one, so "
            "they cannot be compared. Use `generated` or `response`."
        )
    number = {plain: i for i, plain in enumerate(dict.fromkeys(pair.plain for pair in pairs))}
    questions = tuple(number[pair.plain] for pair in pairs)
    return Aligned(plain_rows, prompted_rows, plain, prompted, _index(plain), span, questions)


def alone(
    model: HookedModel,
    texts: Prompts,
    sites: Sequence[Site],
    *,
    span: Scope = everywhere,
    template: str | None = None,
) -> Aligned:
    """Texts without a prompted run, to measure steerings on: the prompt's deltas are zero."""
    rows = tuple(encode_all(model, texts, template))
    plain = capture(model, rows, sites, scope=span)
    return Aligned(rows, rows, plain, plain, _index(plain), span, tuple(range(len(rows))))


def _index(plain: Activations) -> Int[Tensor, "token"]:
    """The place of every captured token among those of its row."""
    starts = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(plain.row).cumsum(0)])
    return torch.arange(len(plain.row)) - starts[plain.row]


def difference(after: Activations, before: Activations) -> Deltas:
    """`after` less `before` at every site, in float64."""
    return {
        site: after.values[site].double() - before.values[site].double() for site in after.values
    }


def prompt_deltas(model: HookedModel, aligned: Aligned, view: View = "accumulated") -> Deltas:
    """What the prompt did."""
    if view == "accumulated":
        return difference(aligned.prompted, aligned.plain)
    return {site: _local_prompt_delta(model, aligned, site) for site in aligned.sites}


def steering_deltas(
    model: HookedModel, aligned: Aligned, steering: AnySteering, view: View = "accumulated"
) -> Deltas:
    """What `steering` did to the plain run. In the local view, 0 where it does not steer."""
    rows, sites = aligned.plain_rows, aligned.sites
    after = capture(model, rows, sites, scope=aligned.span, steering=steering)
    if view == "accumulated":
        return difference(after, aligned.plain)
    before = capture(model, rows, sites, scope=aligned.span, steering=steering, moment="before")
    return difference(after, before)


def all_deltas(
    model: HookedModel, aligned: Aligned, steerings: Mapping[str, AnySteering], view: View
) -> dict[str, Deltas]:
    """The prompt's deltas under the name "prompt", then every steering's under its own."""
    measured = {"prompt": prompt_deltas(model, aligned, view)}
    for name, steering in steerings.items():
        measured[name] = steering_deltas(model, aligned, steering, view)
    return measured


@dataclass(frozen=True, eq=False)
class Substitute:
    """The steer that puts given activations in place of those on `scope`, for one row of tokens."""

    values: Float[Tensor, "token d_model"]
    scope: Scope
    needs_window = True
    may_be_idle = True  # an instrument: below the first layer that a prompt changes, nothing moves

    def bind(self, window: Window) -> Steer:
        """The substitution for one pass of one row."""
        return _Substituted(self.values, self.scope.where(window))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError("Substitute depends on positions: use it through capture or generate.")


@dataclass(frozen=True, eq=False)
class _Substituted:
    values: Float[Tensor, "token d_model"]
    where: Where

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h = activation.clone()
        h[self.where] = self.values.to(activation)
        return h


def _local_prompt_delta(
    model: HookedModel, aligned: Aligned, site: Site
) -> Float[Tensor, "token d_model"]:
    if site.stream != "resid_post":
        raise ValueError(
            f"The local view of a prompt is what a whole layer adds, so it is read at resid_post; "
            f"asked for at {site}. Use view='accumulated' there."
        )
    entry = Site(site.layer, "resid_pre")
    received = capture(model, aligned.prompted_rows, entry, scope=aligned.span)
    alone = []
    for number, row in enumerate(aligned.plain_rows):
        substitution = at(entry, Substitute(received.of(number, entry), aligned.span))
        run = capture(model, [row], site, scope=aligned.span, steering=substitution)
        alone.append(run.at(site))
    return aligned.prompted.at(site).double() - torch.cat(alone).double()


def acts_on(
    model: HookedModel, row: Encoded, steering: AnySteering, sites: Sequence[Site]
) -> list[bool]:
    """For every token of a row, whether `steering` changes its activation at any of `sites`."""
    steered = capture(model, [row], sites, steering=steering)
    given = capture(model, [row], sites, steering=steering, moment="before")
    changed = torch.stack([delta.norm(dim=-1) > 0 for delta in difference(steered, given).values()])
    return changed.any(dim=0).tolist()


def sites_of(steering: AnySteering, n_layers: int) -> tuple[Site, ...]:
    """Where a steering acts; every block's output for one that only its run can tell."""
    if isinstance(steering, Steering):
        return steering.sites
    return tuple(Site(layer) for layer in range(n_layers))
