"""Which tokens of a row the chat template wrote, so that a picture can fold them up."""

from steerlens.borders import split_at
from steerlens.conversations import Conversation
from steerlens.prompts import Encoded, PromptPair
from steerlens.templates import tokenizer_of
from steerlens.types import HookedModel


def of_template(model: HookedModel, row: Encoded, pair: PromptPair) -> list[bool]:
    """Which tokens of a row the template wrote: before the response, all but the user's words.

    The turns before the question count as written by the template. Where the words cannot be found
    again, or there are no turns, no token counts.
    """
    words = pair.plain.user.strip() if isinstance(pair.plain, Conversation) else ""
    start = (row.text or "").rfind(words) if words else -1
    if row.text is None or start < 0:
        return [False] * len(row.ids)
    ends = (start, start + len(words))
    first, after = (len(split_at(tokenizer_of(model), row.text, end)[0]) for end in ends)
    return [
        place < min(first, row.response) or after <= place < row.response
        for place in range(len(row.ids))
    ]
