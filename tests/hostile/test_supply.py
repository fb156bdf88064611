"""What is installed sends nothing, and what is known of it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BILL = ROOT / "scripts" / "supply" / "installed.py"

GUARDED = """
import os, sys
asked = []
def guard(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        if event == "socket.connect" and not isinstance(arguments[1], tuple):
            return  # a socket of this machine, which is a file
        asked.append((event, repr(arguments)))
        os.write(2, f"NETWORK {event} {arguments!r}\\n".encode())
        raise OSError("the network was asked for")
sys.addaudithook(guard)
import importlib
import steerlens as sl
for name in ("wandb", "opentelemetry", "datasets", "accelerate", "peft"):
    try:
        importlib.import_module(name)
    except ImportError:
        pass
model = sl.load("demo")
fit = sl.CAA.fit(model, (["I loved it"], ["I hated it"]), 2)
sl.generate(model, [sl.Conversation("Hello")], fit.steering, max_new_tokens=4)
import steerlens.analysis
print("asked", len(asked))
"""


def test_no_dependency_sends_anything(tmp_path: Path) -> None:
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "WANDB_MODE",
             "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "PYTHONPATH")  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name not in names}
    told = {**kept, "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", GUARDED], env=told, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("asked 0\n")
    assert "NETWORK" not in done.stderr  # threads, and what runs at the end


def test_the_bill_of_materials_names_what_runs(tmp_path: Path) -> None:
    out = tmp_path / "bill.json"
    subprocess.run([sys.executable, BILL, "bill", out], check=True, capture_output=True)
    held = json.loads(out.read_text())
    assert held["bomFormat"] == "CycloneDX"
    names = {part["name"].lower() for part in held["components"]}
    assert {"torch", "transformers", "transformer-lens", "safetensors"} <= names
    assert all(part["version"] for part in held["components"])


def _hashed(kind: str, file: str) -> list[str]:
    script = ROOT / "scripts" / "supply" / "hashed.py"
    command = [sys.executable, script, kind, ROOT / "constraints" / file]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.splitlines()


def test_whatever_is_locked_has_hashes() -> None:
    """But torch, whose builds differ; and pins without hashes can be had for `pip install -c`."""
    for file in ("tl3.txt", "tl4.txt", "lowest.txt", "build.txt"):
        lines = _hashed("all", file)
        heads = [number for number, line in enumerate(lines) if not line.startswith(" ")]
        assert len(heads) > 5
        for number in heads:
            assert re.match(r"[a-z0-9._-]+==\S+( ;.*)? \\$", lines[number]), lines[number]
            assert re.match(r"    --hash=sha256:[0-9a-f]{64}( \\)?$", lines[number + 1])
    pins = _hashed("pins", "tl3.txt")
    assert not [line for line in pins if "--hash" in line or line.endswith("\\")]
    assert [line for line in pins if line.startswith("torch==")]


def test_what_make_demo_installs_is_what_steerlens_runs_on() -> None:
    names = {re.split("[= ]", line)[0] for line in _hashed("run", "tl3.txt") if line[0] != " "}
    assert {"transformers", "transformer-lens", "numpy", "gguf", "typer"} <= names
    assert not {"torch", "pytest", "sphinx", "playwright"} & names
    assert {"filelock", "sympy"} <= {re.split("=", line)[0] for line in _hashed("torch", "tl3.txt")}
    makefile = (ROOT / "Makefile").read_text()
    assert makefile.count("--require-hashes") >= 3
    assert 'requires = ["hatchling==' in (ROOT / "pyproject.toml").read_text()
