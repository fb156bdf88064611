"""How often the likelihood judge errs: docs/results/likelihood_judge.md.

    python scripts/judges/likelihood.py --model smollm2

A judge of "You are a pirate. Talk like a pirate." is made on eight questions, and scores texts of
eight other questions: prompted, plain, under a neutral instruction and other personas, and prompted
text that is shuffled or looped, a word again and again, and the instruction itself. Minutes on one
core with a model of 135 M parameters.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import steerlens
from analysis.judges.likelihood import Likelihood, Read, likelihood, looped
from analysis.measures.intervals import percentile_interval, resamples
from analysis.measures.plain_side import NEUTRAL
from analysis.reports.markdown import markdown_picture
from steerlens import Conversation
from steerlens.demo.pirate import INSTRUCTION
from steerlens.types import HookedModel
from steerlens.whole import write_whole

PERSONAS = {
    "poet": "You are a poet. Talk like Shakespeare.",
    "robot": "You are a robot. Talk like a robot.",
    "doctor": "You are a doctor. Talk like a doctor.",
}
SCALE_QUESTIONS = (
    "What did you do today?",
    "Tell me about yourself.",
    "How do I make a good soup?",
    "What is your favourite place?",
    "Describe the weather.",
    "Give me advice on saving money.",
    "Tell me a short story.",
    "What should I read next?",
)
QUESTIONS = (
    "What is your plan for the weekend?",
    "How do I fix a bike?",
    "What do you think of cats?",
    "Describe your home.",
    "How can I sleep better?",
    "What makes a good friend?",
    "Tell me about a trip.",
    "What is the best food?",
)
LEXICON = re.compile(
    r"\b(a+r+|arr+\w*|ahoy|matey?s?|me heart\w*|ye|yer|aye|pirat\w*|captain|ships?|seas?|sail\w*|"
    r"treasure\w*|booty|rum|plunder\w*|crew|scurvy|cap'n|lads?|lass(ie)?)\b",
    re.IGNORECASE,
)
"""The second judge: words of pirates, drawn up before any text was looked at."""
THRESHOLD, N, TOKENS, RESAMPLES = 50, 2, 48, 1000
ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "results" / "likelihood_judge.md"
FIGURES = ROOT / "scripts" / "docs" / "result_figures.py"


@dataclass(frozen=True)
class Texts:
    """Texts of one kind, N a question, and their questions."""

    texts: list[str]
    asked: list[Conversation]

    def mapped(self, change: Callable[[str], str]) -> Texts:
        """The same with every text changed."""
        return Texts([change(text) for text in self.texts], self.asked)


def written(model: HookedModel, system: str | None, seed: int) -> Texts:
    """What the model writes under a system turn."""
    prompts = [Conversation(question, system) for question in QUESTIONS]
    made = steerlens.generate(model, prompts, n=N, seed=seed, max_new_tokens=TOKENS)
    return Texts(list(made.texts), [Conversation(QUESTIONS[i]) for i in made.prompt])


def kinds(model: HookedModel, seed: int) -> dict[str, Texts]:
    """Every kind of text; the prompted ones come first."""
    found = {"prompted": written(model, INSTRUCTION, seed), "plain": written(model, None, seed)}
    found["neutral instruction"] = written(model, NEUTRAL, seed)
    for name, persona in PERSONAS.items():
        found[f"persona: {name}"] = written(model, persona, seed)
    prompted, rng = found["prompted"], random.Random(seed)
    changes: dict[str, Callable[[str], str]] = {
        "prompted, words shuffled": lambda text: " ".join(
            rng.sample(text.split(), len(text.split()))
        ),
        "prompted, first 8 words looped": looped,
        "' pirate' 32 times": lambda text: " pirate" * 32,
        "instruction echoed": lambda text: INSTRUCTION,
        "instruction echoed 4 times": lambda text: " ".join([INSTRUCTION] * 4),
    }
    return found | {name: prompted.mapped(change) for name, change in changes.items()}


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """How often a text of the first kind scores above one of the second; ties count half."""
    above, below = positive.reshape(-1, 1), negative.reshape(1, -1)
    return float(((above > below) + 0.5 * (above == below)).mean())


def interval(positive: np.ndarray, negative: np.ndarray, seed: int) -> tuple[float, float]:
    """Of the AUROC, over resampled questions; scores are [question, sample]."""
    draws = resamples(len(QUESTIONS), RESAMPLES, seed)
    return percentile_interval(np.array([auroc(positive[d], negative[d]) for d in draws]))


def by_question(scores: Sequence[float]) -> np.ndarray:
    """[question, sample]."""
    return np.asarray(scores, dtype=np.float64).reshape(len(QUESTIONS), N)


def main_table(judge: Likelihood, found: dict[str, Texts], seed: int) -> list[str]:
    """A row for each kind."""
    scores = {name: by_question(judge(one.texts, one.asked)) for name, one in found.items()}
    rows = [
        "| texts | n | score | AUROC of prompted | 95 % | score of 50 or more | coherence "
        "| with a pirate word |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        score, coherence = scores[name], judge.coherence(one.texts, one.asked)
        low, high = interval(scores["prompted"], score, seed)
        told = "" if name == "prompted" else f"{auroc(scores['prompted'], score):.2f}"
        around = "" if name == "prompted" else f"{low:.2f} to {high:.2f}"
        words = sum(bool(LEXICON.search(text)) for text in one.texts)
        rows.append(
            f"| {name} | {score.size} | {score.mean():.0f} | {told} | {around} "
            f"| {int((score >= THRESHOLD).sum())} | {coherence.mean():.0f} | {words} |"
        )
    return rows


def variants(judge: Likelihood) -> dict[str, Callable[[Read], float]]:
    """Other ways to sum up the same log-probabilities, which the judge was chosen over."""

    def half(values: np.ndarray) -> float:
        return float(values[len(values) // 2 :].mean())

    return {
        "mean of d": lambda read: float((read.instructed - read.neutral).mean()),
        "clipped at 2": lambda read: float(read.clipped.mean()),
        "mean of d over the second half": lambda read: half(read.instructed - read.neutral),
        "clipped, new tokens (the judge)": lambda read: read.evidence(judge.plain),
    }


def variant_table(judge: Likelihood, found: dict[str, Texts]) -> list[str]:
    """The AUROC of prompted texts against every other kind, by way of summing up."""
    others = [name for name in found if name != "prompted"]
    rows = ["| | " + " | ".join(others) + " |", "|---" * (len(others) + 1) + "|"]
    reads = {name: judge.sides.read(one.texts, one.asked) for name, one in found.items()}
    for name, sum_up in variants(judge).items():
        e = {kind: np.array([sum_up(read) for read in some]) for kind, some in reads.items()}
        told = [f"{auroc(e['prompted'], e[kind]):.2f}" for kind in others]
        rows.append(f"| {name} | " + " | ".join(told) + " |")
    return rows


def page(name: str, judge: Likelihood, found: dict[str, Texts], seed: int) -> str:
    """The whole page."""
    first = "\n".join(main_table(judge, found, seed))
    second = "\n".join(variant_table(judge, found))
    sample = "\n".join(f"- {kind}: {one.texts[0]!r}" for kind, one in list(found.items())[:6])
    return TEXT.format(
        name=name,
        seed=seed,
        n=N,
        tokens=TOKENS,
        instruction=INSTRUCTION,
        neutral=NEUTRAL,
        resamples=RESAMPLES,
        plain=judge.plain,
        prompted=judge.prompted,
        picture=PICTURE,
        first=first,
        second=second,
        sample=sample,
    )


PICTURE = markdown_picture(
    "judge_auroc",
    "Marks with intervals, one for each kind of text: the AUROC of prompted texts against it.",
    "How often a prompted text scores above one of each other kind.",
)
TEXT = """\
# The likelihood judge

What it is: [`analysis/judges/likelihood.py`](../../analysis/judges/likelihood.py). Made by
`python scripts/judges/likelihood.py --model smollm2`, on {name}, seed {seed}.

The judge of "{instruction}" against "{neutral}"
has its scale from {n} completions of each of eight questions: plain text tells {plain:.3f} nats a
token, prompted text {prompted:.3f}. The table is of {n} texts of {tokens} tokens of each of eight
*other* questions. AUROC is how often a prompted text scores above one of that kind (1 always, 0.5
chance), with a 95 % interval from {resamples} resamples of the questions; eight questions are few,
and an interval that ends at 1 says no more than that no error was seen. "Score of 50 or more"
counts false alarms (for prompted text: what is found). The last column is the second judge, which
does not know the model: a list of pirate words.

{picture}

{first}

What it says, and what not:

- The score is likeness to this model's own prompted text. A text that a person would call a
  pirate's may score low, and the other way round.
- Another persona that talks unlike the plain model scores above it. Give a `neutral` instruction of
  the same shape, and score other personas beside your own.
- Loops and salad are for the coherence judge: look at both, and at some texts.

The same log-probabilities summed up in other ways, AUROC of prompted texts against each kind:

{second}

The first text of the first kinds, not chosen:

{sample}
"""


def main() -> None:
    """Make the judge, write and score the texts, write the page and draw its picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=DOC)
    given = parser.parse_args()
    model = steerlens.load(given.model)
    sampling = steerlens.Sampling(max_new_tokens=TOKENS, seed=given.seed)
    judge = likelihood(model, INSTRUCTION, SCALE_QUESTIONS, neutral=NEUTRAL, n=N, sampling=sampling)
    found = kinds(model, given.seed + 1)
    write_whole(given.out, page(Path(given.model).name, judge, found, given.seed).encode())
    print(f"Wrote {given.out}", flush=True)
    subprocess.run([sys.executable, FIGURES, given.out], check=True)


if __name__ == "__main__":
    main()
