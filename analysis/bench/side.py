"""What a method does besides: to unrelated text, to what the model knows, and to its own variety.

The unrelated texts are the 60 excerpts of encyclopedia articles of the frozen cloze items, which no
method has seen; the strength is the one that the test scores have. Kept are numbers of each text or
item, so that any mean and interval can be made of them.
"""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from steerlens.baselines.weights import Change
from steerlens.prompts import Encoded, encode

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
    prompt: `text_is`. Items that are shorter than that are left out: `items` are the numbers of
    those that are measured. The unsteered model has a cell of its own, without a fit. `nll` is None
    for a fit that came to nothing, and for a method that takes none of the items.
    """
    change: Change = None
    if "fit" in cell.settings:
        change = at_strength(maker, Cell.of_json(cell["fit"]), cell["strength"])
        if change is None:
            return {"nll": None}
    items = frozen_cloze()
    taken = taken_items(maker, change, items)
    if not taken:
        return {"nll": None, "items": []}
    items = [items[number] for number in taken]
    text_is, nll, kl = _on_excerpts(maker, change, [excerpt(item) for item in items])
    answers = cloze_answers(maker.model, change, items)
    own = [row[0] for row in maker.result(Cell.of_json(cell["of"]))["texts"]]
    return {
        "items": taken,
        "text_is": text_is,
        "nll": [-float(log_p.sum()) for log_p in nll],
        "kl": kl,
        "tokens": [len(log_p) for log_p in nll],
        "correct": [bool(one) for one in answers["correct"]],
        "margin": answers["margin"].tolist(),
        "distinct": distinct_n(own, NGRAM)["distinct_n"].tolist(),
        "refused": [refusal_in(text) is not None for text in own],
    }


def taken_items(maker: Maker, change: Change, items: Sequence[Cloze]) -> list[int]:
    """The numbers of the items whose beginning a method takes as a prompt: all, for nearly all."""
    if change is None:  # the model as it is refuses none, so nothing need be run
        return list(range(len(items)))
    rows = [encode(maker.model, item.before) for item in items]
    if _takes(maker, change, rows):
        return list(range(len(items)))
    return [number for number, row in enumerate(rows) if _takes(maker, change, [row])]


def _takes(maker: Maker, change: Change, rows: Sequence[Encoded]) -> bool:
    """Whether a method steers these prompts: an ActAdd that is longer than one of them does not."""
    try:
        Predicted(tuple(rows), (1,) * len(rows)).log_p(maker.model, change)
    except ValueError:
        return False
    return True


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
