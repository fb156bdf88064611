"""What commands read: the model, layers, steering files, pairs."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from steerlens.prompts import PromptPair
    from steerlens.steering import Steering
    from steerlens.templates import Template
    from steerlens.types import HookedModel

TINY = 256
"""The widest residual stream that one thread serves best."""


def load(
    model: str, backend: str, device: str, template: "Template | None" = None
) -> "HookedModel":
    """The model, with a chat template in any case, and one thread where more gain nothing."""
    import torch

    from steerlens import models
    from steerlens.templates import PLAIN, tokenizer_of, use_template

    loaded = models.load(model, backend=backend, device=device)  # pyright: ignore[reportArgumentType]  load checks the name
    if not tokenizer_of(loaded).chat_template:
        loaded.tokenizer.chat_template = PLAIN
    if template is not None:
        use_template(loaded, template)
    if loaded.cfg.d_model <= TINY:
        # A second thread gains nothing here, and on a busy machine it waits, spinning.
        torch.set_num_threads(1)
    return loaded


def layers_of(text: str, n_layers: int) -> list[int]:
    """Layers written as numbers and ranges, or "all"; negative ones count from the end."""
    if text == "all":
        return list(range(n_layers))
    from steerlens.sites import Site

    layers: list[int] = []
    for part in text.split(","):
        written = re.fullmatch(r"\s*(-?\d+)\s*(?:-\s*(-?\d+)\s*)?", part)
        if written is None:
            raise ValueError(
                f'--layers is like "4", "2,4", "-1" (the last), "2-5" or "all"; found {text!r}.'
            )
        first, last = (Site(int(end)).among(n_layers).layer for end in written.groups(written[1]))
        if last < first:
            raise ValueError(f"--layers {text}: {part.strip()!r} holds no layer. Write it upwards.")
        layers += range(first, last + 1)
    return list(dict.fromkeys(layers))


def require_folder_of(out: Path) -> None:
    """Raise ValueError where a file cannot be written."""
    if not out.absolute().parent.is_dir():
        raise ValueError(f"Cannot write {out}: its folder does not exist. Make it first.")


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
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no steering file {path}. steering.save(path) makes one."
            )


def steerings_of(paths: Sequence[Path], model: "HookedModel") -> "dict[str, Steering]":
    """Each file's steering under the file's name."""
    from steerlens.reading import load_steering

    require_steering_files(paths)
    return {path.stem: load_steering(path, model) for path in paths}


def answered(
    model: "HookedModel", lines: Sequence[Any], seed: int, max_new_tokens: int
) -> "list[PromptPair]":
    """Every line as a pair, in order; the model answers those that came without a response."""
    from steerlens.generation import prompted_pairs
    from steerlens.prompts import Conversation

    pairs = []
    for number, line in enumerate(lines):
        if not isinstance(line, Conversation):
            pairs.append(line)
            continue
        pairs += prompted_pairs(
            model,
            [line.without_system()],
            line.system or "",
            seed=seed + number,
            max_new_tokens=max_new_tokens,
        )
    return pairs


def together(paths: Sequence[Path], model: "HookedModel", strength: float) -> "Steering":
    """The steerings of all files at once, the first acting first, each at this strength."""
    from steerlens import steering
    from steerlens.reading import load_steering

    return steering.together([load_steering(path, model).scaled(strength) for path in paths])
