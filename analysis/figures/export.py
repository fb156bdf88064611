"""Figures and coloured texts as files: PDF, SVG and PNG for papers, HTML for browsers.

Pictures are drawn by kaleido (`pip install "steerlens[export]"`) in a Chrome or Chromium that is
there; nothing is fetched. A length is a number of pixels, of which an inch has 96, or a text such
as "3.25in", "8.3cm", "84mm" or "240pt".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from .frame import fitted
from .styling import styled
from .token_figure import token_figure
from .tokens import TokenView

PICTURES = (".pdf", ".svg", ".png")
SUFFIXES = (*PICTURES, ".html")
PIXELS = {"in": 96.0, "cm": 96 / 2.54, "mm": 96 / 25.4, "pt": 96 / 72, "px": 1.0}
CONFIG = {
    "responsive": True,
    "displaylogo": False,
    # Since plotly.js 4 a button sends the data to a server unless it is taken away.
    "showSendToCloud": False,
    "plotlyServerURL": "",
}
_LENGTH = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(in|cm|mm|pt|px)\s*")
_PAGE = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    "<title>{title}</title>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
)


class CannotDraw(RuntimeError):
    """There is no kaleido, or no browser, to make a picture with; the message says what to do."""


def save(
    figure: go.Figure | TokenView,
    path: str | Path,
    *,
    width: float | int | str | None = None,
    height: float | int | str | None = None,
    style: str | None = None,
    dpi: float | int = 300,
) -> Path:
    """Write a figure or a coloured text to `path`, whole or not at all; the suffix says as what.

    `.pdf`, `.svg` and `.png` (of `dpi` dots an inch) need kaleido and a browser, `.html` does not
    and needs no network either. `style` is one of `styled`'s: "paper", "notebook" or "slides". A
    `width` lays the figure out anew, so that text keeps its size.
    """
    from steerlens.whole import write_whole  # here alone, so that a picture needs no library

    path = _checked(path)
    wide, high = (_pixels(name, length) for name, length in (("width", width), ("height", height)))
    if not dpi > 0:
        raise ValueError(f"dpi={dpi} is no resolution: pass a positive number, such as 300.")
    if path.suffix.lower() != ".html":
        _require_kaleido()
    if isinstance(figure, TokenView) and path.suffix.lower() == ".html":
        _require_no_layout(style, width, height)
        return write_whole(path, _PAGE.format(title="Coloured text", body=figure.html).encode())
    drawn = _laid_out(figure, wide, high, style)
    return write_whole(path, _bytes_of(drawn, path.suffix.lower(), dpi))


def _laid_out(
    figure: go.Figure | TokenView, width: float | None, height: float | None, style: str | None
) -> go.Figure:
    """The figure in the style and size that are asked for."""
    if isinstance(figure, TokenView):
        if height is not None:
            raise ValueError("a coloured text is as high as its lines: give a width alone.")
        return token_figure(figure, style or "notebook", width=width)
    figure = styled(figure, style) if style else figure
    return fitted(figure, width, height) if width or height else figure


def _checked(path: str | Path) -> Path:
    """The path; ValueError for a suffix that is not known, FileNotFoundError without its folder.

    A folder is made where only that is missing, not what is above it.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(
            f"{path.name!r} does not say what to write: end it in one of {', '.join(SUFFIXES)}."
        )
    try:
        path.absolute().parent.mkdir(exist_ok=True)
    except OSError as error:
        raise FileNotFoundError(
            f"There is no folder {path.parent} to write {path.name} into, and it cannot be made "
            f"({error.strerror}). Make it first, or give another."
        ) from error
    return path


def _pixels(name: str, length: float | int | str | None) -> float | None:
    if length is None:
        return None
    found = _LENGTH.fullmatch(length) if isinstance(length, str) else None
    pixels = float(found[1]) * PIXELS[found[2]] if found else length
    if isinstance(pixels, str) or not 40 <= pixels <= 20_000:
        raise ValueError(
            f"{name}={length!r} is no length from 40 to 20,000 pixels: pass a number of pixels, "
            'or a text with a unit, such as "3.25in", "8.3cm", "84mm" or "240pt".'
        )
    return float(pixels)


def _require_no_layout(style: str | None, width: object, height: object) -> None:
    """ValueError where a coloured text as HTML is to have a look, which its page decides."""
    if style is not None or width is not None or height is not None:
        raise ValueError(
            "A coloured text as HTML is laid out by its page: leave out style, width and height, "
            "or save it as .pdf, .svg or .png."
        )


def _require_kaleido() -> None:
    try:
        import kaleido  # noqa: F401
    except ImportError as error:
        raise CannotDraw(
            "PDF, SVG and PNG files are drawn by kaleido, which is not installed: "
            'pip install "steerlens[export]". Or save an .html, which needs nothing.'
        ) from error
    import choreographer.errors  # noqa: F401 # with kaleido 1; kaleido 0.2 has none


def _bytes_of(figure: go.Figure, suffix: str, dpi: float | int) -> bytes:
    if suffix == ".html":
        page = figure.to_html(include_plotlyjs=True, include_mathjax=False, config=CONFIG)
        return page.encode("utf-8", "backslashreplace")
    layout: Any = figure.layout
    size = {"width": layout.width or 700, "height": layout.height or 450}
    return _drawn(figure, {**size, "format": suffix[1:], "scale": dpi / 96}, suffix)


def _drawn(figure: go.Figure, options: dict[str, Any], suffix: str) -> bytes:
    import kaleido
    from choreographer.errors import BrowserFailedError, ChromeNotFoundError

    if suffix != ".png":
        options["scale"] = 1
    # By default kaleido's page loads MathJax from a server.
    page = kaleido.PageGenerator(mathjax=False)
    try:
        return kaleido.calc_fig_sync(figure.to_dict(), opts=options, kopts={"page_generator": page})
    except (ChromeNotFoundError, BrowserFailedError) as error:
        raise CannotDraw(
            "PDF, SVG and PNG files are drawn in Chrome or Chromium, and none could be started. "
            "Install one, or name it in the environment variable BROWSER_PATH, or let "
            "`plotly_get_chrome` fetch one. Or save an .html, which needs no browser to be written."
            f" Found: {error}"
        ) from error


def png_bytes(figure: go.Figure, dpi: float = 192) -> bytes:
    """The figure as a PNG; CannotDraw without kaleido or a browser. Nothing is fetched."""
    _require_kaleido()
    return _bytes_of(figure, ".png", dpi)
