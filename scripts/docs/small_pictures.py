"""Make the pictures of the pages small: of 256 colours each, a third of the bytes.

    python scripts/docs/small_pictures.py                 all of docs/
    python scripts/docs/small_pictures.py FOLDER ...      those below some folders

Whoever clones the repository gets every picture of it. A picture that is small already stays as it
is. It needs `pip install "steerlens[docs]"`.
"""

import sys
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

from steerlens.whole import write_whole

DOCS = Path(__file__).parents[2] / "docs"
COLOURS = 256
PALETTE = 3
"""What a PNG says of itself in its byte 25 that names its colours by number."""


def is_small(path: Path) -> bool:
    """Whether a PNG holds numbers of colours, and not the colour of each point."""
    return path.read_bytes()[25] == PALETTE


def shrink(path: Path) -> Path:
    """Keep 256 colours that are near to every one of a picture's, the rare ones too.

    So no step shows in a scale of colours, and no dots are mixed: lines stay sharp.
    """
    from PIL import Image

    if not is_small(path):
        with Image.open(path) as picture:
            near, plain = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
            few = picture.convert("RGB").quantize(COLOURS, method=near, dither=plain)
        written = BytesIO()
        few.save(written, "PNG", optimize=True)
        write_whole(path, written.getvalue())
    return path


def pictures(folders: Iterable[Path]) -> list[Path]:
    """The PNG files below some folders."""
    return sorted(path for folder in folders for path in folder.rglob("*.png"))


def main(folders: list[str]) -> None:
    for path in pictures(map(Path, folders) if folders else [DOCS]):
        if not is_small(path):
            before = path.stat().st_size
            print(f"{shrink(path)}: {before} bytes, now {path.stat().st_size}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
