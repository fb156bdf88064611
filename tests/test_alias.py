"""`analysis` and its second name `steerlens.analysis`: the same things, whoever else is there."""

import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import analysis
import steerlens

ROOT = Path(__file__).parent.parent
SUBMODULES = sorted(
    info.name.partition(".")[2] for info in pkgutil.walk_packages(analysis.__path__, "analysis.")
)


def run(code: str, folder: Path, path: Path = ROOT) -> str:
    """What a fresh Python prints in a folder, which is the first place that it imports from."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(params=["analysis.py", "analysis/__init__.py"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project with an `analysis` of its own, which says so when it is run."""
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "judges.py").write_text("print('run')\n")
    (tmp_path / request.param).write_text("print('run')\nstranger = True\n")
    return tmp_path


# -- The names at the root -------------------------------------------------------------------------


@pytest.mark.parametrize("name", analysis.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert name in dir(analysis)
    assert getattr(analysis, name) is getattr(steerlens.analysis, name)


def test_no_public_name_is_that_of_a_module() -> None:
    folders = {name.partition(".")[0] for name in SUBMODULES}
    assert folders == {"bench", "explorer", "figures", "judges", "measures", "reports"}
    assert not folders & set(analysis.__all__)
    for name in SUBMODULES:
        importlib.import_module(f"analysis.{name}")
    assert not [n for n in analysis.__all__ if type(getattr(analysis, n)).__name__ == "module"]


def test_names_are_looked_up_when_they_are_used() -> None:
    code = "import sys, analysis; dir(analysis); print(*sys.modules)"
    loaded = run(code, ROOT).split()
    assert "analysis" in loaded
    assert not {"numpy", "pandas", "plotly", "torch", "steerlens"} & set(loaded)


def test_a_name_that_analysis_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'analysis' has no attribute 'measure_everything'"):
        _ = analysis.measure_everything
    with pytest.raises(ImportError, match="measure_everything"):
        from steerlens.analysis import measure_everything  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match=r"steerlens\.analysis\.nothing"):
        importlib.import_module("steerlens.analysis.nothing")


# -- The second name -------------------------------------------------------------------------------


def test_both_names_are_one_package() -> None:
    assert steerlens.analysis is analysis
    assert importlib.import_module("steerlens.analysis") is analysis
    assert sys.modules["steerlens.analysis"] is analysis


@pytest.mark.parametrize("name", SUBMODULES)
@pytest.mark.parametrize("order", ["alias first", "alias last"])
def test_every_module_is_the_same_under_both_names(name: str, order: str) -> None:
    names = [f"steerlens.analysis.{name}", f"analysis.{name}"]
    first, second = names if order == "alias first" else names[::-1]
    ours = importlib.import_module(first)
    assert importlib.import_module(second) is ours
    assert ours.__name__ == f"analysis.{name}"
    assert ours.__spec__ is not None
    assert ours.__spec__.name == f"analysis.{name}"


@pytest.mark.parametrize("first", ["steerlens.analysis", "analysis"])
def test_the_order_in_a_fresh_process_does_not_matter(first: str) -> None:
    second = {"analysis": "steerlens.analysis", "steerlens.analysis": "analysis"}[first]
    code = (
        f"from {first}.measures.faithfulness import reworded as one\n"
        f"from {second} import reworded as two\n"
        f"import {second}.measures.faithfulness as here, {first}.measures.faithfulness as there\n"
        "print(one is two, here is there)"
    )
    assert run(code, ROOT) == "True True"


def test_import_steerlens_does_not_load_it() -> None:
    code = (
        "import sys, steerlens\nsteerlens.Site(3)\ndir(steerlens)\n"
        "print([name for name in sys.modules if 'analysis' in name.split('.')])\n"
        "print(steerlens.analysis.gini.__module__)"
    )
    assert run(code, ROOT).splitlines() == ["[]", "analysis.measures.dispersion"]


# -- A project with an `analysis` of its own -------------------------------------------------------

ASKED = """
import json, sys
from steerlens.analysis import coefficients, faithfulness
from steerlens.analysis.judges import judge_of
import steerlens.analysis.measures.coefficients as module
import steerlens
import steerlens.analysis.figures.heatmaps
from pathlib import Path

assert module.coefficients is coefficients is steerlens.analysis.coefficients
assert judge_of("short")(["A short text."])[0] == 100
assert sys.modules["steerlens.analysis.judges"] is steerlens.analysis.judges
copies = {}
for name, each in list(sys.modules.items()):
    file = getattr(each, "__file__", None) or ""
    if Path(file).is_relative_to(HOME):
        copies.setdefault(file, set()).add(id(each))
assert len(copies) > 10
assert all(len(ids) == 1 for ids in copies.values()), copies
"""
ASKED = ASKED.replace("HOME", repr(str(ROOT / "analysis")))


def test_ours_is_found_and_the_strangers_is_not_run(project: Path) -> None:
    assert run(ASKED, project) == ""


def test_the_project_keeps_its_own(project: Path) -> None:
    before = f"import analysis\nassert analysis.stranger\n{ASKED}\nassert analysis.stranger"
    assert run(before, project) == "run"
    after = f"{ASKED}\nimport analysis\nassert analysis.stranger\n{ASKED}"
    assert run(after, project) == "run"


def test_a_folder_without_an_init_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "judges.py").write_text("print('run')\n")
    assert run(f"import analysis\n{ASKED}\nassert steerlens.analysis is analysis", tmp_path) == ""


def test_commands_use_the_name_that_is_always_ours() -> None:
    sources = {path: path.read_text() for path in (ROOT / "steerlens" / "cli").rglob("*.py")}
    assert any("from steerlens.analysis import" in source for source in sources.values())
    short = re.compile(r"^\s*(from|import) analysis\b", re.MULTILINE)
    assert not [path.name for path, source in sources.items() if short.search(source)]


@pytest.mark.parametrize("hidden", [False, True], ids=["alone", "hidden by a project"])
def test_an_installed_copy_has_both_names_too(tmp_path: Path, hidden: bool) -> None:
    """As in site-packages: the two folders lie side by side, and nothing else of this checkout."""
    site, project = tmp_path / "site", tmp_path / "project"
    project.mkdir()
    if hidden:
        (project / "analysis.py").write_text("raise SystemExit('the project was run')")
    for name in ("steerlens", "analysis"):
        left_out = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.gz")
        shutil.copytree(ROOT / name, site / name, ignore=left_out)
    code = "from steerlens.analysis import gini\nimport sys\nprint(gini.__code__.co_filename)"
    if not hidden:
        code += "\nimport analysis, steerlens\nassert analysis is steerlens.analysis"
    used = run(code, project, site)
    assert Path(used) == site / "analysis" / "measures" / "dispersion.py"


def test_packages_without_an_init_are_still_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their path is no list: the alias looks at every import that comes after its own."""
    (tmp_path / "no_init_here").mkdir()
    (tmp_path / "no_init_here" / "part.py").write_text("value = 3")
    assert steerlens.analysis is analysis
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.import_module("no_init_here.part").value == 3
