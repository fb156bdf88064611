"""Measure the demonstration model and the judges, and write docs/demo_model.md.

    python scripts/demo_model/report.py --corpus ../shared/corpus

Everything is measured on text that neither the model nor a judge was trained on, and on prompts in
held-out wordings. Needs scikit-learn for AUROC; takes some twenty minutes on two cores. Intervals
are 95 %: Wilson's for shares, the bootstrap over texts (2,000 resamples) for everything else.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import lzma
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from benchmark_set import MAX_NEW_TOKENS, TEMPERATURE, completions, questions, titles
from conversations import (
    DEFAULT_CORPUS,
    FORMATS,
    LONGEST_TEXT,
    REGISTERS,
    Corpora,
    brief,
    clean_article,
    clean_review,
    opening,
)
from kneser_ney import KneserNey
from measure import answer_bits, turns
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForCausalLM, AutoTokenizer
from wordings import ATTRIBUTE_WORDINGS, HELD_OUT_WORDINGS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "judges"))
from calibrate_coherence import shuffled_tokens
from human_texts import cut, openings

import steerlens
from analysis.judges import ATTRIBUTES, Coherence, judge_of, register, sentiment
from analysis.judges.coherence import REQUESTS
from analysis.judges.formats import RULES, FormatJudge
from analysis.reports.markdown import markdown_table
from steerlens.models import DEMO, has_hooked_transformer
from steerlens.runtime.forward import logits
from steerlens.types import HookedModel
from steerlens.whole import write_whole

ROOT = Path(__file__).resolve().parents[2]
FEWEST_TOKENS_FOR_COMMAS = 60
STRENGTHS = (4.0, 8.0, 16.0, 32.0)
REPLACED = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
Table = list[list[str]]


# -- Intervals -------------------------------------------------------------------------------------


def share(hits: Sequence[bool]) -> str:
    """A share in per cent with Wilson's interval."""
    n, z = len(hits), 1.96
    if n == 0:
        return "none"
    p = sum(map(bool, hits)) / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    return f"{p:.1%} [{max(middle - half, 0):.1%}, {min(middle + half, 1):.1%}]"


def interval(statistic: Callable[[np.ndarray], float], n: int, seed: int = 0) -> tuple[float, ...]:
    """The 95 % bootstrap interval of a statistic of row numbers."""
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, n, n)) for _ in range(2000)]
    return tuple(np.percentile(values, (2.5, 97.5)))


def ratio(top: Sequence[float], bottom: Sequence[float], documents: Sequence[str]) -> str:
    """Sum over sum, with its interval over documents."""
    rows = pd.DataFrame({"a": top, "b": bottom, "document": documents})
    a, b = (rows.groupby("document")[name].sum().to_numpy(dtype=float) for name in "ab")
    low, high = interval(lambda rows: a[rows].sum() / b[rows].sum(), len(a))
    return f"{a.sum() / b.sum():.3f} [{low:.3f}, {high:.3f}]"


def mean(values: Sequence[float], statistic: Callable = np.mean) -> str:
    """A mean (or another statistic of values) with its interval."""
    v = np.asarray(values, dtype=float)
    low, high = interval(lambda rows: statistic(v[rows]), len(v))
    return f"{statistic(v):.1f} [{low:.1f}, {high:.1f}]"


def auroc(positive: Sequence[float], negative: Sequence[float]) -> str:
    """How well a score tells two groups apart; resampled within each group."""
    p, q = (np.asarray(scores, dtype=float) for scores in (positive, negative))
    p, q = p[~np.isnan(p)], q[~np.isnan(q)]
    labels = np.r_[np.ones(len(p)), np.zeros(len(q))]
    rng = np.random.default_rng(0)
    found = [
        roc_auc_score(labels, np.r_[rng.choice(p, len(p)), rng.choice(q, len(q))])
        for _ in range(500)
    ]
    low, high = np.percentile(found, (2.5, 97.5))
    return f"{roc_auc_score(labels, np.r_[p, q]):.3f} [{low:.3f}, {high:.3f}]"


# -- Bits per byte ---------------------------------------------------------------------------------


def bits_section(corpus: Path, count: int) -> str:
    """The model, Kneser-Ney 5-grams and two compressors on the same unseen texts."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    model = AutoModelForCausalLM.from_pretrained(DEMO).eval()
    baseline = KneserNey(_training_ids(corpus, tokenizer), len(tokenizer), tokenizer.bos_token_id)
    rows = []
    found = openings(corpus, "check", count, seed=1, characters=LONGEST_TEXT - 300)
    for name, passages in found.items():
        texts = [opening(one.text, LONGEST_TEXT) for one in passages]
        documents = [one.document for one in passages]
        prompt = turns(None, REQUESTS[name])
        bits, sizes = zip(
            *(answer_bits(model, tokenizer, prompt, text) for text in texts), strict=True
        )
        ids = tokenizer(texts, add_special_tokens=False, verbose=False).input_ids
        raw = [len(text.encode()) for text in texts]
        whole = "\n".join(texts).encode()
        rows.append(
            [
                name,
                f"{len(texts)} of {len(set(documents))} documents",
                f"**{ratio(bits, sizes, documents)}**",
                ratio([baseline.bits(one) for one in ids], raw, documents),
                f"{8 * len(gzip.compress(whole, 9)) / len(whole):.3f}",
                f"{8 * len(lzma.compress(whole, preset=9)) / len(whole):.3f}",
            ]
        )
    header = ["text", "n", "demonstration model", "5-gram Kneser-Ney", "gzip -9", "xz -9"]
    return markdown_table(header, rows)


def _training_ids(corpus: Path, tokenizer) -> list[list[int]]:
    known = Corpora.read(corpus)
    texts = [clean_review(t) for t in (*known.positive, *known.negative, *known.unlabelled)]
    texts += [clean_article(text) for _, text in known.articles]
    texts += [text for _, text in known.clean_tales]
    return [
        ids for ids in tokenizer(texts, add_special_tokens=False, verbose=False).input_ids if ids
    ]


# -- System prompts --------------------------------------------------------------------------------


def sampled(
    model: HookedModel,
    known_titles: list[str],
    attribute: str,
    count: int,
    temperature: float = TEMPERATURE,
    wordings: Sequence[str] = (),
) -> tuple[list[str], list[str]]:
    """Completions with a wording of the attribute, held out by default, and without any."""
    users = [
        user
        for split, part in (("test", count // 2), ("train", count - count // 2))
        for user in questions(attribute, split, part, known_titles, seed=1)
    ]
    wordings = wordings or HELD_OUT_WORDINGS[attribute]
    prompts = [
        steerlens.Conversation(user, wordings[i % len(wordings)]) for i, user in enumerate(users)
    ]
    bare = [steerlens.Conversation(user) for user in users]
    return (
        completions(model, prompts, seed=11, temperature=temperature),
        completions(model, bare, seed=12, temperature=temperature),
    )


def enough(attribute: str, texts: Sequence[str], tokenizer) -> list[str]:
    """The texts on which the attribute is scored: those without commas must be long enough."""
    if attribute != "no_commas":
        return list(texts)
    return [
        t
        for t in texts
        if len(tokenizer(t, add_special_tokens=False).input_ids) >= FEWEST_TOKENS_FOR_COMMAS
    ]


def formats_section(samples: dict, human: dict[str, list[str]], tokenizer) -> str:
    """Each format with its instruction, without, and in human text of the same length."""
    people_of = {"fairytale": 1 / 5, "encyclopedia": 1 / 3, "review": 7 / 15}  # as `questions` has
    size = min(len(human[name]) / share_of for name, share_of in people_of.items())
    mixed = [text for name, part in people_of.items() for text in human[name][: int(part * size)]]
    rows = []
    for name in RULES:
        judge = FormatJudge(name)
        groups = [enough(name, texts, tokenizer) for texts in samples[name]]
        people = enough(name, mixed, tokenizer)
        change = FORMATS.get(name, lambda text: brief(text) or "")
        changed = [change(text) for text in mixed]
        changed = [text for text in changed if text]
        rows.append(
            [
                name,
                *(f"{share(judge.holds(texts).tolist())}, n {len(texts)}" for texts in groups),
                f"{share(judge.holds(people).tolist())}, n {len(people)}",
                share(judge.holds(changed).tolist()),
            ]
        )
    header = [
        "format",
        "with the instruction",
        "without",
        "human text cut to the same length",
        "human text made so",
    ]
    return markdown_table(header, rows)


def wordings_section(samples: dict, trained: dict) -> str:
    """How often each held-out wording is followed, and wordings of the training."""
    rows = []
    for name in ATTRIBUTES:
        right = [followed(name, texts[name][0]) for texts in (samples, trained)]
        wordings = HELD_OUT_WORDINGS[name]
        each = [right[0][i :: len(wordings)] for i in range(len(wordings))]
        shares = [f"{np.mean(hits):.0%}" for hits in each]
        least = int(np.argmin([np.mean(hits) for hits in each]))
        rows.append(
            [name, " ".join(shares), f'"{wordings[least]}"', share(right[0]), share(right[1])]
        )
    header = [
        "attribute",
        "each held-out wording",
        "the worst of them",
        "held out",
        "in training",
    ]
    return markdown_table(header, rows)


def followed(attribute: str, texts: Sequence[str]) -> list[bool]:
    """Whether each text has the attribute."""
    if attribute in RULES:
        return FormatJudge(attribute).holds(texts).tolist()
    return (judge_of(attribute)(texts) > 50).tolist()


def registers_section(samples: dict) -> str:
    """Each register on requests that leave it open."""
    rows = []
    for name in REGISTERS:
        scores = [register(name)(texts) for texts in samples[name]]
        rows.append(
            [
                name,
                *(f"{share((s > 50).tolist())}, n {len(s)}" for s in scores),
                auroc(*scores),
            ]
        )
    header = [
        "register",
        "recognised with the instruction",
        "without",
        "AUROC with against without",
    ]
    return markdown_table(header, rows)


def sentiment_section(by_temperature: dict[float, dict]) -> str:
    """Positive against negative completions, and the unprompted ones between them."""
    judge, columns = sentiment("positive"), []
    for samples in by_temperature.values():
        positive, negative = (judge(samples[name][0]) for name in ("positive", "negative"))
        bare = np.concatenate([judge(samples[name][1]) for name in ("positive", "negative")])
        columns.append(
            [
                f"{share((positive > 50).tolist())}, n {len(positive)}",
                f"{share((negative < 50).tolist())}, n {len(negative)}",
                auroc(positive, negative),
                f"{share((bare > 50).tolist())}, n {len(bare)}",
            ]
        )
    names = [
        "positive instruction: judged positive",
        "negative instruction: judged negative",
        "AUROC, positive against negative",
        "no instruction: judged positive",
    ]
    header = ["", *(f"temperature {temperature:g}" for temperature in by_temperature)]
    return markdown_table(
        header, [[name, *row] for name, *row in zip(names, *columns, strict=True)]
    )


# -- Judges ----------------------------------------------------------------------------------------


def judges_section(corpus: Path, human: dict[str, list[str]], tokenizer) -> str:
    """Accuracy of sentiment on all test reviews, of register on unseen texts."""
    table = pd.read_parquet(corpus / "reviews.parquet")
    table = table[table.split == "test"]
    texts, right = [clean_review(text) for text in table.text], (table.stars >= 7).to_numpy()
    starts = [
        tokenizer.decode(tokenizer(text[:1000], add_special_tokens=False).input_ids[:60])
        for text in texts
    ]
    judge, rows = sentiment("positive"), []
    for name, group in (("whole reviews", texts), ("first 60 tokens", starts)):
        scores = judge(group)
        hits = ((scores > 50) == right).tolist()
        rows.append(
            [
                f"sentiment, {name}",
                share(hits),
                f"{_calibration_error(scores, right):.3f}",
                str(len(hits)),
            ]
        )
    for name, group in human.items():
        hits = (register(name)(group) > 50).tolist()
        rows.append([f"register, {name}", share(hits), "", str(len(hits))])
    return markdown_table(["judge", "accuracy", "calibration error", "n"], rows)


def _calibration_error(scores: np.ndarray, right: np.ndarray) -> float:
    bins = np.clip((scores // 10).astype(int), 0, 9)
    return sum(
        abs(scores[bins == k].mean() / 100 - right[bins == k].mean()) * (bins == k).mean()
        for k in range(10)
        if (bins == k).any()
    )


def as_attribute(name: str, texts: dict[str, list[str]]) -> list[str]:
    """Human texts that have an attribute: transformed, shortened, or of that register or label."""
    every = [text for group in texts.values() for text in group]
    if name in FORMATS:
        return [FORMATS[name](text) for text in every]
    if name == "short":
        return [text for text in map(brief, every) if text]
    if name in REGISTERS:
        return texts[name]
    scores = judge_of(name)(texts["review"])
    return [text for text, score in zip(texts["review"], scores, strict=True) if score > 70]


def human_coherence_section(human: dict[str, list[str]]) -> str:
    """Median coherence of human text with each attribute."""
    judge = Coherence()
    plain = judge([text for group in human.values() for text in group])
    rows = [["(none)", mean(plain, np.median), "", str(len(plain))]]
    for name in ATTRIBUTES:
        scores = judge(as_attribute(name, human))
        shift = f"{np.median(scores) - np.median(plain):+.1f}"
        rows.append([name, mean(scores, np.median), shift, str(len(scores))])
    return markdown_table(["attribute", "median coherence", "less (none)", "n"], rows)


def samples_coherence_section(
    model: HookedModel, samples: dict, hot: dict, human: dict[str, list[str]]
) -> str:
    """Coherence of the model's text: unsteered, prompted, over-steered; and of shuffled text."""
    judge, rng = Coherence(), random.Random(5)
    bare = unsteered(samples)
    reference = judge(bare)
    people = [text for group in human.values() for text in group]
    rows = [
        ["human text", mean(judge(people)), "", str(len(people))],
        [f"unsteered samples, temperature {TEMPERATURE}", mean(reference), "", str(len(bare))],
    ]
    warm = hot["positive"][1]
    rows.append(["unsteered samples, temperature 1", mean(judge(warm)), "", str(len(warm))])
    prompted = [text for name in ATTRIBUTES for text in samples[name][0][:40]]
    rows.append(["prompted samples", mean(judge(prompted)), "", str(len(prompted))])
    jumbled = judge([shuffled_tokens(text, model.tokenizer, rng) for text in bare])
    worded = judge([" ".join(rng.sample(t.split(), len(t.split()))) for t in bare])
    spoilt = {
        "the unsteered samples, tokens shuffled": jumbled,
        "the unsteered samples, words shuffled": worded,
    }
    for strength, texts in over_steered(model).items():
        spoilt[f"CAA (praise less blame) at strength {strength:g}"] = judge(texts)
    for name, scores in spoilt.items():
        rows.append([name, mean(scores), auroc(reference, scores), str(len(scores))])
    return markdown_table(["text", "mean coherence", "AUROC, unsteered against it", "n"], rows)


def unsteered(samples: dict) -> list[str]:
    """Samples without an instruction, of every kind of request."""
    return [text for name in ("positive", "lowercase", "review") for text in samples[name][1]]


def over_steered(model: HookedModel) -> dict[float, list[str]]:
    """Samples under far too strong a steering, by strength."""
    from analysis.reports.demo import contrast

    positive, negative = contrast()
    caa = steerlens.CAA.from_prompts(
        model, positive, negative, model.cfg.n_layers // 2, read=steerlens.generated
    )
    asked = [steerlens.Conversation(REQUESTS["review"])] * 100
    found = {}
    for strength in STRENGTHS:
        steering = caa.only(steerlens.response).scaled(strength)
        made = steerlens.generate(
            model, asked, steering, max_new_tokens=MAX_NEW_TOKENS, temperature=TEMPERATURE, seed=7
        )
        found[strength] = list(made.texts)
    return found


def degraded_section(samples: dict, human: dict[str, list[str]]) -> str:
    """Mean coherence of human text and of samples with words replaced by words of other texts."""
    judge = Coherence()
    people = [text for group in human.values() for text in group]
    bare = unsteered(samples)
    pool = [word for text in people for word in text.split()]
    rows = []
    for name, texts in (("human text", people), (f"samples, temperature {TEMPERATURE}", bare)):
        scores = [mean(judge([replaced(t, s, pool) for t in texts])) for s in REPLACED]
        rows.append([name, *scores])
    return markdown_table(["words replaced", *(f"{part:.0%}" for part in REPLACED)], rows)


def replaced(text: str, part: float, pool: list[str]) -> str:
    """The text with a share of its words drawn from the pool."""
    rng = random.Random(text)
    return " ".join(rng.choice(pool) if rng.random() < part else word for word in text.split())


# -- The document ----------------------------------------------------------------------------------


def load_seconds() -> str:
    """Time of `steerlens.load("demo")` after import, in a fresh process; median of five."""
    code = (
        "import time, steerlens, transformer_lens, transformers; t = time.perf_counter(); "
        "steerlens.load('demo'); print(time.perf_counter() - t)"
    )
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    return f"{np.median(runs):.2f} s (median of {len(runs)})"


def logits_section() -> str:
    """Largest difference from transformers' logits on every backend that is installed."""
    reference = AutoModelForCausalLM.from_pretrained(DEMO).eval()
    version = importlib.metadata.version("transformer-lens")
    rows = []
    for backend in ("hooked", "bridge") if has_hooked_transformer() else ("bridge",):
        model = steerlens.load("demo", backend=backend)
        prompts = [
            steerlens.Conversation(request, "Be positive.", "This is")
            for request in REQUESTS.values()
        ]
        tokens, window = steerlens.batch(model, prompts, side="right")
        with torch.inference_mode():
            expected = reference(tokens, attention_mask=window.mask.long()).logits
            found = logits(model, tokens, window)
        largest = (found - expected)[window.mask].abs().max().item()
        rows.append([f"{backend}, transformer-lens {version}", f"{largest:.1e}"])
    return markdown_table(["backend", "largest difference of a logit from transformers'"], rows)


def document(corpus: Path, size: int) -> str:
    """The whole page."""
    model, rng = steerlens.load("demo"), random.Random(1)
    tokenizer = model.tokenizer
    assert tokenizer is not None
    started = time.monotonic()

    def note(what: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {what}", flush=True)

    human = {
        name: [cut(one.text, tokenizer, rng, (64, 64)) for one in found]
        for name, found in openings(corpus, "check", size, seed=2).items()
    }
    note("samples")
    known = titles(corpus)
    samples = {name: sampled(model, known, name, size) for name in ATTRIBUTES}
    hot = {name: sampled(model, known, name, size, 1.0) for name in ("positive", "negative")}
    trained = {
        name: sampled(model, known, name, size, wordings=ATTRIBUTE_WORDINGS[name])
        for name in ATTRIBUTES
    }
    note("judges")
    parts = {
        "judges": judges_section(corpus, human, tokenizer),
        "human_coherence": human_coherence_section(human),
        "coherence": samples_coherence_section(model, samples, hot, human),
        "sentiment": sentiment_section({TEMPERATURE: samples, 1.0: hot}),
        "formats": formats_section(samples, human, tokenizer),
        "registers": registers_section(samples),
        "wordings": wordings_section(samples, trained),
        "load": load_seconds(),
        "logits": logits_section(),
        "degraded": degraded_section(samples, human),
    }
    note("bits per byte")
    parts["bits"] = bits_section(corpus, 2 * size)
    note("done")
    page = Path(__file__).with_name("report.md").read_text(encoding="utf-8")
    return page.format(size=size, **parts)


def main() -> None:
    """Write the page, and draw its pictures."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "demo_model.md")
    parser.add_argument("--size", type=int, default=200, help="samples of each kind")
    arguments = parser.parse_args()
    write_whole(arguments.to, document(arguments.corpus, arguments.size).encode())
    drawing = ROOT / "scripts" / "docs" / "result_figures.py"
    subprocess.run([sys.executable, drawing, arguments.to], check=True)


if __name__ == "__main__":
    main()
