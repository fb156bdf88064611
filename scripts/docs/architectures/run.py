"""All architectures in one environment: each in a process of its own, results kept as they come."""

import datetime
import hashlib
import importlib.metadata
import json
import logging
import multiprocessing
import platform
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import steerlens
from architectures import measure
from architectures.zoo import ZOO, Architecture, write_folder
from steerlens.models import has_hooked_transformer, quietly
from steerlens.whole import write_whole

BACKENDS = ("hooked", "bridge", "auto") if has_hooked_transformer() else ("bridge", "auto")
PACKAGES = ("transformer-lens", "transformers", "torch")
HERE = Path(__file__).parent
SOURCES = (
    *Path(steerlens.__file__).parent.rglob("*.py"),
    HERE / "measure.py",
    HERE / "reference.py",
)


def run(results: Path, only: Sequence[str], seconds: float) -> None:
    """Try every architecture that is not in the file `results` yet, or those called `only`."""
    torch.set_num_threads(1)
    _warm()
    kept = _begun(results)
    chosen = _chosen(kept, only)
    for number, architecture in enumerate(chosen, start=1):
        kept["rows"][architecture.name] = row = tried(architecture, seconds)
        kept["tried"][architecture.name] = repr(architecture)
        write_whole(results, json.dumps(kept, indent=1, ensure_ascii=False).encode())
        print(f"{number}/{len(chosen)} {architecture.name}: {_brief(row)}", flush=True)


def _chosen(kept: dict[str, Any], only: Sequence[str]) -> list[Architecture]:
    """Those that are asked for, or those that are not there yet; none that has gone is kept."""
    known = {each.name: each for each in ZOO}
    if unknown := set(only) - set(known):
        raise ValueError(f"No such architecture: {', '.join(sorted(unknown))}.")
    for name in set(kept["rows"]) - set(known):
        del kept["rows"][name], kept["tried"][name]
    if only:
        return [known[name] for name in only]
    return [each for each in ZOO if kept["tried"].get(each.name) != repr(each)]


def _warm() -> None:
    """Import here what every process would import for itself."""
    with quietly():
        import tiny_models  # noqa: F401
        from transformer_lens.model_bridge import TransformerBridge  # noqa: F401
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401


def _begun(results: Path) -> dict[str, Any]:
    """What the file holds, if the same code wrote it; else an empty beginning."""
    stamp = stamped()
    if results.exists():
        kept = json.loads(results.read_text(encoding="utf-8"))
        if kept["stamp"] == stamp:
            return kept
    results.parent.mkdir(parents=True, exist_ok=True)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    today = datetime.date.today().isoformat()
    python = platform.python_version()
    made = {"stamp": stamp, "versions": versions, "python": python, "date": today}
    return made | {"tried": {}, "rows": {}}


def stamped() -> str:
    """A digest of the code and the versions: what makes old results old."""
    digest = hashlib.sha256()
    for file in sorted(SOURCES):
        digest.update(file.read_bytes())
    for name in PACKAGES:
        digest.update(importlib.metadata.version(name).encode())
    return digest.hexdigest()[:16]


def tried(architecture: Architecture, seconds: float) -> dict[str, Any]:
    """The cells of every backend; a crash or a hang is the one cell of the backend it was on."""
    with tempfile.TemporaryDirectory() as name:
        folder, row = Path(name) / "model", {}
        built = _apart(_built, (architecture, folder), Path(name), seconds)
        if built["state"] != "works":
            return {"build": built}
        for backend in BACKENDS:
            row[backend] = _apart(measure.measured, (folder, backend), Path(name), seconds)
            if "state" in row[backend]:
                row[backend] = {"load": row[backend]}
    return row


def _built(architecture: Architecture, folder: Path) -> dict[str, str]:
    try:
        write_folder(architecture, folder)
    except Exception as error:
        return {"state": "error", "said": f"{type(error).__name__}: {error}"[:300]}
    return {"state": "works", "said": ""}


def _apart(work: Any, given: tuple[Any, ...], folder: Path, seconds: float) -> dict[str, Any]:
    """What `work(*given)` returns, from a process of its own."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(
        target=_answer, args=(work, given, answer)
    )
    began = time.monotonic()
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        return {"state": "error", "said": f"no end after {time.monotonic() - began:.0f} s"}
    if not answer.exists():
        return {"state": "error", "said": f"the process died ({process.exitcode})"}
    return json.loads(answer.read_text(encoding="utf-8"))


def _answer(work: Any, given: tuple[Any, ...], answer: Path) -> None:
    from transformers.utils import logging as transformers_logging

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    write_whole(answer, json.dumps(work(*given)).encode())


def _brief(row: dict[str, Any]) -> str:
    if "build" in row:
        return f"not built ({row['build']['said']})"
    return "; ".join(f"{backend} {_fine(cells)}" for backend, cells in row.items())


def _fine(cells: dict[str, Any]) -> str:
    bad = [
        f"{name} {cell['state']}"
        for name, cell in cells.items()
        if cell["state"] not in ("works", "none")
    ]
    return ", ".join(bad) if bad else "works"
