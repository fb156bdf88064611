"""What is tried on one tiny model on one backend, always against plain transformers."""

import math
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

import steerlens
from architectures import reference
from steerlens import (
    CAA,
    CLAS,
    PSR,
    ColdKernel,
    Conversation,
    PromptPair,
    Schedule,
    Site,
    Steering,
    SteeringWarning,
    at,
)
from steerlens.identity import identity_of, loaded
from steerlens.runtime import forward

LAYER, STEPS = 1, 8
TOLERANCE = 1e-3
"""The largest difference of logits, as a share of their spread, that is rounding in float32."""

PROMPTS = (
    "I love you because you are kind and good to the cat",
    "What is it?",
    "Once upon a time there was a house",
)
WISHED = (" A good day, a very good day.", " They went home.", " I love the sea", " Because.")
QUESTIONS = ("What is it?", "What do you think of the dog?", "Why?", "Was it a good day?")
ROOT = Path(steerlens.__file__).parent


@dataclass(frozen=True)
class Cell:
    """How one trial ended: works, refused (our sentence), error (another's), WRONG, or not tried.

    `said` is what there is to say of it, `where` the lines of code that an error came through.
    """

    state: str
    said: str = ""
    where: str = ""


class Wrong(Exception):
    """The result differs from transformers'."""


@dataclass(eq=False)
class Trial:
    """One folder on one backend, and the same weights in transformers' own class."""

    folder: Path
    backend: str

    @cached_property
    def model(self) -> Any:
        return steerlens.load(self.folder, backend=self.backend)  # pyright: ignore

    @cached_property
    def plain(self) -> Any:
        return reference.load(self.folder)

    @cached_property
    def rows(self) -> list[tuple[int, ...]]:
        """The token ids of every prompt."""
        return [steerlens.encode(self.model, prompt).ids for prompt in PROMPTS]

    @cached_property
    def v(self) -> torch.Tensor:
        """A vector as long as the activations that it is added to are."""
        torch.manual_seed(0)
        size = reference.block_output(self.plain, self.rows[0], LAYER).norm(dim=1).median()
        drawn = torch.randn(self.model.cfg.d_model)
        return drawn * size / drawn.norm()

    def logits(self, prompt: Any, steering: Steering | None = None) -> torch.Tensor:
        """Next-token logits of one prompt, [pos, d_vocab]."""
        tokens, window = steerlens.batch(self.model, prompt)
        with torch.no_grad():
            if steering is None:
                return forward.logits(self.model, tokens, window)[0].float()
            with steering.applied(self.model, window):
                return forward.logits(self.model, tokens, window)[0].float()

    def added(self, h: torch.Tensor) -> torch.Tensor:
        """The steer of most trials: v on top."""
        return h + self.v.to(h)


def attempt(check: Callable[[Trial], str], trial: Trial) -> Cell:
    """How `check` ends."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        cell = _ending(check, trial)
    warned = {str(each.message) for each in heard if issubclass(each.category, SteeringWarning)}
    if cell.state == "WRONG" and warned:
        return replace(cell, said=f"{cell.said}, with the warning: {' '.join(sorted(warned))}")
    return cell


def _ending(check: Callable[[Trial], str], trial: Trial) -> Cell:
    try:
        return Cell("works", check(trial))
    except Wrong as wrong:
        return Cell("WRONG", str(wrong))
    except NotApplicable as reason:
        return Cell("none", str(reason))
    except Exception as error:
        return told(error)


class NotApplicable(Exception):
    """There is nothing to try here."""


def told(error: Exception) -> Cell:
    """Refused, if a line of steerlens raised it; else another library's error."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = ROOT in Path(frames[-1].filename).parents
    said = " ".join(str(error).split())
    if ours and isinstance(error, ValueError | TypeError):
        return Cell("refused", said)
    below = next((f for f in reversed(frames) if ROOT in Path(f.filename).parents), frames[-1])
    where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in (below, frames[-1])]
    return Cell("error", f"{type(error).__name__}: {said[:300]}", " > ".join(where))


def require_equal(found: torch.Tensor, expected: torch.Tensor, what: str = "") -> float:
    """The largest difference as a share of the expected spread; Wrong if that is no rounding."""
    if found.shape != expected.shape:
        raise Wrong(f"{what}shape {list(found.shape)} for {list(expected.shape)}")
    apart = float((found - expected).abs().max() / expected.std())
    if not apart <= TOLERANCE:  # a NaN is wrong
        raise Wrong(f"{what}off by {apart:.2g} standard deviations")
    return apart


# -- The trials ------------------------------------------------------------------------------------


def load(trial: Trial) -> str:
    known = loaded(trial.model)
    return known.backend if known else ""


def logits(trial: Trial) -> str:
    for prompt, ids in zip(PROMPTS, trial.rows, strict=True):
        require_equal(trial.logits(prompt), reference.logits(trial.plain, ids))
    return ""


def steered(trial: Trial, stream: Any) -> str:
    ids, steering = trial.rows[0], at(Site(LAYER, stream), CAA(trial.v))
    before = reference.logits(trial.plain, ids)
    with reference.steered(trial.plain, LAYER, stream, trial.added):
        expected = reference.logits(trial.plain, ids)
    if float((expected - before).abs().max() / before.std()) < 100 * TOLERANCE:
        raise NotApplicable("the hook on transformers' block changes nothing")
    found = trial.logits(PROMPTS[0], steering)
    if bool(torch.isclose(found, before, atol=1e-4).all()):
        raise Wrong("steering changes nothing")
    require_equal(found, expected)
    return ""


def padded(trial: Trial) -> str:
    """Three rows at once: text, activations, and where the model can be padded logits."""
    texts = _texts(trial, PROMPTS)
    _require_texts(trial, texts, None)
    last = trial.model.cfg.n_layers - 1
    captured = steerlens.capture(trial.model, PROMPTS, last)
    for row, ids in enumerate(trial.rows):
        expected = reference.block_output(trial.plain, ids, last)
        require_equal(captured.of(row, last).float(), expected, "activations ")
    try:
        tokens, window = steerlens.batch(trial.model, PROMPTS)
        with torch.no_grad():
            found = forward.logits(trial.model, tokens, window).float()
    except ValueError as error:
        if told(error).state == "refused":
            return "by length"
        raise
    for row, ids in enumerate(trial.rows):
        expected = reference.logits(trial.plain, ids)
        require_equal(found[row, -len(ids) :], expected, "logits ")
    return ""


def cached(trial: Trial) -> str:
    """Greedy text of single rows, with and without a cache, unsteered and steered."""
    steering = at(LAYER, CAA(trial.v))
    hook = partial(reference.steered, trial.plain, LAYER, "resid_post", trial.added)
    for given, around in ((None, None), (steering, hook)):
        for cache in (True, False):
            found = [
                _texts(trial, [prompt], steering=given, cache=cache)[0] for prompt in PROMPTS[:2]
            ]
            named = f"{'steered, ' if given else ''}{'with' if cache else 'without'} cache: "
            _require_texts(trial, found, around, named)
    return ""


def _texts(trial: Trial, prompts: Sequence[str], **options: Any) -> list[tuple[int, ...]]:
    written = steerlens.generate(
        trial.model, list(prompts), max_new_tokens=STEPS, temperature=0.0, stop_at_end=False,
        **options,
    )  # fmt: skip
    return [written.response_ids(row) for row in range(len(prompts))]


def _require_texts(trial: Trial, found: Sequence[Sequence[int]], hook: Any, what: str = "") -> None:
    for ids, mine in zip(trial.rows, found, strict=False):
        expected, margins = reference.greedy(trial.plain, ids, STEPS, hook)
        for step, (left, right) in enumerate(zip(mine, expected, strict=True)):
            if left == right:
                continue
            if margins[step] > 1e-3:
                raise Wrong(f"{what}another token at step {step + 1}")
            break  # a draw: what follows it may differ


def _pairs() -> list[PromptPair]:
    together = zip(QUESTIONS, WISHED, strict=True)
    return [PromptPair.with_system(asked, "You are kind.", wished) for asked, wished in together]


def psr(trial: Trial) -> str:
    schedule = Schedule(epochs=2, batch_size=2, learning_rate=1e-2, validation=0.25)
    return _fitted(trial, PSR.fit(trial.model, _pairs(), LAYER, schedule=schedule))


def clas(trial: Trial) -> str:
    """Also the pass that it is trained by, which enters the model above its steered layer."""
    _fitted(
        trial,
        CLAS.fit(
            trial.model,
            _pairs()[1:],
            directions={Site(LAYER): trial.v},
            validation=_pairs()[:1],
            schedule=Schedule.full_batch(),
        ),
    )
    ids = trial.rows[0]
    tokens, window = steerlens.batch(trial.model, PROMPTS[0])
    residual = reference.block_output(trial.plain, ids, LAYER)[None]
    with torch.no_grad():
        found = forward.logits_from(trial.model, residual, LAYER + 1, tokens, window)[0].float()
    require_equal(found, reference.logits(trial.plain, ids), "entered above: ")
    return ""


def cold(trial: Trial) -> str:
    kind = [Conversation("What is it?", response=wished) for wished in WISHED[:2]]
    unkind = [Conversation("What is it?", response=said) for said in (" I hate you", " Go.")]
    return _fitted(trial, ColdKernel.fit(trial.model, (kind, unkind), LAYER))


def _fitted(trial: Trial, fit: Any) -> str:
    """What was fitted acts as it does on transformers' block."""
    steer, ids = fit.steers[Site(LAYER)], trial.rows[0]
    with reference.steered(trial.plain, LAYER, "resid_post", steer):
        expected = reference.logits(trial.plain, ids)
    require_equal(trial.logits(PROMPTS[0], at(LAYER, steer)), expected, "as fitted: ")
    rows = [] if fit.trained is None else fit.trained.rows
    if not all(math.isfinite(row["validation_loss"]) for row in rows):
        raise Wrong("the loss is not finite")
    return ""


def saved(trial: Trial) -> str:
    steering = at(LAYER, CAA(trial.v))
    with tempfile.TemporaryDirectory() as folder:
        path = steering.save(Path(folder) / "one.safetensors", trial.model)
        read = steerlens.load_steering(path, trial.model)
    found = trial.logits(PROMPTS[0], read)
    require_equal(found, trial.logits(PROMPTS[0], steering))
    return ""


def identity(trial: Trial) -> str:
    """The fingerprint; those of both backends and versions are compared where all are together."""
    return identity_of(trial.model).fingerprint


def context(trial: Trial) -> str:
    """As many tokens as the configuration has positions, and not one more."""
    config = trial.plain.config.get_text_config()
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "context_length")
    held = next((n for name in names if (n := getattr(config, name, None))), None)
    if held is None:
        raise NotApplicable("no number of positions in the configuration")
    row = torch.ones((1, held + 1), dtype=torch.long)
    steerlens.batch(trial.model, (row[:, :held], torch.ones_like(row[:, :held])))
    try:
        steerlens.batch(trial.model, (row, torch.ones_like(row)))
    except ValueError:
        return ""
    raise Wrong(f"{held + 1} tokens are taken for {held} positions")


TRIALS: dict[str, Callable[[Trial], str]] = {
    "load": load,
    "logits": logits,
    "resid_pre": partial(steered, stream="resid_pre"),
    "resid_post": partial(steered, stream="resid_post"),
    "padded": padded,
    "cached": cached,
    "PSR": psr,
    "CLAS": clas,
    "COLD": cold,
    "saved": saved,
    "identity": identity,
    "context": context,
}
"""Every trial, in the order of the table's columns."""

FIRST = ("load", "logits")
"""What `auto` is asked for."""


def measured(folder: Path, backend: str, only: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """Every trial on one folder and backend, as cells in plain dictionaries."""
    trial, cells = Trial(folder, backend), {}
    for name in only or (FIRST if backend == "auto" else TRIALS):
        cell = attempt(TRIALS[name], trial)
        cells[name] = asdict(replace(cell, said=cell.said.replace(str(folder), "the folder")))
        if name == "load" and cell.state != "works":
            break
    return cells
