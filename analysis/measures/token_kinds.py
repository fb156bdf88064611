"""What kind of token each is, by rules that can be read here: no tagger, no other language.

In this order, the first that fits:

first            the first token of the response
punctuation      no letter and no digit in it
number           a digit in it
within a word    begins without a space, directly after a letter or a digit
sentence start   the first word after `.`, `!`, `?`, `:` or a line break
function word    an English word of `FUNCTION_WORDS` (articles, pronouns, prepositions, ...)
content word     any other word

For other languages, or for real word classes, give `by_kind` a column of your own.
"""

import re

import pandas as pd

KINDS = (
    "first",
    "punctuation",
    "number",
    "within a word",
    "sentence start",
    "function word",
    "content word",
)
FUNCTION_WORDS = frozenset(
    """
    a an the this that these those i you he she it we they me him her us them my your his its
    our their mine yours hers ours theirs who whom whose which what and or but nor so yet for if
    then than because as until while of at by with about against between into through during
    before after above below to from up down in out on off over under again not no be am is are
    was were been being have has had having do does did doing will would shall should can could
    may might must there here when where why how all any both each few more most other some such
    only own same too very just
    """.split()  # noqa: SIM905
)
_ENDS = frozenset(".!?:\n")
_PART = re.compile(r"(.+)⟨\d/\d⟩", re.DOTALL)


def kinds_of(table: pd.DataFrame) -> pd.Series:
    """The kind of each row's token, which its example's tokens before it decide."""
    tokens = table[["example", "token_index", "token"]].drop_duplicates(["example", "token_index"])
    kinds: dict[tuple[object, object], str] = {}
    for example, part in tokens.sort_values("token_index").groupby("example", sort=False):
        texts = [whole(text) for text in part["token"]]
        for number, (place, text) in enumerate(zip(part["token_index"], texts, strict=True)):
            first = number == 0 and place == 0
            kinds[example, place] = (
                "first" if first else kind_of(text, "".join(texts[:number][-6:]))
            )
    keys = zip(table["example"], table["token_index"], strict=True)
    return pd.Series([kinds[key] for key in keys], index=table.index, dtype=object)


def kind_of(token: str, before: str) -> str:
    """The kind of a token that is not the first, after this text."""
    bare = token.strip()
    if not any(c.isalnum() for c in bare):
        return "punctuation"
    if any(c.isdigit() for c in bare):
        return "number"
    if token[0].isalpha() and before[-1:].isalnum():
        return "within a word"
    said = before.rstrip(" \"'“”‘’()*")
    if not said or said[-1] in _ENDS or token[0] == "\n":
        return "sentence start"
    return "function word" if bare.lower() in FUNCTION_WORDS else "content word"


def whole(token: str) -> str:
    """The character of a token that is part of one (`steerlens.pieces`)."""
    found = _PART.fullmatch(token)
    return found[1] if found else token
