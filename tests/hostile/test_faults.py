"""A disk that is full, a place that is gone, numbers that break: nothing lost, and all told."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens
from steerlens import ActAdd, Conversation, SteeringWarning, at, load_steering
from steerlens.sampling import COLDEST, Sampling, choose
from steerlens.training import checkpoint
from steerlens.training.loop import train
from steerlens.training.schedule import Schedule
from steerlens.whole import write_whole

EXAMPLES = Path(__file__).parents[2] / "examples"
CONTRASTS = EXAMPLES / "contrasts.jsonl"
posix = pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes, as on a disk that is full."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Line:
    """A task: the slope of a line through noise-free points."""

    size = 8

    def start(self, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return {"slope": torch.randn(200, generator=generator)}

    def loss(self, parameters: dict[str, torch.Tensor], examples: Any) -> torch.Tensor:
        x = torch.tensor([float(one) for one in examples])
        return ((parameters["slope"].mean() * x - 2 * x) ** 2).mean()

    def __repr__(self) -> str:
        return "Line()"


@posix
@pytest.mark.parametrize("earlier", [None, b"earlier"])
def test_on_a_full_disk_the_earlier_file_stays_and_no_draft(
    earlier: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    if earlier is not None:
        path.write_bytes(earlier)
    said = "The earlier file is as it was" if earlier else "Nothing was left behind"
    with largest_file(1000), pytest.raises(OSError, match=f"Cannot write .*out: .*{said}"):
        write_whole(path, b"x" * 100_000)
    assert [one.name for one in tmp_path.iterdir()] == ["out"] * (earlier is not None)
    assert earlier is None or path.read_bytes() == earlier


@posix
@pytest.mark.filterwarnings("ignore:.*loss ended higher", "ignore:.*can move a parameter")
def test_a_full_disk_under_the_checkpoint_costs_the_checkpoint_and_not_the_fit(
    tmp_path: Path,
) -> None:
    schedule = Schedule(epochs=4, learning_rate=0.1, patience=None)
    alone = train(Line(), schedule)
    with largest_file(1000), pytest.warns(SteeringWarning, match="goes on in memory without"):
        found = train(Line(), schedule, checkpoint=tmp_path / "c")
    assert torch.equal(found.parameters["slope"], alone.parameters["slope"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*loss ended higher", "ignore:.*can move a parameter")
def test_the_checkpoint_of_an_earlier_epoch_stays_and_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, path = Schedule(epochs=4, learning_rate=0.1, patience=None), tmp_path / "c"
    alone, write, calls = train(Line(), schedule), checkpoint.write, []

    def full(*given: Any) -> None:
        calls.append(given)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        write(*given)

    with monkeypatch.context() as patch:
        patch.setattr("steerlens.training.checkpoint.write", full)
        with pytest.warns(SteeringWarning, match="No space left"):
            train(Line(), schedule, checkpoint=path)
    assert len(calls) == 3  # it is not tried again and again
    resumed = train(Line(), schedule, checkpoint=path)
    assert torch.equal(resumed.parameters["slope"], alone.parameters["slope"])


@pytest.mark.filterwarnings("ignore:.*can move a parameter")
def test_a_checkpoint_that_cannot_be_written_at_all_is_told_before_the_work(tmp_path: Path) -> None:
    schedule = Schedule(epochs=4, learning_rate=0.1)
    with pytest.raises(OSError, match="it is a folder"):
        train(Line(), schedule, checkpoint=tmp_path)


def test_a_fit_whose_place_is_gone_is_kept_elsewhere(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, spare = tmp_path / "out" / "caa.safetensors", tmp_path / "spare"
    spare.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spare))
    save = steerlens.Steering.save

    def full(self: Any, path: Path, *model: Any) -> Path:
        if path == out:
            raise OSError(f"Cannot write {path}: No space left on device.")
        return save(self, path, *model)

    monkeypatch.setattr(steerlens.Steering, "save", full)
    code, _, err = run("fit", "caa", "--pairs", CONTRASTS, "--layer", 2, "--out", out)
    assert code == 2
    assert "No space left on device. What was fitted is kept in" in err
    (kept,) = spare.rglob("caa.safetensors")
    assert str(kept) in err
    assert load_steering(kept, steerlens.load("demo")).sites


@pytest.mark.parametrize(
    "options",
    [
        ("cold-fd", "--mode", "jvp", "--eta", "1e38"),
        ("cold-kernel", "--eta", "1e38"),
        ("cold-fd", "--eta", "1e38", "--strength", "auto"),
    ],
)
def test_an_error_leaves_no_file(options: tuple[str, ...], run: Any, tmp_path: Path) -> None:
    method, *more = options
    out = tmp_path / "cold.safetensors"
    code, _, err = run("fit", method, "--pairs", CONTRASTS, "--layers", 2, *more, "--out", out)
    assert (code == 2) == (not out.exists()), err
    assert list(tmp_path.iterdir()) == [out] * out.exists()


def test_what_cannot_be_told_is_no_file_either(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steerlens.cli.fit.cold._push", lambda *_: float("nan"))
    out = tmp_path / "cold.safetensors"
    fit = ("fit", "cold-kernel", "--pairs", CONTRASTS, "--layers", 2, "--eta", 1, "--json")
    code, _, err = run(*fit, "--out", out)
    assert code == 2
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


class Narrow:
    """A terminal that has only ASCII, or that nobody reads any more."""

    encoding = "ascii"

    def __init__(self, broken: bool = False) -> None:
        self.said, self.broken = "", broken

    def write(self, text: str) -> int:
        if self.broken:
            raise BrokenPipeError(32, "Broken pipe")
        text.encode("ascii")
        self.said += text
        return len(text)

    def flush(self) -> None: ...

    def fileno(self) -> int:
        return os.open(os.devnull, os.O_WRONLY)


def test_a_terminal_that_cannot_show_it_is_no_error_after_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from steerlens.cli import output

    narrow = Narrow()
    monkeypatch.setattr("sys.stdout", narrow)
    output.show("α → ü")
    assert narrow.said == "\\u03b1 \\u2192 \\xfc\n"
    monkeypatch.setattr("sys.stdout", Narrow(broken=True))
    output.show("anything")


# -- What was silently wrong -----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1e-6, 1e-30, 1e-37, 1e-38, 1e-40, 1e-45, 1e-300, 5e-324])
def test_any_temperature_above_0_draws_a_token(temperature: float) -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0, -60.0], [0.5, 0.5, -1.0, float("-inf")]])
    uniforms = torch.tensor([0.3, 0.3], dtype=torch.double)
    chosen = choose(scores, Sampling(temperature=temperature), None, uniforms)
    assert chosen.tolist() == [1, 0]
    later = torch.tensor([0.7, 0.7], dtype=torch.double)
    assert choose(scores, Sampling(temperature=temperature), None, later).tolist() == [1, 1]
    assert temperature <= COLDEST


def test_a_text_at_a_tiny_temperature_is_the_greedy_one() -> None:
    model = steerlens.load("demo")
    asked = [Conversation("Review a film.")]
    greedy = steerlens.generate(model, asked, max_new_tokens=6, temperature=0.0).texts
    assert greedy != ("",)
    assert steerlens.generate(model, asked, max_new_tokens=6, temperature=1e-40).texts == greedy


@pytest.mark.parametrize("prompts", [("good", "good"), ("", ""), ("good", "good ")])
def test_act_add_of_equal_prompts_is_refused(prompts: tuple[str, str]) -> None:
    model = steerlens.load("demo")
    if prompts[1].endswith(" ") and len(set(map(model.to_tokens, prompts))) != 1:  # pyright: ignore
        pytest.skip("the space is a token of its own here")
    with pytest.raises(ValueError, match="Both prompts are the same tokens"):
        ActAdd.fit(model, prompts, 2)


@pytest.mark.parametrize("response", [None, 0, False, [], {}, 3])
def test_a_response_that_is_no_text_is_no_missing_one(response: Any, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"user": "a", "system": "b", "response": response}))
    with pytest.raises(ValueError, match="the field 'response' must be text"):
        steerlens.read_prompt_pairs(path)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, "1", None, float("nan")])
@pytest.mark.usefixtures("unchecked")
def test_one_rule_for_seeds(seed: Any) -> None:
    from analysis.measures.intervals import resamples
    from steerlens import calibrate, contrast_directions

    model = steerlens.load("demo")
    sides = ["I loved it", "So good"], ["I hated it", "So bad"]
    steering = at(2, steerlens.CAA(torch.ones(model.cfg.d_model)))
    for attempt in (
        lambda: Sampling(seed=seed),
        lambda: Schedule(seed=seed),
        lambda: Schedule.full_batch(2, seed=seed),
        lambda: contrast_directions(model, "means", *sides, [2], seed=seed),
        lambda: calibrate(model, steering, sides[0], share=0.1, seed=seed),
        lambda: steerlens.generate(model, ["a"], max_new_tokens=1, seed=seed),
        lambda: resamples(3, 10, seed),
    ):
        with pytest.raises(ValueError, match="seed must be a whole number from 0 to 4294967295"):
            attempt()


def test_the_largest_seed_serves_everywhere() -> None:
    from analysis.measures.intervals import resamples

    seed = 2**32 - 1
    assert Sampling(seed=seed).seed == Schedule(seed=seed).seed == seed
    assert resamples(3, 2, seed).shape == (2, 3)
    model = steerlens.load("demo")
    assert steerlens.generate(model, ["a"], max_new_tokens=1, seed=seed).texts
