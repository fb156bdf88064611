"""Every block of code of README.md, CONTRIBUTING.md and docs/ runs, or is listed with the reason.

Python blocks of a page run one after another, in one namespace. A command of steerlens is run on
the demonstration model; where that takes too long, or needs another model, its options are checked.
What trains is `slow`; `.ci/run` runs that too, on one version of TransformerLens.
README.md's Python runs in test_readme.py, that of other pages in the tests named in ELSEWHERE.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blocks
import plotly.graph_objects as go
import pytest
import typer
from blocks import NOT_RUN, blocks_of, commands_of, pages, reason
from shown import difference
from typer.main import get_command

from steerlens.cli import app

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "README.md": "test_readme.py",
    "docs/bench.md": "test_bench_run.py",
    "docs/explorer.md": "test_readme.py",
    "docs/extending.md": "test_extending.py",
    "docs/figures.md": "test_gallery.py",
}
OPTIONS_ONLY = {
    "docs/bench.md": "a plan of some hundred cells; test_bench_run.py runs a smaller one",
    "docs/explorer.md": "a grid of all texts, layers and strengths takes minutes",
    "docs/results/smollm2_samples.md": "a record of samples on SmolLM2; SEED is a placeholder",
}
"""Pages of whose commands the options are checked, and why these are not run."""
BEFORE = {
    "docs/sweep.md": [
        "fit angular --pairs examples/contrasts.jsonl --layers 3 --out out/psr.safetensors"
    ]
}
"""Commands that make the files which a page takes from another."""
LONG = {"bench", "demo", "explore", "pull", "push"}
"""Commands of steerlens whose options alone are checked: they take a minute, or ask a server."""
UNCHECKED = ["docs/tutorial.md"]
"""Pages that train: they run in a process of their own, without the checks of shapes."""
OTHERS = {
    "inspect": lambda words: runs_in_a_test(words),
    "lm_eval": lambda words: runs_in_a_test(words),
    "make": lambda words: target_exists(words),
    "pip": lambda words: extras_exist(words),
    "python": lambda words: module_exists(words),
}
SHELLS = blocks.SHELLS
OTHER_LANGUAGES = {"text", "json", "bibtex", "python real", "python notest"}
"""`python real` runs in test_readme.py where SmolLM2 is there; `python notest` needs a server."""
TRAINING = {"README.md", "docs/sweep.md", "docs/tutorial.md"}
"""Pages whose commands take a minute of processor time; `.ci/run` runs them, once."""
METHODS = re.compile(r"docs/methods/\w+\.md")
ALL = [block for page in pages() for block in blocks_of(page)]


def runs_elsewhere(page: str) -> bool:
    return page in {*ELSEWHERE, *UNCHECKED} or bool(METHODS.fullmatch(page))


def python_pages() -> list[str]:
    told = [b.page for b in ALL if b.language == "python" and not reason(b)]
    return [page for page in dict.fromkeys(told) if not runs_elsewhere(page)]


def shell_pages() -> list[str]:
    return list(dict.fromkeys(b.page for b in ALL if b.language in SHELLS))


SHELL = [
    pytest.param(page, marks=[pytest.mark.slow] if page in TRAINING else [])
    for page in shell_pages()
]


def test_every_block_is_of_a_known_language() -> None:
    known = {"python", *SHELLS, *OTHER_LANGUAGES}
    unknown = [str(b) for b in ALL if b.language not in known and not b.language.startswith("{")]
    assert not unknown


def test_no_exception_is_out_of_date() -> None:
    there = {(b.page, b.first) for b in ALL} | {(b.page, "") for b in ALL}
    assert set(NOT_RUN) <= there
    assert {*ELSEWHERE, *OPTIONS_ONLY, *BEFORE} <= set(pages())


@pytest.mark.parametrize("page", ELSEWHERE)
def test_what_runs_elsewhere_is_named_there(page: str) -> None:
    text = (ROOT / "tests" / ELSEWHERE[page]).read_text(encoding="utf-8")
    assert Path(page).name in text


@pytest.mark.parametrize("page", python_pages())
def test_the_python_of_a_page_runs_and_prints_what_is_shown(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(go.Figure, "show", lambda figure: None)
    for block, said in blocks.printed(page, blocks.namespace(page)):
        apart = difference(block.text, said)
        assert not apart, f"{block} shows {apart}: run scripts/docs/outputs.py {page}"


@pytest.mark.slow
@pytest.mark.parametrize("page", UNCHECKED)
def test_a_long_page_shows_what_its_python_prints(page: str) -> None:
    in_a_process("--check", page, script="outputs.py")


PRINTED = "Layer 3: KL 0.123 of 16 tokens, 54%\n  1.2e-05\n"


@pytest.mark.parametrize(
    ("shown", "apart"),
    [
        (PRINTED, ""),
        ("Layer 3: KL 0.124 of\n16 tokens, 53%\n1.3e-05", ""),
        ("Layer 3: KL 0.13 of 16 tokens, 54% 1.2e-05", ""),
        (PRINTED.replace("0.123", "0.127"), "KL 0.127 of 16"),
        (PRINTED.replace("0.123", "-0.123"), "KL -0.123 of"),
        (PRINTED.replace("16", "17"), "of 17 tokens"),
        (PRINTED.replace("54%", "57%"), "tokens, 57%"),
        (PRINTED.replace("e-05", "e-06"), "1.2e-06"),
        (PRINTED.replace("Layer", "layer"), "layer 3"),
        (PRINTED + "more", "1.2e-05 more"),
        ("", "''"),
    ],
)
def test_a_page_that_shows_something_else_is_seen(shown: str, apart: str) -> None:
    found = difference(shown, PRINTED)
    assert apart in found
    assert bool(found) == bool(apart)


@pytest.mark.parametrize("page", SHELL)
def test_the_commands_of_a_page_run(page: str) -> None:
    told = [words for b in blocks_of(page) if b.language in SHELLS for words in commands_of(b)]
    acting = [words[1:] for words in told if tried(page, words)]
    if acting:
        before = [shlex.split(line) for line in BEFORE.get(page, ())]
        in_a_process(given=json.dumps([*before, *acting]))


def tried(page: str, words: Sequence[str]) -> bool:
    """Whether it is a command to run; if not, look whether what it names is there."""
    if words[0] != "steerlens":
        assert words[0] in OTHERS, f"{page}: {words[0]} is no command that the tests know"
        OTHERS[words[0]](words)
        return False
    if page not in OPTIONS_ONLY and "smollm2" not in words and words[1] not in LONG:
        return True
    options_exist(words[1:])
    return False


def in_a_process(*words: str, given: str = "", script: str = "blocks.py") -> str:
    """Run a script of scripts/docs without the checks of shapes, which take half of the time."""
    command = [sys.executable, str(ROOT / "scripts" / "docs" / script), *words]
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=here)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def options_exist(words: Sequence[str]) -> None:
    command, rest = get_command(app), list(words)
    while hasattr(command, "commands"):
        _, command, rest = command.resolve_command(typer.Context(command), rest)
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= known


def target_exists(words: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    asked = [word for word in words[1:] if "=" not in word]
    assert all(re.search(rf"^{word}:", makefile, re.MULTILINE) for word in asked), words


def extras_exist(words: Sequence[str]) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extras in re.findall(r"steerlens\[([\w,-]+)\]", " ".join(words)):
        assert all(re.search(rf"^{extra} = \[", project, re.M) for extra in extras.split(","))


def runs_in_a_test(words: Sequence[str]) -> None:
    """A command of another tool, which `make test-consumers` runs with these words."""
    text = (ROOT / "tests" / f"test_{words[0]}.py").read_text(encoding="utf-8")
    assert " ".join(words) in text.replace('"\n        "', "")


def module_exists(words: Sequence[str]) -> None:
    """`python FILE`, or `python -m MODULE` of this repository, of pip or of build."""
    if words[1] != "-m":
        assert (ROOT / words[1]).exists()
    elif words[2] not in ("pip", "build"):
        assert list(ROOT.glob(f"{words[2].replace('.', '/')}*"))


@pytest.mark.parametrize(
    ("words", "check"),
    [
        (["make", "no-such-target"], target_exists),
        (["pip", "install", "steerlens[nothing]"], extras_exist),
        (["python", "scripts/none.py"], module_exists),
        (["inspect", "eval", "none.py"], runs_in_a_test),
        (["python", "-m", "benchmarks.none"], module_exists),
        (["generate", "--no-such-option"], options_exist),
    ],
)
def test_a_command_that_is_not_there_is_seen(words: list[str], check: Any) -> None:
    with pytest.raises(AssertionError):
        check(words)


def test_a_command_that_fails_is_seen() -> None:
    with pytest.raises(AssertionError, match="failed: steerlens info"):
        in_a_process(given=json.dumps([["models"], ["info", "no-such-file.safetensors"]]))
