"""The printed lines and the pictures of the pages that show what their code prints.

    python scripts/docs/outputs.py                     all of these pages
    python scripts/docs/outputs.py docs/tutorial.md    one of them
    python scripts/docs/outputs.py --check             write nothing; say what is printed otherwise

A block of text right after a block of Python becomes what that Python printed. Pictures need
`pip install "steerlens[export,docs]"`.
"""

import argparse
import sys
from typing import Any

from blocks import ROOT, Block, namespace, printed
from shown import difference, wrapped
from small_pictures import shrink

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
WIDTH, DPI = 760, 105


def filled(page: str) -> str:
    """The page with what its blocks print now; its pictures are written."""
    text = (ROOT / page).read_text(encoding="utf-8")
    names = namespace(page)
    for block, said in printed(page, names):
        text = text.replace(fenced(block), fenced(block, wrapped(said)), 1)
    draw(page, names)
    return text


def stale(page: str) -> list[str]:
    """The blocks of text of a page that do not show what is printed."""
    found = [
        (block, difference(block.text, said)) for block, said in printed(page, namespace(page))
    ]
    return [
        f"{block} shows {apart}. Run scripts/docs/outputs.py" for block, apart in found if apart
    ]


def fenced(block: Block, text: str | None = None) -> str:
    return f"```{block.language}\n{block.text if text is None else text}```"


def draw(page: str, names: dict[str, Any]) -> None:
    for variable, file in PICTURES[page].items():
        (ROOT / file).parent.mkdir(parents=True, exist_ok=True)
        shrink(analysis.save(names[variable], ROOT / file, width=WIDTH, dpi=DPI))
        print(f"wrote {file}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pages", nargs="*", default=list(PICTURES))
    parser.add_argument("--check", action="store_true", help="write nothing")
    asked = parser.parse_args()
    if asked.check:
        sys.exit("\n".join(each for page in asked.pages for each in stale(page)) or 0)
    for page in asked.pages:
        write_whole(ROOT / page, filled(page).encode())
        print(f"wrote {page}")


if __name__ == "__main__":
    main()
