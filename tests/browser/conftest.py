"""A real browser, and pages in it that must ask nothing of the network and log no error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from explorer_pages import Opened, live_page, static_page


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Opens a file; at the end, each page opened must have been silent, and without a request."""
    opened: list[Opened] = []

    def open_(file: Path, width: int = 1400, theme: str = "light", **options: Any) -> Opened:
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=theme, **options
        )
        here = Opened(page)
        page.on("console", lambda m: m.type == "error" and here.errors.append(m.text))
        page.on("pageerror", lambda error: here.errors.append(str(error)))
        page.on("request", lambda r: r.url != file.as_uri() and here.asked.append(r.url))
        page.goto(file.as_uri())
        page.wait_for_selector(".sle-page svg.sle-sample")
        page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 30)))"
        )
        opened.append(here)
        return here

    yield open_
    for each in opened:
        each.page.close()
    assert [each.errors for each in opened] == [[] for _ in opened]
    assert [each.asked for each in opened] == [[] for _ in opened]


@pytest.fixture
def static(open_page: Callable[..., Opened], tmp_path: Path) -> Callable[..., Opened]:
    """Opens the static page of one or several payloads."""

    def show(*payloads: dict[str, Any], **options: Any) -> Opened:
        file = tmp_path / "explorer.html"
        file.write_text(static_page(*payloads), encoding="utf-8")
        return open_page(file, **options)

    return show


@pytest.fixture
def live(open_page: Callable[..., Opened], tmp_path: Path) -> Callable[..., Opened]:
    """Opens a payload as a widget whose other end is `window.model` in the page."""

    def show(payload: dict[str, Any], **options: Any) -> Opened:
        file = tmp_path / "widget.html"
        file.write_text(live_page(payload), encoding="utf-8")
        return open_page(file, **options)

    return show
