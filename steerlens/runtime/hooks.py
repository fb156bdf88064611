"""Steers on a running model: attach them for a run, notice the ones that do nothing, detach."""

import warnings
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch

from steerlens.checks import require_like
from steerlens.combinators import Scaled, When, bind, innermost, masked, needs_run, parts
from steerlens.runtime.forward import logits
from steerlens.runtime.turns import hooked, in_turn
from steerlens.scopes import Context, Scope, Window
from steerlens.sites import Site, require_fit, require_own_site, require_writable
from steerlens.types import Hook, HookedModel, Residual, Steer, SteeringWarning, Tokens, Where

Placements: TypeAlias = tuple[tuple[Site, Steer], ...]


@runtime_checkable
class Steered(Protocol):
    """What can be run here: a `Steering`, of which this file needs no more than the steers."""

    @property
    def placed(self) -> Placements: ...


@dataclass(eq=False, repr=False)  # TransformerLens takes the repr of every hook it puts on
class Placed:
    """One steer at one site during a run: what it is now, whether it ever changed anything."""

    site: Site
    steer: Steer
    now: Steer | None = None
    ran: bool = False
    changed: bool = False
    met: bool = False
    reached: bool = False
    passes_left: int | None = None
    mask: Where | None = None
    watch: "list[Placed] | None" = None
    shape: tuple[int, ...] | None = None
    scopes: tuple[Scope, ...] = field(default=())

    def __post_init__(self) -> None:
        self.scopes = tuple(part for part in parts(self.steer) if isinstance(part, Scope))

    def ready(self, window: Window) -> None:
        """Bind to the coming pass; padding keeps its activation."""
        self.mask, self.shape, self.reached = window.mask, tuple(window.mask.shape), False
        self.now = masked(bind(self.steer, window), window.mask)
        self.met = self.met or all(bool(scope.where(window).any()) for scope in self.scopes)

    def hook(self, activation: Residual, hook: Hook = None) -> Residual:
        """The hook that TransformerLens calls: the bound steer, its result checked."""
        self._require_described(activation)
        self.ran = self.reached = True
        version = _version_of(activation)
        steered = (self.now or self.steer)(activation, hook)
        if _version_of(activation) != version:
            raise ValueError(
                f"{type(self.steer).__name__} at {self.site} wrote into the activation it was "
                "given. A steer returns a new tensor: write h + v, not h += v."
            )
        require_like(activation, steered, f"{type(self.steer).__name__} at {self.site}")
        if self.watch is not None and self._overflows(activation, steered):
            self.watch.append(self)
        if not self.changed and steered is not activation:  # compared until something changed
            self.changed = not torch.equal(steered, activation)
        return steered

    def _overflows(self, activation: Residual, steered: Residual) -> bool:
        """Whether the steer was given finite numbers and returned others, on real tokens."""
        real = slice(None) if self.mask is None else self.mask
        before, after = (bool(torch.isfinite(h[real]).all()) for h in (activation, steered))
        return before and not after

    def _require_described(self, activation: Residual) -> None:
        """Raise an error if the pass is another one than the window describes."""
        if self.passes_left == 0:
            raise RuntimeError(
                "A second forward pass ran inside steering.applied(model, window), but the "
                "window describes one pass. Open a new `with` block with window.next(n) for "
                "the following pass, or use steerlens.generate, which keeps count. To steer by two "
                "at once add them: (first + second).applied(model, window)."
            )
        if self.passes_left is not None:
            self.passes_left -= 1
        if self.shape not in (None, tuple(activation.shape[:2])):
            raise ValueError(
                f"The window describes {self.shape} rows and columns, this pass holds "
                f"{tuple(activation.shape[:2])}. Make both of the same prompts: "
                "tokens, window = steerlens.batch(model, prompts)."
            )

    @property
    def may_be_idle(self) -> bool:
        """Whether a strength of 0 was asked for, or the steer says that doing nothing is fine."""
        return any(
            getattr(part, "may_be_idle", False) or (isinstance(part, Scaled) and part.strength == 0)
            for part in parts(self.steer)
        )

    @property
    def can_close(self) -> bool:
        """Whether the steer has gates that can close on all tokens of a text."""
        return any(getattr(part, "can_close", False) for part in parts(self.steer))

    @property
    def kept_closed(self) -> bool:
        """Whether such a steer met tokens that were meant for it, and opened on none."""
        return self.can_close and not self.changed and (self.met or not self.scopes)

    def complaint(self) -> str | None:
        """Why this steer did nothing, or None if it did something (or was told not to)."""
        if self.changed or self.may_be_idle or not self.ran:
            return None
        what = f"{type(self.steer).__name__} at {self.site} changed no activation"
        if self.scopes and not self.met:
            names = ", ".join(f"`{scope}`" for scope in self.scopes)
            return f"{what}: its scope {names} met no token of this run."
        gates = [part.condition for part in parts(self.steer) if isinstance(part, When)]
        if gates:
            return f"{what}: its gate {gates[0]!r} never opened, or what it gates adds nothing."
        if self.kept_closed:
            return f"{what}: its gates opened on no token of this run."
        return f"{what}: it returned activations as they came (a zero direction, a strength of 0?)."


def _version_of(activation: Residual) -> int | None:
    """What torch counts up when something writes into a tensor; inference tensors have none."""
    return None if activation.is_inference() else activation._version


@dataclass(eq=False)
class Run:
    """A steering attached to a model for several passes; call `ready` before each.

    `memory` is what its steers keep from pass to pass.
    """

    model: HookedModel
    placed: list[Placed]
    lasting: bool = True
    memory: dict[Hashable, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stack = ExitStack()
        self.around: list[AbstractContextManager[Any]] = []
        self.attached = False
        self.needs_run = any(needs_run(place.steer) for place in self.placed)
        # Hooks stay on for the whole run, unless the caller runs the model between passes, or a
        # steer does.
        self.lasting = self.lasting and not self.needs_run

    def ready(self, tokens: Tokens, window: Window) -> None:
        """Put on the hooks of the coming pass, which will hold `tokens`."""
        self.plan(tokens, window)
        self.attach()

    def plan(self, tokens: Tokens, window: Window) -> None:
        """Work out the steers of the coming pass; one that needs the run may run the model."""
        if not self.lasting:
            self.detach()
        if self.needs_run:
            context = Context(self.model, tokens, self.memory, alone_among(self.placed))
            window, self.around = replace(window, context=context), context.around
        for place in self.placed:
            place.ready(window)

    def attach(self) -> None:
        """Put on the hooks that are planned, if they are not on yet."""
        if self.attached:
            return
        for manager in self.around:
            self.stack.enter_context(manager)
        self.stack.enter_context(hooked(self.model, hooks_of(self.placed)))
        self.attached = True

    def require_reached(self) -> None:
        """Raise RuntimeError unless the pass that is over met every steer."""
        for place in self.placed:
            if not place.reached:
                raise RuntimeError(
                    f"A pass ran without the steer at {place.site}: nothing was steered there. "
                    "Either this model never calls that hook point (take another stream), or its "
                    "hooks were taken off meanwhile: model.reset_hooks() in a steer or in another "
                    "thread does that."
                )

    def first_overflow(self, tokens: Tokens, window: Window) -> str:
        """Which steer first returned a number that is not finite, in a pass over whole texts."""
        found: list[Placed] = []
        for place in self.placed:
            place.watch = found
        self.memory.clear()
        with in_turn(self.model):
            self.ready(tokens, window)
            logits(self.model, tokens, window, "last")
            self.detach()
        if not found:
            return "No steer returned such numbers of finite ones; a layer above one of them did."
        return f"{type(found[0].steer).__name__} at {found[0].site} was the first to return some."

    def detach(self) -> None:
        """Take the hooks off."""
        self.stack.close()
        self.attached = False


@dataclass(eq=False)
class Watch:
    """What every steer has done so far, over all batches of one call."""

    placed: list[Placed] = field(default_factory=list)

    def see(self, placed: Sequence[Placed]) -> None:
        """Add what one batch's steers did."""
        if not self.placed:
            self.placed = list(placed)
            return
        for known, seen in zip(self.placed, placed, strict=False):
            known.ran |= seen.ran
            known.changed |= seen.changed
            known.met |= seen.met


@contextmanager
def watching() -> Iterator[Watch]:
    """Warn on leaving, if not by an exception, of each steer that no batch inside changed by."""
    watch = Watch()
    yield watch
    warn_if_idle(watch.placed)


@contextmanager
def running(
    model: HookedModel, steering: Steered | None, watch: Watch, lasting: bool = True
) -> Iterator[Run | None]:
    """Attach `steering` for the passes inside, and detach it on leaving, however one leaves."""
    if steering is None:
        yield None
        return
    if not hasattr(steering, "placed"):
        advice = "Say where it acts: at(6, steer), or at(Site(6, 'resid_pre'), steer)."
        if hasattr(steering, "steering"):
            advice = "Pass its steering: fit.steering."
        elif isinstance(steering, tuple | list):
            advice = "Add them: sum(steerings)."
        elif isinstance(steering, str):
            advice = "Read the file: steerlens.load_steering(path, model)."
        raise TypeError(f"Expected a Steering; found {type(steering).__name__}. {advice}")
    run = Run(model, on_model(model, steering.placed), lasting)
    with run.stack:
        yield run
    watch.see(run.placed)


@contextmanager
def applied(model: HookedModel, steers: Placements, window: Window | None) -> Iterator[Any]:
    """`Steering.applied`: every pass without a window, exactly one with it."""
    placed = on_model(model, steers)
    with ExitStack() as stack:
        if window is not None:
            for manager in bound_for_one_pass(model, placed, window):
                stack.enter_context(manager)
        stack.enter_context(hooked(model, hooks_of(placed)))
        yield model
    warn_if_idle(placed)
    if not any(place.ran for place in placed):
        sites = ", ".join(dict.fromkeys(str(place.site) for place in placed))
        message = (
            f"No forward pass reached {sites} inside this `with` block: nothing was steered. A "
            "block steers the passes of the thread (and asyncio task) that opened it, not those "
            "of others."
        )
        warnings.warn(message, SteeringWarning, stacklevel=3)


def bound_for_one_pass(
    model: HookedModel, placed: Sequence[Placed], window: Window
) -> list[AbstractContextManager[Any]]:
    """Bind every steer to the pass of `window`; returns what must be open while it runs.

    No steer is told that it is alone: the caller may open another `with` block inside this one.
    """
    window = renewed(window, model)
    for place in placed:
        place.ready(window)
        place.passes_left = 1
    return [] if window.context is None else window.context.around


def renewed(window: Window, model: HookedModel | None = None) -> Window:
    """The window as that of a run of its own, on `model` if one is given: nothing is remembered.

    A caller may use one window several times, and change the model's hooks between.
    """
    if window.context is None:
        return window
    on = window.context.model if model is None else model
    return replace(window, context=Context(on, window.context.tokens))


def on_model(model: HookedModel, steers: Placements) -> list[Placed]:
    """The steers with what is to be learnt of each, checked to suit the model."""
    placed = [Placed(site.on(model), steer) for site, steer in steers]
    for place in placed:
        require_own_site(place.site, place.steer)
        require_writable(model, place.site)
        require_fit(model, place.site, place.steer)
    return placed


def hooks_of(placed: Sequence[Placed]) -> list[tuple[str, Steer]]:
    """The hooks to put on."""
    return [place.site.hook(place.hook) for place in placed]


def alone_among(placed: Sequence[Placed]) -> object:
    """The one steer of a pass, out of its wrappers, or None where there are several."""
    return innermost(placed[0].steer) if len(placed) == 1 else None


def warn_if_idle(placed: Sequence[Placed]) -> None:
    """One SteeringWarning for each steer that changed nothing.

    A gate that stays closed at one of several layers is no failure: it counts only where none of
    them opened.
    """
    one_opened = any(place.can_close and place.changed for place in placed)
    for place in placed:
        complaint = None if one_opened and place.kept_closed else place.complaint()
        if complaint is not None:
            warnings.warn(complaint, SteeringWarning, stacklevel=4)
