"""Make docs/images/explorer.png: the explorer on SmolLM2 with methods of the demonstration.

`python scripts/docs/explorer_picture.py` needs the real model, playwright, and a Chromium.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from small_pictures import shrink

import steerlens as sl
from analysis.reports.pirate_demo import pirate_steerings
from steerlens.demo import pirate

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "explorer.png"
SHOWN = ("CAA", "ActAdd", "S-PSR")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def page(folder: Path) -> Path:
    """The static page of one question."""
    model = sl.load(pirate.MODEL)
    steerings = {name: s for name, s in pirate_steerings(model).items() if name in SHOWN}
    sampled = {"max_new_tokens": 40, "temperature": 0.8, "seed": 0}
    pairs = sl.prompted_pairs(model, pirate.TEST[:4], pirate.INSTRUCTION, **sampled)
    explorer = sl.explore(model, steerings=steerings, pairs=pairs, strengths=(0.0, 0.5, 1.0, 2.0))
    shown = explorer.set(method="S-PSR", layer=20, token=9)
    return shown.save(folder / "explorer.html", texts=[0])


def photograph(html: Path) -> None:
    """A picture of the page, in light colours."""
    from playwright.sync_api import sync_playwright

    browser_of = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser_of is None:
        sys.exit(f"None of {', '.join(BROWSERS)} is here, and the picture needs one.")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=browser_of, args=["--no-sandbox"])
        sheet = browser.new_page(viewport={"width": 1280, "height": 1400}, color_scheme="light")
        sheet.goto(html.as_uri())
        sheet.wait_for_selector("canvas")
        sheet.screenshot(path=PICTURE)
        browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        photograph(page(Path(folder)))
    shrink(PICTURE)
    print(f"Wrote {PICTURE}")
