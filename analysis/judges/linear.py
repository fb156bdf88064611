"""Sentiment and register: linear n-gram classifiers whose weights are in this package.

A text is the set x of its known words, word pairs and word triples, lower-cased and without
punctuation, so that no format changes a score. With one row of weights W for each class,

    z = W x / sqrt(|x|) + b        p = softmax(z exp(s0 + s1 log |x|))        score = 100 p_class

(binary n-grams in a unit-length vector with naive-Bayes scaling folded into W: Wang & Manning 2012,
"Baselines and Bigrams"). s0 and s1 are the calibration: a longer text allows more certainty, and
they make p match the share of right answers on reviews held out from the fit. The weights come
from `scripts/judges/train_judges.py`, the measurements from `scripts/demo_model/report.py`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from steerlens.digests import read_tensors, write_tensors

from .domain import Sign, warn_outside
from .protocol import Prompt, Scores, require_texts

HERE = Path(__file__).parent
LONGEST_NGRAM = 3
JUDGE, WORDS = "judge", "known words"
"""What the files of a classifier and of the known words say that they are."""


def words_of(text: str) -> list[str]:
    """The words of a text: letters and digits, with apostrophes inside, lower-cased."""
    return re.findall(r"[a-z0-9]+(?:'[a-z0-9]+)*", text.lower().replace("’", "'"))


def ngrams_of(text: str) -> set[str]:
    """The different words, pairs and triples of neighbouring words in a text."""
    words = words_of(text)
    return {
        " ".join(words[start : start + length])
        for length in range(1, LONGEST_NGRAM + 1)
        for start in range(len(words) - length + 1)
    }


@dataclass(frozen=True, eq=False)
class Classifier:
    """Weights of a linear n-gram classifier; `classes` name the columns."""

    classes: tuple[str, ...]
    ngrams: tuple[str, ...]
    weights: Float[np.ndarray, "ngram classes"]
    bias: Float[np.ndarray, " classes"]
    calibration: Float[np.ndarray, " two"]

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {ngram: row for row, ngram in enumerate(self.ngrams)}

    def rows(self, text: str) -> Int[np.ndarray, " known"]:
        """Rows of the known n-grams of a text."""
        found = (self._row_of.get(ngram) for ngram in ngrams_of(text))
        return np.array(sorted(row for row in found if row is not None), dtype=np.int64)

    def probabilities(self, texts: Sequence[str]) -> Float[np.ndarray, "text classes"]:
        """Probability of each class; NaN for a text without a single known n-gram."""
        found = np.full((len(texts), len(self.classes)), np.nan)
        for i, text in enumerate(texts):
            rows = self.rows(text)
            if len(rows):
                z = self.weights[rows].sum(axis=0, dtype=np.float64) / len(rows) ** 0.5 + self.bias
                z = z * np.exp(self.calibration[0] + self.calibration[1] * np.log(len(rows)))
                p = np.exp(z - z.max())
                found[i] = p / p.sum()
        return found

    def evidence(self, text: str, of: str, n: int = 10) -> list[tuple[str, float]]:
        """The n-grams of a text that speak most strongly for or against a class, with weights."""
        column = self.weights[:, self.classes.index(of)]
        rows = sorted(self.rows(text), key=lambda row: -abs(column[row]))[:n]
        return [(self.ngrams[row], float(column[row])) for row in rows]

    def save(self, path: Path) -> None:
        """Write the weights in float16 as safetensors."""
        arrays = {
            "classes": as_bytes(self.classes),
            "ngrams": as_bytes(self.ngrams),
            # safetensors writes the memory as it lies, whatever the order of the axes
            "weights": np.ascontiguousarray(self.weights, dtype=np.float16),
            "bias": self.bias.astype(np.float32),
            "calibration": self.calibration.astype(np.float32),
        }
        write_tensors(path, {name: torch.tensor(array) for name, array in arrays.items()}, JUDGE)

    @classmethod
    def load(cls, path: Path) -> "Classifier":
        """Read what `save` wrote; ValueError if it is damaged."""
        try:
            arrays = {name: array.numpy() for name, array in read_tensors(path, JUDGE).items()}
            classes, ngrams = as_texts(arrays["classes"]), as_texts(arrays["ngrams"])
            weights = arrays["weights"].astype(np.float32)
            bias, calibration = (arrays[name].astype(float) for name in ("bias", "calibration"))
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{path} holds no judge ({error}). Reinstall steerlens, or train it again with "
                "scripts/judges/train_judges.py."
            ) from error
        if weights.shape != (len(ngrams), len(classes)) or len(bias) != len(classes):
            raise ValueError(
                f"{path} is damaged: {len(ngrams)} n-grams and {len(classes)} classes, but weights "
                f"of shape {weights.shape}. Reinstall steerlens."
            )
        return cls(classes, ngrams, weights, bias, calibration)


def as_bytes(texts: Sequence[str]) -> np.ndarray:
    """Texts without line breaks as one array of bytes, as they are kept in a file."""
    return np.frombuffer("\n".join(texts).encode(), dtype=np.uint8)


def as_texts(array: np.ndarray) -> tuple[str, ...]:
    """The texts of `as_bytes`."""
    return tuple(array.tobytes().decode().split("\n"))


@dataclass(frozen=True)
class ClassJudge:
    """100 times the probability that a text is of the class `name`; needs no prompts.

    `domain` says what it may be used on, and `signs` what shows that a text is something else.
    """

    name: str
    classifier: Classifier
    domain: str = ""
    signs: tuple[Sign, ...] = ()

    def __call__(self, texts: Sequence[str], prompts: Sequence[Prompt] | None = None) -> Scores:
        require_texts(texts, prompts)
        warn_outside(self.name, self.domain, texts, self.signs)
        column = self.classifier.classes.index(self.name)
        return 100 * self.classifier.probabilities(texts)[:, column]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


@cache
def sentiment_classifier() -> Classifier:
    """Negative and positive, from the training reviews."""
    return Classifier.load(HERE / "sentiment.safetensors")


@cache
def register_classifier() -> Classifier:
    """Review, encyclopedia and fairy tale, from the training parts of the three corpora."""
    return Classifier.load(HERE / "register.safetensors")
