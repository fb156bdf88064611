"""A folder that is written whole or not at all, and never over another."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steerlens.whole import STALE, CannotWrite, named_path

PART = ".part-"


def require_folder_place(path: str | Path) -> Path:
    """The path; CannotWrite unless a new folder can be made there, found out before any work.

    An empty folder may be there.
    """
    path = named_path(path)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise CannotWrite(
            f"Cannot write {path}: it is there already, and is no folder. Choose the path of a new "
            "folder."
        )
    if path.is_dir() and any(path.iterdir()):
        raise CannotWrite(
            f"Cannot write {path}: the folder is there already, and is not empty. Choose the path "
            "of a new folder, or delete this one."
        )
    above = path.absolute().parent
    if not above.is_dir() and not above.parent.is_dir():
        raise CannotWrite(
            f"Cannot write {path}: neither {above} nor the folder above it is there. Choose a "
            "folder that exists and is writable."
        )
    writable = above if above.is_dir() else above.parent
    if not os.access(writable, os.W_OK):
        raise CannotWrite(
            f"Cannot write {path}: {writable} is not writable. Choose a folder that is."
        )
    return path


@contextmanager
def drafted_folder(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which takes the path's place at the end of the block.

    An exception inside leaves nothing behind.
    """
    path = require_folder_place(path)
    above = path.absolute().parent
    made = not above.exists()
    try:
        above.mkdir(exist_ok=True)
        _clear(above, path.name)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}{PART}", dir=above))
    except OSError as error:
        raise CannotWrite(
            f"Cannot write {path}: {error.strerror or error}. Choose a folder that is writable, on "
            "a disk with space."
        ) from error
    try:
        yield draft
        _put(draft, path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if made and not any(above.iterdir()):
            above.rmdir()


def _put(draft: Path, path: Path) -> None:
    """Have the folder on the disk, with the rights that a new one has, under its name."""
    for file in draft.iterdir():
        with file.open("rb+") as content:
            os.fsync(content.fileno())
    umask = os.umask(0o077)
    os.umask(umask)
    draft.chmod(0o777 & ~umask)
    require_folder_place(path)
    if path.exists():
        path.rmdir()
    draft.rename(path)


def _clear(above: Path, name: str) -> None:
    """Take away what processes that died a day ago or earlier left of this folder."""
    for left in above.glob(f".{name[:40]}{PART}*"):
        if time.time() - left.lstat().st_mtime > STALE:
            shutil.rmtree(left, ignore_errors=True)
