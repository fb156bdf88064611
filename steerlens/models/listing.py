"""The models that have a name here, and the GGUF files that were unpacked: what each one is."""

import hashlib
from dataclasses import dataclass

from steerlens.models import gguf
from steerlens.models.names import DEMO
from steerlens.models.released import RELEASED, Released, is_here


@dataclass(frozen=True)
class Listed:
    """One model: `size` in bytes (unpacked, for a file of the user's), `sha256` of its file."""

    name: str
    what: str
    size: int
    licence: str
    source: str
    sha256: str
    here: bool

    def __str__(self) -> str:
        state = "here" if self.here else "not here"
        return (
            f"{self.name:<11} {self.what}, {self.size / 1e6:.0f} MB, {self.licence}, {state}\n"
            f"{'':<11} {self.source}\n{'':<11} sha256 {self.sha256}"
        )


def listed() -> list[Listed]:
    """The embedded model, the released ones, and what the cache holds besides."""
    known = [_released(model) for model in RELEASED.values()]
    digests = {one.sha256 for one in known}
    return [_demo(), *known, *(one for one in _unpacked() if one.sha256 not in digests)]


def _demo() -> Listed:
    weights = DEMO / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    size = sum(file.stat().st_size for file in DEMO.glob("*"))
    what = "the embedded demonstration model"
    return Listed("demo", what, size, "MIT", "in the package steerlens", digest, True)


def _released(model: Released) -> Listed:
    return Listed(
        name=model.name,
        what=f"{model.title}, {model.quantisation} of {model.hub}",
        size=model.size,
        licence=model.licence,
        source=f"in the package {model.package}; {model.install}",
        sha256=model.sha256,
        here=is_here(model.name),
    )


def _unpacked() -> list[Listed]:
    """GGUF files that were unpacked into the cache."""
    folders = sorted((gguf.cache() / "gguf").glob("[!.]*"))
    notes = [(folder, note) for folder in folders if (note := gguf.note_in(folder)) is not None]
    return [
        Listed(
            name=note.file,
            what=str(note),
            size=sum(file.stat().st_size for file in folder.glob("*")),
            licence=note.licence or "licence not stated",
            source=f"unpacked in {folder}",
            sha256=note.sha256,
            here=True,
        )
        for folder, note in notes
    ]
