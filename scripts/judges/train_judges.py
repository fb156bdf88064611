"""Train the judges of sentiment and register, and the list of known words, from the corpora.

    python scripts/judges/train_judges.py --corpus ../shared/corpus

writes `sentiment.safetensors`, `register.safetensors` and `words.safetensors` into
`analysis/judges`. Only what the demonstration model may see is read: no test review, no title for
which `held_out` is true. Sentiment is fitted on whole reviews and on passages of them, because
completions are short. One training text in ten is kept out of the fit, for the calibration.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, diags
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo_model"))
from conversations import (
    DEFAULT_CORPUS,
    REGISTER_OF_SOURCE,
    Corpora,
    clean_article,
    clean_review,
)

from analysis.judges.linear import HERE, WORDS, Classifier, as_bytes, ngrams_of, words_of
from steerlens.digests import write_tensors

PASSAGE_WORDS = (25, 120)
PASSAGES_OF_A_REVIEW = 2
Labelled = tuple[list[str], list[int]]


def passage(text: str, rng: random.Random) -> str:
    """Some neighbouring words of a text, from its beginning or from anywhere."""
    words, length = text.split(), rng.randint(*PASSAGE_WORDS)
    latest = max(len(words) - length, 0)
    start = rng.choice((0, rng.randint(0, latest)))
    return " ".join(words[start : start + length])


def sentiment_texts(corpora: Corpora, rng: random.Random) -> tuple[Labelled, Labelled]:
    """(texts, labels) to fit on and to calibrate on; label 1 is positive."""
    parts: tuple[Labelled, Labelled] = ([], []), ([], [])
    for label, reviews in enumerate((corpora.negative, corpora.positive)):
        for i, review in enumerate(reviews):
            text = clean_review(review)
            texts, labels = parts[i % 10 == 0]
            for one in (text, *(passage(text, rng) for _ in range(PASSAGES_OF_A_REVIEW))):
                texts.append(one)
                labels.append(label)
    return parts


def register_texts(corpora: Corpora, rng: random.Random, count: int = 8000) -> tuple:
    """(texts, labels) to fit on and to calibrate on, `count` passages of each register."""
    sources = {
        "review": [clean_review(text) for text in rng.sample(corpora.unlabelled, count)],
        "article": [clean_article(text) for _, text in rng.sample(corpora.articles, count)],
        "tale": [text for _, text in corpora.clean_tales],
    }
    parts: tuple[Labelled, Labelled] = ([], []), ([], [])
    for label, source in enumerate(REGISTER_OF_SOURCE):
        for i in range(count):
            which = i % len(sources[source])
            texts, labels = parts[which % 10 == 0]
            texts.append(passage(sources[source][which], rng))
            labels.append(label)
    return parts


def unit_rows(x: csr_matrix) -> csr_matrix:
    """Binary rows scaled to length one."""
    counts = np.maximum(np.asarray(x.sum(axis=1)).ravel(), 1)
    return diags(counts**-0.5) @ x


def log_ratios(x: csr_matrix, y: np.ndarray, classes: int) -> np.ndarray:
    """Largest spread of the log probability of each feature over the classes (naive Bayes)."""
    logs = []
    for label in range(classes):
        counts = np.asarray(x[y == label].sum(axis=0)).ravel() + 1
        logs.append(np.log(counts / counts.sum()))
    return np.ptp(np.stack(logs), axis=0)


def fitted(
    texts: list[str], labels: list[int], classes: tuple[str, ...], size: int, strength: float
) -> Classifier:
    """The classifier on the `size` n-grams that matter most, not yet calibrated."""
    counter = CountVectorizer(analyzer=ngrams_of, binary=True, min_df=12, dtype=np.float32)
    x, y = counter.fit_transform(texts), np.array(labels)
    names = counter.get_feature_names_out()
    for kept in (size, None):
        ratios = log_ratios(x, y, len(classes))
        model = LogisticRegression(C=strength, max_iter=200)
        model.fit(unit_rows(x) @ diags(ratios), y)
        weights = model.coef_ * ratios
        if kept is not None:
            weight = np.abs(weights).max(axis=0) * np.asarray(x.sum(axis=0)).ravel() ** 0.5
            best = np.sort(np.argsort(-weight, kind="stable")[:kept])
            x, names = x[:, best], names[best]
    bias = model.intercept_
    if len(classes) == 2:
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return Classifier(
        classes, tuple(names), weights.T.astype(np.float32), bias, calibration=np.zeros(2)
    )


def calibrated(raw: Classifier, texts: list[str], labels: list[int]) -> Classifier:
    """The classifier with the calibration that makes the labels most probable."""
    rows = [raw.rows(text) for text in texts]
    kept = [i for i, found in enumerate(rows) if len(found)]
    sizes = np.array([len(rows[i]) for i in kept])
    z = np.stack([raw.weights[rows[i]].sum(axis=0) / len(rows[i]) ** 0.5 for i in kept]) + raw.bias
    y = np.array(labels)[kept]

    def loss(calibration: np.ndarray) -> float:
        scaled = z * np.exp(calibration[0] + calibration[1] * np.log(sizes))[:, None]
        scaled -= scaled.max(axis=1, keepdims=True)
        log_p = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return -log_p[np.arange(len(y)), y].mean()

    best = minimize(loss, np.zeros(2), method="Nelder-Mead").x
    print(f"calibration {best}, loss {loss(np.zeros(2)):.4f} -> {loss(best):.4f}")
    return Classifier(raw.classes, raw.ngrams, raw.weights, raw.bias, best)


def known_words(corpora: Corpora, fewest: int = 4) -> list[str]:
    """Words that occur at least `fewest` times in the training texts."""
    texts = [*corpora.positive, *corpora.negative, *corpora.unlabelled]
    counts: Counter[str] = Counter()
    for text in (*map(clean_review, texts), *(clean_article(text) for _, text in corpora.articles)):
        counts.update(words_of(text))
    for _, text in corpora.clean_tales:
        counts.update(words_of(text))
    return sorted(word for word, count in counts.items() if count >= fewest)


def main() -> None:
    """Train and write everything."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--to", type=Path, default=HERE)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    corpora, rng = Corpora.read(arguments.corpus), random.Random(arguments.seed)
    words = as_bytes(known_words(corpora))
    write_tensors(arguments.to / "words.safetensors", {"words": torch.tensor(words)}, WORDS)
    registers = tuple(REGISTER_OF_SOURCE.values())
    fit, check = register_texts(corpora, rng)
    raw = fitted(*fit, registers, size=12_000, strength=1.0)
    calibrated(raw, *check).save(arguments.to / "register.safetensors")
    fit, check = sentiment_texts(corpora, rng)
    raw = fitted(*fit, ("negative", "positive"), size=80_000, strength=1.0)
    calibrated(raw, *check).save(arguments.to / "sentiment.safetensors")


if __name__ == "__main__":
    main()
