"""The one way in which this project writes a file: whole or not at all, and never over an input.

The content goes into a draft beside its target, with a name that no other process has, and onto
the disk; then the draft takes the target's place in one step. So whoever reads meets the earlier
file or the new one, and a process that is killed leaves the earlier one. What it leaves besides, a
draft, is cleared away by the next process that writes into the folder.
"""

import errno
import os
import socket
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TypeAlias

DRAFT = ".draft"
"""How the name of a draft ends; it begins with a dot, the target's name, machine and process."""
STALE = 24 * 3600.0
"""Seconds without a change after which a draft of another machine counts as left behind."""
Files: TypeAlias = Mapping[str, Sequence[Path]]
"""Files under what they are called, as "--out"."""
_drafts: set[str] = set()
_cleared: set[str] = set()


class CannotWrite(OSError):
    """A place where no file can be written; the message says why, and what to do."""


def write_whole(path: str | Path, content: bytes) -> Path:
    """Write `content` to `path`, whole or not at all; returns the path.

    The path's own folder is made where only that is missing. OSError where the path cannot be
    written, or is anything but a regular file.
    """
    with drafted(path) as draft:
        draft.write_bytes(content)
    return Path(path)


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files: each whole, and none where the content of one cannot be written."""
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(drafted(path)).write_bytes(content)


@contextmanager
def drafted(path: str | Path) -> Iterator[Path]:
    """A draft to write, which is put in the path's place at the end of the block.

    An exception inside leaves the earlier file as it was, and no draft.
    """
    path = Path(path)
    made = not path.absolute().parent.exists()
    draft, there = _begun(path), path.is_file()
    try:
        yield draft
        _require_target(path)
        _put(draft, path)
    except CannotWrite:
        _withdraw(draft, made)
        raise
    except OSError as error:
        left = _withdraw(draft, made)
        kept = "The earlier file is as it was" if there else "Nothing was left behind"
        kept = f"{left} was left behind, delete it" if left else kept
        advice = f"{kept}. Choose the path of a file, on a disk with space."
        raise _refused(path, error.strerror or str(error), advice) from error
    finally:
        _withdraw(draft, False)
        _drafts.discard(draft.name)


def named_path(path: str | Path) -> Path:
    """The path; CannotWrite where no file can have this name."""
    try:
        os.fsencode(path)
        if "\0" in os.fspath(path):
            raise ValueError("embedded null byte")
    except ValueError as error:  # half of a character, too
        raise _refused(Path(path), str(error), "Choose another name.") from error
    return Path(path)


def require_place(path: str | Path) -> Path:
    """The path; OSError where no file can be written there, found out before any work.

    Nothing is made but a draft, which is taken away again.
    """
    path = Path(path)
    _require_target(path)
    folder = path.absolute().parent
    if not folder.exists():
        _require_name(path, folder)
        folder = folder.parent
    if not folder.is_dir():
        raise _no_folder(path, folder)
    try:
        handle, name = tempfile.mkstemp(DRAFT, _prefix(path), folder)
        os.close(handle)
        os.unlink(name)
    except OSError as error:
        raise _refused(path, error.strerror or str(error), PLACE) from error
    return path


def require_apart(written: Files, read: Files) -> None:
    """Raise ValueError where what is to be written is what is read, or two outputs are one file.

    The keys say what each is, as `--out`. Links and other spellings of a path are the same file.
    """
    seen: list[tuple[str, Path]] = []
    for name, path in ((name, path) for name, paths in written.items() for path in paths):
        for other, source in ((o, source) for o, sources in read.items() for source in sources):
            if _same(path, source):
                raise ValueError(
                    f"{name} {path} is the file of {other}, which would be overwritten. Choose "
                    "another name for what is written."
                )
        for other, earlier in seen:
            if _same(path, earlier):
                raise ValueError(
                    f"{name} and {other} are one file, {path}. Choose another name for one of them."
                )
        seen.append((name, path))


def _same(first: Path, second: Path) -> bool:
    if os.path.realpath(first) == os.path.realpath(second):
        return True
    try:
        return first.samefile(second)
    except (OSError, ValueError):  # one is not there
        return False


# -- Drafts ----------------------------------------------------------------------------------------


def _begun(path: Path) -> Path:
    """A new and empty draft for the path, whose folder is there from now on."""
    _require_target(path)
    folder = path.absolute().parent
    try:
        if not folder.exists():
            _require_name(path, folder)
            folder.mkdir(exist_ok=True)
        elif not folder.is_dir():
            raise _no_folder(path, folder)
        clear_drafts(folder)
        handle, name = tempfile.mkstemp(DRAFT, _prefix(path), folder)
    except CannotWrite:
        raise
    except OSError as error:
        raise _refused(path, error.strerror or str(error), PLACE) from error
    os.close(handle)
    _drafts.add(Path(name).name)
    return Path(name)


def _withdraw(draft: Path, made: bool) -> Path | None:
    """Take a draft away, and its folder where that was made for it; what could not be taken."""
    try:
        draft.unlink(missing_ok=True)
        if made and draft.parent.exists() and not any(draft.parent.iterdir()):
            draft.parent.rmdir()
    except OSError:
        return draft if os.path.lexists(draft) else draft.parent
    return None


def _put(draft: Path, path: Path) -> None:
    """Put a draft that is written in its place, with the rights that a file has there."""
    draft.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask())
    with draft.open("rb+") as file:
        os.fsync(file.fileno())
    draft.replace(path)
    if os.name == "posix":
        with suppress(OSError):  # some file systems cannot
            handle = os.open(path.absolute().parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def clear_drafts(folder: Path, *, again: bool = False) -> list[str]:
    """Take away the drafts that dead processes left in a folder; their names.

    Once a process and folder, unless `again`. A draft of another machine goes once it is a day old.
    """
    if str(folder) in _cleared and not again:
        return []
    _cleared.add(str(folder))
    gone = []
    for path in folder.glob(f".*{DRAFT}"):
        with suppress(OSError, ValueError):
            if _left_behind(path):
                path.unlink()
                gone.append(path.name)
    return gone


def _left_behind(path: Path) -> bool:
    """Whether nobody writes this draft any more; ValueError where it is none of ours."""
    host, process, _ = path.name.removesuffix(DRAFT).rpartition(".")[2].split("-", 2)
    number = int(process)
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    if time.time() - path.lstat().st_mtime > STALE:
        return True
    if host != _host() or os.name != "posix":
        return False
    if number == os.getpid():
        return path.name not in _drafts
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return False


def _prefix(path: Path) -> str:
    return f".{path.name[:40]}.{_host()}-{os.getpid()}-"


@cache
def _host() -> str:
    """The machine, and the container in it, whose process numbers are its own."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except (OSError, AttributeError):
        space = ""
    return f"{zlib.crc32(f'{socket.gethostname()} {space}'.encode()):08x}"


@cache
def _umask() -> int:
    """The rights that new files do not get; asked for once, for asking means setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


# -- What cannot be written ------------------------------------------------------------------------

PLACE = "Choose a folder that exists and is writable."


def _require_target(path: Path) -> None:
    """Raise OSError unless the path is free, or a regular file that may be replaced."""
    try:
        mode = path.lstat().st_mode
    except OSError as error:  # not there; where its folder is the reason, that is told next
        if error.errno == errno.ENAMETOOLONG:
            raise _refused(path, "its name is too long", "Choose a shorter one.") from error
        return
    except ValueError as error:  # a NUL in the name
        raise _refused(path, str(error), "Choose the path of a file.") from error
    if stat.S_ISREG(mode):
        if not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
            raise _refused(path, "it is read-only", "Choose another name, or allow writing to it.")
        return
    if stat.S_ISLNK(mode):
        where = os.path.realpath(path)
        raise _refused(
            path, "it is a symbolic link", f"Give the path of the file itself, {where}, or another."
        )
    if stat.S_ISDIR(mode):
        raise _refused(path, "it is a folder (Is a directory)", "Choose the path of a file in it.")
    kinds = {stat.S_ISCHR: "a device", stat.S_ISBLK: "a device", stat.S_ISFIFO: "a pipe"}
    kind = next((name for is_one, name in kinds.items() if is_one(mode)), "a socket")
    raise _refused(path, f"it is {kind}, no regular file", "Choose the path of a file.")


def _require_name(path: Path, folder: Path) -> None:
    """Raise OSError where the folder cannot be made, since what is above it is missing."""
    above = folder.parent
    if not above.exists() or not above.is_dir():
        reason = "Not a directory" if above.exists() else "No such file or directory"
        raise _refused(path, f"its folder does not exist and cannot be made ({reason})", PLACE)


def _no_folder(path: Path, folder: Path) -> "CannotWrite":
    return _refused(path, f"{folder} is a file, no folder (Not a directory)", PLACE)


def _refused(path: Path, reason: str, advice: str) -> "CannotWrite":
    return CannotWrite(f"Cannot write {path}: {reason}. {advice}")
