"""What a method does besides: to unrelated text, to what the model knows, and to its own variety.

The unrelated texts are the 60 excerpts of encyclopedia articles of the frozen cloze items, which no
method has seen; the strength is the one that the test scores have. Kept are numbers of each text or
item, so that any mean and interval can be made of them.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.baselines.weights import Change

from ..measures.cloze import Cloze, cloze_answers, frozen_cloze
from ..measures.diversity import distinct_n
from ..measures.refusals import refusal_in
from ..measures.side_effects import kl_by_text, token_kl
from ..measures.texts import Predicted, TextIs
from .cells import Cell
from .fitting import at_strength
from .maker import Maker

NGRAM = 2
AS_RESPONSE: TextIs = "response"
AS_PROMPT: TextIs = "prompt"


def side(maker: Maker, cell: Cell) -> dict[str, Any]:
    """Numbers of each excerpt, of each cloze item, and of each of the method's own completions.

    `nll` and `kl` (from the unsteered) are nats summed over the `tokens` of an excerpt; an item
    is `correct` with a `margin`; a completion has `distinct` bigrams over its words, and is
    `refused` where it opens as a refusal does. Scopes see an excerpt as a response, or, where a
    method acts on a prompt's first positions and refuses one that is shorter (ActAdd), as the
    prompt: `text_is`. The unsteered model has a cell of its own, without a fit. None for a fit
    that came to nothing.
    """
    change: Change = None
    if "fit" in cell.settings:
        change = at_strength(maker, Cell.of_json(cell["fit"]), cell["strength"])
        if change is None:
            return {"nll": None}
    items = frozen_cloze()
    text_is, nll, kl = _on_excerpts(maker, change, [excerpt(item) for item in items])
    answers = cloze_answers(maker.model, change, items)
    own = [row[0] for row in maker.result(Cell.of_json(cell["of"]))["texts"]]
    return {
        "text_is": text_is,
        "nll": [-float(log_p.sum()) for log_p in nll],
        "kl": kl,
        "tokens": [len(log_p) for log_p in nll],
        "correct": [bool(one) for one in answers["correct"]],
        "margin": answers["margin"].tolist(),
        "distinct": distinct_n(own, NGRAM)["distinct_n"].tolist(),
        "refused": [refusal_in(text) is not None for text in own],
    }


def _on_excerpts(
    maker: Maker, change: Change, texts: list[str]
) -> tuple[TextIs, list[Float[Tensor, " _"]], list[float]]:
    """How the texts were seen, the log-probabilities of their tokens, and the KL of each; nats."""
    for text_is in (AS_RESPONSE, AS_PROMPT):
        rows = Predicted.of(maker.model, texts, text_is=text_is)
        try:
            log_p = list(rows.log_p(maker.model, change))
        except ValueError:
            if text_is == AS_PROMPT:
                raise
            continue
        if change is None:
            return text_is, log_p, [0.0] * len(texts)
        table = token_kl(maker.model, {"it": change}, texts, text_is=text_is)
        return text_is, log_p, kl_by_text(table)["kl_sum"].tolist()
    raise AssertionError("not reached")


def excerpt(item: Cloze) -> str:
    """The text that an item was made of, as far as its target."""
    return f"{item.before} {item.target}"
