"""The table of methods in the README, made from the methods' own docstrings.

    python scripts/docs/methods_table.py            writes it between the two markers
    python scripts/docs/methods_table.py --check    fails if it is out of date

A method's module says in its first line what the method is, begins its second paragraph with the
paper's authors, title and arXiv number, and has its equations in the first indented block.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from steerlens.exports import exported, file_of
from steerlens.whole import write_whole

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BEGIN, END = "<!-- methods: made by `make docs` -->", "<!-- end of methods -->"
HEAD = "| method | what it does | paper | equation |\n|---|---|---|---|"


def table() -> str:
    """One row for each module that exports methods."""
    names: dict[str, list[str]] = {}
    for name, module in exported("methods").items():
        names.setdefault(module, []).append(name)
    return "\n".join([HEAD, *(row(module, names[module]) for module in names)])


def row(module: str, names: list[str]) -> str:
    """The row of a method's module."""
    text = ast.get_docstring(ast.parse(file_of(module).read_text(encoding="utf-8"))) or ""
    file = file_of(module).relative_to(ROOT)
    notes = ROOT / "docs" / "methods" / f"{module.rpartition('.')[2]}.md"
    title = text.partition("\n")[0].partition(": ")[2].rstrip(".")
    if notes.exists():
        title += f" ([notes]({notes.relative_to(ROOT)}))"
    linked = ", ".join(f"[`{name}`]({file})" for name in names)
    return f"| {linked} | {title} | {paper(text, module)} | {'<br>'.join(equations(text))} |"


def paper(text: str, module: str) -> str:
    """Authors, year and arXiv number; the year is that of the number."""
    found = re.search(r'\n\n(.+?), "[^"]+",\s+arXiv (\d\d)(\d\d\.\d{5})', text, re.DOTALL)
    if found is None:
        raise ValueError(
            f'{module} names no paper; its second paragraph begins: Authors, "Title", arXiv number'
        )
    authors, year, rest = found.groups()
    several = "," in authors or authors.endswith("et al.")
    short = f"{re.split(r',| et al', authors)[0]} et al." if several else authors
    number = year + rest
    return f"{short} 20{year}, [{number}](https://arxiv.org/abs/{number})"


def equations(text: str) -> Iterator[str]:
    """The lines of the first indented block as code, without the remarks beside them."""
    block = re.search(r"\n\n((?: {4,}.+\n?)+)", text)
    for line in block[1].splitlines() if block else ():
        left, equals, right = line.partition("=")
        formula = re.sub(r" +", " ", f"{left}{equals} {re.split(r' {3,}', right.strip())[0]}")
        yield f"`{formula.strip()}`".replace("|", "\\|")


def updated(page: str) -> str:
    """The page with the table of today between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page lacks the markers {BEGIN} and {END}.")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    page = README.read_text(encoding="utf-8")
    if "--check" in sys.argv and updated(page) != page:
        sys.exit("The table of methods in README.md is out of date. Run `make docs`.")
    write_whole(README, updated(page).encode())


if __name__ == "__main__":
    main()
