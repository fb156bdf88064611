"""Files that are written whole or not at all: an earlier one stays where the writing fails."""

import os
import uuid
from contextlib import suppress
from pathlib import Path


def require_place(path: str | Path, what: str) -> Path:
    """The path; OSError where no file can be. Only its own folder is made, not what is above it."""
    path = Path(path)
    try:
        path.absolute().parent.mkdir(exist_ok=True)
    except OSError as error:
        raise _unwritten(path, what, error) from error
    if path.is_dir():
        raise _unwritten(path, what, OSError("it is a folder"))
    return path


def write_whole(path: str | Path, content: bytes, what: str) -> Path:
    """Write beside the path, then rename; `what` is the file's kind in the message of an error."""
    path = require_place(path, what)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}.draft")
    try:
        draft.write_bytes(content)
        os.replace(draft, path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise _unwritten(path, what, error) from error
    return path


def _unwritten(path: Path, what: str, error: OSError) -> OSError:
    return OSError(
        f"{what} could not be written to {path}: {error.strerror or error}. "
        "Give a file name in a folder that exists and can be written to."
    )
