"""Where in the model: `Site` names a hook point, `Steering` puts steers at sites."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from steerlens.checks import require_steer
from steerlens.combinators import Only, Scaled, bind, masked, positional, unchanged
from steerlens.scopes import Scope, Window
from steerlens.sites import Site, as_site
from steerlens.types import HookedModel, Steer, Tokens

if TYPE_CHECKING:
    from steerlens.identity import Origin


@dataclass(frozen=True, eq=False)
class Steering:
    """Steers at sites; the first placed acts first. `origin` says what it was fitted on."""

    placed: tuple[tuple[Site, Steer], ...]
    origin: "Origin | None" = None

    def __post_init__(self) -> None:
        if not self.placed:
            raise ValueError("Steering(()) steers nothing. Place a steer: at(6, CAA(direction)).")
        for site, steer in self.placed:
            if not isinstance(site, Site):
                raise TypeError(f"Expected (Site, steer) pairs; found {type(site).__name__} first.")
            require_steer(steer, f"Steering at {site}")

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site once, in order of first placement."""
        return tuple(dict.fromkeys(site for site, _ in self.placed))

    @property
    def positional(self) -> bool:
        """Whether any steer needs a `Window` to know where it acts."""
        return any(positional(steer) for _, steer in self.placed)

    def __add__(self, then: "AnySteering") -> "AnySteering":
        """Both; `self` acts first where they share a site."""
        if not isinstance(then, Steering):
            return Together((self, then))
        from steerlens.identity import joint_origin

        return Steering(self.placed + then.placed, joint_origin(self.origin, then.origin))

    def __radd__(self, first: "TokenSteering") -> "AnySteering":
        return Together((first, self))

    def scaled(self, strength: float) -> "Steering":
        """The same steering with every steer at `strength` (0 off, 1 as it is)."""
        return replace(self, placed=tuple((s, Scaled(x, strength)) for s, x in self.placed))

    def only(self, scope: Scope) -> "Steering":
        """The same steering, limited to the positions of `scope`."""
        return replace(self, placed=tuple((s, Only(x, scope)) for s, x in self.placed))

    def hooks(self, window: Window | None = None) -> list[tuple[str, Steer]]:
        """Plain `fwd_hooks` for one forward pass; with a window, padding is left as it was."""
        if window is None:
            self._require_position_free()
            return [(site.hook_name, steer) for site, steer in self.placed]
        return [
            (site.hook_name, masked(bind(steer, window), window.mask))
            for site, steer in self.placed
        ]

    def applied(
        self, model: HookedModel, window: Window | None = None
    ) -> AbstractContextManager[Any]:
        """Steer every pass inside the `with` block, or, given a window, exactly one pass."""
        if window is None:
            self._require_position_free()
        from steerlens.runtime.hooks import applied

        return applied(model, self, window)

    def save(self, path: str | Path, model: HookedModel | None = None) -> Path:
        """Write to a safetensors file; `model` records which model it is for, if not known yet."""
        from steerlens.saving import save_steering

        return save_steering(self, path, model)

    def _require_position_free(self) -> None:
        for site, steer in self.placed:
            if positional(steer):
                raise ValueError(
                    f"{type(steer).__name__} at {site} depends on positions, which a hook cannot "
                    "see. Use steerlens.generate(model, prompts, steering), or give the window of "
                    "the one pass: steering.applied(model, window) with "
                    "tokens, window = steerlens.batch(model, prompts)."
                )


def at(where: int | Site, steer: Steer) -> Steering:
    """`steer` placed at one site; a bare layer means its `resid_post`."""
    return Steering(((as_site(where), steer),))


@runtime_checkable
class TokenRun(Protocol):
    """One generation of a `TokenSteering`: may own a second cache that follows the tokens."""

    def step(self, tokens: Tokens, window: Window) -> Steering:
        """The steering of the next pass, which will hold `tokens`; called once before each."""
        ...


@runtime_checkable
class TokenSteering(Protocol):
    """A steering that must see the tokens, not only the activations (COLD-FD is one)."""

    def start(self, model: HookedModel, batch: int) -> TokenRun:
        """Begin a run over `batch` rows; called once before the first pass."""
        ...


AnySteering = Steering | TokenSteering


def step_alone(
    run: TokenRun, tokens: Tokens, window: Window
) -> tuple[Steering, AbstractContextManager[object]]:
    """`run.step` where nothing else steers the pass, and what to hold open while it runs.

    A run that can share the pass has a method of this name.
    """
    own = getattr(run, "step_alone", None)
    return (run.step(tokens, window), nullcontext()) if own is None else own(tokens, window)


@dataclass(frozen=True, eq=False)
class Together:
    """Several steerings, some of which see the tokens; the first acts first."""

    steerings: tuple[AnySteering, ...]

    def start(self, model: HookedModel, batch: int) -> "TogetherRun":
        """Start every part."""
        return TogetherRun(tuple(start(part, model, batch) for part in self.steerings))

    def __add__(self, then: AnySteering) -> "Together":
        return Together((*self.steerings, then))

    def save(self, path: str | Path, model: HookedModel | None = None) -> Path:
        """Write to a safetensors file, as `Steering.save`."""
        from steerlens.saving import save_steering

        return save_steering(self, path, model)


@dataclass(frozen=True, eq=False)
class TogetherRun:
    """The runs of the parts of a `Together`."""

    runs: tuple[TokenRun, ...]

    def step(self, tokens: Tokens, window: Window) -> Steering:
        """All parts' steers for this pass, in order."""
        steps = [run.step(tokens, window) for run in self.runs]
        return Steering(tuple(placed for step in steps for placed in step.placed))


@dataclass(frozen=True, eq=False)
class Mapped:
    """A `TokenSteering` with every steer of every pass put through `change`."""

    steering: TokenSteering
    change: "Rescale | Limit"

    def start(self, model: HookedModel, batch: int) -> "MappedRun":
        """Start the wrapped steering."""
        return MappedRun(self.steering.start(model, batch), self.change)

    def __add__(self, then: AnySteering) -> Together:
        return Together((self, then))

    def save(self, path: str | Path, model: HookedModel | None = None) -> Path:
        """Write to a safetensors file, as `Steering.save`."""
        from steerlens.saving import save_steering

        return save_steering(self, path, model)


@dataclass(frozen=True, eq=False)
class MappedRun:
    """A run whose steers go through `change`."""

    run: TokenRun
    change: "Rescale | Limit"

    def step(self, tokens: Tokens, window: Window) -> Steering:
        """The wrapped run's step, changed."""
        return self.change(self.run.step(tokens, window))

    def step_alone(
        self, tokens: Tokens, window: Window
    ) -> tuple[Steering, AbstractContextManager[object]]:
        """The same, for a pass that nothing else steers."""
        steering, around = step_alone(self.run, tokens, window)
        return self.change(steering), around


@dataclass(frozen=True)
class Rescale:
    """Puts `Scaled(..., strength)` around every steer."""

    strength: float

    def __call__(self, steering: Steering) -> Steering:
        return steering.scaled(self.strength)


@dataclass(frozen=True)
class Limit:
    """Puts `Only(..., scope)` around every steer."""

    scope: Scope

    def __call__(self, steering: Steering) -> Steering:
        return steering.only(self.scope)


@dataclass(frozen=True, eq=False)
class _Fixed:
    """A `Steering` seen as a run whose every step is the same."""

    steering: Steering

    def step(self, tokens: Tokens, window: Window) -> Steering:
        return self.steering


def start(steering: AnySteering, model: HookedModel, batch: int) -> TokenRun:
    """A run of either kind of steering over `batch` rows."""
    if isinstance(steering, Steering):
        return _Fixed(steering)
    if not hasattr(steering, "start"):
        raise TypeError(
            f"Expected a Steering; found {type(steering).__name__}. Say where it acts: "
            "at(6, steer), or at(Site(6, 'resid_pre'), steer)."
        )
    return steering.start(model, batch)


def together(steerings: Sequence[AnySteering]) -> AnySteering:
    """All of them at once, the first acting first; one alone is returned as it is."""
    if not steerings:
        raise ValueError("together([]) got no steering. Give at least one.")
    whole = steerings[0]
    for then in steerings[1:]:
        whole = whole + then if isinstance(whole, Steering) else Together((whole, then))
    return whole


def scaled(steering: AnySteering, strength: float) -> AnySteering:
    """`steering` at `strength`, whether or not it sees the tokens."""
    if isinstance(steering, Steering):
        return steering.scaled(strength)
    Scaled(unchanged, strength)  # for its check of the strength
    return Mapped(steering, Rescale(strength))


def only(steering: AnySteering, scope: Scope) -> AnySteering:
    """`steering` limited to `scope`, whether or not it sees the tokens."""
    if isinstance(steering, Steering):
        return steering.only(scope)
    return Mapped(steering, Limit(scope))
