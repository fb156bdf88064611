"""Docstrings as Sphinx reads them: ours are plain text with `names` in single backticks.

What is between backticks becomes a link where it is a public name, and code where it is not; an
indented block is shown as it stands; stars, strokes and underscores mean themselves.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

CODE = re.compile(r"`([^`]+)`")
SPECIAL = re.compile(r"[\\*|]|_(?!\w)")


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", rewritten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def rewritten(app: Any, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Sphinx's event: the lines are replaced in place."""
    if what == "module":
        lines[:] = []
        return
    blocks = paragraphs(lines)
    lines[:] = [line for block in blocks for line in [*shown(block), ""]]


def paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """The runs of lines between empty ones; an indented block keeps its inner empty lines."""
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield block
            block = []


def shown(block: list[str]) -> list[str]:
    """A paragraph as reStructuredText: a doctest, a block of code, or text."""
    if block[0].lstrip().startswith(">>>"):
        return block
    if block[0].startswith("  "):
        return ["::", "", *("    " + line for line in block)]
    return text("\n".join(block)).split("\n")


def text(plain: str) -> str:
    """Prose: code between backticks marked, what reStructuredText would read as marks escaped."""
    pieces, end = [], 0
    for found in CODE.finditer(plain):
        pieces += [escaped(plain[end : found.start()]), code(found[1])]
        end = found.end()
        pieces[-1] = r"\ " * (pieces[-2][-1:].isalnum()) + pieces[-1]
        pieces[-1] += r"\ " * (plain[end : end + 1].isalnum())
    return "".join([*pieces, escaped(plain[end:])])


def escaped(prose: str) -> str:
    return SPECIAL.sub(lambda found: "\\" + found[0], prose)


def code(content: str) -> str:
    """A link to a public name, or code."""
    one_line = re.sub(r"\s+", " ", content).strip()
    home = public().get(one_line.removeprefix("sl.").removeprefix("analysis.").removesuffix("()"))
    return f":py:obj:`{one_line} <{home}>`" if home else f"``{one_line}``"


@cache
def public() -> dict[str, str]:
    """Every public name with its full one: `generate` is `steerlens.generate`."""
    import analysis
    import steerlens

    names = {name: f"steerlens.analysis.{name}" for name in analysis.__all__}
    return names | {name: f"steerlens.{name}" for name in steerlens.__all__}
