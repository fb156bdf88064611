"""Compare an answer with the right one, and find out which mistake was made."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from checks.answers import described, with_article
from checks.verdicts import NotYet

RTOL, ATOL = 1e-3, 1e-5


class Mistake(NamedTuple):
    """What comes out if a certain mistake is made, and the hint for who made it."""

    gives: Any
    hint: str


def expect(
    got: Any,
    wanted: Any,
    mistakes: Iterable[tuple[Any, str]] = (),
    *,
    what: str = "your answer",
    rtol: float = RTOL,
    atol: float = ATOL,
) -> None:
    """`NotYet` unless `got` is `wanted`: with the hint of the mistake that gives what was got.

    After the listed mistakes come those that need no listing: another kind of value, shape or dtype,
    a transposed result, a wrong sign, all shifted by one, a factor too much.
    """
    if isinstance(wanted, Tensor):
        got = _as_tensor(got, what)
        close = Closeness(rtol, atol)
        if close(got, wanted):
            require_dtype(got, wanted, what)
            return
        _say_listed(got, mistakes, close)
        if got.is_floating_point() and Closeness(0.02, 0.01)(got, wanted):
            require_dtype(got, wanted, what)  # too rough for a comparison, and that is the reason
        raise NotYet(*_difference(got, wanted, what, close))
    if isinstance(wanted, float):
        expect_number(got, wanted, mistakes, what=what, rtol=rtol, atol=atol)
        return
    if type(got) is type(wanted) and got == wanted:
        return
    for gives, hint in mistakes:
        if type(got) is type(gives) and got == gives:
            raise NotYet(hint)
    raise NotYet(*_other_value(got, wanted, what))


def expect_number(
    got: Any,
    wanted: float,
    mistakes: Iterable[tuple[Any, str]] = (),
    *,
    what: str = "your answer",
    rtol: float = RTOL,
    atol: float = ATOL,
) -> None:
    """The same for one number, which may come as a float or as a tensor with a single element."""
    number = as_number(got, what)
    as_tensor = [(torch.tensor(float(value)), hint) for value, hint in mistakes]
    wanted_tensor = torch.tensor(wanted)
    expect(torch.tensor(number), wanted_tensor, as_tensor, what=what, rtol=rtol, atol=atol)


def as_number(got: Any, what: str) -> float:
    """One number, from a float or from a tensor with a single element; `NotYet` for any other value."""
    if hasattr(got, "numel") and got.numel() != 1:
        raise NotYet(f"{what} should be one number; found {described(got)}.", "Over which axis?")
    if isinstance(got, str):
        raise NotYet(f"{what} should be a number; found the text {got!r}.", "Leave out the quotes.")
    if isinstance(got, (bool, np.bool_)) or getattr(got, "dtype", None) == torch.bool:
        raise NotYet(f"{what} should be a number; found {described(got)}.", "Not True or False.")
    try:
        return float(got)
    except (TypeError, ValueError):
        raise NotYet(f"{what} should be one number; found {described(got)}.") from None


class Closeness:
    """Whether two tensors are the same but for rounding."""

    def __init__(self, rtol: float, atol: float) -> None:
        self.rtol, self.atol = rtol, atol

    def __call__(self, one: Tensor, other: Tensor) -> bool:
        if one.shape != other.shape:
            return False
        one, other = one.detach().double(), other.detach().double()
        size = float(other.abs().max()) if other.numel() else 0.0
        room = self.atol + self.rtol * min(size, 1.0)
        return torch.allclose(one, other, rtol=self.rtol, atol=room, equal_nan=True)


def require_dtype(got: Tensor, wanted: Tensor, what: str) -> None:
    """A bool mask is no float mask, and float64 is not what the model computes with."""
    if got.dtype != wanted.dtype:
        raise NotYet(
            f"{what} has the right numbers as {got.dtype}; it should be {wanted.dtype}.",
            "`.to(other)` and `.bool()` convert; numbers from numpy are float64.",
        )


def _as_tensor(got: Any, what: str) -> Tensor:
    if isinstance(got, Tensor):
        return got
    if isinstance(got, (bool, int, float, np.ndarray, np.generic)):
        raise NotYet(f"{what} should be a tensor; found {described(got)}.", "Use torch throughout.")
    raise NotYet(f"{what} should be a tensor; found {described(got)}.")


def _say_listed(got: Tensor, mistakes: Iterable[tuple[Any, str]], close: Closeness) -> None:
    for gives, hint in mistakes:
        if close(got, torch.as_tensor(gives)):
            raise NotYet(hint)


def _difference(got: Tensor, wanted: Tensor, what: str, close: Closeness) -> tuple[str, str]:
    """What is wrong with a tensor that no listed mistake explains."""
    if got.shape != wanted.shape:
        return _other_shape(got, wanted, what, close)
    if not torch.isfinite(got.double()).all():
        found = "holds NaN or infinity" if got.ndim else f"is {float(got)}"
        return f"{what} {found}.", "Is something divided by zero, or log(0) taken?"
    g, w = got.detach().double(), wanted.detach().double()
    if close(g, -w):
        where = " everywhere" if g.ndim else ""
        return f"{what} has the wrong sign{where}.", "What is subtracted from what?"
    if g.ndim and not g.any():
        return f"{what} is zero everywhere.", "Is the line that fills it in there, and returned?"
    if (w.ndim == 2 and w.shape[0] == w.shape[1]) and close(g, w.T):
        return f"{what} is transposed.", "Which axis holds the rows?"
    for axis, size in enumerate(w.shape):
        if size > 2 and _is_shifted(g, w, axis, close):
            return f"{what} is shifted by one along axis {axis}.", "Counting begins at 0."
    factor = float((g * w).sum() / (w * w).sum()) if w.any() else 0.0
    if w.numel() > 1 and factor and close(g, factor * w):
        return f"{what} points the right way, but is {factor:.3g} times as large.", ""
    return _where(g, w, what, close), ""


def _other_shape(got: Tensor, wanted: Tensor, what: str, close: Closeness) -> tuple[str, str]:
    shapes = f"{what} has shape {list(got.shape)}; it should be {list(wanted.shape)}."
    if close(got.squeeze(), wanted.squeeze()):
        return shapes, "The numbers are right; an axis of length 1 is too many or missing."
    if got.ndim == 2 and close(got.T, wanted):
        return shapes, "It is transposed."
    for axis in range(got.ndim if got.ndim == wanted.ndim else 0):
        shorter = min(got.shape[axis], wanted.shape[axis])
        if abs(got.shape[axis] - wanted.shape[axis]) == 1 and any(
            close(got.narrow(axis, a, shorter), wanted.narrow(axis, b, shorter))
            for a in {0, got.shape[axis] - shorter}
            for b in {0, wanted.shape[axis] - shorter}
        ):
            return shapes, f"Off by one along axis {axis}."
    return shapes, "Is it the right axis that you sum, cut or average over (`dim=`)?"


def _is_shifted(got: Tensor, wanted: Tensor, axis: int, close: Closeness) -> bool:
    n = wanted.shape[axis]
    one, other = got.narrow(axis, 1, n - 1), wanted.narrow(axis, 0, n - 1)
    back, ahead = got.narrow(axis, 0, n - 1), wanted.narrow(axis, 1, n - 1)
    return (close(one, other) and bool(other.any())) or (close(back, ahead) and bool(ahead.any()))


def _where(got: Tensor, wanted: Tensor, what: str, close: Closeness) -> str:
    """Where the first difference is, and how many there are."""
    if not wanted.ndim:
        return f"{what} is {float(got):.4g}; it should be {float(wanted):.4g}."
    apart = ~torch.isclose(got, wanted, rtol=close.rtol, atol=close.atol + close.rtol)
    if not apart.any():
        return f"{what} differs a little in many places."
    place = [int(i) for i in apart.nonzero()[0]]
    found, right = float(got[tuple(place)]), float(wanted[tuple(place)])
    return (
        f"{what} is off in {int(apart.sum())} of {wanted.numel()} numbers; the first is at "
        f"{place}: {found:.4g}, where {right:.4g} should be."
    )


def _other_value(got: Any, wanted: Any, what: str) -> tuple[str, str]:
    """What is wrong with a value that is no tensor."""
    if type(got) is not type(wanted):
        return (
            f"{what} should be {with_article(type(wanted).__name__)}; found {described(got)}.",
            "",
        )
    if isinstance(wanted, (list, tuple)):
        if len(got) != len(wanted):
            return f"{what} has {len(got)} entries; there should be {len(wanted)}.", ""
        pairs = enumerate(zip(got, wanted, strict=True))
        place, (a, b) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        return f"{what} differs first at place {place}: {a!r}, where {b!r} should be.", ""
    if isinstance(wanted, int) and abs(got - wanted) == 1:
        return f"{what} is {got}; it should be {wanted}: off by one.", ""
    return f"{what} is {got!r}; it should be {wanted!r}.", ""
