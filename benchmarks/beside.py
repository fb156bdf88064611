"""Beside transformers on the same weights: generation, teacher-forced passes, capture.

    python -m benchmarks.beside demo gpt2s FOLDER_OF_A_MODEL ...

prints one Markdown table. CPU time on one thread; each number of steerlens is divided by that of
transformers in the same round, the two taking turns: median (least to most) of the ratios.
Generation is from text to text, tokenizer included, greedy and sampled. "Plain hooks" are
transformers' own forward hooks. "The bridge as it is" is TransformerLens' bridge with all of its
inner hook points, run by the same loop.
"""

import argparse
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import steerlens
from benchmarks.floor import BATCH, encoded, last_token, load_plain
from benchmarks.models import MODELS, default_cache, source, texts
from benchmarks.timing import Task, interleaved, ratios
from steerlens import capture, generate, last
from steerlens.models import DEMO
from steerlens.runtime import bare
from steerlens.runtime.forward import logits

NEW_TOKENS = 24
THEIRS, OURS, BRIDGE = "transformers", "steerlens", "the bridge as it is"


class Beside:
    """One model in both libraries, in one dtype."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        cache = default_cache()
        place = source(name, cache) if name in MODELS or name == "demo" else name
        folder = str(DEMO) if place == "demo" else place
        self.model: Any = steerlens.load(place, backend="bridge", dtype=dtype)
        self.plain, self.tokenizer = load_plain(folder)
        self.plain = self.plain.to(dtype)
        self.bos = self.tokenizer.bos_token if self.model.cfg.default_prepend_bos else ""
        self.given = texts(cache)

    def generation(self, rows: int, sampled: bool) -> dict[str, Task]:
        """NEW_TOKENS after each of so many prompts."""
        from transformers import GenerationConfig

        prompts = self.given["prompts"][:rows]
        # Without an end token nothing stops early.
        config = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=sampled, pad_token_id=0)
        self.plain.generation_config = config
        temperature = float(sampled)

        def theirs() -> list[str]:
            batch = self.tokenizer(
                [self.bos + prompt for prompt in prompts],
                return_tensors="pt",
                padding=True,
                add_special_tokens=False,
            )
            return self.tokenizer.batch_decode(self.plain.generate(**batch)[:, -NEW_TOKENS:])

        def ours() -> Any:
            options: dict[str, Any] = {"stop_at_end": False, "temperature": temperature}
            return generate(self.model, prompts, max_new_tokens=NEW_TOKENS, **options)

        return {THEIRS: theirs, OURS: ours, BRIDGE: partial(self.through_bridge, ours)}

    def teacher_forced(self) -> dict[str, Task]:
        """All logits of eight texts, with a hook on every block."""
        sides = [text for pair in self.given["pairs"] for text in pair][:8]
        tokens, window = steerlens.batch(self.model, sides)
        batch = encoded(self.tokenizer, [self.bos + side for side in sides])
        body = self.plain.base_model
        blocks = body.h if hasattr(body, "h") else body.layers

        @torch.no_grad()
        def theirs() -> Tensor:
            handles = [block.register_forward_hook(lambda *_: None) for block in blocks]
            scores = self.plain(**batch, use_cache=False).logits
            for handle in handles:
                handle.remove()
            return scores

        @torch.no_grad()
        def ours() -> Tensor:
            return logits(self.model, tokens, window)

        return {THEIRS: theirs, OURS: ours, BRIDGE: partial(self.through_bridge, ours)}

    def captured(self) -> dict[str, Task]:
        """The last token of 32 texts at every layer, against plain hooks that waste nothing."""
        sides = [text for pair in self.given["pairs"] for text in pair][:32]
        layers = list(range(self.model.cfg.n_layers))

        def theirs() -> Any:
            return last_token(self.plain, self.tokenizer, sides, layers)

        def ours() -> Any:
            return capture(self.model, sides, layers, scope=last, batch_size=BATCH, progress=False)

        return {THEIRS: theirs, OURS: ours, BRIDGE: partial(self.through_bridge, ours)}

    def through_bridge(self, task: Task) -> object:
        """The task with nothing left out of the bridge."""
        kept = bare._BARE.get(self.model)
        bare.keep_bare(self.model, None)
        try:
            return task()
        finally:
            bare.keep_bare(self.model, kept)


def tasks(beside: Beside, half: bool) -> Iterator[tuple[str, dict[str, Task]]]:
    """Each thing that is measured, by its name; in half precision generation alone."""
    for sampled in (False, True):
        for rows in (1, 8):
            how = "sampled" if sampled else "greedy"
            yield f"generate, {how}, batch {rows}", beside.generation(rows, sampled)
    if not half:
        yield "teacher-forced, batch 8", beside.teacher_forced()
        yield "capture, all layers", beside.captured()


def row(name: str, dtype: str, what: str, found: dict[str, Task], rounds: int) -> str:
    """One line of the table."""
    for task in found.values():
        task()
    taken = interleaved(found, rounds)
    shown = []
    for one in (OURS, BRIDGE):
        over = ratios(taken, one, THEIRS)
        shown.append(f"{statistics.median(over):.2f} ({min(over):.2f} to {max(over):.2f})")
    per = 1000 / NEW_TOKENS if what.startswith("generate") else 1000
    middle = per * statistics.median(taken[THEIRS])
    return f"| {name} | {dtype} | {what} | {middle:.3g} | " + " | ".join(shown) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__)
    parser.add_argument("models", nargs="*", default=["demo"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"| model | dtype | what | {THEIRS}, ms | {OURS}, times that | {BRIDGE}, times that |")
    print("|---|---|---|---|---|---|")
    for name in options.models:
        for dtype in options.dtypes:
            beside = Beside(name, getattr(torch, dtype))
            short = Path(name).name
            for what, found in tasks(beside, dtype != "float32"):
                print(row(short, dtype, what, found, options.rounds), flush=True)


if __name__ == "__main__":
    main()
