"""Steers on a running model: attach them for a run, notice the ones that do nothing, detach."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from steerlens.checks import require_like
from steerlens.combinators import Scaled, When, bind, masked, parts
from steerlens.scopes import Scope, Window
from steerlens.sites import Site, require_fit, require_writable
from steerlens.steering import AnySteering, Steering, start, step_alone
from steerlens.types import Hook, HookedModel, Residual, Steer, SteeringWarning, Tokens


@dataclass(eq=False, repr=False)  # TransformerLens takes the repr of every hook it puts on
class Placed:
    """One steer at one site during a run: what it is now, whether it ever changed anything."""

    site: Site
    steer: Steer
    now: Steer | None = None
    ran: bool = False
    changed: bool = False
    met: bool = False
    passes_left: int | None = None
    shape: tuple[int, ...] | None = None
    scopes: tuple[Scope, ...] = field(default=())

    def __post_init__(self) -> None:
        self.scopes = tuple(part for part in parts(self.steer) if isinstance(part, Scope))

    def ready(self, window: Window) -> None:
        """Bind to the coming pass; padding keeps its activation."""
        self.shape = tuple(window.mask.shape)
        self.now = masked(bind(self.steer, window), window.mask)
        self.met = self.met or all(bool(scope.where(window).any()) for scope in self.scopes)

    def hook(self, activation: Residual, hook: Hook = None) -> Residual:
        """The hook that TransformerLens calls: the bound steer, its result checked."""
        if self.passes_left is not None:
            if self.passes_left == 0:
                raise RuntimeError(
                    "A second forward pass ran inside steering.applied(model, window), but the "
                    "window describes one pass. Open a new `with` block with window.next(n) for "
                    "the following pass, or use steerlens.generate, which keeps count."
                )
            self.passes_left -= 1
        if self.shape not in (None, tuple(activation.shape[:2])):
            raise ValueError(
                f"The window describes {self.shape} rows and columns, this pass holds "
                f"{tuple(activation.shape[:2])}. Make both of the same prompts: "
                "tokens, window = steerlens.batch(model, prompts)."
            )
        self.ran = True
        version = None if activation.is_inference() else activation._version
        steered = (self.now or self.steer)(activation, hook)
        if version is not None and activation._version != version:
            raise ValueError(
                f"{type(self.steer).__name__} at {self.site} wrote into the activation it was "
                "given. A steer returns a new tensor: write h + v, not h += v."
            )
        require_like(activation, steered, f"{type(self.steer).__name__} at {self.site}")
        if not self.changed and steered is not activation:
            self.changed = not torch.equal(steered, activation)
        return steered

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


@dataclass(eq=False)
class Run:
    """A steering attached to a model for several passes; call `ready` before each."""

    model: HookedModel
    steering: AnySteering
    batch: int
    lasting: bool = True
    placed: list[Placed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = start(self.steering, self.model, self.batch)
        self.stack = ExitStack()
        self.around: AbstractContextManager[object] = nullcontext()
        self.attached = False
        # Hooks that never change stay on for the whole run, unless the caller acts between passes.
        self.lasting = self.lasting and isinstance(self.steering, Steering)

    def ready(self, tokens: Tokens, window: Window) -> None:
        """Put on the hooks of the coming pass, which will hold `tokens`."""
        self.plan(tokens, window)
        self.attach()

    def plan(self, tokens: Tokens, window: Window) -> None:
        """Work out the steers of the coming pass; a `TokenSteering` may run the model for it."""
        if not self.lasting:
            self.detach()
        if not self.attached:
            steering, self.around = step_alone(self.run, tokens, window)
            self._place(steering)
        for placed in self.placed:
            placed.ready(window)

    def attach(self) -> None:
        """Put on the hooks that are planned, if they are not on yet."""
        if self.attached:
            return
        hooks = [(placed.site.hook_name, placed.hook) for placed in self.placed]
        self.stack.enter_context(self.around)
        self.stack.enter_context(self.model.hooks(fwd_hooks=hooks))
        self.attached = True

    def detach(self) -> None:
        """Take the hooks off."""
        self.stack.close()
        self.attached = False

    def _place(self, steering: Steering) -> None:
        fresh = [Placed(site, steer) for site, steer in steering.placed]
        for placed in fresh:
            require_writable(self.model, placed.site)
            require_fit(self.model, placed.site, placed.steer)
        self._remember(fresh)

    def _remember(self, fresh: list[Placed]) -> None:
        # A TokenSteering makes new steers each pass; what one learnt of a place, the next keeps.
        for old, new in zip(self.placed, fresh, strict=False):
            if old.site == new.site:
                new.ran, new.changed, new.met = old.ran, old.changed, old.met
        self.placed = fresh


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
    model: HookedModel,
    steering: AnySteering | None,
    batch: int,
    watch: Watch,
    lasting: bool = True,
) -> Iterator[Run | None]:
    """Attach `steering` for the passes inside, and detach it on leaving, however one leaves."""
    if steering is None:
        yield None
        return
    run = Run(model, steering, batch, lasting)
    with run.stack:
        yield run
    watch.see(run.placed)


@contextmanager
def applied(model: HookedModel, steering: Steering, window: Window | None) -> Iterator[Any]:
    """`Steering.applied`: every pass without a window, exactly one with it."""
    placed = [Placed(site, steer) for site, steer in steering.placed]
    for place in placed:
        require_writable(model, place.site)
        require_fit(model, place.site, place.steer)
        if window is not None:
            place.ready(window)
            place.passes_left = 1
    called = [(place.site.hook_name, place.hook) for place in placed]
    with model.hooks(fwd_hooks=called):
        yield model
    warn_if_idle(placed)
    if not any(place.ran for place in placed):
        sites = ", ".join(str(site) for site in steering.sites)
        message = f"No forward pass reached {sites} inside this `with` block: nothing was steered."
        warnings.warn(message, SteeringWarning, stacklevel=3)


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
