"""Coverage-guided fuzzing of every reader: `make fuzz SECONDS=600`, or `fuzz.py --keep`.

The kinds of file, and how each is made and read, are those of tests/hostile/test_damage.py. A
reader may raise ValueError or OSError that names the file; a file with a digest is read as it was,
or not at all. All else, and whatever takes more than five seconds of work, is written into
build/fuzz, and is an error.

With atheris (`pip install atheris`; Linux and macOS) its libFuzzer chooses what to try. Without, a
small mutator does: what meets new lines of steerlens is kept and changed again. `--keep` puts the
few small inputs that meet the most lines into tests/hostile/corpus, which the tests read.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
CORPUS, FOUND = ROOT / "tests" / "hostile" / "corpus", ROOT / "build" / "fuzz"
SLOW, MOST_KEPT, LARGEST = 5.0, 6, 2048
OURS = [str(ROOT / "steerlens"), str(ROOT / "analysis")]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "hostile")]
ONCE_WRONG = "once-wrong-"
Lines = frozenset[tuple[str, int]]


class Target:
    """One kind of file: a whole one, and what reading others leads to."""

    def __init__(self, name: str, kind: Any, folder: Path, model: Any) -> None:
        from test_damage import REFUSED

        self.name, self.kind, self.refused, self.model = name, kind, REFUSED, model
        self.path = kind.make(folder, model)
        self.whole = self.path.read_bytes()
        self.expected = self.kind.read(self.path, self.model)

    @classmethod
    def of(cls, name: str, folder: Path) -> "Target":
        """A kind of those that are written and read here, on the demonstration model."""
        from test_damage import KINDS

        import steerlens

        return cls(name, KINDS[name], folder, steerlens.load("demo"))

    def wrong(self, content: bytes) -> str | None:
        """What is wrong with how a content is read; None if nothing."""
        self.path.write_bytes(content)
        start = time.process_time()
        try:
            found = self.kind.read(self.path, self.model)
        except self.refused as error:
            said = None if str(self.path) in str(error) else f"does not name the file: {error}"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        else:
            same = not self.kind.signed or found == self.expected
            said = None if same else "was read, as something else"
        took = time.process_time() - start
        return f"took {took:.0f} s" if said is None and took > SLOW else said

    def tell(self, content: bytes, said: str) -> None:
        """Keep an input that went wrong."""
        FOUND.mkdir(parents=True, exist_ok=True)
        path = FOUND / f"{slug(self.name)}-{sha256(content).hexdigest()[:8]}"
        path.write_bytes(content)
        print(f"{self.name}: {said:.300} ({os.path.relpath(path, ROOT)})", flush=True)


def slug(name: str) -> str:
    """The name of a kind as that of a folder."""
    return name.replace(" ", "-").replace("'", "")


def lines_of(work: Callable[[], Any]) -> tuple[Any, Lines]:
    """What `work` returns, and the lines of steerlens that it met."""
    met: set[tuple[str, int]] = set()

    def step(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            met.add((frame.f_code.co_filename, frame.f_lineno))
        return step

    ours = tuple(OURS)

    def called(frame: FrameType, event: str, _: Any) -> Any:
        return step if frame.f_code.co_filename.startswith(ours) else None

    before = sys.gettrace()
    sys.settrace(called)
    try:
        return work(), frozenset(met)
    finally:
        sys.settrace(before)


def mutations(inputs: list[bytes], drawn: random.Random) -> Iterator[bytes]:
    """Endlessly, one of the inputs with one or a few changes."""
    words = [b"null", b"-1", b"1e999", b'"', b"{", b"]", b"\\ud800", b"\xff\xfe", b"\n", b"NaN"]
    while True:
        content = bytearray(drawn.choice(inputs))
        for _ in range(drawn.choice((1, 1, 2, 4))):
            place = drawn.randrange(len(content) + 1)
            end = min(len(content), place + drawn.choice((1, 1, 4, 32)))
            other = drawn.choice(inputs)
            start = drawn.randrange(len(other) + 1)
            piece = drawn.choice((b"", drawn.choice(words), other[start : start + 16]))
            content[place:end] = piece or bytes([drawn.randrange(256)]) * drawn.randrange(2)
        yield bytes(content)


def seeds(target: Target) -> list[bytes]:
    """The whole file, and what earlier runs found."""
    folders = CORPUS / slug(target.name), FOUND / "corpus" / slug(target.name)
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    return [target.whole, *(file.read_bytes() for file in files)]


def by_lines(target: Target, seed: int, goes_on: Callable[[int], bool]) -> int:
    """Without atheris: keep what meets new lines; the number of inputs that went wrong.

    `goes_on` is told how many were tried.
    """
    inputs, met, wrong, tried = seeds(target), set[tuple[str, int]](), 0, 0
    folder = FOUND / "corpus" / slug(target.name)
    folder.mkdir(parents=True, exist_ok=True)
    known = iter(list(inputs))
    mutated = mutations(inputs, random.Random(f"{target.name} {seed}"))
    while goes_on(tried):
        content = next(known, None)
        earlier = content is not None
        content = next(mutated) if content is None else content
        tried += 1
        said, lines = lines_of(partial(target.wrong, content))
        if said is not None:
            target.tell(content, said)
            wrong += 1
        elif not lines <= met and len(content) <= 65536:
            met |= lines
            if not earlier:
                inputs.append(content)
                (folder / sha256(content).hexdigest()[:12]).write_bytes(content)
    print(f"{target.name:16} {tried:6} tried, {len(met):4} lines met, {wrong} wrong", flush=True)
    return wrong


def until(end: float) -> Callable[[int], bool]:
    """Whether it is not yet that time."""
    return lambda _: time.monotonic() < end


def by_atheris(atheris: Any, target: Target, seconds: float, seed: int) -> None:
    """With atheris, which ends the process: 77 where something went wrong."""
    folder = FOUND / "corpus" / slug(target.name)
    folder.mkdir(parents=True, exist_ok=True)
    for content in seeds(target):
        (folder / sha256(content).hexdigest()[:12]).write_bytes(content)

    def once(content: bytes) -> None:
        said = target.wrong(content)
        if said is not None:
            target.tell(content, said)
            raise AssertionError(said)

    options = [f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", "-max_len=65536"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={FOUND}/crash-", str(folder)], once)
    atheris.Fuzz()


def found_atheris() -> Any:
    """The module; None where it is not installed."""
    try:
        import atheris  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    return atheris


def one(name: str, seconds: float, seed: int) -> None:
    """Fuzz one kind with atheris, in a process of its own."""
    atheris = found_atheris()
    with tempfile.TemporaryDirectory() as folder:
        # What a reader imports, some of it only as it reads, is watched if it is imported in here.
        with atheris.instrument_imports(include=["steerlens", "analysis"]):
            target = Target.of(name, Path(folder))
            for content in seeds(target):
                target.wrong(content)
        by_atheris(atheris, target, seconds, seed)


def went_wrong(name: str, seconds: float, seed: int) -> bool:
    """Fuzz one kind, with atheris where it is installed."""
    if found_atheris() is None:
        with tempfile.TemporaryDirectory() as folder:
            target = Target.of(name, Path(folder))
            return by_lines(target, seed, until(time.monotonic() + seconds)) > 0
    given = [name, str(seconds), str(seed % 2**31)]
    done = subprocess.run([sys.executable, __file__, "--one", *given], cwd=ROOT, check=False)
    return done.returncode != 0


def keep(target: Target) -> tuple[int, int]:
    """Of what was found, the smallest that together meet the most lines, into the repository.

    What went wrong, and was written into build/fuzz, is kept for ever. Returns how many of both.
    """
    place, kept = CORPUS / slug(target.name), list[bytes]()
    place.mkdir(parents=True, exist_ok=True)
    for file in FOUND.glob(f"{slug(target.name)}-????????"):
        (place / f"{ONCE_WRONG}{file.name[-8:]}").write_bytes(file.read_bytes())
    once_wrong = [file.read_bytes() for file in place.glob(f"{ONCE_WRONG}*")]
    known = set[tuple[str, int]]()
    for content in (target.whole, *once_wrong):
        known |= lines_of(partial(target.wrong, content))[1]
    others = [content for content in seeds(target)[1:] if content not in once_wrong]
    small = sorted((content for content in others if len(content) <= LARGEST), key=len)
    for content in small:
        lines = lines_of(partial(target.wrong, content))[1]
        if len(kept) < MOST_KEPT and not lines <= known:
            known |= lines
            kept.append(content)
    for file in place.iterdir():
        if not file.name.startswith(ONCE_WRONG):
            file.unlink()
    for content in kept:
        (place / sha256(content).hexdigest()[:12]).write_bytes(content)
    return len(kept), len(once_wrong)


def keep_every() -> None:
    """Of every kind of file."""
    from test_damage import KINDS

    for name in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            kept, mended = keep(Target.of(name, Path(folder)))
        print(f"{name:16} {kept} kept, and {mended} that went wrong once", flush=True)


def main() -> None:
    warnings.simplefilter("ignore")
    if sys.argv[1:2] == ["--keep"]:
        keep_every()
        return
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
        return
    from test_damage import KINDS

    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    print(f"seed {seed}, {seconds / len(KINDS):.0f} s for each of {len(KINDS)} kinds", flush=True)
    wrong = [name for name in KINDS if went_wrong(name, seconds / len(KINDS), seed)]
    if wrong:
        sys.exit(f"Something went wrong with {', '.join(wrong)}: see build/fuzz.")


if __name__ == "__main__":
    main()
