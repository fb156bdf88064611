"""Generation with a KV cache, where every pass knows which absolute positions it holds.

Sampling follows the ActAdd authors' order (TransformerLens): divide by the temperature, subtract
`frequency_penalty` times the count of each token in prompt and completion (BOS included), keep the
smallest set of tokens whose probability exceeds `top_p`, draw. The draw of a step depends on (seed,
prompt index, sample index, step) and on nothing else, so batch size and order do not matter.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.identity import device_of, loaded
from steerlens.models.weights import ends_of
from steerlens.prompts import (
    Conversation,
    Encoded,
    Messages,
    PromptPair,
    Prompts,
    as_question,
    encode_all,
    require_context,
    stack,
    tokenizer_of,
)
from steerlens.runtime.forward import Cache, batches, logits
from steerlens.runtime.hooks import Run, running, watching
from steerlens.scopes import Window
from steerlens.steering import Steering
from steerlens.types import HookedModel, Tokens


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; `temperature=0` is greedy and ignores the other two."""

    max_new_tokens: int = 64
    temperature: float = 1.0
    top_p: float = 1.0
    frequency_penalty: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1; found {self.max_new_tokens}.")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(
                f"temperature must be 0 (greedy) or a positive number; found {self.temperature}."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1; found {self.top_p}.")
        if not math.isfinite(self.frequency_penalty):
            raise ValueError(f"frequency_penalty must be finite; found {self.frequency_penalty}.")


@dataclass(frozen=True, eq=False)
class Generation:
    """Completions. Row i is sample `sample[i]` of prompt `prompt[i]`.

    `tokens` holds prompts and completions, left-padded; `mask` is False on padding and after the
    end token; `window` describes all of it for a teacher-forced pass; `texts` are completions.
    """

    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    tokens: Tokens
    mask: Bool[Tensor, "batch pos"]
    window: Window
    prompt: tuple[int, ...]
    sample: tuple[int, ...]
    seed: int

    def response_ids(self, row: int) -> tuple[int, ...]:
        """The response's ids in one row: its given start, then what was sampled, end included."""
        real = self.tokens[row][self.mask[row]]
        return tuple(real[int(self.window.response[row]) :].tolist())

    def __str__(self) -> str:
        return "\n\n".join(
            f"[{prompt}.{sample}] {text}"
            for prompt, sample, text in zip(self.prompt, self.sample, self.texts, strict=True)
        )


@dataclass(frozen=True)
class Piece:
    """One streamed step of one row: the token and the text that it completes, often a word."""

    row: int
    token: int
    text: str


def generate(
    model: HookedModel,
    prompts: Prompts,
    steering: Steering | None = None,
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    frequency_penalty: float = 0.0,
    n: int = 1,
    seed: int = 0,
    stop_at_end: bool = True,
    cache: bool = True,
    batch_size: int = 32,
) -> Generation:
    """`n` completions of each prompt, steered by absolute position.

    Prompts are strings, Conversations, or `(tokens, mask)`; unequal lengths are fine. `cache=False`
    recomputes every pass from the start and gives the same tokens, slowly.
    """
    sampling = Sampling(max_new_tokens, temperature, top_p, frequency_penalty, seed)
    rows = _rows(model, prompts, n, max_new_tokens)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; found {batch_size}.")
    new: list[list[int]] = [[] for _ in rows]
    lengths = [len(row.encoded.ids) for row in rows]
    with watching() as watch:
        for numbers in batches(model, lengths, batch_size):
            with running(model, steering, watch) as run:
                chunk = [rows[number] for number in numbers]
                steps = _steps(model, chunk, run, sampling, stop_at_end, cache)
                for number, ids in zip(numbers, _collected(steps, len(chunk)), strict=True):
                    new[number] = ids
    return _generation(model, rows, new, seed)


def stream(
    model: HookedModel,
    prompt: str | Conversation,
    steering: Steering | None = None,
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    frequency_penalty: float = 0.0,
    n: int = 1,
    seed: int = 0,
) -> Iterator[Piece]:
    """The tokens of `generate` one at a time, as they are sampled."""
    sampling = Sampling(max_new_tokens, temperature, top_p, frequency_penalty, seed)
    rows = _rows(model, [prompt], n, max_new_tokens)
    tokenizer, shown = tokenizer_of(model), [""] * n
    ids: list[list[int]] = [[] for _ in range(n)]
    # Between two pieces the caller has the model: nothing of ours may be on it then.
    with watching() as watch, running(model, steering, watch, lasting=False) as run:
        for step in _steps(model, rows, run, sampling, True, True):
            for row, token in enumerate(step):
                if token is None:
                    continue
                ids[row].append(token)
                text = tokenizer.decode(ids[row], skip_special_tokens=True)
                if text.endswith("\N{REPLACEMENT CHARACTER}"):
                    text = shown[row]  # the rest of this character is still to come
                yield Piece(row, token, text[len(shown[row]) :])
                shown[row] = text


def prompted_pairs(
    model: HookedModel,
    questions: Sequence[str | Conversation | Messages],
    instruction: str,
    *,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_p: float = 1.0,
    n: int = 1,
    seed: int = 0,
) -> list[PromptPair]:
    """Pairs whose responses the model wrote under `instruction` as its system turn.

    A question is text, or a conversation (or list of messages) without a system turn.
    """
    asked = [as_question(question) for question in questions]
    written = generate(
        model,
        [replace(question, system=instruction) for question in asked],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        n=n,
        seed=seed,
    )
    ends = end_tokens(model)
    pairs = []
    for row, number in enumerate(written.prompt):
        ids = tuple(token for token in written.response_ids(row) if token not in ends)
        if ids:
            pairs.append(PromptPair.with_system(asked[number], instruction, ids))
    if not pairs:
        raise ValueError(
            "Every response was empty: the model ended its turn at once. Try another seed or "
            "question, or a higher temperature."
        )
    return pairs


def end_tokens(model: HookedModel) -> frozenset[int]:
    """The ids that end a completion: the tokenizer's, and those of the generation config."""
    end, known = getattr(model.tokenizer, "eos_token_id", None), loaded(model)
    listed = ends_of(model) if known is None else known.ends
    return listed if end is None else listed | {end}


@dataclass(frozen=True)
class _Row:
    """One completion to write: which prompt, which sample of it."""

    encoded: Encoded
    prompt: int
    sample: int


def _rows(model: HookedModel, prompts: Prompts, n: int, max_new_tokens: int) -> list[_Row]:
    if n < 1:
        raise ValueError(f"n, the samples per prompt, must be at least 1; found {n}.")
    encoded = encode_all(model, prompts)
    for row in encoded:
        require_context(model, len(row.ids) + max_new_tokens)
    return [_Row(row, number, k) for number, row in enumerate(encoded) for k in range(n)]


def _steps(
    model: HookedModel,
    rows: Sequence[_Row],
    run: Run | None,
    sampling: Sampling,
    stop_at_end: bool,
    use_cache: bool,
) -> Iterator[list[int | None]]:
    """The token of every row at every step; None in rows that have ended."""
    tokens, window = stack([row.encoded for row in rows])
    tokens, window = tokens.to(device_of(model)), window.to(device_of(model))
    cache = Cache.empty(model, len(rows)) if use_cache else None
    counts = _counts(tokens, window, model.cfg.d_vocab_out)
    uniforms = _uniforms(sampling, rows)
    ends = end_tokens(model) if stop_at_end else frozenset()
    done = [False] * len(rows)
    for step in range(sampling.max_new_tokens):
        # Not around the yield: what the caller does between two steps is the caller's.
        with torch.no_grad():
            if run is not None:
                run.ready(tokens, window)
            scores = logits(model, tokens, window, "last", cache)[:, -1].float()
            if cache is not None and cache.entries is None:
                cache = None  # this model keeps none: every pass begins anew
            chosen = choose(scores, sampling, counts, uniforms[:, step])
        ids = chosen.tolist()
        if run is not None and not run.lasting:
            run.detach()
        yield [None if over else token for over, token in zip(done, ids, strict=True)]
        done = [over or token in ends for over, token in zip(done, ids, strict=True)]
        if all(done):
            return
        counts.scatter_add_(1, chosen[:, None], torch.ones_like(counts[:, :1]))
        if cache is not None:
            tokens, window = chosen[:, None], window.next()
        else:
            tokens, window = torch.cat([tokens, chosen[:, None]], dim=1), window.extended()


def choose(
    scores: Float[Tensor, "batch d_vocab"],
    sampling: Sampling,
    counts: Float[Tensor, "batch d_vocab"],
    uniforms: Float[Tensor, "batch"],
) -> Int[Tensor, "batch"]:
    """The next token of each row: the point of its distribution that `uniforms` falls on."""
    if bool((scores.isnan() | scores.isposinf()).any()) or bool(scores.isneginf().all(dim=1).any()):
        raise ValueError(
            "The model returned no finite logit, or a NaN, for a row. Lower the strength, or load "
            "it in float32 or bfloat16 (float16 overflows)."
        )
    if sampling.temperature == 0:
        return scores.argmax(dim=1)
    penalised = scores / sampling.temperature - sampling.frequency_penalty * counts
    probability = torch.softmax(penalised.double(), dim=1)
    if sampling.top_p == 1:
        return _drawn(probability, uniforms)
    ordered, order = probability.sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(dim=1) - ordered
    kept = torch.where(before <= sampling.top_p, ordered, 0)
    # Drawn in vocabulary order: in order of probability, rounding could swap two equal tokens.
    return _drawn(torch.zeros_like(kept).scatter(1, order, kept), uniforms)


def _drawn(
    weights: Float[Tensor, "batch d_vocab"], uniforms: Float[Tensor, "batch"]
) -> Int[Tensor, "batch"]:
    heights = weights.cumsum(dim=1)
    return (heights > uniforms[:, None] * heights[:, -1:]).byte().argmax(dim=1)


def _counts(tokens: Tokens, window: Window, d_vocab: int) -> Float[Tensor, "batch d_vocab"]:
    """How often each token occurs in each prompt, BOS included, padding not."""
    counts = torch.zeros((tokens.shape[0], d_vocab), device=tokens.device)
    return counts.scatter_add_(1, tokens, window.mask.float())


def _uniforms(sampling: Sampling, rows: Sequence[_Row]) -> Float[Tensor, "batch step"]:
    """Numbers in [0, 1) that depend on (seed, prompt, sample, step) alone."""
    sign = int(sampling.seed < 0)
    streams = [
        np.random.default_rng([abs(sampling.seed), sign, row.prompt, row.sample]) for row in rows
    ]
    return torch.from_numpy(np.stack([s.random(sampling.max_new_tokens) for s in streams]))


def _collected(steps: Iterator[list[int | None]], n: int) -> list[list[int]]:
    new: list[list[int]] = [[] for _ in range(n)]
    for step in steps:
        for ids, token in zip(new, step, strict=True):
            if token is not None:
                ids.append(token)
    return new


def _generation(
    model: HookedModel, rows: Sequence[_Row], new: Sequence[Sequence[int]], seed: int
) -> Generation:
    tokenizer = tokenizer_of(model) if model.tokenizer is not None else None
    prompts, window = stack([row.encoded for row in rows])
    width = max(len(ids) for ids in new)
    written = torch.zeros((len(rows), width), dtype=torch.long)
    real = torch.zeros((len(rows), width), dtype=torch.bool)
    for number, ids in enumerate(new):
        written[number, : len(ids)] = torch.tensor(ids)
        real[number, : len(ids)] = True
    mask = torch.cat([window.mask, real], dim=1)
    unique = dict.fromkeys((row.prompt, row.encoded) for row in rows)
    decode = tokenizer.decode if tokenizer else str
    return Generation(
        prompts=tuple(decode(list(encoded.ids)) for _, encoded in unique),
        texts=tuple(
            tokenizer.decode(ids, skip_special_tokens=True) if tokenizer else str(ids)
            for ids in new
        ),
        tokens=torch.cat([prompts, written], dim=1).to(device_of(model)),
        mask=mask.to(device_of(model)),
        window=Window.of(
            mask, question=window.question, response=window.response, bos=window.bos
        ).to(device_of(model)),
        prompt=tuple(row.prompt for row in rows),
        sample=tuple(row.sample for row in rows),
        seed=seed,
    )
