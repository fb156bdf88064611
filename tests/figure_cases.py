"""Figures of every function over made-up tables, with as many layers, lines and tokens as asked."""

import numpy as np
import pandas as pd

from analysis import by_kind, by_position, effect_and_faithfulness, figures
from analysis.figures.heatmaps import MEASURES
from analysis.figures.style import METHODS
from analysis.figures.sweep import SCALES

WORDS = (
    " the",
    " film",
    "Wonderful",
    " a",
    ",",
    "\n",
    " 👩‍💻",
    "مرحبا",
    " naïve",
    ".",
    " internationalization",
)


def lines(number: int) -> list[tuple[str, str, float]]:
    """Methods with their strengths: first those that the package has, then others."""
    names = [*METHODS, *(f"my own method {i}" for i in range(60))]
    strengths = [("as fitted", 1.0), ("least squares", 0.4237)]
    made = [(name, label, value) for name in names for label, value in strengths]
    return [("prompt", "", np.nan), *made[4 : number + 3]]


def tokens(number: int) -> list[str]:
    return [WORDS[i % len(WORDS)] for i in range(number)]


def coefficients(layers: int, methods: int, n_tokens: int) -> pd.DataFrame:
    rows = pd.DataFrame(
        [
            {"example": 0, "token_index": place, "token": token, "layer": layer, "method": method,
             "strength": strength, "strength_value": value, "view": "accumulated"}
            for method, strength, value in lines(methods)
            for place, token in enumerate(tokens(n_tokens))
            for layer in range(layers)
        ]
    )  # fmt: skip
    random = np.random.default_rng(5)
    rows = rows.assign(**{name: random.standard_t(3, len(rows)) for name in MEASURES})
    rows = rows.assign(sink=rows["token_index"].eq(0) & rows["layer"].gt(1))
    rows.attrs["baseline"] = "neutral"
    return rows.assign(unit="mean prompt push")


def faithfulness(layers: int, methods: int) -> pd.DataFrame:
    random = np.random.default_rng(6)
    rows = [
        {"method": method, "strength": strength, "strength_value": value, "layer": layer}
        for method, strength, value in lines(methods)
        for layer in range(layers)
    ]
    table = pd.DataFrame(rows)
    error = random.uniform(0.3, 1.7, len(table))
    return table.assign(
        relative_rmse=error, low=error - 0.1, high=error + 0.2, token_median=error / 2,
        denominator=1.0 + 40 * table["layer"], n_examples=20, n_tokens=812, seed=7,
        relative_rmse_with_sinks=error / 3, n_sinks=3,
    )  # fmt: skip


def tradeoff(methods: int, n_strengths: int = 8) -> pd.DataFrame:
    random = np.random.default_rng(7)
    names = [name for name, _, _ in lines(2 * methods)][::2]
    rows = [("unsteered", 0.0), ("prompt", 0.0)]
    rows += [
        (m, float(s))
        for m in names
        if m not in ("prompt", "unsteered")
        for s in range(1, n_strengths)
    ]
    table = pd.DataFrame(rows, columns=["method", "strength"])
    for name in ("attribute", "coherence"):
        value = random.uniform(0, 100, len(table))
        table = table.assign(**{name: value, f"{name}_low": value - 6, f"{name}_high": value + 5})
    return table.assign(n=40)


def assumptions(layers: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    random, every = np.random.default_rng(8), range(layers)
    counts = {"n_questions": 8, "n_tokens": 400, "n_sinks": 3}
    shares = pd.DataFrame(
        [{"layer": i, "axes": axes, **counts} for axes in ("mean", 1, 2, 4, 8) for i in every]
    )
    shares = shares.assign(share=random.uniform(0.2, 0.9, len(shares)))
    shares = shares.assign(low=shares["share"] - 0.1, high=shares["share"] + 0.1)
    spread = pd.DataFrame(
        [{"layer": i, "method": "prompt", "strength": "", "measure": "along"} for i in every]
    )
    spread = spread.assign(ratio=4.0, ratio_low=2.0, ratio_high=9.0, gini=0.3)
    readouts = pd.DataFrame(
        [
            {"layer": i, "strength": s, "readout": r, **counts}
            for s in ("along", "norm")
            for r in ("linear", "relu")
            for i in every
        ]
    )
    readouts = readouts.assign(r2=random.uniform(-2, 0.9, len(readouts)))
    readouts = readouts.assign(low=readouts["r2"] - 0.1, high=readouts["r2"] + 0.1)
    return shares, spread, readouts


def effects(layers: int, methods: int) -> pd.DataFrame:
    shifts = pd.DataFrame(lines(methods)[1:], columns=["method", "strength", "strength_value"])
    random = np.random.default_rng(9)
    shifts = shifts.assign(recovered=random.uniform(-0.3, 0.9, len(shifts)))
    return effect_and_faithfulness(shifts, faithfulness(layers, methods))


def swept(layers: int, methods: int) -> pd.DataFrame:
    """A sweep of some methods over nine strengths, on two scopes."""
    random = np.random.default_rng(6)
    names = dict.fromkeys(name for name, _, _ in lines(methods)[1:6])
    rows = pd.DataFrame(
        [
            {"method": name, "layer": layer, "strength": strength, "scope": scope}
            for name in names
            for layer in range(layers)
            for scope in ("response", "positions(2, 5).without_bos")
            for strength in (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 4.0, 16.0)
        ]
    )
    rows = rows.assign(**{name: -random.lognormal(0, 2, len(rows)) for name in SCALES})
    rows = rows.assign(kl_prompt=0.1, log_p_unsteered=-2.0, n_examples=24, strength_unit="kl")
    rows.attrs["baseline"] = "neutral"
    return rows


def token_table(n_tokens: int) -> pd.DataFrame:
    place = np.arange(n_tokens)
    return pd.DataFrame(
        {"position": place, "token": tokens(n_tokens), "value": np.sin(place), "read": place > 2,
         "steered": place > 4, "sink": place == 0, "template": place < 3}
    )  # fmt: skip


def views(n_tokens: int) -> figures.TokenView:
    table = token_table(n_tokens)
    return figures.token_views(
        {"prompt": table, "CAA": table}, "along (1 = mean prompt push), layer 3"
    )


def cases(layers: int, methods: int, n_tokens: int) -> dict[str, object]:
    """A maker of each figure, so that one that is not asked for costs nothing."""
    table = coefficients
    return {
        "heatmap": lambda: figures.coefficient_heatmap(table(layers, methods, n_tokens)),
        "transposed": lambda: figures.coefficient_heatmap(
            table(layers, methods, n_tokens), transposed=True
        ),
        "faithfulness": lambda: figures.relative_rmse_curve(faithfulness(layers, methods)),
        "strengths": lambda: figures.sorted_strengths(table(layers, methods, n_tokens), 3),
        "assumptions": lambda: figures.assumption_curves(*assumptions(layers)),
        "difference": lambda: figures.difference_heatmap(
            table(layers, methods, n_tokens), "prompt", lines(methods)[-1][0], strength="as fitted"
        ),
        "kinds": lambda: figures.kind_profile(by_kind(table(layers, methods, n_tokens), 3)),
        "positions": lambda: figures.line_panels(
            by_position(table(layers, methods, n_tokens), 3), x="token_index"
        ),
        "models": lambda: figures.line_panels(
            pd.concat(
                [
                    faithfulness(layers, methods).assign(model=f"a model of {i}00M parameters")
                    for i in range(1, 6)
                ]
            ),
            "relative_rmse",
            panel="model",
        ),
        "estimates": lambda: figures.estimate_panels(
            pd.concat([faithfulness(1, methods).assign(model=name) for name in ("demo", "big")]),
            "relative_rmse",
            mark="strength",
            panel="model",
        ),
        "sweep": lambda: figures.sweep_heatmap(swept(layers, methods)),
        "effects": lambda: figures.effect_against_faithfulness(effects(layers, methods)),
        "tokens": lambda: views(n_tokens),
        "tradeoff": lambda: figures.tradeoff_curve(tradeoff(methods), bound=60.0),
    }
