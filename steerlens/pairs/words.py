"""Words, scripts and languages of texts, as far as a look at pairs needs them."""

import re
import unicodedata
from collections import Counter
from functools import cache, lru_cache

_WORD = re.compile(r"\w+(?:['’]\w+)*")
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
"""Scripts without spaces: there every letter counts as a word."""
FUNCTION_WORDS = {
    "English": "the and of to is that it was for with as this are not have you be on at by from",
    "German": "der die das und ist nicht ich ein eine zu den mit sich auf für es dem von sie wir",
    "French": "le la les et est un une des que pas je vous dans pour qui ce sur avec nous il",
    "Spanish": "el los las y es un una que de no por con para su se lo como más pero esta",
    "Italian": "il di che è non un una per con sono del della mi si ma come più questo gli anche",
    "Portuguese": "o os as e é um uma que não de para com do da em se mais mas como você",
    "Dutch": "de het een en is niet van ik dat op te zijn voor met die maar ook er aan hij",
}
"""So many of these in a text tell its language; words of two languages count for both."""
_LANGUAGES = {name: frozenset(words.split()) for name, words in FUNCTION_WORDS.items()}
TELLING = 3
"""So many function words at least tell a language."""


@lru_cache(maxsize=20_000)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a text in small letters; of scripts without spaces, the letters."""
    found = _WORD.findall(text.casefold())
    return tuple(part for word in found for part in _parts(word))


def _parts(word: str) -> list[str]:
    return list(word) if script_of_letter(word[0]) in UNSPACED else [word]


def plain(text: str) -> str:
    """The text without case, marks and spacing: what two copies share."""
    return " ".join(words_of(text)) or " ".join(text.split())


@cache
def script_of_letter(letter: str) -> str | None:
    """LATIN, CYRILLIC, CJK, ...: the first word of a letter's name; None for what is no letter."""
    if not letter.isalpha():
        return None
    return unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0]


def script_of(text: str) -> str | None:
    """The script of most letters of a text; None for one without letters."""
    counts = Counter(script for letter in text if (script := script_of_letter(letter)))
    return counts.most_common(1)[0][0] if counts else None


def language_of(text: str) -> str | None:
    """The language whose function words are most of a text's; None where that is not clear."""
    said = words_of(text)
    hits = {name: sum(word in words for word in said) for name, words in _LANGUAGES.items()}
    (first, most), (_, second) = sorted(hits.items(), key=lambda one: -one[1])[:2]
    return first if most >= TELLING and most > second else None
