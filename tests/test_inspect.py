"""The provider of models for Inspect: its answers are those of `generate`, whatever steers.

Inspect is run where it is installed (`make test-consumers`), in processes of its own.
"""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from catalogue import CATALOGUE
from tiny_models import BACKENDS, load

import steerlens
from steerlens import Conversation, generate

ROOT = Path(__file__).parents[1]
QUESTIONS = ("What is it?", "Do you love the dog and the cat?", "Who?", "Do you?")
SYSTEM = "You are kind."
KINDS = ("CAA", "PSR", "ColdKernel", "ColdFD")
real = pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is None,
    reason="Inspect is not installed: make test-consumers",
)


def test_nothing_but_the_provider_imports_inspect():
    importing = []
    for path in [*(ROOT / "steerlens").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] in ("inspect_ai", "anyio") for name in names):
                importing.append(path.name)
    assert set(importing) == {"_inspect_provider.py"}


def test_the_entry_point_is_the_module():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    named = 'steerlens = "steerlens.interchange._inspect_provider"'
    assert f"[project.entry-points.inspect_ai]\n{named}" in text
    assert (ROOT / "steerlens" / "interchange" / "_inspect_provider.py").is_file()


TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message


@task
def ours():
    return Task(
        dataset=[Sample(input=question, target="the") for question in {questions!r}],
        solver=[system_message({system!r}), generate()],
        scorer=includes(),
    )
"""
ASKING = """
import asyncio, json, sys
from inspect_ai import eval
from inspect_ai.model import ChatMessageUser, ContentImage, GenerateConfig, get_model
from inspect_ai.tool import ToolInfo, ToolParams
import steerlens.interchange._inspect_provider
from task import ours

folder, runs, asked = json.loads(sys.argv[1])
told = []
for run in runs:
    model = get_model(f"steerlens/{folder}", memoize=False, **run)
    (log,) = eval(
        ours(), model=model, temperature=0.0, max_tokens=6, display="none", log_dir="logs"
    )
    assert log.status == "success", log.error
    samples = sorted(log.samples, key=lambda sample: sample.id)
    told.append([
        [s.output.completion, s.output.stop_reason, s.output.usage.output_tokens] for s in samples
    ])

async def said(model, messages, tools=(), **options):
    try:
        out = await model.generate(messages, tools=list(tools), config=GenerateConfig(**options))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return [out.completion, out.stop_reason]

async def all_of(model):
    user = [ChatMessageUser(content="What is it?")]
    image = ContentImage(image="data:image/png;base64,AAAA")
    add = ToolInfo(name="add", description="Add.", parameters=ToolParams())
    sampled = {"temperature": 1.0, "top_p": 0.9, "max_tokens": 6}
    return {
        "seed 3": await said(model, user, seed=3, **sampled),
        "no seed": [await said(model, user, **sampled) for _ in range(4)],
        "stop": await said(model, user, stop_seqs=asked["stop"], temperature=0.0, max_tokens=6),
        "choices": await said(model, user, num_choices=2),
        "tools": await said(model, user, [add]),
        "image": await said(model, [ChatMessageUser(content=[image])]),
        "long": await said(model, [ChatMessageUser(content="dog " * 500)], temperature=0.0),
    }

def refused(**options):
    try:
        get_model(f"steerlens/{folder}", memoize=False, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

model = get_model(f"steerlens/{folder}", memoize=False)
wrong = [refused(colour=1), refused(strength=2), refused(steering="no.safetensors")]
wrong.append(refused(steering=runs[0]["steering"], strength="much"))
print(json.dumps([told, asyncio.run(all_of(model)), wrong]))
"""


def in_inspect(tmp_path: Path, *given: Any) -> Any:
    (tmp_path / "task.py").write_text(TASK.format(questions=QUESTIONS, system=SYSTEM))
    here = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASKING, json.dumps(given)],
        capture_output=True,
        text=True,
        env=here,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@real
@pytest.mark.parametrize("backend", BACKENDS)
def test_completions_are_those_of_generate_and_options_are_honoured(backend, folders, tmp_path):
    folder = folders["llama"]
    model = load(folder, backend)
    runs, wanted = [], []
    for name in KINDS:
        steering = next(one for one in CATALOGUE.values() if one.covers == name).build(model)
        file = str(steering.save(tmp_path / f"{name}.safetensors", model))
        runs.append({"steering": file, "strength": 1.5, "backend": backend})
        asked = [Conversation(question, SYSTEM) for question in QUESTIONS]
        made = generate(model, asked, 1.5 * steering, temperature=0, max_new_tokens=6)
        wanted.append([[t, len(made.response_ids(n))] for n, t in enumerate(made.texts)])
    plain = generate(model, Conversation("What is it?"), temperature=0, max_new_tokens=6).texts[0]
    stop = plain[1:3]
    told, said, wrong = in_inspect(tmp_path, str(folder), runs, {"stop": [stop]})
    for name, found, made in zip(KINDS, told, wanted, strict=True):
        assert [[text, n] for text, _, n in found] == made, name
    assert len({json.dumps(one) for one in wanted}) == len(KINDS)
    seeded = generate(model, Conversation("What is it?"), max_new_tokens=6, seed=3, top_p=0.9)
    assert said["seed 3"][0] == seeded.texts[0]
    assert len({json.dumps(one) for one in said["no seed"]}) > 1
    assert said["stop"] == [plain[: plain.index(stop)], "stop"]
    assert said["long"] == ["", "model_length"]
    assert "has no num_choices" in said["choices"]
    assert "has no tools" in said["tools"]
    assert "reads text alone; found image" in said["image"]
    for error, words in zip(
        wrong, ("-M colour", "give -M steering", "no steering file", "a number"), strict=True
    ):
        assert words in error


@real
def test_the_command_of_the_documents_runs(tmp_path):
    if not [one for one in entry_points(group="inspect_ai") if one.name == "steerlens"]:
        pytest.skip("this installation of steerlens has no entry point: install it again")
    model = steerlens.load("demo")
    fit = steerlens.CAA.fit(model, (["I loved it"], ["I hated it"]), 3)
    fit.steering.only(steerlens.response).save(tmp_path / "caa.safetensors")
    (tmp_path / "task.py").write_text(TASK.format(questions=QUESTIONS, system=SYSTEM))
    command = (
        "inspect eval task.py --model steerlens/demo -M steering=caa.safetensors -M strength=2"
    )
    options = ["--temperature", "0", "--max-tokens", "8", "--log-format", "json"]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "inspect"), *command.split()[1:], *options],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "INSPECT_LOG_DIR": "logs"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (log,) = (tmp_path / "logs").glob("*.json")
    told = json.loads(log.read_text())
    assert told["eval"]["model_args"] == {"steering": "caa.safetensors", "strength": 2}
    asked = [Conversation(question, SYSTEM) for question in QUESTIONS]
    steering = 2.0 * steerlens.load_steering(tmp_path / "caa.safetensors", model)
    made = generate(model, asked, steering, temperature=0, max_new_tokens=8)
    samples = sorted(told["samples"], key=lambda sample: sample["id"])
    found = [one["output"]["choices"][0]["message"]["content"] for one in samples]
    assert found == list(made.texts)
