"""What works on this machine: versions, backends, device, cache and padding, on a tiny model."""

import importlib.metadata
import platform
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from steerlens.activations import capture
from steerlens.generation import generate
from steerlens.methods.caa import CAA
from steerlens.models import DEMO, has_hooked_transformer, load, quietly
from steerlens.prompts import batch
from steerlens.runtime.forward import logits
from steerlens.steering import at
from steerlens.types import HookedModel

TEXTS = ("The film was", "It", "A long time ago there lived a king who had")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Check:
    """One thing that was tried: whether it works here, and what was seen."""

    name: str
    works: bool
    seen: str


def examine() -> list[Check]:
    """Every check, none of which raises."""
    packages = ("steerlens", "transformer-lens", "torch", "transformers", "plotly", "pandas")
    checks = [_attempt(f"{name} is installed", lambda n=name: _version(n)) for name in packages]
    checks.append(Check("Python", True, platform.python_version()))
    checks.append(_attempt("the embedded model loads", _embedded))
    backends = (["hooked"] if has_hooked_transformer() else []) + ["bridge"]
    if not has_hooked_transformer():
        seen = "removed in transformer-lens 4; the bridge takes its place"
        checks.append(Check("HookedTransformer", True, seen))
    with tempfile.TemporaryDirectory(prefix="steer_") as folder:
        _make_tiny(Path(folder))
        for backend in backends:
            checks += _examine_backend(folder, backend)
    return checks


def _examine_backend(folder: str, backend: str) -> list[Check]:
    try:
        model = load(folder, backend=backend)  # pyright: ignore[reportArgumentType]
    except Exception as error:  # a doctor reports whatever is wrong
        return [Check(f"{backend}: a tiny model loads", False, _words(error))]
    tried: dict[str, Callable[[], str]] = {
        "cached generation equals recomputation": lambda: _cache(model),
        "padded batches equal single rows": lambda: _padding(model),
        "a steering moves the logits, and is gone afterwards": lambda: _moves(model),
    }
    checks = [_attempt(f"{backend}: {name}", attempt) for name, attempt in tried.items()]
    for device in _accelerators():
        check = _attempt(
            f"{backend}: {device} agrees with the CPU", lambda d=device: _agrees(folder, backend, d)
        )
        checks.append(check)
    return checks


def _attempt(name: str, attempt: Callable[[], str]) -> Check:
    try:
        return Check(name, True, attempt())
    except Exception as error:  # a doctor reports whatever is wrong
        return Check(name, False, _words(error))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _version(name: str) -> str:
    return importlib.metadata.version(name)


def _embedded() -> str:
    model = load("demo")
    return f"{model.cfg.n_layers} layers, d_model {model.cfg.d_model}, {type(model).__name__}"


def _make_tiny(folder: Path) -> None:
    """A GPT-2 of two layers with random weights and the embedded model's tokenizer."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]), quietly():
        torch.manual_seed(0)
        GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _steering(model: HookedModel, strength: float = 1.0) -> Any:
    direction = torch.linspace(-1, 1, model.cfg.d_model)
    return at(0, CAA(direction)).scaled(strength)


def _cache(model: HookedModel) -> str:
    settings: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0.0}
    cached = generate(model, TEXTS, _steering(model), **settings)
    full = generate(model, TEXTS, _steering(model), cache=False, **settings)
    if not torch.equal(cached.tokens, full.tokens):
        raise ValueError("the cache gives other tokens than recomputing every pass")
    return f"{cached.tokens.numel()} tokens alike"


def _padding(model: HookedModel) -> str:
    alone = torch.cat([capture(model, [text], 1).at(1) for text in TEXTS])
    worst = 0.0
    for side in ("left", "right"):
        together = capture(model, TEXTS, 1, side=side).at(1)
        error = (together - alone).norm(dim=-1) / alone.norm(dim=-1)
        worst = max(worst, float(error.max()))
    if worst > TOLERANCE:
        raise ValueError(f"activations differ by {worst:.1e} of their norm in padded batches")
    return f"largest difference {worst:.1e} of the norm"


@torch.no_grad()
def _moves(model: HookedModel) -> str:
    tokens, window = batch(model, TEXTS)
    plain = logits(model, tokens, window)
    with _steering(model).applied(model, window):
        steered = logits(model, tokens, window)
    after = logits(model, tokens, window)
    if torch.equal(plain, steered):
        raise ValueError("no logit moved under a steering that adds a vector of length > 0")
    if not torch.equal(plain, after):
        raise ValueError("the steering is still there after its `with` block")
    return f"largest move {float((steered - plain).abs().max()):.2f}"


def _accelerators() -> list[str]:
    found = ["cuda"] if torch.cuda.is_available() else []
    return found + (["mps"] if torch.backends.mps.is_available() else [])


@torch.no_grad()
def _agrees(folder: str, backend: Any, device: str) -> str:
    scores = []
    for place in ("cpu", device):
        model = load(folder, backend=backend, device=place)
        tokens, window = batch(model, TEXTS)
        scores.append(logits(model, tokens, window)[window.mask].cpu())
    error = float((scores[0] - scores[1]).abs().max())
    if error > 1e-2:
        raise ValueError(f"logits differ by {error:.1e}: results on {device} cannot be trusted")
    return f"logits within {error:.1e}"
