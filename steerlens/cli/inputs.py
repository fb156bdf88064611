"""What commands read: the model, layers, steering files, pairs."""

import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.parsing import short

if TYPE_CHECKING:
    from steerlens.prompts import PromptPair
    from steerlens.steering import Steering
    from steerlens.templates import Template
    from steerlens.types import HookedModel

TINY = 256
"""The widest residual stream that one thread serves best."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Whoever has set one of these has chosen the number of threads."""


def load(
    model: str,
    backend: str,
    device: str,
    template: "Template | None" = None,
    dtype: str = "float32",
) -> "HookedModel":
    """The model, with a chat template in any case, on as many threads as suit its size."""
    from steerlens import models
    from steerlens.templates import PLAIN, tokenizer_of, use_template

    loaded = models.load(model, backend=backend, device=device, dtype=dtype)  # pyright: ignore[reportArgumentType]  load checks the name
    if not tokenizer_of(loaded).chat_template:
        loaded.tokenizer.chat_template = PLAIN
    if template is not None:
        use_template(loaded, template)
    if str(device) == "cpu":
        choose_threads(loaded.cfg.d_model)
    return loaded


def choose_threads(d_model: int) -> None:
    """One thread of torch for a small model, and say so; nothing if the user has chosen."""
    import torch

    if d_model > TINY or any(os.environ.get(name) for name in THREADS):
        return
    if torch.get_num_threads() > 1:
        # A second thread gains nothing here, and on a busy machine it waits, spinning.
        torch.set_num_threads(1)
        print(
            f"note: one thread, since more are slower on a model this small (d_model {d_model}); "
            f"{THREADS[0]}=2 takes two",
            file=sys.stderr,
        )


def layers_of(text: str, n_layers: int) -> list[int]:
    """Layers written as numbers and ranges, or "all"; negative ones count from the end."""
    if text == "all":
        return list(range(n_layers))
    from steerlens.sites import Site

    layers: list[int] = []
    for part in text.split(","):
        written = re.fullmatch(r"\s*(-?\d{1,9})\s*(?:-\s*(-?\d{1,9})\s*)?", part)
        if written is None:
            raise ValueError(
                f'--layers is like "4", "2,4", "-1" (the last), "2-5" or "all"; found '
                f"{short(text)}."
            )
        first, last = (Site(int(end)).among(n_layers).layer for end in written.groups(written[1]))
        if max(first, last) >= n_layers:  # before a range of them is made
            raise ValueError(
                f"--layers {text} asks for layer {max(first, last)}, which this model does not "
                f"have: it has {n_layers} layers, 0 to {n_layers - 1}."
            )
        if last < first:
            raise ValueError(f"--layers {text}: {part.strip()!r} holds no layer. Write it upwards.")
        layers += range(first, last + 1)
    return list(dict.fromkeys(layers))


MANY_LAYERS = 10_000
"""More than any model has: what --layers says is read once before the model is known."""


def require_layers(text: str) -> None:
    """Raise ValueError where the text names no layers, whatever the model."""
    if text != "all":
        layers_of(text, MANY_LAYERS)


def question_of(line: Any) -> Any:
    """What a line of a pairs file asks, without its instruction and response."""
    from steerlens.prompts import Conversation

    return line.without_system() if isinstance(line, Conversation) else line.plain


def require_steering_files(paths: Sequence[Path]) -> None:
    """Raise an error where a steering file is not there, or two have one name."""
    names = [path.stem for path in paths]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"Two steering files are called {', '.join(twice)}. Rename one.")
    require_steering_paths(paths)


def require_steering_paths(paths: Sequence[Path]) -> None:
    """Raise an error where a steering file is not there."""
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no steering file {path}. steering.save(path) makes one."
            )


def steerings_of(
    paths: Sequence[Path], model: "HookedModel", fitted_on: str | None = None
) -> "dict[str, Steering]":
    """Each file's steering under the name of its method.

    Where two files hold the same method, the file's name stands behind it.
    """
    from steerlens.reading import load_steering

    require_steering_files(paths)
    read = {path.stem: load_steering(path, model, fitted_on=fitted_on) for path in paths}
    methods = {stem: method_of(steering) for stem, steering in read.items()}
    counts = Counter(methods.values())
    return {
        methods[stem] if counts[methods[stem]] == 1 else f"{methods[stem]} ({stem})": steering
        for stem, steering in read.items()
    }


IN_PAPERS = {
    "ColdFD": "COLD-FD",
    "ColdKernel": "COLD-Kernel",
    "InstructionVector": "instruction vector",
    "ReFTr1": "ReFT-r1",
}
"""Methods whose papers call them otherwise than their classes are called."""


def method_of(steering: "Steering") -> str:
    """What papers call the method: S-PSR at one site, A-PSR at several; a sum has a +."""
    from steerlens.combinators import innermost

    sites: dict[str, int] = {}
    for _, steer in steering.placed:
        kind = innermost(steer)
        name = getattr(kind, "__name__", type(kind).__name__)
        sites[name] = sites.get(name, 0) + 1
    names = [IN_PAPERS.get(name, name) for name in sites]
    several = {"PSR": "A-PSR" if sites.get("PSR", 0) > 1 else "S-PSR"}
    return " + ".join(several.get(name, name) for name in names)


def answered(
    model: "HookedModel", lines: Sequence[Any], seed: int, max_new_tokens: int
) -> "list[PromptPair]":
    """Every line as a pair, in order; the model answers those that came without a response.

    The noise of a response is that of `seed` + the number of its line, from 0. They are written in
    batches.
    """
    from steerlens.generation import responses
    from steerlens.prompts import Conversation, PromptPair

    require_room(model, lines, max_new_tokens)
    open_ = {n: line for n, line in enumerate(lines) if isinstance(line, Conversation)}
    if not open_:
        return list(lines)
    seeds = [seed + number for number in open_]
    written = responses(
        model, list(open_.values()), seeds, max_new_tokens=max_new_tokens, progress=True
    )
    pairs = dict(enumerate(lines))
    for (number, asked), ids in zip(open_.items(), written, strict=True):
        if not ids:
            raise ValueError(
                f"The model's response to line {number + 1} of the pairs was empty: it ended its "
                "turn at once. Try another --seed, or give that line a response."
            )
        pairs[number] = PromptPair.with_system(asked.without_system(), asked.system or "", ids)
    return list(pairs.values())


def require_room(
    model: "HookedModel",
    lines: Sequence[Any],
    max_new_tokens: int,
    others: Sequence[str] = (),
) -> None:
    """Raise ValueError for the first line that the model cannot take, before it answers any.

    `others` are instructions that take the place of a line's own later.
    """
    from dataclasses import replace

    from steerlens.prompts import Conversation, encode, encode_pair, require_context

    for number, line in enumerate(lines, start=1):
        try:
            if not isinstance(line, Conversation):
                _, prompted = encode_pair(model, line)
                question, n_response = line.plain, len(prompted.ids) - prompted.response
            else:
                question, n_response = line, max_new_tokens
                require_context(model, len(encode(model, line).ids) + max_new_tokens)
            for other in others if isinstance(question, Conversation) else ():
                asked = replace(question, system=other)
                require_context(model, len(encode(model, asked).ids) + n_response)
        except ValueError as error:
            raise ValueError(f"Line {number} of the pairs: {error}") from error


def together(
    paths: Sequence[Path], model: "HookedModel", strength: float, fitted_on: str | None = None
) -> "Steering":
    """The steerings of all files at once, the first acting first, each at this strength."""
    from steerlens import steering
    from steerlens.reading import load_steering

    parts = [load_steering(path, model, fitted_on=fitted_on) for path in paths]
    return steering.together([part.scaled(strength) for part in parts])
