"""The figures of docs/results/claims.md, drawn from tables of benches and of single commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from claims import EQUAL_KL, LAST, Claim

from analysis import effect_against_faithfulness, estimate_panels, line_panels
from analysis.bench.collect import ATTRIBUTE, Collected
from analysis.bench.estimates import mean_of, mean_score
from analysis.measures.token_kinds import KINDS

OVER = "beyond the bound"


def beyond(claims: Sequence[Claim], found: Mapping[str, Collected], title: str) -> go.Figure | None:
    """How far each attribute's estimate is on the claimed side of the bound, a panel a claim.

    None where there is no estimate yet.
    """
    rows = []
    for claim in claims:
        sign = 1.0 if claim.above else -1.0
        for model, collected in found.items():
            for task, one in claim.estimates(collected).items():
                if one is not None:
                    numbers = sorted(sign * (end - claim.bound) for end in (one.low, one.high))
                    own = {"claim": claim.name, "attribute": f"{task}, {model}", "model": model}
                    rows.append({**own, OVER: sign * (one.value - claim.bound),
                                 "low": numbers[0], "high": numbers[1]})  # fmt: skip
    if not rows:
        return None
    return estimate_panels(
        pd.DataFrame(rows),
        OVER,
        row="attribute",
        mark="model",
        panel="claim",
        zero=True,
        title=title,
        says=f"Right of 0 is for the claim, left of it against. {over(found)}, both resampled."
        f"{_of_one_seed(claims, found)}",
    )


def _of_one_seed(claims: Sequence[Claim], found: Mapping[str, Collected]) -> str:
    """Which marks count as undecided wherever they lie, since other seeds may differ."""
    alone = [
        f"{claim.name} ({model}: {', '.join(tasks)})"
        for claim in claims
        for model, collected in found.items()
        if (
            tasks := [
                t for t, one in claim.estimates(collected).items() if one and one.n_seeds == 1
            ]
        )
    ]
    return f" One seed alone, so undecided: {'; '.join(alone)}." if alone else ""


def over(found: Mapping[str, Collected]) -> str:
    """Of how many questions and seeds."""
    parts = []
    for model, collected in found.items():
        tasks = collected.plan.tasks.values()
        n = min(len(task.questions["test"]) for task in tasks)
        parts.append(f"{model}: {n} test questions an attribute, {collected.plan.spec.seeds} seeds")
    return "; ".join(parts)


def nearness(collected: Collected, model: str) -> go.Figure | None:
    """Claim 7: every method's attribute at C80 against its distance from the prompt."""
    table = collected.scores("C80", ATTRIBUTE)
    tasks, rows = list(collected.plan.tasks), []
    for method in collected.plan.spec.methods:
        far = [collected.distance(task, method, EQUAL_KL, LAST) for task in tasks]
        known = [one for one in far if one is not None]
        if len(known) == len(tasks) and len(table.get(method, {})) == len(tasks):
            score = mean_of([mean_score(table[method][task]) for task in tasks]).value
            near = mean_of(known).value
            rows.append([method, EQUAL_KL, np.nan, near, score])
    if not rows:
        return None
    drawn = {row[0] for row in rows}
    missing = [method for method in collected.plan.spec.methods if method not in drawn]
    without = f" Without {'; '.join(missing)}: not on every attribute." if missing else ""
    columns = ["method", "strength", "strength_value", "relative_rmse", SCORED]
    return effect_against_faithfulness(
        pd.DataFrame(rows, columns=pd.Index(columns)),
        SCORED,
        title=f"Does the method that is nearest to the prompt steer best? On {model}",
        says=f"{of_attributes(tasks)}. Distance at the last layer, every method at the "
        "prompt's own KL; C80 is the strongest strength that kept 80 % of the unsteered "
        f"coherence, or the strongest tried. {over({model: collected})}; no intervals.{without}",
        x="relative RMSE at the last layer (0 = as the prompt)",
    )


def of_attributes(tasks: Sequence[str]) -> str:
    """What a mark is a mean over."""
    return f"Means over {len(tasks)} attributes" if len(tasks) > 1 else f"One attribute, {tasks[0]}"


SCORED = "attribute at C80"


# -- Kinds of tokens -------------------------------------------------------------------------------

LEAST_OF_KIND = 20
"""Kinds with fewer tokens under an attribute are not drawn."""
OVER_MEAN = "push over the mean of its answer, less 1"


def token_kinds(tables: Mapping[str, pd.DataFrame]) -> go.Figure:
    """How hard the prompt pushes each kind of token; the answer's mean is 0."""
    table = pd.concat(list(tables.values()))
    kinds = table.loc[table["kind"].isin(KINDS) & (table["n_tokens"] >= LEAST_OF_KIND)]
    shifted = kinds.assign(**{OVER_MEAN: kinds["mean"] - 1, "low": kinds["low"] - 1,
                              "high": kinds["high"] - 1, "token": kinds["kind"]})  # fmt: skip
    return estimate_panels(
        shifted.sort_values("kind", key=lambda column: column.map(KINDS.index), kind="stable"),
        OVER_MEAN,
        row="token",
        mark="attribute",
        panel="model",
        zero=True,
        title="Which tokens the prompt pushes, by kind",
        says="Right of 0: harder than the mean token of the same answer, at the middle layer, "
        f"sinks left out. Kinds with {LEAST_OF_KIND} tokens or more; intervals over answers.",
    )


def with_sinks(tables: Mapping[str, pd.DataFrame]) -> str:
    """The measure of claim 1 with the sinks counted, by attribute."""
    told = []
    for model, table in tables.items():
        rows = table.loc[~table["kind"].isin(KINDS)]
        each = [f"{row.attribute} {row.mean:.2f}" for row in rows.itertuples()]
        told.append(f"*{model}*: {', '.join(each)}")
    return f"With the sinks counted the estimates of **1** would be {'; '.join(told)}."


# -- COLD and the gradient step --------------------------------------------------------------------

ERROR = "relative error of a token's change"
SIZE = "size of the step, log10 of its share of the unit"


def cold_errors(tables: Mapping[str, pd.DataFrame]) -> go.Figure:
    """How far what COLD-FD adds to each token is from what the step does, by the step's size."""
    rows = []
    for model, table in tables.items():
        found = table.loc[~table["sink"] & (table["method"] == "ColdFD")]
        for (layer, share), group in found.groupby(["layer", "share"]):
            low, mid, high = np.nanquantile(group["relative_error"], [0.05, 0.5, 0.95])
            rows.append({"method": f"COLD-FD, layer {layer}", "strength": "", "model": model,
                         SIZE: np.log10(share), ERROR: mid, "low": low, "high": high})  # fmt: skip
    n = {model: table["text"].nunique() for model, table in tables.items()}
    return line_panels(
        pd.DataFrame(rows),
        ERROR,
        x=SIZE,
        panel="model",
        title="How well COLD-FD approximates its gradient step",
        bands="90 % of the tokens, no interval of the median",
        says="Medians over tokens. Held-out answers: "
        f"{', '.join(f'{v} texts on {k}' for k, v in n.items())}.",
    )


def cold_tokens(table: pd.DataFrame, model: str, most: int = 40) -> go.Figure:
    """Along one text: the change that the step makes at each token, and what COLD-FD adds."""
    layer = table["layer"].min()
    chosen = (table["text"] == 0) & (table["layer"] == layer) & (table["share"] == 1.0)
    names = {"exact change": "gradient step", "ColdFD": "COLD-FD"}
    rows = table.loc[chosen & ~table["sink"] & table["method"].isin(list(names))]
    first = int(rows["position"].min())
    rows = rows.assign(
        method=rows["method"].map(names),
        strength="",
        **{"token of the answer": rows["position"] - first, "length of the change": rows["norm"]},
    )
    return line_panels(
        rows.loc[rows["token of the answer"] < most],
        "length of the change",
        x="token of the answer",
        title=f"One answer, token by token, on {model}",
        says=f"Layer {layer}, at the size with the prompt's own KL. One text, no interval.",
    )


# -- ActAdd ----------------------------------------------------------------------------------------


def act_add_bins(found: Mapping[str, Mapping[str, list[dict]]]) -> go.Figure:
    """Perplexity over the unsteered one, by how many topic words a text has."""
    rows = []
    for model, told in found.items():
        for one in told["bins"]:
            share = f"{one['source']}, {percent(one['bin'])}"
            rows.append({"texts": share, "model": model,
                         "perplexity ratio - 1": one["ratio"] - 1,
                         "low": one["ratio_low"] - 1, "high": one["ratio_high"] - 1})  # fmt: skip
    n = {model: sum(one["n_texts"] for one in told["bins"]) for model, told in found.items()}
    return estimate_panels(
        pd.DataFrame(rows),
        "perplexity ratio - 1",
        row="texts",
        mark="model",
        panel="model",
        zero=True,
        title="Perplexity under “ weddings”, by the share of wedding words",
        says=f"Left of 0: the text is likelier. 95 % intervals over texts: "
        f"{', '.join(f'{k} {v} texts' for k, v in n.items())}.",
    )


def percent(interval: str) -> str:
    """A bin such as "0.01 to 0.02" in percent."""
    return f"{' to '.join(f'{100 * float(end):g}' for end in interval.split(' to '))} %"


def act_add_shifts(found: Mapping[str, Mapping[str, list[dict]]]) -> go.Figure:
    """The Q-Q plot: how tokens' shifts are spread against a normal distribution."""
    rows = [
        {"method": "ActAdd", "strength": "", "model": model,
         "normal quantile": one["normal"], "shift in standard deviations": one["z"]}
        for model, told in found.items()
        for one in told["shifts"]
    ]  # fmt: skip
    n = {model: len(told["shifts"]) for model, told in found.items()}
    return line_panels(
        pd.DataFrame(rows).sort_values("normal quantile"),
        "shift in standard deviations",
        x="normal quantile",
        panel="model",
        title="How far “ weddings” shifts each token’s probability: a Q-Q plot",
        says="On a straight line of slope 1 the shifts are normally distributed. No interval; "
        f"{', '.join(f'{k} {v} tokens' for k, v in n.items())} of the vocabulary, mean over "
        "their places in all texts.",
    )


def act_add_layers(found: Mapping[str, Mapping[str, list[dict]]]) -> go.Figure:
    """Topic words written, by the layer that is steered; the unsteered model is layer -1."""
    rows = [
        {"method": "ActAdd", "strength": "", "model": model, "layer": one["layer"],
         "topic words a completion": one["count"], "low": one["count_low"],
         "high": one["count_high"]}
        for model, told in found.items()
        for one in told["layers"]
    ]  # fmt: skip
    n = {model: told["layers"][0]["n_completions"] for model, told in found.items()}
    return line_panels(
        pd.DataFrame(rows),
        "topic words a completion",
        panel="model",
        title="Wedding words written, by the layer at which “ weddings” is added",
        says="Layer -1 is the unsteered model. 95 % intervals over "
        f"{', '.join(f'{v} texts on {k}' for k, v in n.items())}.",
    )
