"""What a steering would do to a text, before anything is written: `steering.explain(model, text)`.

One pass with the steering and one without. Of each steer it tells on which tokens it acts and how
far it pushes them, as a share of their length; and what may be wrong: a scope that holds no token
of this text, a push longer than texts stay texts at, a sink that is moved, two steers that undo
each other, a steer below one that reckons with the unsteered model.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.combinators import Only, Scaled, innermost, parts
from steerlens.identity import device_of
from steerlens.pieces import pieces
from steerlens.precision import wide
from steerlens.prompts import Encoded, Prompts, encode_all, stack
from steerlens.runtime.forward import logits
from steerlens.runtime.hooks import Placed, Run, Steered, Watch, running
from steerlens.runtime.turns import in_turn
from steerlens.scopes import Scope, Window
from steerlens.sinks import SINK, is_sink, lengths
from steerlens.sites import Site
from steerlens.types import Hook, HookedModel, Residual, Steer

LARGE = 0.5
"""A push of more than this share of the activation's length is called large: texts often break."""
FAR = 3.0
"""So many nats a token are called far: another text altogether."""
MOVED = 0.05
"""A sink that is moved by more than this share of its length is told."""
OPPOSED, CANCELLED = -0.8, 0.35
"""Two pushes undo each other below this cosine, if together they are shorter than this share."""


@dataclass(frozen=True, eq=False)
class Act:
    """What one steer does to one text: `change` [pos, d] to activations `before` [pos, d].

    `text` and `steer` are numbers, counted from 0; `scope` says where it acts, in words, and
    `later` whether that holds tokens that are yet to be written.
    """

    text: int
    steer: int
    name: str
    site: Site
    scope: str
    later: bool
    inside: Bool[Tensor, " pos"]
    before: Float[Tensor, "pos d"] = field(repr=False)
    change: Float[Tensor, "pos d"] = field(repr=False)
    of_unsteered: bool = False
    reads_only: bool = False

    @property
    def norms(self) -> Float[Tensor, " pos"]:
        """The length of each activation before the steer."""
        return lengths(self.before)

    @property
    def pushes(self) -> Float[Tensor, " pos"]:
        """The length of what the steer adds to each."""
        return lengths(self.change)

    @property
    def shares(self) -> Float[Tensor, " pos"]:
        """The push over the activation's length, 0 where both are 0."""
        return self.pushes / self.norms.clamp(min=torch.finfo(torch.float32).tiny)

    @property
    def sinks(self) -> Bool[Tensor, " pos"]:
        """Which tokens are sinks here: several times longer than the median of the text."""
        return is_sink(self.before, self.norms, SINK)

    @property
    def changed(self) -> Bool[Tensor, " pos"]:
        """On which tokens it does anything."""
        return ~(self.pushes == 0)  # NaN is something

    @property
    def dose(self) -> float:
        """The median share on the tokens that it changes, sinks left out where there are others."""
        ordinary = self.changed & ~self.sinks
        chosen = ordinary if bool(ordinary.any()) else self.changed
        return float(self.shares[chosen].median()) if bool(chosen.any()) else 0.0

    def __str__(self) -> str:
        return f"{self.name} at {self.site}"


@dataclass(frozen=True, eq=False)
class Explanation:
    """What each steer does to each token of some texts, and what may be wrong with it.

    `kl` is how far what is predicted next is from the unsteered model's, in nats: of each text the
    mean over its steered tokens.
    """

    tokens: tuple[tuple[str, ...], ...]
    acts: tuple[Act, ...]
    kl: tuple[float, ...]
    problems: tuple[str, ...]

    @property
    def table(self) -> Any:
        """A tidy pandas table, one row for each text, steer and token.

        Columns: text, steer, name, layer, stream, scope, position, token, inside, changed, norm,
        push, share, sink.
        """
        import pandas as pd

        return pd.DataFrame([row for act in self.acts for row in self._rows(act)])

    def _rows(self, act: Act) -> Iterator[dict[str, Any]]:
        columns = {
            "inside": act.inside, "changed": act.changed, "norm": act.norms, "push": act.pushes,
            "share": act.shares, "sink": act.sinks,
        }  # fmt: skip
        listed = {name: values.tolist() for name, values in columns.items()}
        about = {"text": act.text, "steer": act.steer, "name": act.name, "layer": act.site.layer}
        about |= {"stream": act.site.stream, "scope": act.scope}
        for position, token in enumerate(self.tokens[act.text]):
            own = {name: values[position] for name, values in listed.items()}
            yield {**about, "position": position, "token": token, **own}

    def __str__(self) -> str:
        lines = [f"{self._told(act)}" for act in self.acts]
        lines += [f"Text {i}: {kl:.2f} nats a token." for i, kl in enumerate(self.kl)]
        return "\n".join([*lines, *(f"! {problem}" for problem in self.problems)])

    def _told(self, act: Act) -> str:
        tokens, changed = self.tokens[act.text], act.changed
        where = f"{act}, text {act.text}: {int(changed.sum())} of {len(tokens)} tokens"
        where += f" ({act.scope}{'; and those to be written' * act.later})"
        if not bool(changed.any()):
            return f"{where}; it changes none of them."
        most = int(torch.where(changed, act.shares, -1.0).argmax())
        said = f"{act.dose:.2f} of their length, most {float(act.shares[most]):.2f}"
        return f"{where}, by {said} at {tokens[most]!r}."


def explained(
    steering: Steered, model: HookedModel, prompts: Prompts, *, large: float = LARGE
) -> Explanation:
    """`Steering.explain`."""
    if not large > 0:
        raise ValueError(f"large is a share of the activations' length, above 0; found {large}.")
    with in_turn(model):  # a tokenizer serves one thread at a time
        rows = encode_all(model, prompts)
        tokens = tuple(tuple(pieces(model.tokenizer, list(row.ids))) for row in rows)
    acts, kl = list[Act](), list[float]()
    for number, row in enumerate(rows):
        found, distance = _of_row(steering, model, row, number)
        acts += found
        kl.append(distance)
    return Explanation(tokens, tuple(acts), tuple(kl), tuple(_problems(acts, kl, tokens, large)))


# -- One text --------------------------------------------------------------------------------------


@torch.no_grad()
def _of_row(
    steering: Steered, model: HookedModel, row: Encoded, number: int
) -> tuple[list[Act], float]:
    """What each steer does to one text, and how far the predictions go."""
    tokens, window = stack([row])
    tokens, window = tokens.to(device_of(model)), window.to(device_of(model))
    plain = logits(model, tokens, window)[0].double().log_softmax(dim=-1)
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    with running(model, steering, Watch()) as run:
        assert run is not None
        run.plan(tokens, window)
        _recording(run, seen)
        run.attach()
        scores = logits(model, tokens, window)[0].double().log_softmax(dim=-1)
        placed = list(run.placed)
    acts = [_act(place, i, number, window, seen[i]) for i, place in enumerate(placed)]
    apart = (scores.exp() * (scores - plain)).sum(dim=-1).cpu()
    changed = torch.stack([act.changed for act in acts]).any(dim=0)
    from_there = changed.cumsum(dim=0) > 0
    return acts, float(apart[from_there].mean()) if bool(from_there.any()) else 0.0


def _recording(run: Run, seen: dict[int, tuple[Tensor, Tensor]]) -> None:
    """Let each planned steer keep what it was given and what it returned."""
    for number, place in enumerate(run.placed):
        steer = place.now or place.steer
        place.now = partial(_kept, steer, partial(seen.__setitem__, number))


def _kept(
    steer: Steer,
    keep: Callable[[tuple[Tensor, Tensor]], None],
    activation: Residual,
    hook: Hook = None,
) -> Residual:
    before = activation[0].to("cpu", copy=True)
    steered = steer(activation, hook)
    keep((wide(before), wide(steered[0].cpu())))
    return steered


def _act(place: Placed, steer: int, text: int, window: Window, seen: tuple[Tensor, Tensor]) -> Act:
    scopes = [part for part in parts(place.steer) if isinstance(part, Scope)]
    inside = torch.ones_like(window.mask[0])
    for scope in _outer(place.steer):
        inside = inside & scope.where(window)[0]
    following = window.next()
    later = all(bool(scope.where(following).any()) for scope in _outer(place.steer))
    before, after = seen
    return Act(
        text, steer, _name(place.steer), place.site,
        " & ".join(str(scope) for scope in scopes) or "everywhere",
        later, inside.cpu(), before, after - before,
        any(getattr(part, "of_unsteered", False) for part in parts(place.steer)),
        getattr(innermost(place.steer), "reads_only", False),
    )  # fmt: skip


def _outer(steer: Any) -> Iterator[Scope]:
    """The scopes that limit the whole steer."""
    while isinstance(steer, Scaled | Only):
        if isinstance(steer, Only):
            yield steer.scope
        steer = steer.steer


def _name(steer: Any) -> str:
    strength, inner = 1.0, innermost(steer)
    while isinstance(steer, Scaled | Only):
        strength *= steer.strength if isinstance(steer, Scaled) else 1.0
        steer = steer.steer
    name = getattr(inner, "__name__", type(inner).__name__)
    return name if strength == 1 else f"{strength:g} x {name}"


# -- What may be wrong -----------------------------------------------------------------------------


def _problems(
    acts: Sequence[Act], kl: Sequence[float], tokens: Sequence[Sequence[str]], large: float
) -> Iterator[str]:
    for act in acts:
        yield from _of_act(act, tokens[act.text], large)
    for number, distance in enumerate(kl):
        if distance > FAR:
            yield (
                f"Text {number}: what is predicted is {distance:.1f} nats a token from the "
                "unsteered model, which is another text altogether. Lower the strength."
            )
        own = [act for act in acts if act.text == number]
        for first, second in combinations(own, 2):
            yield from _of_two(first, second)


def _of_act(act: Act, tokens: Sequence[str], large: float) -> Iterator[str]:
    if not bool(act.inside.any()) and not act.later:
        yield (
            f"{act} does nothing with text {act.text}: its scope `{act.scope}` holds no token of "
            "it, and none that will be written. Choose another scope."
        )
    elif bool(act.inside.any()) and not bool(act.changed.any()) and not act.reads_only:
        yield (
            f"{act} changes nothing in text {act.text}: its strength or its direction is 0, or its "
            "gate or condition is not met there."
        )
    if not bool(torch.isfinite(act.change).all()):
        yield (
            f"{act} makes NaN or infinity of activations of text {act.text}, after which nothing "
            "can be predicted. Lower the strength, or load the model in float32 or bfloat16."
        )
    if act.dose > large:
        yield (
            f"{act} pushes text {act.text} by {act.dose:.2f} of the activations' length (median); "
            f"above {large:g} answers often break. Lower the strength, or let "
            "steerlens.calibrate find one."
        )
    moved = act.sinks & (act.shares > MOVED)
    if bool(moved.any()):
        shown = ", ".join(repr(tokens[i]) for i in torch.nonzero(moved)[:3, 0].tolist())
        yield (
            f"{act} moves a sink ({shown}), where heads look when there is nothing to see, by "
            f"{float(act.shares[moved].max()):.2f} of its length. {_left_out(moved)}"
        )


def _left_out(moved: Bool[Tensor, " pos"]) -> str:
    """How sinks are not moved: the first token has a scope of its own, others lie anywhere."""
    places = torch.nonzero(moved)[:, 0].tolist()
    if places == [0]:
        return "Leave it out: .only(steerlens.after_first), or .only(steerlens.response)."
    return f"In this text .only(~steerlens.positions({places})) leaves it out."


def _of_two(first: Act, second: Act) -> Iterator[str]:
    if second.of_unsteered and not first.of_unsteered and _below(first.site, second.site):
        yield (
            f"{first} acts before {second}, which reckons with the activations of the unsteered "
            "model: its step is not the one for what it is given. Steer above it, or leave one out."
        )
    if first.of_unsteered and not second.of_unsteered and _below(second.site, first.site):
        yield from _of_two(second, first)
        return
    both = first.changed & second.changed & ~first.sinks & ~second.sinks
    alike = first.site == second.site or (_constant(first) and _constant(second))
    if not alike or not bool(both.any()) or first.change.shape != second.change.shape:
        return
    one, other = first.change[both], second.change[both]
    cosine = float(torch.cosine_similarity(one, other, dim=-1).mean())
    left = float((lengths(one + other) / (lengths(one) + lengths(other))).mean())
    if cosine < OPPOSED and left < CANCELLED:
        yield (
            f"{first} and {second} undo each other in text {first.text} (cosine {cosine:.2f}): "
            f"of both pushes {left:.0%} is left. Leave one out."
        )


def _below(first: Site, second: Site) -> bool:
    """Whether what is steered at the first site reaches the second, if both are in one pass."""
    order = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_out", "resid_post")
    depth = [(site.layer, order.index(site.stream)) for site in (first, second)]
    return depth[0] <= depth[1]


def _constant(act: Act) -> bool:
    """Whether it adds the same vector to every token that it changes."""
    if not bool(act.changed.any()):
        return False
    change = act.change[act.changed]
    apart = lengths(change - change.mean(dim=0)).max()
    return bool(apart < 1e-2 * lengths(change).max())
