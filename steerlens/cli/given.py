"""What holds for the options of every command, looked at before the command does anything."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from steerlens.parsing import STANDARD_INPUT, short
from steerlens.whole import require_apart, require_place

MOST = 10**9
"""No whole number of an option may be larger: nothing that is counted here is."""
ANY_SIZE = ("sinks", "share", "target_kl")
"""Options that may be infinite, or say themselves what they are."""
NAMED = ("model", "fitted_on", "direction")
"""Options that may name a file or a folder, and are read."""
DEMO = Path(__file__).parent.parent / "demo" / "model"


@dataclass(frozen=True)
class Written:
    """Marks the annotation of an option whose file is written; with suffixes, several files are."""

    suffixes: tuple[str, ...] = ()

    def files(self, path: Path) -> list[Path]:
        """The files that are written where `path` is given."""
        stem = path.with_suffix("") if path.suffix in self.suffixes else path
        return [stem.with_name(stem.name + suffix) for suffix in self.suffixes] or [path]


def require_files(options: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raise an error where a file cannot be written, or is read by the same command."""
    written = {
        _option(name, annotations): mark.files(options[name])
        for name, mark in _marks(annotations)
        if options[name] is not None
    }
    for path in (path for paths in written.values() for path in paths):
        require_place(path)
    given = {_option(name, annotations): (name, value) for name, value in options.items()}
    inputs = {called: one for called, one in given.items() if called not in written}
    _require_one_input({called: value for called, (_, value) in inputs.items()})
    read = {called: list(_paths(value)) for called, (_, value) in inputs.items()}
    read |= {
        called: files_of(value)
        for called, (name, value) in inputs.items()
        if name in NAMED and isinstance(value, str)
    }
    require_apart(written, read)


def _require_one_input(options: Mapping[str, Any]) -> None:
    """Raise ValueError where standard input is to be several files."""
    names = [called for called, value in options.items() if value == STANDARD_INPUT]
    if len(names) > 1:
        raise ValueError(
            f"Standard input ('-') is one file, and {' and '.join(names)} are several. Write all "
            "but one to files."
        )


def require_texts(options: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raise ValueError for a text of the command line that is no UTF-8."""
    for name, value in options.items():
        for one in value if isinstance(value, list | tuple) else (value,):
            if isinstance(one, str) and any("\ud800" <= letter <= "\udfff" for letter in one):
                called = _option(name, annotations)
                raise ValueError(f"{called} is no UTF-8 text: {short(one)}.")


def _marks(annotations: Mapping[str, Any]) -> Iterator[tuple[str, Written]]:
    for name, annotation in annotations.items():
        for mark in get_args(annotation)[1:]:
            if isinstance(mark, Written):
                yield name, mark


def _paths(value: Any) -> Iterator[Path]:
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, Path) and one != STANDARD_INPUT:
            yield one


def files_of(model: str) -> list[Path]:
    """The files of a model: those of its folder, or the one file."""
    path = DEMO if model == "demo" else Path(model).expanduser()
    try:
        return [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    except (OSError, ValueError):
        return []


def _option(name: str, annotations: Mapping[str, Any]) -> str:
    """What the user writes: --max-new-tokens for an option, FILE for an argument."""
    if any(type(mark).__name__ == "ArgumentInfo" for mark in get_args(annotations.get(name))[1:]):
        return name.upper()
    return f"--{name.replace('_', '-')}"


# -- Numbers ---------------------------------------------------------------------------------------


def require_numbers(options: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """Raise ValueError for a number that no command can do anything with."""
    for name, value in options.items():
        for one in value if isinstance(value, list | tuple) else (value,):
            _require_number(_option(name, annotations), one, any_size=name in ANY_SIZE)


def _require_number(option: str, value: Any, *, any_size: bool) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if option == "--seed":
        from steerlens.checks import require_seed

        require_seed(value, option)
    elif isinstance(value, int):
        if abs(value) > MOST:
            raise ValueError(f"{option} is at most {MOST}; found {short(value)}.")
    elif not any_size and not math.isfinite(value):
        raise ValueError(f"{option} must be a finite number; found {value}.")


# -- Ctrl-C ----------------------------------------------------------------------------------------


class Interrupted(Exception):
    """Ctrl-C in a command; the message says what was kept."""


@contextmanager
def keeping(options: Mapping[str, Any], annotations: Mapping[str, Any]) -> Iterator[None]:
    """Have Ctrl-C say what the files of the command are now."""
    files = {
        _option(name, annotations): mark.files(options[name])
        for name, mark in _marks(annotations)
        if options.get(name) is not None
    }
    before = {path: _state(path) for paths in files.values() for path in paths}
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(_kept(files, before, options)) from error


def _kept(
    files: Mapping[str, list[Path]], before: Mapping[Path, object], options: Mapping[str, Any]
) -> str:
    said = []
    for name, path in ((name, path) for name, paths in files.items() for path in paths):
        if name == "--checkpoint" and path.exists():
            said.append(f"{path} holds the training so far: the same command goes on from there.")
        elif path.exists():
            same = _state(path) == before[path]
            said.append(f"{path} {'is as it was' if same else 'is written and whole'}.")
    folder = options.get("out")
    if not files and isinstance(folder, Path) and folder.is_dir():
        said.append(f"What was finished is in {folder}: the same command goes on from there.")
    return " ".join(said) or "No file was written."


def _state(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
