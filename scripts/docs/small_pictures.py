"""Make the pictures of the pages small: of 256 colours each, a third of the bytes.

    python scripts/docs/small_pictures.py                 all of docs/
    python scripts/docs/small_pictures.py PATH ...        some, or those below some folders

Whoever clones the repository gets every picture of it. A picture that is small already stays as it
is, and so does one that would not be smaller. What is transparent becomes white. It needs
`pip install "steerlens[docs]"`.
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
    start = path.read_bytes()[:26]
    if not start.startswith(b"\x89PNG") or len(start) < 26:
        raise SystemExit(f"{path} is no PNG picture.")
    return start[25] == PALETTE


def shrink(path: Path) -> Path:
    """Keep 256 colours that are near to every one of a picture's, the rare ones too.

    So no step shows in a scale of colours, and no dots are mixed: lines stay sharp.
    """
    from PIL import Image

    if not is_small(path):
        with Image.open(path) as picture:
            seen = picture.convert("RGBA")
        white = Image.new("RGBA", seen.size, "white")
        opaque = Image.alpha_composite(white, seen).convert("RGB")
        near, plain = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
        written = BytesIO()
        opaque.quantize(COLOURS, method=near, dither=plain).save(written, "PNG", optimize=True)
        if len(written.getvalue()) < path.stat().st_size:
            write_whole(path, written.getvalue())
    return path


def pictures(paths: Iterable[Path]) -> list[Path]:
    """The PNG files of some paths, and below those that are folders."""
    found = list[Path]()
    for path in paths:
        if not path.exists():
            raise SystemExit(f"There is no {path}.")
        found += path.rglob("*.png") if path.is_dir() else [path]
    return sorted(found)


def main(paths: list[str]) -> None:
    for path in pictures(map(Path, paths) if paths else [DOCS]):
        if not is_small(path):
            before = path.stat().st_size
            print(f"{shrink(path)}: {before} bytes, now {path.stat().st_size}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
