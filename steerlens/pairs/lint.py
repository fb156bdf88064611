"""`lint`: what is wrong with pairs, before anything is fitted on them, and of a fit what it reads.

Whether the sides differ in something else than the attribute is tested: where they were swapped
at random, a family of tests says so in at most `significance.ALPHA` of all cases.
"""

from collections.abc import Mapping
from typing import Any

from steerlens.kinds import require_kinds
from steerlens.pairs import confounds, damage
from steerlens.pairs.findings import SEVERITIES, Finding, Findings
from steerlens.pairs.fitted import Fitted, controls
from steerlens.pairs.looked_at import look_at
from steerlens.sites import Layer, Site
from steerlens.steering import Steering
from steerlens.types import HookedModel, VectorLike

CHECKS = (
    damage.empty,
    damage.identical,
    damage.contradictions,
    damage.duplicates,
    damage.uniform,
    damage.truncated,
    damage.letters,
    damage.few,
    confounds.length,
    confounds.words,
    confounds.opening,
    confounds.marks,
    confounds.scripts,
    confounds.parts,
)
"""Each looks for one thing, and gives what it found."""


def lint(
    pairs: Any,
    *,
    test: Any = None,
    model: HookedModel | None = None,
    steering: Steering | Mapping[Site, VectorLike] | Mapping[Layer, VectorLike] | None = None,
    paraphrases: Any = None,
) -> Findings:
    """A look at pairs: duplicates, contradictions, lengths, words, openings, scripts, letters.

    `pairs` is what `read_pairs` gives, the path of such a file, (positive, negative) lists of texts
    or conversations, or a list of PromptPair. With `test`, data of the same sort, what leaks from
    one into the other.

    After fitting, with a `model` and a `steering` (or directions by site), the AUROC with which the
    projection on the direction tells the sides apart: of these pairs, of `test`, of `paraphrases`
    (the same attribute in other words), of the words alone that tell the sides apart, and of the
    pairs without these words. ValueError for a steering that has no direction.
    """
    require_kinds(lint, locals())
    look = look_at(pairs)
    found = [one for check in CHECKS for one in check(look)]
    other = None if test is None else look_at(test)
    if other is not None:
        found += damage.leaks(look, other)
    numbers: dict[str, float] = {}
    if model is not None or steering is not None or paraphrases is not None:
        if model is None or steering is None:
            raise ValueError(
                "After a fit, lint takes both: lint(pairs, model=model, steering=steering). "
                "Paraphrases are scored by them."
            )
        said = None if paraphrases is None else look_at(paraphrases)
        fitted = Fitted.of(model, steering)
        numbers, more = controls(fitted, look, other, said)
        found += more
    found.sort(key=lambda one: SEVERITIES.index(one.severity))
    return Findings(look.about, len(look), tuple(found), numbers)


__all__ = ["Finding", "Findings", "lint"]
