"""docs/extending.md: every example runs, and its method becomes part of everything as it says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = {
    section.partition("\n")[0]: re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    for section in PAGE.split("\n## ")[1:]
}
EXPORT = "from steerlens.methods.ablation import Ablation as Ablation\n"


def test_a_method_takes_thirty_lines() -> None:
    assert len(SECTIONS["A method"][0].splitlines()) <= 30
    assert list(SECTIONS) == ["A method", "A judge", "A direction", "A figure"]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_examples_of_a_section_run_one_after_another(
    section: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    shown: list[go.Figure] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(go.Figure, "show", lambda figure: shown.append(figure))
    names: dict[str, Any] = {"__name__": "extending"}
    for number, block in enumerate(SECTIONS[section]):
        exec(compile(block, f"docs/extending.md, {section}, {number}", "exec"), names)
    assert len(shown) == (section == "A figure")
    assert shown or capsys.readouterr().out


def test_the_method_of_the_page_is_exported_saved_loaded_and_a_command_by_its_file_and_one_line(
    tmp_path: Path,
) -> None:
    copied = tmp_path / "steerlens"
    shutil.copytree(
        ROOT / "steerlens", copied, ignore=shutil.ignore_patterns("__pycache__", "model")
    )
    (copied / "demo" / "model").symlink_to(ROOT / "steerlens" / "demo" / "model")
    (copied / "methods" / "ablation.py").write_text(SECTIONS["A method"][0], encoding="utf-8")
    exports = copied / "methods" / "__init__.py"
    text = exports.read_text(encoding="utf-8")
    assert EXPORT.strip() in PAGE
    exports.write_text(text.replace("from ", EXPORT + "from ", 1), encoding="utf-8")
    file = tmp_path / "ablation.safetensors"
    contrasts = ROOT / "examples" / "contrasts.jsonl"

    def python(*arguments: object) -> str:
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    steerlens = ("-m", "steerlens.cli")
    assert "Directional ablation: nothing of an activation" in python(*steerlens, "fit", "--help")
    said = python(
        *(*steerlens, "fit", "ablation", "--pairs", contrasts, "--layers", "2,3", "--out", file)
    )
    assert said == f"Wrote {file}: Ablation from 4 pairs\n"
    loaded = python(
        "-c",
        "import sys, steerlens as sl\n"
        "assert 'torch' not in sys.modules and 'Ablation' in sl.__all__\n"
        f"print(sl.load_steering({str(file)!r}, sl.load('demo')).placed[0][1], sl.Ablation)",
    )
    assert "Ablation(u=[192])" in loaded
    assert "steerlens.methods.ablation.Ablation" in loaded
