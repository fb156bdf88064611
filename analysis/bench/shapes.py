"""What the results of cells look like: a file that was written by something else is told by it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """Plain JSON: leaves of some types, in lists in lists, as deep as `depth` says."""

    leaves: tuple[type, ...]
    depth: int = 0
    or_none: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a value is of this shape."""
        if value is None and self.or_none:
            return True
        level: list[Any] = [value]
        for _ in range(self.depth):
            if not all(isinstance(one, list) for one in level):
                return False
            level = [inner for one in level for inner in one]
        truths = bool in self.leaves
        return all(
            isinstance(one, self.leaves) and (truths or not isinstance(one, bool)) for one in level
        )


NUMBER, GAP = (int, float), (int, float, type(None))
SHAPES: dict[str, dict[str, Shape]] = {
    "fit": {"reason": Shape((str,), or_none=True), "unit": Shape(NUMBER, or_none=True)},
    "write": {"texts": Shape((str,), 2)},
    "odds": {"log_odds": Shape(GAP, 2), "mass": Shape(GAP, 2)},
    "judge": {
        "attribute": Shape(GAP, 2),
        "coherence": Shape(GAP, 2),
        "words": Shape(GAP, 2, or_none=True),
    },
    "scale": {
        "plain": Shape(NUMBER),
        "prompted": Shape(NUMBER),
        "losses": Shape(NUMBER, 1),
        "repetitions": Shape(NUMBER, 1),
    },
    "effects": {
        **{name: Shape(GAP, 1) for name in ("kl_left", "kl_prompt", "question", "tokens")},
        **{name: Shape(GAP, 2) for name in ("missed", "whole")},
    },
    "side": {"nll": Shape(NUMBER, 1, or_none=True)},
    "spread": {"percentiles": Shape(GAP, 3), "question": Shape(NUMBER, 1)},
}
OF_A_SIDE = {
    **{name: Shape(NUMBER, 1) for name in ("kl", "tokens", "distinct", "margin")},
    **{name: Shape((bool,), 1) for name in ("correct", "refused")},
}
"""What a cell of side effects holds besides, where there was anything to measure."""


def require_result(kind: str, result: Any) -> None:
    """ValueError for a result that no cell of this kind has."""
    if not isinstance(result, Mapping):
        raise ValueError("its result is no object")
    wanted = SHAPES.get(kind, {})
    if kind == "side" and result.get("nll") is not None:
        wanted = {**wanted, **OF_A_SIDE}
    if kind == "scale" and "longest" in result:
        wanted = {**wanted, "longest": Shape((int,)), "latin": Shape((bool,))}
    if not Shape((str,), 1).holds(result.get("warnings", [])):
        raise ValueError("the 'warnings' of its result are no texts")
    for name, shape in wanted.items():
        if name not in result or not shape.holds(result[name]):
            raise ValueError(f"{name!r} of its result is not what a {kind} holds")
