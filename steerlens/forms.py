"""What a steer does, in the terms that other tools know.

Most tools can add one vector to every token, some can lay vectors on positions of a prompt, or
clamp a projection. A steer that does one of these says so by its `form`; any other steer has none,
and no exporter guesses one.
"""

from dataclasses import dataclass, replace
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from steerlens.combinators import Chain, Only, Scaled
from steerlens.precision import wide
from steerlens.scopes import Scope, everywhere
from steerlens.types import Direction, Steer


@dataclass(frozen=True, eq=False)
class Added:
    """h' = h + v, on the tokens of `scope`."""

    v: Direction
    scope: Scope = everywhere


@dataclass(frozen=True, eq=False)
class Clamped:
    """h' = h + (z - h u) u with u of length 1, on the tokens of `scope`: z = 0 takes u out."""

    u: Direction
    z: float
    scope: Scope = everywhere


@dataclass(frozen=True, eq=False)
class Laid:
    """h' = h + v[p] at position p of the prompt, counted from its first token, in `scope`."""

    v: Float[Tensor, "position d_model"]
    scope: Scope = everywhere


@dataclass(frozen=True, eq=False)
class Sensed:
    """h' = h + (c h + b) v, summed over rows, on the tokens of `scope`: v as strong as h says."""

    c: Float[Tensor, "rank d_model"]
    b: Float[Tensor, " rank"]
    v: Float[Tensor, "rank d_model"]
    scope: Scope = everywhere


Form: TypeAlias = Added | Clamped | Laid | Sensed


def forms_of(steer: Steer, *, sensed: bool = False) -> tuple[Form, ...] | None:
    """What `steer` does, one form after the other; None where that is none of the forms.

    A constant that is added is a form at every strength; a clamp only at strength 1, since between
    0 and 1 it is half a clamp, which no tool knows. With `sensed`, for a tool that knows it, what
    depends on h in this way is a form too.
    """
    if isinstance(steer, Scaled):
        return _scaled(forms_of(steer.steer, sensed=sensed), steer.strength)
    if isinstance(steer, Only):
        return _limited(forms_of(steer.steer, sensed=sensed), steer.scope)
    if isinstance(steer, Chain):
        each = [forms_of(one, sensed=sensed) for one in steer.steers]
        return None if None in each else tuple(form for forms in each for form in forms or ())
    form: Form | None = getattr(steer, "form", None)
    if form is None and sensed:
        form = getattr(steer, "sensed", None)
    return None if form is None else (form,)


def _scaled(forms: tuple[Form, ...] | None, strength: float) -> tuple[Form, ...] | None:
    if forms is None or strength == 1:
        return forms
    if strength == 0:
        return ()
    if any(isinstance(form, Clamped) for form in forms):
        return None
    # What is added does not depend on h, so of several the strengths are those of each. What is
    # sensed does: it must be the first, which h reaches as it was.
    if any(isinstance(form, Sensed) for form in forms[1:]):
        return None
    return tuple(
        replace(form, v=(wide(form.v) * strength))
        for form in forms
        if not isinstance(form, Clamped)
    )


def _limited(forms: tuple[Form, ...] | None, scope: Scope) -> tuple[Form, ...] | None:
    if forms is None or scope == everywhere:
        return forms
    return tuple(
        replace(form, scope=scope if form.scope in (everywhere, scope) else form.scope & scope)
        for form in forms
    )
