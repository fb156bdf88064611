"""The printed lines and the pictures of the pages that show what their code prints.

    python scripts/docs/outputs.py                     all of these pages
    python scripts/docs/outputs.py docs/tutorial.md    one of them

A block of text right after a block of Python becomes what that Python printed. Pictures need
`pip install "steerlens[export]"`.
"""

import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from blocks import ROOT, Block, beside_examples, blocks_of, namespace, reason, run

from steerlens import analysis
from steerlens.whole import write_whole

PICTURES = {
    "docs/tutorial.md": {
        "heatmap": "docs/images/tutorial/heatmap.png",
        "curve": "docs/images/tutorial/curve.png",
    },
    "docs/howto/strength_and_layer.md": {"map_of_layers": "docs/images/howto/layers.png"},
    "docs/howto/choose_a_method.md": {},
    "docs/howto/own_data.md": {},
    "docs/concepts.md": {"views": "docs/images/concepts/views.png"},
    "docs/howto/own_model.md": {},
    "docs/faq.md": {},
    "docs/interchange.md": {},
    "docs/howto/look_first.md": {},
}
"""The pages, and for each the variables that hold a figure, with the file of its picture."""
WIDTH, DPI, LONGEST = 760, 105, 84


def filled(page: str, folder: Path) -> str:
    """The page with what its blocks print now; its pictures are written."""
    text = (ROOT / page).read_text(encoding="utf-8")
    names = namespace(page)
    said: str | None = None
    with beside_examples(folder):
        for block in blocks_of(page):
            if block.language == "python" and not reason(block):
                said = run(block, names)
            elif block.language == "text" and said is not None:
                text = text.replace(fenced(block), fenced(block, wrapped(said)), 1)
                said = None
    draw(page, names)
    return text


def fenced(block: Block, text: str | None = None) -> str:
    return f"```{block.language}\n{block.text if text is None else text}```"


def wrapped(said: str) -> str:
    """Lines that fit the page: a longer one goes on, indented, on the next."""
    lines = (
        piece
        for line in said.rstrip().splitlines()
        for piece in textwrap.wrap(line, LONGEST, subsequent_indent="    ", drop_whitespace=True)
        or [""]
    )
    return "".join(f"{line.rstrip()}\n" for line in lines)


def draw(page: str, names: dict[str, Any]) -> None:
    for variable, file in PICTURES[page].items():
        (ROOT / file).parent.mkdir(parents=True, exist_ok=True)
        analysis.save(names[variable], ROOT / file, width=WIDTH, dpi=DPI)
        print(f"wrote {file}")


def main() -> None:
    for page in sys.argv[1:] or PICTURES:
        with tempfile.TemporaryDirectory() as folder:
            text = filled(page, Path(folder))
        write_whole(ROOT / page, text.encode())
        print(f"wrote {page}")


if __name__ == "__main__":
    main()
