"""Generation with a KV cache, where every pass knows which absolute positions it holds.

How the next token is chosen, and in what order the options act, is in `sampling.py`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.identity import device_of, loaded
from steerlens.kinds import require_kinds
from steerlens.models.weights import ends_of
from steerlens.precision import wide
from steerlens.prompts import (
    Conversation,
    Encoded,
    Messages,
    Prompt,
    PromptPair,
    Prompts,
    as_question,
    encode_all,
    require_context,
    stack,
    tokenizer_of,
)
from steerlens.runtime.finite import require_usable
from steerlens.runtime.forward import Cache, batches, logits
from steerlens.runtime.hooks import Run, running, watching
from steerlens.runtime.progress import progress_bar
from steerlens.runtime.turns import in_turn
from steerlens.sampling import Sampling, Unusable, choose, sampled_by
from steerlens.scopes import Window
from steerlens.steering import Steering
from steerlens.types import HookedModel, Tokens, whole_number
from steerlens.written import Stops, Written


@dataclass(frozen=True, eq=False)
class Generation:
    """Completions. Row i is sample `sample[i]` of prompt `prompt[i]`.

    `tokens` holds prompts and completions, left-padded; `mask` is False on padding and after the
    token that ended the row; `window` describes all of it for a teacher-forced pass; `texts` are
    completions, cut before a stop string, of which `tokens` has all.
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
    """One streamed step of one row: the token, and the text that is certain with it."""

    row: int
    token: int
    text: str


def generate(
    model: HookedModel,
    prompts: Prompts,
    steering: Steering | None = None,
    *,
    sampling: Sampling | None = None,
    n: int = 1,
    stop_at_end: bool = True,
    cache: bool = True,
    batch_size: int = 32,
    **options: Any,
) -> Generation:
    """`n` completions of each prompt, steered by absolute position.

    Prompts are strings, Conversations, or `(tokens, mask)`; unequal lengths are fine. `options` are
    the fields of `Sampling` by name (`max_new_tokens`, `temperature`, `seed`, `stop`, ...), where
    both are given in place of those of `sampling`. `cache=False` recomputes every pass from the
    start and gives the same tokens, slowly.

    >>> model = sl.load("demo")
    >>> made = sl.generate(model, ["The film was", "I"], temperature=0, max_new_tokens=8)
    >>> len(made.texts)
    2
    """
    require_kinds(generate, locals())
    sampling = sampled_by(sampling, options)
    rows = _rows(model, prompts, n, sampling.max_new_tokens)
    stops = Stops.of(model, end_tokens(model) if stop_at_end else frozenset(), sampling.stop)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; found {batch_size}.")
    completions = [Written(model.tokenizer, stops, sampling.max_new_tokens) for _ in rows]
    lengths = [len(row.encoded.ids) for row in rows]
    tokens = progress_bar(len(rows) * sampling.max_new_tokens, "generate", "token")
    with watching() as watch, tokens as bar:
        for numbers in batches(model, lengths, batch_size):
            some = [rows[number] for number in numbers]
            written = [completions[number] for number in numbers]
            with running(model, steering, watch) as run:
                for step in _steps(model, some, run, sampling, written, cache):
                    for row, token in step.items():
                        written[row].take(token)
                    bar.update(len(step))
    return _generation(model, rows, completions, sampling.seed)


def stream(
    model: HookedModel,
    prompt: Prompt,
    steering: Steering | None = None,
    *,
    sampling: Sampling | None = None,
    n: int = 1,
    **options: Any,
) -> Iterator[Piece]:
    """The tokens of `generate` one at a time, as they are sampled, with its options of sampling.

    The texts of a row's pieces, joined, are the text that `generate` returns. What a later token
    can still change comes with that token or, at the latest, with the row's last: half a character,
    or what may be the beginning of a stop string.
    """
    require_kinds(stream, locals())
    sampling = sampled_by(sampling, options)
    rows, tokenizer = _rows(model, [prompt], n, sampling.max_new_tokens), tokenizer_of(model)
    stops = Stops.of(model, end_tokens(model), sampling.stop)
    written = [Written(tokenizer, stops, sampling.max_new_tokens) for _ in rows]
    # Between two pieces the caller has the model: nothing of ours may be on it then.
    with watching() as watch, running(model, steering, watch, lasting=False) as run:
        for step in _steps(model, rows, run, sampling, written, True):
            # All of a step before the first is shown: the caller may stop reading at any.
            pieces = [Piece(row, token, written[row].add(token)) for row, token in step.items()]
            yield from pieces


def prompted_pairs(
    model: HookedModel,
    questions: Iterable[str | Conversation | Messages],
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

    >>> model = sl.load("demo")
    >>> pairs = sl.prompted_pairs(model, ["How was it?"], "Be positive.", max_new_tokens=8)
    >>> pairs[0].prompted.system, pairs[0].plain.system
    ('Be positive.', None)
    """
    require_kinds(prompted_pairs, locals())
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


def responses(
    model: HookedModel,
    asked: Sequence[Conversation],
    seeds: Sequence[int],
    *,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    progress: bool = False,
) -> list[tuple[int, ...]]:
    """The ids of a response to each conversation, without the token that ended it.

    Each is what `generate(model, asked[i], seed=seeds[i], max_new_tokens=...)` writes for it alone,
    but for the rounding of a padded batch: rows of like lengths are written together.
    """
    written = written_alone(
        model,
        asked,
        seeds,
        sampling=Sampling(max_new_tokens),
        batch_size=batch_size,
        progress=progress,
    )
    ends = end_tokens(model)
    return [tuple(token for token in one.ids if token not in ends) for one in written]


def written_alone(
    model: HookedModel,
    asked: Sequence[Prompt],
    seeds: Sequence[int],
    steering: Steering | None = None,
    *,
    sampling: Sampling,
    batch_size: int = 32,
    progress: bool = False,
) -> list[Written]:
    """What the model writes to each prompt, as if it were the only one, with a seed each.

    Each is what `generate(model, asked[i], steering, sampling=sampling, seed=seeds[i])` writes for
    it alone, but for the rounding of a padded batch: rows of like lengths are written together.
    """
    rows = [
        replace(_rows(model, [one], 1, sampling.max_new_tokens)[0], seed=seed)
        for one, seed in zip(asked, seeds, strict=True)
    ]
    stops = Stops.of(model, end_tokens(model), sampling.stop)
    written = [Written(model.tokenizer, stops, sampling.max_new_tokens) for _ in rows]
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].encoded.ids))
    lengths = [len(rows[number].encoded.ids) for number in order]
    shown = progress_bar(len(rows), "responses", "text", shown=progress)
    with watching() as watch, shown as bar:
        for places in batches(model, lengths, batch_size):
            numbers = [order[place] for place in places]
            some, texts = [rows[n] for n in numbers], [written[n] for n in numbers]
            with running(model, steering, watch) as run:
                for step in _steps(model, some, run, sampling, texts, True):
                    for row, token in step.items():
                        texts[row].take(token)
                        bar.update(texts[row].over)
    return written


@dataclass(frozen=True)
class _Row:
    """One completion to write: which prompt, which sample of it, with a seed of its own if any."""

    encoded: Encoded
    prompt: int
    sample: int
    seed: int | None = None


def _numbers(rows: Sequence[_Row]) -> Int[Tensor, "batch"]:
    """Which prompt each row is."""
    return torch.tensor([row.prompt for row in rows])


MOST_SAMPLES = 100_000


def _rows(model: HookedModel, prompts: Prompts, n: int, max_new_tokens: int) -> list[_Row]:
    if (whole_number(n) or 0) < 1:
        raise ValueError(f"n, the samples per prompt, must be at least 1, and whole; found {n!r}.")
    if n > MOST_SAMPLES:
        raise ValueError(
            f"n, the samples per prompt, is at most {MOST_SAMPLES}, since all are kept; found {n}. "
            "Write more in several calls, each with another seed."
        )
    with in_turn(model):  # a tokenizer serves one thread at a time
        encoded = encode_all(model, prompts)
    for row in encoded:
        require_context(model, len(row.ids) + max_new_tokens)
    return [_Row(row, number, k) for number, row in enumerate(encoded) for k in range(n)]


def _steps(
    model: HookedModel,
    rows: Sequence[_Row],
    run: Run | None,
    sampling: Sampling,
    written: Sequence[Written],
    use_cache: bool,
) -> Iterator[dict[int, int]]:
    """The token of every row at every step, but for rows that are over by what was `written`."""
    tokens, window = stack([row.encoded for row in rows])
    window = replace(window, row=_numbers(rows))
    tokens, window = tokens.to(device_of(model)), window.to(device_of(model))
    begun, cache = (tokens, window), Cache.empty(model, len(rows)) if use_cache else None
    counts = _counts(tokens, window, model.cfg.d_vocab_out) if sampling.counts else None
    uniforms, drawn = _uniforms(sampling, rows).to(device_of(model)), list[Tensor]()
    while not all(one.over for one in written):
        # Not around the yield: what the caller does between two steps is the caller's.
        with torch.no_grad():
            scores = _scores(model, tokens, window, run, cache)
            if cache is not None and cache.entries is None:
                cache = None  # this model keeps none: every pass begins anew
            try:
                chosen = choose(scores, sampling, counts, uniforms[:, len(drawn)])
            except Unusable:
                whole = torch.cat([begun[0], *drawn], dim=1)
                require_usable(model, whole, begun[1].extended(len(drawn)), run)
        drawn.append(chosen[:, None])
        yield {row: id_ for row, id_ in enumerate(chosen.tolist()) if not written[row].over}
        if counts is not None:
            counts.scatter_add_(1, chosen[:, None], torch.ones_like(counts[:, :1]))
        if cache is not None:
            tokens, window = chosen[:, None], window.next()
        else:
            tokens, window = torch.cat([tokens, chosen[:, None]], dim=1), window.extended()


def _scores(
    model: HookedModel, tokens: Tokens, window: Window, run: Run | None, cache: Cache | None
) -> Float[Tensor, "batch d_vocab"]:
    """The logits of the next token, of a steered pass if there is a run; in float32 or wider."""
    if run is None:
        return wide(logits(model, tokens, window, "last", cache)[:, -1])
    with in_turn(model):  # a steer may have to run the model before the pass
        run.ready(tokens, window)
        scores = wide(logits(model, tokens, window, "last", cache)[:, -1])
        run.require_reached()
        if not run.lasting:
            run.detach()
    return scores


def _counts(tokens: Tokens, window: Window, d_vocab: int) -> Float[Tensor, "batch d_vocab"]:
    """How often each token occurs in each prompt, BOS included, padding not."""
    counts = torch.zeros((tokens.shape[0], d_vocab), device=tokens.device)
    return counts.scatter_add_(1, tokens, window.mask.float())


def _uniforms(sampling: Sampling, rows: Sequence[_Row]) -> Float[Tensor, "batch step"]:
    """Numbers in [0, 1) that depend on (seed, prompt, sample, step) alone."""
    if sampling.temperature == 0:  # none of them is looked at
        return torch.zeros((len(rows), sampling.max_new_tokens), dtype=torch.double)
    drawn = []
    for row in rows:
        seed = sampling.seed if row.seed is None else row.seed
        stream = np.random.default_rng([abs(seed), int(seed < 0), row.prompt, row.sample])
        drawn.append(stream.random(sampling.max_new_tokens))
    return torch.from_numpy(np.stack(drawn))


def _generation(
    model: HookedModel, rows: Sequence[_Row], completions: Sequence[Written], seed: int
) -> Generation:
    tokenizer = tokenizer_of(model) if model.tokenizer is not None else None
    new = [one.ids for one in completions]
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
        texts=tuple(one.cut_text if tokenizer else str(one.ids) for one in completions),
        tokens=torch.cat([prompts, written], dim=1).to(device_of(model)),
        mask=mask.to(device_of(model)),
        window=replace(
            Window.of(mask, question=window.question, response=window.response, bos=window.bos),
            row=_numbers(rows),
        ).to(device_of(model)),
        prompt=tuple(row.prompt for row in rows),
        sample=tuple(row.sample for row in rows),
        seed=seed,
    )
