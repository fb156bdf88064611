"""Every relative link in a Markdown file leads to a file, and every `#heading` to a heading."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SKIPPED = {"build", "scripts", "shared"}
"""In `scripts` are parts from which pages are made that stand elsewhere."""
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]*)\)|<img[^>]* src=\"(?!https?:)([^\"]+)\"")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def pages() -> list[Path]:
    """The Markdown files of the repository, without those of environments and build folders."""
    inside = (path.relative_to(ROOT) for path in ROOT.rglob("*.md"))
    return sorted(path for path in inside if not is_skipped(path))


def is_skipped(path: Path) -> bool:
    return path.parts[0] in SKIPPED or any(part.startswith(".") for part in path.parts)


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "code", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def anchors_of(page: Path) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    titles = HEADING.findall(page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    links = LINK.findall(without_code(page.read_text(encoding="utf-8")))
    return [link for pair in links for link in pair if link and not leads_somewhere(page, link)]


def leads_somewhere(page: Path, link: str) -> bool:
    target, _, anchor = link.partition("#")
    file = (page.parent / target).resolve() if target else page
    if not file.exists():
        return False
    return not anchor or file.suffix != ".md" or anchor in anchors_of(file)


def test_the_pages_are_seen() -> None:
    names = {str(path) for path in pages()}
    assert {
        "README.md",
        "docs/stability.md",
        "docs/methods/cold.md",
        "notebooks/README.md",
    } <= names
    assert not any("site-packages" in name for name in names)


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_link_leads_to_a_file_or_a_heading(page: Path) -> None:
    assert not broken(ROOT / page)


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("[here](other.md) and [there](missing.md)", ["missing.md"]),
        ("[`code`](gone.py), `[not](a-link.md)`", ["gone.py"]),
        ("![picture](gone.png)", ["gone.png"]),
        ("[up](#a-title) [wrong](#no-title) [far](other.md#here-it-is)", ["#no-title"]),
        ("[web](https://example.org/x.md)", []),
    ],
)
def test_a_link_that_leads_nowhere_is_seen(text: str, links: list[str], tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("## Here, it is\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(f"# A title\n\n{text}\n", encoding="utf-8")
    assert broken(page) == links
