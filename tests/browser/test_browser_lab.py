"""The explorer in JupyterLab: made by a cell, moved by hand, and answered by its kernel."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
CELL = """
import steerlens as sl
model = sl.load("demo")
caa = sl.CAA.fit(model, (["I loved it"], ["I hated it"]), 3).steering
pairs = [sl.PromptPair("Review a movie.", "Be positive.", "A film full of joy.")]
explorer = sl.explore(model, steerings={"CAA": caa}, pairs=pairs, max_new_tokens=16)
explorer
"""


@pytest.fixture
def lab(tmp_path):
    """The address of a notebook in a JupyterLab of its own."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    pytest.importorskip("anywidget", reason="anywidget is not installed")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "explore.ipynb").write_text(json.dumps(notebook()), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token, log = secrets.token_hex(16), (tmp_path / "log").open("w")
    options = {"ip": "127.0.0.1", "port": port, "port_retries": 0, "root_dir": tmp_path / "work"}
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
        + [f"--ServerApp.{name}={value}" for name, value in options.items()]
        + ["--LabApp.news_url=", "--LabApp.extension_manager=readonly"],
        env={**environment(tmp_path), "JUPYTER_TOKEN": token},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api/status?token={token}", server, tmp_path / "log")
        yield f"{address}/lab/tree/explore.ipynb?token={token}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(20)
        log.close()


def notebook():
    cell = {"cell_type": "code", "id": "explore", "metadata": {}, "source": CELL.strip()}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {
        "cells": [cell | {"outputs": [], "execution_count": None}],
        "metadata": {"kernelspec": kernel},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def environment(folder):
    """No settings of the user's, no hub, and this checkout first."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    own = {name: str(folder / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    own |= {"JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "IPYTHONDIR": str(folder / "ipython")}
    return {**os.environ, **own, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}


def wait_for(address, server, log, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def test_in_jupyterlab_a_slider_is_answered_by_the_kernel(lab, browser):
    context = browser.new_context(viewport={"width": 1500, "height": 1000})
    page, outside, errors = context.new_page(), [], []
    page.on("request", lambda r: "127.0.0.1" not in r.url[:30] and outside.append(r.url))
    page.on("console", lambda m: m.type == "error" and errors.append((m.text, m.location["url"])))
    page.on("pageerror", lambda error: errors.append((str(error), "")))
    page.goto(lab)
    page.locator(".jp-Notebook .cm-content").first.click(timeout=60_000)
    page.keyboard.press("Shift+Enter")
    explorer = page.locator(".steerlens-explorer:visible")
    explorer.locator(".sle-exact").wait_for(timeout=120_000)
    assert explorer.count() == 1, "the live view hides the static page"
    slide(explorer, 2)
    page.locator('[data-key="kl|0|CAA|0|2"] >> visible=true').first.wait_for(timeout=60_000)
    slide(explorer, 1.7)
    shown = page.locator('.sle-headline [data-key="kl|0|CAA|0|1.7"]')
    shown.wait_for(timeout=60_000)
    assert float(shown.get_attribute("data-value")) > 0
    page.wait_for_function(WRITTEN)
    explorer.locator(".sle-idle").wait_for(timeout=60_000)
    if folder := os.environ.get("STEERLENS_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/lab.png")
    context.close()
    ours = [e for e in errors if "steerlens" in str(e) or "blob:" in e[1] or "anywidget" in e[1]]
    assert ours == []
    assert [url for url in outside if not url.startswith(("data:", "blob:"))] == []


WRITTEN = """[...document.querySelectorAll(".sle-card[data-method=CAA] p")].some(
  (p) => p.checkVisibility() && !p.querySelector(".sle-caret") && p.innerText.length > 20)"""


def slide(explorer, strength):
    explorer.get_by_label("Strength", exact=True).evaluate(
        "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); }",
        strength,
    )
