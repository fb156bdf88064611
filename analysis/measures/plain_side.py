"""What a prompt is compared with: the plain side of every pair, by the keyword `baseline`.

"template"      as the pair has it: without a system turn, what the chat template puts there itself
"none"          no system turn at all
"neutral"       the instruction `NEUTRAL`, which asks for nothing
any other text  that text as the instruction

In the first layers most of what an instruction does is that of any instruction. Against "template"
or "none" that part belongs to the prompt's push, against "neutral" it does not. Tables say which
one they have: `table.attrs["baseline"]`, and in words `table.attrs["plain_system"]`.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from steerlens.conversations import Conversation, is_messages
from steerlens.prompts import Encoded, PromptPair, Prompts, encode, encode_all, encode_pair
from steerlens.templates import plain_system
from steerlens.types import HookedModel

NEUTRAL = "You are a person. Talk like a person."
"""An instruction that asks for nothing, of a usual shape."""

BY_TEMPLATE, NO_SYSTEM, NEUTRALLY = "template", "none", "neutral"
ANY_INSTRUCTION = "any instruction"
"""The neutral instruction where it is measured as if it were a method."""


def require_baseline(baseline: object) -> None:
    """Raise ValueError unless `baseline` is a text that is not blank."""
    if not isinstance(baseline, str) or not baseline.strip():
        raise ValueError(
            f"baseline={baseline!r}: what the prompt is compared with is 'template' (what the chat "
            "template puts there by itself), 'none' (no system turn), 'neutral' (an instruction "
            "that asks for nothing), or the text of another instruction."
        )


def require_pairs(pairs: Sequence[object]) -> None:
    """Raise TypeError unless every one is a PromptPair."""
    wrong = [pair for pair in pairs if not isinstance(pair, PromptPair)]
    if wrong:
        raise TypeError(
            f"The pairs are PromptPairs, each with a response; found a {type(wrong[0]).__name__}. "
            "steerlens.prompted_pairs(model, questions, instruction) lets the prompted model "
            "answer; PromptPair.with_system(question, instruction, response) takes an answer."
        )


def instruction_of(baseline: str) -> str | None:
    """The instruction that the plain side gets; None for none."""
    if baseline in (BY_TEMPLATE, NO_SYSTEM):
        return None
    return NEUTRAL if baseline == NEUTRALLY else baseline


def against(pairs: Sequence[PromptPair], baseline: str) -> list[PromptPair]:
    """The pairs with the plain side that `baseline` names; "none" is left to `rows_of`."""
    require_baseline(baseline)
    return [_against(pair, baseline) for pair in pairs]


def _against(pair: PromptPair, baseline: str) -> PromptPair:
    if baseline == BY_TEMPLATE:
        return pair
    text, plain, prompted = instruction_of(baseline), pair.plain, pair.prompted
    if not isinstance(plain, Conversation):
        if text is None:
            return pair  # raw text has no system turn
        raise ValueError(
            f"baseline={baseline!r} is the system turn of the plain side, and this pair's plain "
            f"side is raw text, {str(plain)[:40]!r}. Give Conversations, or write the instruction "
            "into the raw text yourself and take baseline='template'."
        )
    if text is not None and isinstance(prompted, Conversation) and prompted.system == text:
        raise ValueError(
            f"The baseline is the instruction itself, {text!r}, so the prompt changes nothing. "
            "Take another baseline: 'template', 'none', or another text."
        )
    return replace(pair, plain=replace(plain, system=text))


def rows_of(model: HookedModel, pair: PromptPair, baseline: str) -> tuple[Encoded, Encoded]:
    """The (plain, prompted) rows of a pair against a baseline."""
    require_pairs([pair])
    return encode_pair(model, _against(pair, baseline), bare=baseline == NO_SYSTEM)


def alone_rows(model: HookedModel, texts: Prompts, baseline: str) -> list[Encoded]:
    """Texts without a prompted side; conversations without a system turn get the baseline's."""
    if baseline == BY_TEMPLATE:
        return encode_all(model, texts)
    single = isinstance(texts, str | Conversation | Encoded) or is_messages(texts)
    listed = [texts] if single or isinstance(texts, tuple) else texts
    return [_alone(model, text, baseline) for text in listed]  # pyright: ignore


def _alone(model: HookedModel, prompt: object, baseline: str) -> Encoded:
    asked = Conversation.of(prompt) if is_messages(prompt) else prompt
    if not isinstance(asked, Conversation):
        raise ValueError(
            f"baseline={baseline!r} says which system turn a conversation has that came without "
            "one, and raw text or token ids have no turns. Give Conversations, or leave it out."
        )
    text = instruction_of(baseline)
    asked = asked if asked.system is not None or text is None else replace(asked, system=text)
    return encode(model, asked, bare=baseline == NO_SYSTEM)


def plain_side(model: HookedModel, baseline: str) -> str:
    """In words, the system text of the plain side."""
    if baseline == BY_TEMPLATE:
        return plain_system(model)
    text = instruction_of(baseline)
    if text is None:
        return "none"
    return f"{text!r}, the {'neutral instruction' if baseline == NEUTRALLY else 'baseline'}"


def noted(
    table: pd.DataFrame,
    model: HookedModel,
    baseline: str = BY_TEMPLATE,
    sinks: float | None = None,
) -> pd.DataFrame:
    """The table, with what its plain side is, and how many medians long a token is a sink."""
    table.attrs["baseline"] = baseline
    table.attrs["plain_system"] = plain_side(model, baseline)
    if sinks is not None:
        table.attrs["sinks"] = float(sinks)
    return table
