"""Every file that is written and read here, damaged: an error that names it, or as it was."""

import gzip
import json
import math
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import damage
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

import steerlens
from analysis.bench import packed, spec, tasks
from analysis.bench.cells import Cell, Cells, read_whole
from analysis.bench.fitting import read_fitted, write_fitted
from analysis.bench.spec import Spec, read_spec, write_spec
from analysis.judges.endpoint import Endpoint
from analysis.judges.linear import Classifier
from analysis.measures.cloze import frozen_cloze, read_cloze, write_cloze
from steerlens import CAA, PSR, ActAdd, Angular, Scaled, at, load_steering
from steerlens.baselines.lora import LoRA
from steerlens.combinators import Chain, When
from steerlens.demo import benchmark_set
from steerlens.digests import digest_over
from steerlens.jsonl import read_contrasts, read_labelled_pairs, read_prompt_pairs, read_wishes
from steerlens.saving import KEY
from steerlens.scopes import last_k, positions, prompt, response
from steerlens.training import checkpoint
from steerlens.training.checkpoint import State

REFUSED = (ValueError, OSError)
"""What a damaged file may raise; anything else is a traceback."""
N, MORE, SEEDS = 60, 300, range(1, 6)
"""Damages of each kind of file, and for `make test-all` those with each of the seeds."""


@pytest.fixture(scope="module")
def model() -> Any:
    """The embedded model."""
    return steerlens.load("demo")


def caa(model: Any, seed: int = 0) -> CAA:
    """A vector of the model's width."""
    return CAA(torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(seed)))


@dataclass(frozen=True)
class Kind:
    """A kind of file: how one is made, how it is read to something that can be compared."""

    make: Callable[[Path, Any], Path]
    read: Callable[[Path, Any], Any]
    damages: Callable[[bytes, int, int], Iterator[tuple[str, bytes]]] = damage.of_bytes
    signed: bool = True


def _a_steering(folder: Path, model: Any) -> Path:
    rows = torch.randn(2, model.cfg.d_model, generator=torch.Generator().manual_seed(1))
    psr = PSR(rows, torch.zeros(2), rows + 1)
    both = at(2, caa(model)).only(response) + at(3, psr).scaled(0.5)
    return both.save(folder / "s.safetensors", model)


def _steering_of(path: Path, model: Any) -> str:
    from steerlens.saving import digest_of

    return digest_of(load_steering(path, model))


def _a_checkpoint(folder: Path, model: Any) -> Path:
    drawn = torch.Generator().manual_seed(0)
    parameters = {name: torch.randn(3, 4, generator=drawn).requires_grad_() for name in ("a", "b")}
    optimiser = torch.optim.AdamW(parameters.values())
    sum((value**2).sum() for value in parameters.values()).backward()  # pyright: ignore
    optimiser.step()
    row = {"epoch": 0, "steps": 0, "rate": math.nan, "loss": math.nan, "validation_loss": 1.0}
    rows = [row, {**row, "epoch": 1, "validation_loss": 0.5}]
    best = {name: value.detach().clone() for name, value in parameters.items()}
    checkpoint.write(folder / "c", State(parameters, {}, best, rows), optimiser, "of this fit")
    return folder / "c"


def _state_of(path: Path, model: Any) -> str:
    found = checkpoint.read(path, "of this fit")
    moments = [tensor for pair in found.moments.values() for tensor in pair]
    tensors = [*found.parameters.values(), *moments, *found.best.values()]
    return digest_over({"rows": found.rows}, dict(enumerate_(tensors)))


def enumerate_(tensors: list[torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors with numbers for names."""
    return ((f"{number:03}", tensor.detach()) for number, tensor in enumerate(tensors))


def _a_judge(folder: Path, model: Any) -> Path:
    weights = np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2)
    judge = Classifier(("no", "yes"), ("a", "b", "a b"), weights, np.zeros(2), np.ones(2))
    judge.save(folder / "judge.safetensors")
    return folder / "judge.safetensors"


def _judged(path: Path, model: Any) -> str:
    return repr([vars(Classifier.load(path))[k] for k in ("classes", "ngrams", "weights", "bias")])


def _an_adapter(folder: Path, model: Any) -> Path:
    sides = torch.ones(1, 4), torch.ones(3, 1)
    path = folder / "fits" / "lora.safetensors"
    write_fitted(LoRA({"w": sides[0]}, {"w": sides[1]}, 2.0), path)
    return path


@dataclass(frozen=True)
class _Held:
    """What a bench's reader asks of its maker."""

    model: Any


def _adapter_of(path: Path, model: Any) -> str:
    held: Any = _Held(model)
    found: Any = getattr(read_fitted, "__wrapped__", read_fitted)(path, held)
    return repr((found.A, found.B, found.alpha))


SCORES = {"attribute": [[1.5, 2.25]], "coherence": [[None, 3.0]], "words": None}
CELL = Cell("judge", {"task": "happy", "seed": 1, "of": {"kind": "fit", "layer": 3}})


def _a_cell(folder: Path, model: Any) -> Path:
    cells = Cells(folder)
    cells.make(CELL, lambda _: {**SCORES, "texts": ["a", "ü"]}, dict)
    return cells.path(CELL)


def _a_spec(folder: Path, model: Any) -> Path:
    write_spec(Spec(attributes=("positive",), methods=("CAA", "ActAdd"), seeds=2), folder)
    return folder / spec.FILE


def _a_pack(folder: Path, model: Any) -> Path:
    lines = [{"bench": Spec(attributes=("positive",), methods=("CAA",)).as_json()}]
    lines += [{"digest": CELL.digest, "result": SCORES, "provenance": {}}]
    path = folder / "bench.json.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode(), mtime=0))
    return path


def _packed(path: Path, model: Any) -> str:
    return repr(packed.unpacked(path).cells.known)


BODY = {"model": "m", "messages": [{"role": "user", "content": "Rate this."}]}
ENDPOINT = Endpoint("http://localhost:1/v1", "m", None)


def _an_answer(folder: Path, model: Any) -> Path:
    endpoint = replace(ENDPOINT, cache=folder)
    answer = {"choices": [{"message": {"role": "assistant", "content": "7.25 of 10"}}]}
    endpoint._keep(BODY, answer)
    return next(folder.glob("*.json"))


def _answered(path: Path, model: Any) -> str:
    """The answer, ValueError where the cache warns and asks again."""
    endpoint, said = replace(ENDPOINT, cache=path.parent), []

    def read(choice: Any) -> float:
        said.append(json.dumps(choice))
        return 1.0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = endpoint._cached(BODY, read)
        except UserWarning as warned:
            raise ValueError(str(warned)) from warned
    assert found == 1.0
    return said[-1]


def _the_cloze(folder: Path, model: Any) -> Path:
    write_cloze(frozen_cloze()[:3], folder / "cloze.json", {"source": "here"})
    return folder / "cloze.json"


def _lines(folder: Path, *lines: Any) -> Path:
    path = folder / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


PAIR = {"user": "Review a film.", "system": "Be positive.", "response": "Süperb!"}
MESSAGES = [{"role": "system", "content": "Be."}, {"role": "user", "content": "a"}]


def _of_lines(content: bytes, n: int, seed: int) -> Iterator[tuple[str, bytes]]:
    yield from damage.of_bytes(content, n // 2, seed)
    lines = [json.loads(line) for line in content.decode().splitlines()]
    for name, changed in damage.of_json(lines, n // 2, seed):
        listed = changed if isinstance(changed, list) else [changed]
        yield name, "".join(json.dumps(line) + "\n" for line in listed).encode()


def _of_object(content: bytes, n: int, seed: int) -> Iterator[tuple[str, bytes]]:
    yield from damage.of_bytes(content, n // 2, seed)
    for name, changed in damage.of_json(json.loads(content), n // 2, seed):
        yield name, json.dumps(changed).encode()


TASKS = {
    "brief": {
        "instruction": "Be brief.",
        "questions": {
            "train": [f"Question {i}?" for i in range(8)],
            "validation": ["Why?"],
            "test": ["What?"],
        },
        "contrast": ["Yes.", "Well, yes."],
        "words": "yes|no",
    }
}


def _the_tasks(folder: Path, model: Any) -> Path:
    (folder / "tasks.json").write_text(json.dumps(TASKS))
    return folder / "tasks.json"


KINDS = {
    "a steering": Kind(_a_steering, _steering_of, damage.of_safetensors),
    "a checkpoint": Kind(_a_checkpoint, _state_of, damage.of_safetensors),
    "a judge": Kind(_a_judge, _judged, damage.of_safetensors),
    "an adapter": Kind(_an_adapter, _adapter_of, damage.of_safetensors),
    "a cell": Kind(_a_cell, lambda path, _: repr(read_whole(path)), _of_object),
    "a bench's plan": Kind(_a_spec, lambda path, _: repr(read_spec(path.parent)), _of_object),
    "a packed bench": Kind(_a_pack, _packed),
    "a cached answer": Kind(_an_answer, _answered, _of_object),
    "cloze items": Kind(_the_cloze, lambda path, _: repr(read_cloze(path)), _of_object),
    "tasks": Kind(_the_tasks, lambda path, _: tasks.read_tasks(path), _of_object, signed=False),
    "pairs": Kind(
        lambda folder, _: _lines(folder, PAIR, {"messages": MESSAGES}, {**PAIR, "response": "x"}),
        lambda path, _: read_prompt_pairs(path), _of_lines, signed=False,
    ),
    "labelled pairs": Kind(
        lambda folder, _: _lines(folder, {**PAIR, "label": 0.5}, {**PAIR, "label": 1}),
        lambda path, _: read_labelled_pairs(path), _of_lines, signed=False,
    ),
    "contrasts": Kind(
        lambda folder, _: _lines(
            folder, {"positive": "a", "negative": "b"}, {"positive": MESSAGES, "negative": PAIR}
        ),
        lambda path, _: read_contrasts(path), _of_lines, signed=False,
    ),
    "wishes": Kind(
        lambda folder, _: _lines(folder, {"prompt": "a", "options": {" b": 0.5, " c": 0.5}}),
        lambda path, _: read_wishes(path), _of_lines, signed=False,
    ),
}  # fmt: skip


def _tried(name: str, model: Any, folder: Path, n: int, seed: int) -> tuple[int, list[str]]:
    """How many damages were made of a kind of file, and those that went wrong."""
    kind = KINDS[name]
    path = kind.make(folder, model)
    content, expected = path.read_bytes(), kind.read(path, model)
    number, wrong = 0, []
    for what, damaged in kind.damages(content, n, seed):
        if damaged == content:
            continue
        number += 1
        path.write_bytes(damaged)
        try:
            found = kind.read(path, model)
        except REFUSED as error:
            if str(path) not in str(error):
                wrong.append(f"{what}: does not name the file: {error}")
        except BaseException as error:
            wrong.append(f"{what}: {type(error).__name__}: {error}")
        else:
            if kind.signed and found != expected:
                wrong.append(f"{what}: was read, as something else")
    return number, wrong


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_an_error_that_names_it_or_is_read_as_it_was(
    name: str, model: Any, tmp_path: Path
) -> None:
    number, wrong = _tried(name, model, tmp_path, N, 0)
    assert number >= 0.9 * N
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", KINDS)
def test_more_damages(name: str, seed: int, model: Any, tmp_path: Path) -> None:
    number, wrong = _tried(name, model, tmp_path, MORE, seed)
    assert number >= 0.9 * MORE
    assert wrong == []


# -- What a stranger wrote, with a digest that is right ------------------------------------------


def _steerings(model: Any) -> dict[str, steerlens.Steering]:
    v, d = caa(model), model.cfg.d_model
    rows = torch.randn(3, d, generator=torch.Generator().manual_seed(2))
    return {
        "CAA": at(2, v).only(response | ~last_k(2)),
        "chain": at(1, Chain((Scaled(v, 0.5), Angular(v.direction, 20.0)))).only(positions(1, -1)),
        "ActAdd": at(2, ActAdd(rows, 2.0, "back", (0, 9))),
        "PSR": at(3, PSR(rows, torch.zeros(3), rows)).only(prompt.without_bos),
        "when": at(3, When(v, CAA(v.direction))),
    }


def _forged(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    rest = {name: value for name, value in header.items() if name != "digest"}
    try:
        digest = digest_over(rest, tensors)
    except RecursionError:
        digest = ""
    path.write_bytes(save(tensors, {KEY: json.dumps({**rest, "digest": digest})}))


def _used(steering: steerlens.Steering, model: Any) -> None:
    """A steering that was loaded acts, or says in a sentence why not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", steerlens.SteeringWarning)  # that it does nothing is told
        steerlens.generate(model, ["It was a", "So"], steering, max_new_tokens=2)


def _forgeries(model: Any, path: Path, n: int, seed: int) -> tuple[int, list[str]]:
    number, wrong = 0, []
    for name, steering in _steerings(model).items():
        try:
            steering.save(path, model)
        except ValueError:
            continue
        with safe_open(path, "pt") as file:
            header = json.loads(file.metadata()[KEY])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        for what, changed in damage.of_json(header["steering"], n, seed):
            number += 1
            _forged(path, {**header, "steering": changed}, tensors)
            wrong += _of_forged(f"{name}, {what}", path, model)
        for what, changed in damage.of_json(
            {k: header[k] for k in ("origin", "versions")}, n, seed
        ):
            number += 1
            whole = changed if isinstance(changed, dict) else {"origin": changed}
            _forged(path, {**header, **whole}, tensors)
            wrong += _of_forged(f"{name}, {what}", path, model)
    return number, wrong


def _of_forged(what: str, path: Path, model: Any) -> list[str]:
    try:
        _used(load_steering(path, model), model)
    except REFUSED:
        return []
    except BaseException as error:
        return [f"{what}: {type(error).__name__}: {error}"]
    return []


@pytest.mark.usefixtures("unchecked")
def test_a_forged_steering_is_an_error_in_a_sentence_or_acts(model: Any, tmp_path: Path) -> None:
    number, wrong = _forgeries(model, tmp_path / "s.safetensors", 40, 0)
    assert number >= 150
    assert wrong == []


@pytest.mark.slow
@pytest.mark.usefixtures("unchecked")
def test_more_forged_steerings(model: Any, tmp_path: Path) -> None:
    number, wrong = _forgeries(model, tmp_path / "s.safetensors", 300, 1)
    assert number >= 1000
    assert wrong == []


@pytest.mark.usefixtures("unchecked")
def test_tensors_of_another_kind_are_refused(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    at(2, caa(model)).save(path, model)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[KEY])
    d = model.cfg.d_model
    kept = []
    for tensor in (
        torch.full((d,), math.nan),
        torch.full((d,), math.inf),
        torch.ones(d, dtype=torch.bool),
        torch.zeros(d, d),
        torch.zeros(0),
        torch.zeros(d - 1),
        torch.ones(d).to(torch.float8_e4m3fn),
        torch.ones(d, dtype=torch.complex64),
    ):
        _forged(path, header, {"tensor_0": tensor})
        try:
            load_steering(path, model)
        except REFUSED:
            continue
        kept.append((tensor.dtype, tuple(tensor.shape)))
    assert kept == []


# -- What comes with the package ----------------------------------------------------------------


def _shipped() -> dict[str, tuple[Path, Callable[[], Any]]]:
    import analysis.bench.estimates as estimates
    import analysis.judges.coherence as coherence
    import analysis.judges.linear as linear
    import analysis.measures.cloze as cloze
    from steerlens.models import names

    judges = linear.HERE
    folder = names.DEMO
    found: dict[str, tuple[Path, Callable[[], Any]]] = {
        "sentiment": (judges / "sentiment.safetensors", linear.sentiment_classifier.__wrapped__),
        "register": (judges / "register.safetensors", linear.register_classifier.__wrapped__),
        "words": (judges / "words.safetensors", coherence.known_words.__wrapped__),
        "scale": (judges / "coherence.json", coherence.Scale.shipped),
        "benchmark set": (benchmark_set.FILE, benchmark_set._content.__wrapped__),
        "cloze": (cloze.FROZEN, cloze.frozen_cloze),
        "coverage": (estimates.COVERAGE, estimates._coverage.__wrapped__),
    }
    for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"):
        found[name] = (folder / name, lambda: names.local_folder("demo"))
    return found


def _said_by(read: Callable[[], Any]) -> str:
    """What a reader says of a file that it refuses; nothing where it takes it."""
    try:
        read()
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", _shipped())
def test_a_damaged_file_of_the_package_is_told_from_a_whole_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, read = _shipped()[name]
    whole, drawn = path.read_bytes(), random.Random(f"shipped {name}")
    read_bytes, read_text = Path.read_bytes, Path.read_text
    copy = tmp_path / path.name
    monkeypatch.setattr(Path, "read_bytes", lambda self: read_bytes(copy if self == path else self))
    monkeypatch.setattr(
        Path,
        "read_text",
        lambda self, encoding=None: read_text(copy if self == path else self, encoding),
    )
    opened = safe_open
    monkeypatch.setattr(
        "safetensors.safe_open", lambda file, of: opened(copy if file == path else file, of)
    )
    copy.write_bytes(whole)
    read()
    for _ in range(8 if len(whole) > 1e6 else 20):
        changed, place = bytearray(whole), drawn.randrange(len(whole))
        changed[place] ^= 1 << drawn.randrange(8)
        copy.write_bytes(bytes(changed))
        # Blanks, and gzip's note of when and where it was made, hold nothing.
        harmless = place < 10 if path.suffix == ".gz" else not whole[place : place + 1].strip()
        said = _said_by(read)
        assert harmless or path.name in said, f"bit at {place} of {path.name}: {said}"
