"""Judges: texts in, scores from 0 to 100 out, without a judge model unless one is asked for."""

from steerlens.kinds import require_kinds

from .coherence import Coherence
from .formats import FormatJudge
from .likelihood import Likelihood, LikelihoodCoherence, likelihood
from .linear import ClassJudge
from .protocol import Judge
from .shipped import register, sentiment

ATTRIBUTES = (
    "positive",
    "negative",
    "lowercase",
    "exclamation",
    "no_commas",
    "short",
    "bullets",
    "fairytale",
    "encyclopedia",
    "review",
)
"""What the demonstration model can be asked for, and what `judge_of` has a judge for."""


def judge_of(attribute: str) -> ClassJudge | FormatJudge:
    """The judge of one of the demonstration model's attributes.

    >>> analysis.judge_of("lowercase")(["all small", "Not Small"])
    array([100.,   0.])
    """
    require_kinds(judge_of, locals())
    if attribute in ("positive", "negative"):
        return sentiment(attribute)
    if attribute in ("fairytale", "encyclopedia", "review"):
        return register(attribute)
    if attribute in ATTRIBUTES:
        return FormatJudge(attribute)
    raise ValueError(f"No attribute is called {attribute!r}. There are {', '.join(ATTRIBUTES)}.")


__all__ = [
    "ATTRIBUTES",
    "ClassJudge",
    "Coherence",
    "FormatJudge",
    "Judge",
    "Likelihood",
    "LikelihoodCoherence",
    "judge_of",
    "likelihood",
    "register",
    "sentiment",
]
