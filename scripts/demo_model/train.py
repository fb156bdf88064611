"""Train the demonstration model for a fixed time; run it again to go on after an interruption.

    python scripts/demo_model/train_tokenizer.py --to build/demo_model/tokenizer
    python scripts/demo_model/train.py --minutes 100 --work-dir build/demo_model
    python scripts/demo_model/export.py --work-dir build/demo_model --to steerlens/demo/model

The learning rate follows the elapsed share of the time budget (a short warm-up, then linearly to
zero), so that training always ends decayed however fast the machine was; the elapsed time is kept
in the checkpoint. Hidden matrices are trained with Muon, everything else with AdamW. Each row of a
batch is one conversation that begins at position 0, padded on the right; rows of a batch are of
similar length. The loss is next-token cross-entropy, at full weight on the assistant turn and its
``<|end|>``, at a low weight on the prompt. An exponential moving average of the weights is what
gets exported.

Half of the rows are moved right by up to ``FURTHEST_START`` positions (position embeddings only;
nothing stands before them), so that what the model writes depends little on where it stands. A
system turn moves all that follows it, and what it does should be what it says.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from conversations import DEFAULT_CORPUS, ConversationSource, Corpora
from torch import Tensor
from train_tokenizer import CONTEXT
from transformers import (
    AttentionInterface,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from steerlens.whole import drafted

PROMPT_WEIGHT = 0.1
FURTHEST_START = 64
WINDOW = 512
"""Samples that are drawn, sorted by length and cut into batches at a time."""

Row = tuple[list[int], list[float]]


# -- Batches ---------------------------------------------------------------------------------------


def token_row(source: ConversationSource, index: int, tokenizer: PreTrainedTokenizerBase) -> Row:
    """Token ids of sample ``index`` and, for each, its weight as a target; cut to the context."""
    sample = source.sample(index)
    if isinstance(sample, str):
        ids = [tokenizer.bos_token_id, *tokenizer(sample).input_ids, tokenizer.eos_token_id]
        weights = [1.0] * len(ids)
    else:
        prompt_text = tokenizer.apply_chat_template(
            sample[:-1], tokenize=False, add_generation_prompt=True
        )
        prompt = tokenizer(prompt_text).input_ids
        answer = [*tokenizer(sample[-1]["content"]).input_ids, tokenizer.eos_token_id]
        ids = prompt + answer
        weights = [PROMPT_WEIGHT] * len(prompt) + [1.0] * len(answer)
    return ids[:CONTEXT], weights[:CONTEXT]


def batch_of(rows: list[Row], rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and weights, padded on the right with 0 (``<|pad|>`` and no weight); positions."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in rows])
    weights = torch.tensor([w + [0.0] * (longest - len(w)) for _, w in rows])
    furthest = min(FURTHEST_START, CONTEXT - longest)
    starts = [rng.randint(0, furthest) if rng.random() < 0.5 else 0 for _ in rows]
    return ids, weights, torch.tensor(starts)[:, None] + torch.arange(longest)


def batches(
    source: ConversationSource,
    tokenizer: PreTrainedTokenizerBase,
    batch_tokens: int,
    window: int,
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Endless batches of at most ``batch_tokens`` tokens, each with the number of its window.

    Windows are numbered from ``window`` on, so that training goes on with samples not yet seen.
    """
    while True:
        indices = range(window * WINDOW, (window + 1) * WINDOW)
        rows = sorted((token_row(source, i, tokenizer) for i in indices), key=lambda r: len(r[0]))
        groups: list[list[Row]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row[0]) > batch_tokens:
                groups.append([])
            groups[-1].append(row)
        rng = random.Random(window)
        rng.shuffle(groups)
        for group in groups:
            yield window, *batch_of(group, rng)
        window += 1


# -- Model and optimisers --------------------------------------------------------------------------


def plain_attention(
    module: torch.nn.Module, q: Tensor, k: Tensor, v: Tensor, *_: object, **__: object
) -> tuple[Tensor, None]:
    """Causal attention in the number format of its inputs.

    For short rows on a CPU this is almost twice as fast as PyTorch's fused attention in bfloat16.
    """
    length = q.shape[2]
    future = torch.full((length, length), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
    with torch.autocast(q.device.type, enabled=False):
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + future
        return (torch.softmax(scores, dim=-1) @ v).transpose(1, 2), None


def new_model(layers: int, width: int, heads: int, vocabulary: int) -> GPT2LMHeadModel:
    """An untrained GPT-2 with the fused form of its activation function."""
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=CONTEXT,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=5,
    )
    return GPT2LMHeadModel(config)


def optimisers(model: GPT2LMHeadModel, matrix_rate: float, other_rate: float) -> list:
    """Muon for the matrices of the blocks, AdamW for embeddings, norms and biases."""
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(
            matrices, lr=matrix_rate, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate_factor(share: float) -> float:
    """Learning rate, relative to its peak, after this share of the time budget."""
    warm_up = 0.02
    return max(0.0, min((share + 1e-3) / warm_up, (1 - share) / (1 - warm_up)))


def weighted_loss(
    model: GPT2LMHeadModel, ids: Tensor, weights: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Weighted mean loss (for training) and mean loss on assistant tokens (for the log)."""
    with torch.autocast(ids.device.type, torch.bfloat16):
        hidden = model.transformer(ids[:, :-1], position_ids=positions[:, :-1]).last_hidden_state
        used = weights[:, 1:] > 0
        logits = model.lm_head(hidden[used])
        losses = torch.nn.functional.cross_entropy(
            logits.float(), ids[:, 1:][used], reduction="none"
        )
    kept = weights[:, 1:][used]
    answer = (losses.detach() * (kept == 1)).sum() / (kept == 1).sum()
    return (losses * kept).sum() / kept.sum(), answer


# -- Checkpoints -----------------------------------------------------------------------------------


def save_checkpoint(path: Path, state: dict) -> None:
    """Write the state next to ``path`` and rename it into place."""
    with drafted(path) as draft:
        torch.save(state, draft)


def load_checkpoint(path: Path) -> dict:
    """The state that :func:`save_checkpoint` wrote."""
    return torch.load(path, map_location="cpu", weights_only=True)


class Run:
    """A training run: its model, optimisers, averaged weights, and how far it got."""

    def __init__(self, arguments: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> None:
        torch.manual_seed(arguments.seed)
        AttentionInterface.register("plain", plain_attention)
        self.shape = {
            "layers": arguments.layers,
            "width": arguments.width,
            "heads": arguments.heads,
            "vocabulary": len(tokenizer),
        }
        self.model = new_model(**self.shape).to(arguments.device)
        self.model.set_attn_implementation("plain" if arguments.device == "cpu" else "sdpa")
        self.optimisers = optimisers(self.model, arguments.matrix_rate, arguments.other_rate)
        self.peaks = [optimiser.param_groups[0]["lr"] for optimiser in self.optimisers]
        self.average = {k: v.detach().clone() for k, v in self.model.named_parameters()}
        self.done = {"seconds": 0.0, "steps": 0, "tokens": 0, "window": 0}
        self.path = arguments.work_dir / "checkpoint.pt"
        if self.path.exists():
            self._restore(load_checkpoint(self.path))

    def _restore(self, state: dict) -> None:
        if state["shape"] != self.shape:
            raise ValueError(
                f"{self.path} holds a model of shape {state['shape']}, not {self.shape}. Choose "
                "another --work-dir, or the shape of the checkpoint."
            )
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        self.done = {**state["done"], "window": state["done"]["window"] + 1}

    def save(self) -> None:
        """Write the checkpoint."""
        state = {
            "shape": self.shape,
            "model": self.model.state_dict(),
            "average": self.average,
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "done": self.done,
        }
        save_checkpoint(self.path, state)

    def step(self, ids: Tensor, weights: Tensor, positions: Tensor, share: float) -> float:
        """One update; the loss on assistant tokens before it."""
        loss, answer_loss = weighted_loss(self.model, ids, weights, positions)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            optimiser.param_groups[0]["lr"] = peak * rate_factor(share)
            optimiser.step()
            optimiser.zero_grad()
        self._average_weights()
        return answer_loss.item()

    @torch.no_grad()
    def _average_weights(self) -> None:
        keep = min(0.995, self.done["steps"] / (self.done["steps"] + 10))
        for name, value in self.model.named_parameters():
            self.average[name].lerp_(value, 1 - keep)


def train(arguments: argparse.Namespace) -> None:
    """Train until the time budget is used up; log and save on the way."""
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(arguments.work_dir / "tokenizer")
    source = ConversationSource(Corpora.read(arguments.corpus), arguments.seed)
    run = Run(arguments, tokenizer)
    budget, started = arguments.minutes * 60, time.monotonic() - run.done["seconds"]
    last_saved, losses = time.monotonic(), []
    with (arguments.work_dir / "log.jsonl").open("a", buffering=1) as log:
        for window, *batch in batches(
            source, tokenizer, arguments.batch_tokens, run.done["window"]
        ):
            share = run.done["seconds"] / budget
            if share >= 1:
                break
            losses.append(run.step(*(part.to(arguments.device) for part in batch), share))
            run.done["seconds"] = time.monotonic() - started
            run.done["steps"] += 1
            run.done["tokens"] += int((batch[1] > 0).sum())
            run.done["window"] = window
            if run.done["steps"] % 20 == 0:
                entry = {**run.done, "rate": rate_factor(share), "loss": sum(losses) / len(losses)}
                log.write(json.dumps(entry) + "\n")
                losses = []
            if time.monotonic() - last_saved > arguments.save_seconds:
                run.save()
                last_saved = time.monotonic()
    run.save()


def main() -> None:
    """Read the options and train."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CORPUS)
    parser.add_argument("--work-dir", type=Path, default=Path("build/demo_model"))
    parser.add_argument("--minutes", type=float, default=100, help="the time budget")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--heads", type=int, default=3)
    parser.add_argument("--batch-tokens", type=int, default=6144)
    parser.add_argument("--matrix-rate", type=float, default=6e-3, help="peak rate of Muon")
    parser.add_argument("--other-rate", type=float, default=1e-2, help="peak rate of AdamW")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-seconds", type=float, default=180)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
