"""The judges of sentiment and register, and what shows that they do not know a kind of text.

Both have read film reviews, encyclopedia articles and fairy tales, and nothing else. What remains
wrong, and is not seen by any sign or only in clear cases:

- Sentiment adds up n-grams of up to three words, so it misses a "not" that is further away, irony,
  and what is said about others. Five words of praise put into any text make it "positive". Of chat
  and other prose it reads the few words that reviews share with it.
- Register has to choose one of three. Chat is mostly a "review", since reviews say "I" and "it's".
- Chat is told by the words of one who answers somebody. A chat that says neither "you" nor "help",
  a recipe, a poem or a news item passes for what it is not.
"""

import re
from functools import cache

import numpy as np

from .coherence import known_share
from .domain import FOREIGN, Sign
from .linear import (
    Classifier,
    ClassJudge,
    register_classifier,
    sentiment_classifier,
    words_of,
)

STRONG = 300
"""How many words count as praise or blame."""
REACH = 3
"""How many words a negation reaches over."""
FEWEST_WORDS = 10
"""Different words below which nothing is said about the kind of a text."""
LEAST_KNOWN = 0.9
"""The share of known words below which nothing is said about it either."""
CHATTY = 0.04
"""The share of ADDRESS that makes chat. It is met by half of SmolLM2's answers, by 2 to 9 in 100
of the frozen set's texts, and by 6 in 100 reviews and 16 in 100 tales that people wrote."""
ADDRESS = frozenset(
    {
        *("you", "your", "yours", "yourself", "you're", "you'll", "you've", "you'd"),
        *("help", "can", "please", "here", "sure", "assist", "important", "ensure"),
    }
)
"""Words of one who answers somebody."""
SURE = 0.9
"""The probability from which on another register is believed."""
NEGATION = re.compile(r"not|no|never|nor|neither|hardly|without|cannot|.*n't")

REVIEWS = (
    "film reviews in English, of some ten words or more, and none that says what it thinks by "
    "negation"
)
REGISTERS = (
    "English text that is a film review, an encyclopedia article or a fairy tale, of some ten "
    "words or more"
)


def sentiment(name: str = "positive") -> ClassJudge:
    """The judge of `"positive"` or `"negative"`; the two scores of a text add up to 100.

    For film reviews in English. It warns where texts are not in Latin letters, where more than one
    in ten negates half of its words of praise and blame, and where more than one in four, and three
    or more, are like chat or are articles or tales.
    """
    return _class_judge(name, sentiment_classifier(), REVIEWS, (FOREIGN, NEGATED, CHAT, NO_REVIEW))


def register(name: str) -> ClassJudge:
    """The judge of `"review"`, `"encyclopedia"` or `"fairytale"`.

    For English text that is one of these. It warns where texts are not in Latin letters, and where
    more than one in four, and three or more, are like chat.
    """
    return _class_judge(name, register_classifier(), REGISTERS, (FOREIGN, CHAT))


def negates(text: str) -> bool:
    """Whether a text negates two words of praise or blame or more, and at least half of them."""
    words = words_of(text)
    strong = [i for i, word in enumerate(words) if word in _strong_words()]
    negated = sum(any(map(NEGATION.fullmatch, words[max(i - REACH, 0) : i])) for i in strong)
    return negated >= 2 and 2 * negated >= len(strong)


@cache
def _strong_words() -> frozenset[str]:
    """The words that tell most about sentiment."""
    classifier = sentiment_classifier()
    gap = np.abs(classifier.weights[:, 0] - classifier.weights[:, 1])
    words = [i for i in np.argsort(-gap) if " " not in classifier.ngrams[i]]
    return frozenset(classifier.ngrams[i] for i in words[:STRONG])


def _tells(text: str) -> bool:
    """Whether a text is long and whole enough to tell its kind: broken text is of none."""
    return len(set(words_of(text))) >= FEWEST_WORDS and known_share(text) >= LEAST_KNOWN


def is_chat(text: str) -> bool:
    """Whether a text speaks to its reader, as an assistant does: by 4 % of its words."""
    words = words_of(text)
    return _tells(text) and sum(word in ADDRESS for word in words) >= CHATTY * len(words)


def is_no_review(text: str) -> bool:
    """Whether a text is surely an article or a tale."""
    classifier = register_classifier()
    review = classifier.classes.index("review")
    return _tells(text) and bool(classifier.probabilities([text])[0, review] <= 1 - SURE)


NEGATED = Sign("negating most of their praise or blame", negates, 0.1)
CHAT = Sign("like chat", is_chat, 0.25, 3)
NO_REVIEW = Sign("articles or tales", is_no_review, 0.25, 3)


def _class_judge(
    name: str, classifier: Classifier, domain: str, signs: tuple[Sign, ...]
) -> ClassJudge:
    if name not in classifier.classes:
        raise ValueError(f"No class is called {name!r}. There are {', '.join(classifier.classes)}.")
    return ClassJudge(name, classifier, domain, signs)
