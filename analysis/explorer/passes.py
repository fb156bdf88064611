"""One teacher-forced pass over one text, from which everything that is shown of a run is read.

`capture` and `log_probabilities` would need three passes for the same: after the steers, before
them, and the predictions.
"""

from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.identity import device_of
from steerlens.prompts import Encoded, stack
from steerlens.runtime.forward import logits, logits_where
from steerlens.runtime.hooks import Run, Watch, running
from steerlens.runtime.turns import hooked, in_turn
from steerlens.scopes import Window
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.types import Hook, HookedModel, Residual, Tokens

Outputs = dict[Site, Float[Tensor, "token d_model"]]
Logits = Float[Tensor, "one_more d_vocab"]


@dataclass(frozen=True, eq=False)
class Pass:
    """What a run held and predicted on one text, on the CPU.

    `outputs` has the response tokens at the output of every layer, `added` what the steers added
    there, where they did. `logits` are the predictions before each response token, and the one
    after the last. `steered` are the positions in the row that a steer changed, at any site.
    """

    outputs: Outputs
    added: Outputs
    logits: Logits
    steered: tuple[int, ...] = ()

    def log_p(self) -> Float[Tensor, "one_more d_vocab"]:
        """Log-probabilities in float64, as `log_probabilities` has them."""
        return self.logits.double().log_softmax(dim=-1)


@torch.no_grad()
def run_of(
    model: HookedModel, row: Encoded, number: int = 0, steering: Steering | None = None
) -> Pass:
    """The pass of a row, steered or not; `number` is which row of the user's it is."""
    tokens, window = stack([row])
    window = replace(window, row=torch.tensor([number]))
    tokens, window = tokens.to(device_of(model)), window.to(device_of(model))
    outputs = [Site(layer) for layer in range(model.cfg.n_layers)]
    own = () if steering is None else steering.on(model).sites
    seen = _Seen({}, {})
    with in_turn(model), running(model, steering, Watch()) as run:
        scores = _scores(model, tokens, window, run, seen, (outputs, own))
    changed = {site: seen.after[site] - seen.before[site] for site in own}
    moved = [delta.norm(dim=-1) > 0 for delta in changed.values()]
    return Pass(
        {site: seen.after[site][row.response :] for site in outputs},
        {site: delta[row.response :] for site, delta in changed.items() if site in set(outputs)},
        scores.cpu(),
        tuple(torch.stack(moved).any(dim=0).nonzero()[:, 0].tolist()) if moved else (),
    )


@dataclass(frozen=True, eq=False)
class _Seen:
    """Activations of the whole row, before the steers and after them."""

    before: Outputs
    after: Outputs


def _scores(
    model: HookedModel,
    tokens: Tokens,
    window: Window,
    run: Run | None,
    seen: _Seen,
    sites: tuple[list[Site], tuple[Site, ...]],
) -> Logits:
    """The logits of a pass whose activations are kept in `seen`; hooks act in their order."""
    outputs, own = sites
    wanted = window.mask & (window.positions >= window.response[:, None] - 1)
    before = [site.hook(partial(_keep, seen.before, site)) for site in own]
    after = dict.fromkeys((*outputs, *own))
    if run is not None:
        run.plan(tokens, window)
    with hooked(model, before):
        if run is not None:
            run.attach()
        with hooked(model, [site.hook(partial(_keep, seen.after, site)) for site in after]):
            return logits_where(model, lambda: logits(model, tokens, window), wanted)


def _keep(held: Outputs, site: Site, activation: Residual, hook: Hook = None) -> None:
    held[site] = activation[0].to("cpu", copy=True)  # a later layer may write into it
