"""Fixtures that every test file shares: tiny models, each on every backend installed."""

import os
import shutil
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import settings
from tiny_models import ARCHITECTURES, BACKENDS, KINDS, Kind, load, load_reference, write_folder

from steerlens.cli import main

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # else the command line notes that it chose one

settings.register_profile("steady", derandomize=True, deadline=None, max_examples=25, database=None)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each architecture's tiny model."""
    root = tmp_path_factory.mktemp("models")
    return {name: write_folder(root / f"tiny-{name}", name) for name in ARCHITECTURES}


@pytest.fixture(scope="session", params=[Kind(*kind) for kind in KINDS], ids=str)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Architecture and backend: whatever asks for `model` runs once for each."""
    return request.param


@pytest.fixture(scope="session")
def folder(kind: Kind, folders: dict[str, Path]) -> Path:
    """The folder that `model` was loaded from."""
    return folders[kind.architecture]


@pytest.fixture(scope="session")
def model(kind: Kind, folder: Path) -> Any:
    """A tiny model in float32, never changed by a test."""
    return load(folder, kind.backend)


@pytest.fixture(scope="session")
def bfloat16_model(kind: Kind, folder: Path) -> Any:
    """The same model in bfloat16."""
    return load(folder, kind.backend, torch.bfloat16)


@pytest.fixture(scope="session")
def reference(folder: Path) -> Any:
    """The weights of `model` in transformers' own class."""
    return load_reference(folder)


@pytest.fixture(scope="session", params=ARCHITECTURES)
def both_backends(request: pytest.FixtureRequest, folders: dict[str, Path]) -> tuple[Any, Any]:
    """One architecture on two backends; the same one twice where only one is installed."""
    names = [backend for architecture, backend in KINDS if architecture == request.param]
    return load(folders[request.param], names[0]), load(folders[request.param], names[-1])


@pytest.fixture(scope="session")
def gpt2(folders: dict[str, Path]) -> Any:
    """One model on one backend, for tests of what no backend can change."""
    return load(folders["gpt2"], KINDS[0][1])


@pytest.fixture(scope="session")
def values(gpt2: Any) -> list[Any]:
    """Values of which one is of whatever kind a public function asks for."""
    from public_functions import of_each_kind  # all of analysis, which few tests need

    return of_each_kind(gpt2)


@pytest.fixture(scope="session")
def bridge(folders: dict[str, Path]) -> Any:
    """The Llama on TransformerBridge, which every supported TransformerLens has."""
    return load(folders["llama"], "bridge")


@pytest.fixture(scope="session", params=BACKENDS)
def smollm2(request: pytest.FixtureRequest) -> Any:
    """SmolLM2-135M-Instruct, a real model, on each backend; never changed by a test."""
    return real_model(request.param)


@pytest.fixture(scope="session")
def one_smollm2() -> Any:
    """The same on the bridge alone, for tests of what no backend can change."""
    return real_model("bridge")


@cache
def real_model(backend: str) -> Any:
    """SmolLM2, or a skipped test that says how to get it."""
    try:
        return load("smollm2", backend)
    except ValueError as error:
        pytest.skip(f"SmolLM2 could not be had: {error}")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """No shapes or types are checked at calls, as where nobody runs the tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        code = stopped.value.code
        said = capsys.readouterr()
        return (code if isinstance(code, int) else int(code is not None)), said.out, said.err

    return call


CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


# Not for the session: playwright keeps an event loop running, and other tests start their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip(f"there is none of {', '.join(CHROMIUM)} on the path")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=found, args=["--no-sandbox"] if root else []
        )
        yield chromium
        chromium.close()
