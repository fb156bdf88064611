"""Where simple methods fail on the demonstration model: the numbers of some pages of docs/methods/.

    python scripts/bench/method_limits.py                  all of them, one or two minutes
    python scripts/bench/method_limits.py --method caa     one of them

The attribute is *positive*. *score* and *coherence* (0 to 100, means) are those of sampled answers
to 24 validation questions; every row has the same random numbers. Fits take the first pairs
of the training split, at the output of layer 3 of 6 (ActAdd: its input).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import torch

import steerlens as sl
from analysis.judges import judge_of
from analysis.judges.coherence import Coherence
from analysis.measures.tradeoff import Setting
from analysis.reports.markdown import markdown_table
from steerlens.demo.benchmark_set import read
from steerlens.prompts import encode, show

PAIRS, QUESTIONS, LAYER, TOKENS = 32, 24, 3, 48
Table = tuple[list[str], list[list[str]]]
HEAD, ENDS = ["", "score", "coherence"], ("", "_low", "_high")


@cache
def model() -> Any:
    """The demonstration model."""
    return sl.load("demo")


@cache
def setting() -> Setting:
    """What the scores are taken of."""
    questions = read("positive").questions("validation")[:QUESTIONS]
    sampling = sl.Sampling(max_new_tokens=TOKENS)
    return Setting(model(), questions, judge_of("positive"), Coherence(), sampling)


def sides() -> tuple[list[sl.Conversation], list[sl.Conversation]]:
    """Answers that praise, and answers to the same questions without the instruction."""
    rows = read("positive").split("train")[:PAIRS]
    praised = [sl.Conversation(row.user, response=row.prompted) for row in rows]
    return praised, [sl.Conversation(row.user, response=row.plain) for row in rows]


def scored(name: str, steering: sl.Steering | None = None) -> list[str]:
    """A row of the table: name, mean score, mean coherence, with 95 % intervals over questions."""
    row = setting().score(steering).row()
    cells = [[row[f"{what}{end}"] for end in ENDS] for what in ("attribute", "coherence")]
    return [name, *(f"{mean:.0f} [{low:.0f}, {high:.0f}]" for mean, low, high in cells)]


def act_add() -> Iterator[Table]:
    """C, what the rows land on, and the first row without a counter-prompt."""
    fit = sl.ActAdd.fit(model(), (" wonderful", " terrible"), LAYER)
    strengths = (1.0, 4.0, 16.0, 64.0)
    yield (
        HEAD,
        [
            scored("unsteered"),
            *(scored(f"c = {c:g}", c * fit.steering) for c in strengths),
        ],
    )
    row = encode(model(), sl.Conversation(setting().questions[0]))
    (site,) = fit.steers
    n = len(fit.steers[site].v)
    yield (
        [f"the first tokens of a chat prompt; v has {n} rows"],
        [[" ".join(repr(token) for token in show(model(), row.ids)[: n + 3])]],
    )
    rows = []
    for name, negative in (("with p- = ''", ""), ("without p-", None)):
        v = sl.ActAdd.fit(model(), (" wonderful", negative), LAYER).steers[site].v
        rows.append([name, *(f"{length:.1f}" for length in v.norm(dim=1).tolist())])
    yield ["|v| of each row", "BOS", *(f"row {i}" for i in range(1, len(rows[0]) - 1))], rows


def caa() -> Iterator[Table]:
    """Strengths, on the response and everywhere."""
    steering = sl.CAA.fit(model(), sides(), LAYER).steering
    rows = [scored("unsteered")]
    for strength in (1.0, 2.0, 4.0, 8.0, 16.0):
        rows.append(scored(f"{strength:g}, response", strength * steering.only(sl.response)))
    yield HEAD, [*rows, scored("4, everywhere", 4.0 * steering)]


def angular() -> Iterator[Table]:
    """Angles, and how near to v activations are before."""
    fit = sl.Angular.fit(model(), sides(), LAYER)
    direction = fit.steers[sl.Site(LAYER)].direction
    rows = [scored("unsteered")]
    for angle in (10.0, 20.0, 30.0, 45.0, 60.0, 90.0):
        turned = sl.at(LAYER, sl.Angular(direction, angle)).only(sl.response)
        rows.append(scored(f"{angle:g} degrees", turned))
    yield HEAD, rows
    h = sl.capture(model(), sides()[1], LAYER, scope=sl.response).at(LAYER)
    cosine = torch.nn.functional.cosine_similarity(h, direction.to(h)[None], dim=-1)
    before = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    quantiles = torch.tensor([0.0, 0.05, 0.5, 0.95, 1.0])
    found = [f"{value:.0f}" for value in torch.quantile(before, quantiles).tolist()]
    yield (
        ["degrees between h and v", "least", "5 %", "median", "95 %", "most"],
        [["tokens of unsteered answers", *found]],
    )


def instruction_vector() -> Iterator[Table]:
    """Both ways to use it, and the tokens that adjusting pulls back."""
    pairs = read("positive").pairs("train")[:PAIRS]
    fit = sl.InstructionVector.fit(model(), pairs, LAYER)
    rows = [scored("unsteered")]
    for strength in (1.0, 2.0, 4.0):
        rows.append(scored(f"adjust, strength {strength:g}", strength * fit.steering))
    adding = sl.InstructionVector.adding(fit)
    for weight in (2.0, 4.0, 8.0, 16.0):
        rows.append(scored(f"add, w = {weight:g}", weight * adding))
    yield HEAD, rows
    vector = fit.steers[sl.Site(LAYER)]
    lines = []
    for name, conversations in zip(("praise", "unsteered"), sides(), strict=True):
        h = sl.capture(model(), conversations, LAYER, scope=sl.generated).at(LAYER)
        along = h @ vector.u.to(h)
        spread = torch.quantile(along, torch.tensor([0.05, 0.5, 0.95])).tolist()
        above = float((along > vector.z).float().mean())
        numbers = [f"{number:.2f}" for number in (vector.z, *spread)]
        lines.append([name, *numbers, f"{above:.0%}"])
    yield ["tokens of", "z", "h u, 5 %", "median", "95 %", "above z: pulled back"], lines


def gradient_step() -> Iterator[Table]:
    """Eta: score, coherence and the loss on the examples; and what bfloat16 loses of it."""
    step = sl.GradientStep.fit(model(), sides(), loss="dpo")
    rows = [scored("unsteered")]
    for eta in (0.3, 1.0, 3.0, 10.0, 30.0):
        with step.scaled(eta).applied(model()):
            rows.append(scored(f"eta = {eta:g}"))
    yield HEAD, rows
    half, lines = sl.load("demo", dtype="bfloat16"), []
    coarse = sl.GradientStep.fit(half, sides(), loss="dpo")
    for eta in (0.01, 0.1, 1.0):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with coarse.scaled(eta).applied(half):
                pass
        said = [str(one.message).split(" of the")[0] for one in caught]
        lines.append([f"{eta:g}", said[0] if said else "less than 10 %"])
    yield ["eta", "of the step lost to rounding in bfloat16"], lines


METHODS: dict[str, Callable[[], Iterator[Table]]] = {
    "act_add": act_add,
    "caa": caa,
    "angular": angular,
    "instruction_vector": instruction_vector,
    "gradient_step": gradient_step,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--method", choices=METHODS, action="append")
    for name in parser.parse_args(arguments).method or METHODS:
        print(f"## {name}\n")
        for head, rows in METHODS[name]():
            print(markdown_table(head, rows), end="\n\n")


if __name__ == "__main__":
    main()
