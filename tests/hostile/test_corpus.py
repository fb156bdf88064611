"""What fuzzing has kept is read as promised; and the fuzzer finds a fault that is planted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz
import pytest
from test_damage import KINDS, Kind

import steerlens

FEWEST = 30
LARGEST = 300_000
PLANTED = (b"NaN", b"\xff\xfe", b"-1")
WHOLE = b"a whole file"


@pytest.fixture(scope="module")
def model() -> Any:
    """The embedded model."""
    return steerlens.load("demo")


def kept() -> list[Path]:
    """Every input of the corpus."""
    return sorted(file for file in fuzz.CORPUS.rglob("*") if file.is_file())


def test_the_corpus_is_small_and_of_kinds_that_there_are() -> None:
    assert len(kept()) >= FEWEST
    assert sum(file.stat().st_size for file in kept()) < LARGEST
    assert {file.parent.name for file in kept()} <= {fuzz.slug(name) for name in KINDS}


@pytest.mark.parametrize("name", KINDS)
def test_what_fuzzing_kept_is_an_error_that_names_the_file_or_is_read_as_it_was(
    name: str, model: Any, tmp_path: Path
) -> None:
    target = fuzz.Target(name, KINDS[name], tmp_path, model)
    files = sorted((fuzz.CORPUS / fuzz.slug(name)).glob("*"))
    assert {file.name: target.wrong(file.read_bytes()) for file in files} == dict.fromkeys(
        file.name for file in files
    )
    assert target.wrong(target.whole) is None


def _read(path: Path, model: Any) -> bytes:
    """A reader with a fault behind three tests, each of which an input must pass by chance."""
    content = path.read_bytes()
    if PLANTED[0] in content:
        if PLANTED[1] in content:
            if PLANTED[2] in content:
                raise KeyError("the planted fault")
            return content
        return content
    return content


def _made(folder: Path, model: Any) -> Path:
    (folder / "planted").write_bytes(WHOLE)
    return folder / "planted"


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> fuzz.Target:
    """That reader, whose lines count as ours."""
    monkeypatch.setattr(fuzz, "OURS", [__file__])
    monkeypatch.setattr(fuzz, "FOUND", tmp_path / "found")
    monkeypatch.setattr(fuzz, "CORPUS", tmp_path / "corpus")
    (tmp_path / "here").mkdir()
    return fuzz.Target("planted", Kind(_made, _read, signed=False), tmp_path / "here", None)


def up_to(most: int) -> Callable[[int], bool]:
    """Whether fewer were tried."""
    return lambda tried: tried < most


def test_the_fuzzer_finds_a_planted_fault_and_keeps_it(planted: fuzz.Target) -> None:
    """It keeps what meets new lines: else three lucky changes would have to come at once."""
    assert fuzz.by_lines(planted, 0, up_to(3000)) > 0
    wrong = sorted(fuzz.FOUND.glob("planted-*"))
    assert wrong
    assert all(word in wrong[0].read_bytes() for word in PLANTED)
    assert fuzz.keep(planted) == (2, len(wrong))
    assert fuzz.keep(planted) == (2, len(wrong))  # also of those that are in the repository already
    assert "KeyError: 'the planted fault'" in str(planted.wrong(wrong[0].read_bytes()))


def test_without_what_meets_new_lines_the_fault_is_not_found(
    planted: fuzz.Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above is one of the fuzzer, not of luck."""
    monkeypatch.setattr(fuzz, "OURS", ["nowhere"])
    assert fuzz.by_lines(planted, 0, up_to(3000)) == 0


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda path, _: 1 / len(path.read_bytes()), "ZeroDivisionError"),
        (lambda path, _: int(path.read_bytes()[:1] == b"a") or int("x"), "does not name the file"),
        (lambda path, _: path.read_bytes(), "was read, as something else"),
    ],
)
def test_the_fuzzer_tells_what_is_wrong(read: Any, said: str, tmp_path: Path) -> None:
    target = fuzz.Target("a kind", Kind(_made, read), tmp_path, None)
    assert target.wrong(WHOLE) is None
    assert said in str(target.wrong(b""))
