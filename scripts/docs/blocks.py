"""The blocks of code of the Markdown pages: which there are, and how they are run.

    python scripts/docs/blocks.py < commands.json    runs commands of steerlens: lists of words

The Python blocks of a page run one after another, in one namespace, in a folder that holds a copy
of `examples`. Of a shell block each line is a command by itself.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w[^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELLS = {"bash", "sh", "shell", "console"}
NOT_RUN = {
    ("docs/gallery.md", ""): "calls as one types them; scripts/docs/gallery.py draws all of them",
    ("docs/models.md", "import steerlens as sl"): "paths of the reader's own files",
    ("docs/howto/own_model.md", "import steerlens as sl  # your own files"): (
        "paths of the reader's own files"
    ),
    ("docs/upstream.md", "p.data = p.data.T.contiguous().T  # W_in, W_gate, W_out, W_U"): (
        "lines for another project's code; `lay_out_for_reading` has its own tests"
    ),
}
"""A page, and the first line of the block ("" for all of the page): why it is not run."""


@dataclass(frozen=True)
class Block:
    """A block of code: its page, the line it begins at, its language and its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def first(self) -> str:
        """The first line of the code, by which lists of exceptions name a block."""
        return self.text.partition("\n")[0].strip()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README.md, CONTRIBUTING.md and every page of docs/, as paths from the root."""
    found = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
    return ["README.md", "CONTRIBUTING.md", *found]


def blocks_of(page: str) -> list[Block]:
    """Every block of code of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[1].strip(), found[2])
        for found in FENCE.finditer(text)
    ]


def reason(block: Block) -> str | None:
    """Why a Python block is not run here, if it is not."""
    return NOT_RUN.get((block.page, "")) or NOT_RUN.get((block.page, block.first))


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a shell block as words; a line that ends in a backslash goes on."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@contextlib.contextmanager
def beside_examples(folder: Path) -> Iterator[None]:
    """Inside, the working folder is `folder`, with a copy of `examples`."""
    shutil.copytree(ROOT / "examples", folder / "examples", dirs_exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def namespace(page: str) -> dict[str, Any]:
    """What the blocks of a page share: a module, so that dataclasses in it find their own."""
    name = "page_" + re.sub(r"\W", "_", page)
    sys.modules[name] = ModuleType(name)
    return vars(sys.modules[name])


def run(block: Block, names: dict[str, Any]) -> str:
    """Run a Python block; what it printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile("\n" * block.line + block.text, block.page, "exec"), names)
    return said.getvalue()


def printed(page: str, names: dict[str, Any]) -> Iterator[tuple[Block, str]]:
    """Run the Python of a page: each block of text right after it, and what it printed."""
    said: str | None = None
    with tempfile.TemporaryDirectory() as folder, beside_examples(Path(folder)):
        for block in blocks_of(page):
            if block.language == "text" and said is not None:
                yield block, said
            runs = block.language == "python" and not reason(block)
            said = run(block, names) if runs else None


def run_commands(commands: list[list[str]]) -> None:
    """Run commands of steerlens in this process; SystemExit names the first that fails."""
    from steerlens.cli import main as command_line

    for words in commands:
        try:
            command_line(words)
        except SystemExit as ended:
            if ended.code:
                raise SystemExit(f"failed: steerlens {shlex.join(words)}") from ended


def main() -> None:
    commands = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder, beside_examples(Path(folder)):
        run_commands(commands)


if __name__ == "__main__":
    main()
