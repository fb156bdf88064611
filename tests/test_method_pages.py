"""The pages of docs/methods: each method has one, with its table, and its examples run."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from steerlens import methods

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "methods"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "README")
COLUMNS = ["what", "paper", "authors' code", "here", "why"]
WHY = COLUMNS.index("why")
PAGE_OF = {
    "ActAdd": "act_add",
    "Angular": "angular",
    "BiPO": "bipo",
    "CAA": "caa",
    "CAST": "cast",
    "CLAS": "clas",
    "ColdFD": "cold",
    "ColdKernel": "cold",
    "DirectionalAblation": "directional_ablation",
    "ICV": "icv",
    "ITI": "iti",
    "InstructionVector": "instruction",
    "LoReFT": "loreft",
    "PersonaVector": "persona",
    "PSR": "psr",
    "ReFTr1": "reft_r1",
}
BASELINES = ["las", "lora"]


def text_of(page: str) -> str:
    return (FOLDER / f"{page}.md").read_text(encoding="utf-8")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows_of(text: str) -> list[list[str]]:
    """The rows below the head of the table of differences; none where there is no such table."""
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith("|") and cells(line) == COLUMNS]
    if not heads:
        return []
    rows = []
    for line in lines[heads[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(line)
    # The last cell may be empty, so that only the outer strokes are taken off.
    return [[cell.strip() for cell in row.strip()[1:-1].split("|")] for row in rows]


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text_of(page), re.DOTALL)


def faults(rows: list[list[str]]) -> list[str]:
    """What is wrong with a table of differences."""
    found = [] if len(rows) >= 8 else [f"{len(rows)} rows are few: is each difference there?"]
    for row in rows:
        if len(row) != len(COLUMNS):
            found.append(f"{len(row)} cells and not {len(COLUMNS)}: {row}")
        elif not all(row[:WHY]):
            found.append(f"an empty cell: {row}")
    return found


def test_every_method_is_listed_here_with_its_page() -> None:
    assert sorted(PAGE_OF) == sorted(methods.__all__)


@pytest.mark.parametrize("page", sorted({*PAGE_OF.values(), *BASELINES, *PAGES}))
def test_a_page_is_there_and_its_table_has_no_gap(page: str) -> None:
    assert page in PAGES, f"docs/methods/{page}.md is missing"
    assert not faults(rows_of(text_of(page)))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_an_example(page: str) -> None:
    assert blocks_of(page)


@pytest.mark.parametrize(
    ("page", "number"), [(page, n) for page in PAGES for n in range(len(blocks_of(page)))]
)
def test_an_example_runs(
    page: str, number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks_of(page)[number], f"docs/methods/{page}.md", "exec"), {})
    assert capsys.readouterr().out


HEAD = "| what | paper | authors' code | here | why |\n|---|---|---|---|---|\n"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (HEAD + "| rank | 1 | 1 | 1 | |\n" * 8, []),
        (HEAD + "| rank | 1 | 1 | 1 | |\n" * 7, ["few"]),
        (HEAD + "| rank | 1 | 1 | | why |\n" * 8, ["empty cell"] * 8),
        (HEAD + "| rank | | 1 | 1 | why |\n" * 8, ["empty cell"] * 8),
        (HEAD + "| rank | 1 | 1 | 1 |\n" * 8, ["4 cells"] * 8),
        ("| what | here |\n|---|---|\n" + "| rank | 1 |\n" * 8, ["few"]),
    ],
)
def test_a_gap_in_a_table_is_seen(table: str, said: list[str]) -> None:
    found = faults(rows_of(table))
    assert len(found) == len(said)
    assert all(words in fault for words, fault in zip(said, found, strict=True))
