"""Claim 6, the experiments of ActAdd: perplexity by topic, tokens, layers, knowledge, time.

    python scripts/bench/act_add.py --model smollm2 --corpus CORPUS

The corpus is a folder with `reviews.parquet` (split, text) and `encyclopedia.parquet` (text). The
prompt is " weddings" against padding, as in the paper's main example; layer and c are chosen on
reviews of the split "train" by the perplexity ratio of those with three wedding words or more, and
everything else is measured on reviews of the split "test" and on encyclopedia text. It is written
to docs/results/cells/act_add_MODEL.json, and the page is made of that file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

import steerlens as sl
from analysis.measures.cloze import cloze_scores, cloze_summary, frozen_cloze
from analysis.measures.overhead import overhead
from analysis.measures.topic_words import topic_words_by_layer
from analysis.measures.topics import (
    probability_shifts,
    topic_frequency,
    topic_perplexity,
    topic_summary,
)
from steerlens.types import HookedModel
from steerlens.whole import write_whole

CELLS = Path(__file__).parents[2] / "docs" / "results" / "cells"
PROMPTS = (" weddings", "")
WORDS = ("wedding", "weddings", "wed", "marry", "married", "marriage", "bride", "groom",
         "honeymoon")  # fmt: skip
"""The topic words of the paper, as far as a review would have them."""
BEGINNING = "I went up to my friend and said"
STRENGTHS = (1.0, 2.0, 4.0, 8.0)
TOKENS, SKIP = 128, 8
"""Tokens of a text that are predicted, and those at its start where the addition acts."""
ON_TOPIC, OFF_TOPIC, CHOSEN_ON, LEAST = 120, 60, 40, 3
SHARE_OF_TOPIC = 0.01
"""From this share of wedding words on a text is of the topic."""


def reviews(corpus: Path, split: str) -> pd.DataFrame:
    """The reviews of a split with their share of topic words."""
    table = pd.read_parquet(corpus / "reviews.parquet")
    texts = table.loc[table["split"] == split, "text"]
    found = pd.DataFrame({"text": texts, "share": [topic_frequency(t, WORDS) for t in texts]})
    found["count"] = [round(share * len(text.split())) for text, share in
                      zip(found["text"], found["share"], strict=True)]  # fmt: skip
    return found.sample(frac=1, random_state=0)


def texts_of(corpus: Path) -> dict[str, list[str]]:
    """The texts of the tests: reviews about weddings, other reviews, encyclopedia."""
    table = reviews(corpus, "test")
    articles = pd.read_parquet(corpus / "encyclopedia.parquet")["text"]
    plain = [text for text in articles.sample(2000, random_state=0)
             if len(text.split()) > 60 and not topic_frequency(text, WORDS)]  # fmt: skip
    return {
        "reviews": [
            *table.loc[table["share"] > 0, "text"][:ON_TOPIC],
            *table.loc[table["share"] == 0, "text"][:OFF_TOPIC],
        ],
        "encyclopedia": plain[:OFF_TOPIC],
    }


def layers_of(model: HookedModel) -> list[int]:
    """Six layers from the first to four fifths of the way up."""
    return sorted({round(model.cfg.n_layers * share / 6) for share in range(5)} | {1})


def chosen(model: HookedModel, texts: Sequence[str]) -> tuple[int, float, list[dict[str, Any]]]:
    """The layer and c with the lowest ratio on the texts, and all that were tried."""
    tried = []
    for layer, c in ((layer, c) for layer in layers_of(model) for c in STRENGTHS):
        steering = sl.ActAdd.fit(model, PROMPTS, layer, c=c).steering
        table = topic_perplexity(
            model, {"it": steering}, list(texts), WORDS, text_is="prompt", max_tokens=TOKENS,
            skip=SKIP,
        )  # fmt: skip
        ratio = float(topic_summary(table, by=("method",), n_bootstrap=10)["ratio"].iloc[0])
        tried.append({"layer": layer, "c": c, "ratio": ratio})
        print(f"layer {layer}, c {c:g}: {ratio:.4f}", flush=True)
    best = min(tried, key=lambda one: one["ratio"])
    return best["layer"], best["c"], tried


def measured(model: HookedModel, corpus: Path) -> Iterator[tuple[str, Any]]:
    """Every table by name, as records."""
    train = reviews(corpus, "train")
    on_topic = train.loc[train["count"] >= LEAST, "text"][:CHOSEN_ON].tolist()
    layer, c, tried = chosen(model, on_topic)
    yield "chosen", {"layer": layer, "c": c, "tried": tried, "texts": len(on_topic)}
    it = {"ActAdd": sl.ActAdd.fit(model, PROMPTS, layer, c=c).steering}
    texts = texts_of(corpus)
    given = {"text_is": "prompt", "max_tokens": TOKENS, "skip": SKIP}
    perplexity = topic_perplexity(model, it, texts, WORDS, **given)
    yield "perplexity", perplexity.assign(bin=perplexity["bin"].astype(str)).to_dict("records")
    yield "bins", topic_summary(perplexity).astype({"bin": str}).to_dict("records")
    both = [text for some in texts.values() for text in some]
    shifts = probability_shifts(model, it, both, **given)
    yield "shifts", shifts.to_dict("records")
    by_layer = {
        at: sl.ActAdd.fit(model, PROMPTS, at, c=c).steering for at in layers_of(model)
    }  # fmt: skip
    counted = topic_words_by_layer(model, by_layer, [BEGINNING], WORDS, n=40)
    yield "layers", counted.to_dict("records")
    scores = cloze_scores(model, it, long_enough(model))
    yield "cloze", cloze_summary(scores).to_dict("records")
    yield "overhead", overhead(model, it, shape=(8, 64)).to_dict("records")


def long_enough(model: HookedModel) -> list[Any]:
    """The cloze items whose beginning has room for the addition."""
    tokenizer = model.tokenizer
    return [
        item for item in frozen_cloze() if len(tokenizer(item.before).input_ids) > SKIP
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--corpus", type=Path, required=True)
    given = parser.parse_args()
    model = sl.load(given.model)
    told: dict[str, Any] = {"model": given.model, "prompts": PROMPTS, "words": WORDS}
    for name, content in measured(model, given.corpus):
        told[name] = content
        print(f"done: {name}", flush=True)
    CELLS.mkdir(parents=True, exist_ok=True)
    path = CELLS / f"act_add_{Path(given.model).name}.json"
    write_whole(path, (json.dumps(told, indent=0, ensure_ascii=False) + "\n").encode())
    print(f"Wrote {path}", flush=True)


if __name__ == "__main__":
    main()
