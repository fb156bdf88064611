"""`Steering`: steers placed at sites of a model. A value: add, scale, limit, move, save it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import reduce
from math import inf
from numbers import Real
from operator import add
from pathlib import Path
from typing import Any

import torch

from steerlens.checks import described, require_steer
from steerlens.combinators import Only, Scaled, bind, masked, needs_run, on_device, positional
from steerlens.explaining import LARGE, Explanation, explained
from steerlens.identity import Origin, joint_origin
from steerlens.interchange.export import Exported, export
from steerlens.kinds import require_fields, require_kinds
from steerlens.prompts import Prompts
from steerlens.runtime.hooks import applied, renewed
from steerlens.saving import saveable, write_steering
from steerlens.scopes import Scope, Window, everywhere
from steerlens.sites import Site, Sites, as_sites, require_own_site
from steerlens.types import HookedModel, Steer


@saveable
@dataclass(frozen=True, eq=False)
class Steering:
    """Steers at sites; the first placed acts first. `origin` says what it was fitted on.

    >>> louder = sl.at([2, 3], lambda activation, hook=None: 1.1 * activation)
    >>> (0.5 * louder - sl.at(5, louder.placed[0][1]).only(sl.response)).sites[-1]
    Site(layer=5, stream='resid_post')
    """

    placed: tuple[tuple[Site, Steer], ...]
    origin: Origin | None = None

    # NumPy would take `np.float64(2) * steering` for a product with an array of objects.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        require_fields(self)
        if len(self.placed) == 0:
            raise ValueError("Steering(()) steers nothing. Place a steer: at(6, CAA(direction)).")
        for pair in self.placed:
            listed = isinstance(pair, tuple | list) and len(pair) > 0
            if not listed or len(pair) != 2 or not isinstance(pair[0], Site):
                first = pair[0] if listed else pair
                raise TypeError(
                    f"Expected (Site, steer) pairs; found {described(first)} first. Place a steer: "
                    "at(6, CAA(direction))."
                )
            site, steer = pair
            require_steer(steer, f"Steering at {site}")
            require_own_site(site, steer)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site once, in order of first placement."""
        return tuple(dict.fromkeys(site for site, _ in self.placed))

    @property
    def positional(self) -> bool:
        """Whether any steer needs a `Window` to know where it acts."""
        return any(positional(steer) for _, steer in self.placed)

    @property
    def needs_run(self) -> bool:
        """Whether any steer must see the model and the tokens (COLD-FD must)."""
        return any(needs_run(steer) for _, steer in self.placed)

    def __add__(self, then: object) -> "Steering":
        """Both; `self` acts first where they share a site."""
        other = _require_steering(then)
        return Steering(self.placed + other.placed, joint_origin(self.origin, other.origin))

    def __radd__(self, first: object) -> "Steering":
        """`sum([...])` begins with 0; anything else before a + must be a steering itself."""
        if type(first) is int and first == 0:
            return self
        return _require_steering(first) + self

    def __mul__(self, strength: float) -> "Steering":
        """`steering * 2` is `steering.scaled(2)`."""
        return self.scaled(strength)

    __rmul__ = __mul__

    def __neg__(self) -> "Steering":
        """The same steering the other way: at strength -1."""
        return self.scaled(-1.0)

    def __sub__(self, then: object) -> "Steering":
        """`self`, and the other at strength -1."""
        return self + -_require_steering(then)

    def scaled(self, strength: float) -> "Steering":
        """The same steering with every steer at `strength` (0 off, 1 as it is)."""
        if isinstance(strength, bool) or not isinstance(strength, Real):
            raise TypeError(
                f"A strength is a number: 2.0 * steering, or steering.scaled(2.0); found "
                f"{type(strength).__name__}."
            )
        try:
            number = float(strength)
        except OverflowError:  # a whole number of hundreds of digits
            number = inf  # which Scaled refuses
        return replace(self, placed=tuple((s, Scaled(x, number)) for s, x in self.placed))

    def only(self, scope: Scope) -> "Steering":
        """The same steering, limited to the positions of `scope`."""
        require_kinds(Steering.only, locals())
        if scope == everywhere:
            return self
        return replace(self, placed=tuple((s, Only(x, scope)) for s, x in self.placed))

    def to(self, device: torch.device | str | int) -> "Steering":
        """The same steering with its tensors on `device`, so that no pass has to move them."""
        require_kinds(Steering.to, locals())
        try:
            place = torch.device(device)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{device!r} is no device, as cpu and cuda:1 are.") from error
        return replace(self, placed=on_device(self.placed, place, {}))

    def on(self, model: HookedModel) -> "Steering":
        """The same steering with layers that count from the end (-1) as those of `model`."""
        require_kinds(Steering.on, locals())
        return replace(self, placed=tuple((site.on(model), steer) for site, steer in self.placed))

    def hooks(self, window: Window | None = None) -> list[tuple[str, Steer]]:
        """Plain `fwd_hooks` for one forward pass; with a window, padding is left as it was.

        A steer that must see the tokens needs a window of `steerlens.batch`, and may run the model
        here: take the hooks before you put any on it.
        """
        require_kinds(Steering.hooks, locals())
        if window is None:
            self._require_position_free()
            return [site.hook(steer) for site, steer in self.placed]
        here = renewed(window)
        # A window of `batch` knows the model, and so the layers that count from its end.
        placed = self.placed if here.context is None else self.on(here.context.model).placed
        return [site.hook(masked(bind(steer, here), window.mask)) for site, steer in placed]

    def applied(
        self, model: HookedModel, window: Window | None = None
    ) -> AbstractContextManager[Any]:
        """Steer every pass inside the `with` block, or, given a window, exactly one pass.

        That is every pass of the thread (and asyncio task) that opened the block. What others run
        on the model meanwhile is not steered.
        """
        require_kinds(Steering.applied, locals())
        if window is None:
            self._require_position_free()
        return applied(model, self.placed, window)

    def explain(self, model: HookedModel, prompts: Prompts, *, large: float = LARGE) -> Explanation:
        """What this would do to these texts: which tokens, how far, and what may be wrong.

        Two passes a text, nothing is written. `large` is the share of an activation's length above
        which a push counts as a problem.

        >>> model = sl.load("demo")
        >>> steering = sl.at(3, sl.CAA(10 * torch.ones(192))).only(sl.last)
        >>> explanation = steering.explain(model, "The film was")
        >>> explanation.table.query("changed")[["token", "position"]].values.tolist()
        [[' was', 3]]
        """
        require_kinds(Steering.explain, locals())
        return explained(self, model, prompts, large=large)

    def save(self, path: str | Path, model: HookedModel | None = None) -> Path:
        """Write to a safetensors file; `model` records which model it is for, if not known yet."""
        require_kinds(Steering.save, locals())
        return write_steering(self, path, model)

    def export(self, path: str | Path, *, to: str, model: HookedModel, **options: Any) -> Exported:
        """Write it for another tool (`to="gguf"`, ...); what was written, an `Exported`.

        ExportError, a ValueError, where that tool cannot do what this steering does. The options
        are those of `steerlens.interchange.export.export`.
        """
        return export(self, path, to=to, model=model, **options)

    def _require_position_free(self) -> None:
        for site, steer in self.placed:
            if positional(steer):
                raise ValueError(
                    f"{type(steer).__name__} at {site} depends on positions, which a hook cannot "
                    "see. Use steerlens.generate(model, prompts, steering), or give the window of "
                    "the one pass: steering.applied(model, window) with "
                    "tokens, window = steerlens.batch(model, prompts)."
                )


def at(where: Sites, steer: Steer) -> Steering:
    """`steer` placed at one site or at each of several; a bare layer means its `resid_post`.

    >>> sl.at([2, -1], lambda activation, hook=None: 1.1 * activation).sites
    (Site(layer=2, stream='resid_post'), Site(layer=-1, stream='resid_post'))
    """
    require_kinds(at, locals())
    return Steering(tuple((site, steer) for site in as_sites(where)))


def together(steerings: Sequence[Steering]) -> Steering:
    """All of them at once, the first acting first; one alone is returned as it is."""
    if not steerings:
        raise ValueError("together([]) got no steering. Give at least one.")
    return reduce(add, steerings)


def scaled(steering: Steering, strength: float) -> Steering:
    """`steering.scaled(strength)`."""
    require_kinds(scaled, {"steering": steering})
    return steering.scaled(strength)


def only(steering: Steering, scope: Scope) -> Steering:
    """`steering.only(scope)`."""
    require_kinds(only, locals())
    return steering.only(scope)


def _require_steering(other: object) -> Steering:
    if isinstance(other, Steering):
        return other
    advice = "Add a steering to a steering, as in caa + act_add."
    if isinstance(other, Real):
        advice = f"For another strength write {other} * steering."
    elif hasattr(other, "steering"):
        advice = "Add its steering: fit.steering."
    elif callable(other):
        advice = "Say where it acts: at(6, steer), or at(Site(6, 'resid_pre'), steer)."
    raise TypeError(f"A Steering was to be added to a {type(other).__name__}. {advice}")
