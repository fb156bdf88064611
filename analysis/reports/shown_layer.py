"""The one layer of a picture that has room for one: where the prompt's push is most decodable."""

import math
from dataclasses import dataclass

import pandas as pd

from ..figures.assumptions import ENOUGH_QUESTIONS


@dataclass(frozen=True)
class ShownLayer:
    """A layer, and in words why it is shown."""

    layer: int
    reason: str


def shown_layer(n_layers: int, readouts: pd.DataFrame | None = None, lowest: int = 0) -> ShownLayer:
    """The layer from `lowest` up with the largest R^2 of the linear read-out of `decodability`.

    Without a table, or where it rests on fewer than four questions or no R^2 is above 0, it is the
    first layer of the last third, or `lowest` if that is higher. `lowest` is the lowest layer that
    all compared methods have reached.
    """
    third = max(lowest, 2 * n_layers // 3)
    if readouts is None:
        return ShownLayer(third, f"Layer {third} is where the last third of the layers begins.")
    linear = readouts.loc[(readouts["readout"] == "linear") & (readouts["layer"] >= lowest)]
    questions = int(readouts["n_questions"].iloc[0])
    if questions < ENOUGH_QUESTIONS:
        why = f"an R² over {questions} questions does not say where the push is most decodable"
        return ShownLayer(third, f"Layer {third} begins the last third of the layers; {why}.")
    best = linear.loc[linear["r2"].idxmax()] if linear["r2"].notna().any() else None
    if best is None or not best["r2"] > 0 or math.isinf(best["r2"]):
        why = "at no layer can the push be read off the token's own activation"
        return ShownLayer(third, f"Layer {third} begins the last third of the layers; {why}.")
    layer = int(best["layer"])
    above = f" from layer {lowest} up, which all methods reach," if lowest else ""
    return ShownLayer(
        layer,
        f"Layer {layer} is where{above} the prompt's push is most decodable (R² {best['r2']:.2f} "
        f"over {questions} questions).",
    )
