"""The documentation builds without a warning, without a network, and holds what it should."""

import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import steerlens as sl
from steerlens import analysis, methods

ROOT = Path(__file__).parents[1]
SITE = ROOT / "scripts" / "docs" / "site"
SPHINX = ("sphinx", "furo", "myst_nb")
MISSING = re.compile(r'(?:src|href)="(?!https?:|mailto:|data:|#)([^"#?]+)')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it; a warning fails the build."""
    for package in SPHINX:
        pytest.importorskip(package, reason='the site needs `pip install "steerlens[docs]"`')
    folder = tmp_path_factory.mktemp("site")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--conf-dir", str(SITE)]
    command = [sys.executable, "-m", "sphinx", *options, "-d", str(folder / "trees")]
    done = subprocess.run(
        [*command, str(ROOT), str(folder / "html")], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "html"


def page_of(site: Path, name: str) -> str:
    return (site / f"{name}.html").read_text(encoding="utf-8")


def test_every_page_of_docs_is_a_page_of_the_site(site: Path) -> None:
    pages = [path.relative_to(ROOT) for path in (ROOT / "docs").rglob("*.md")]
    assert pages
    assert not [path for path in pages if not (site / path.with_suffix(".html")).is_file()]
    assert 'url=docs/index.html"' in page_of(site, "index")


def test_no_link_inside_the_site_leads_nowhere(site: Path) -> None:
    lost = []
    for page in site.rglob("*.html"):
        for link in MISSING.findall(page.read_text(encoding="utf-8")):
            if not (page.parent / link).resolve().exists():
                lost.append(f"{page.relative_to(site)} -> {link}")
    assert not lost


def test_a_page_asks_no_other_site_for_its_scripts_and_styles(site: Path) -> None:
    for page in ("docs/index", "docs/tutorial", "docs/api/steering"):
        asked = re.findall(r'<(?:script|link)[^>]+(?:src|href)="https?://', page_of(site, page))
        assert not asked


def test_names_of_other_packages_are_links_to_their_pages(site: Path) -> None:
    text = "".join(page_of(site, f"docs/api/{page}") for page in ("directions", "figures", "types"))
    for url in (
        "https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor",
        "https://plotly.com/python-api-reference/generated/plotly.graph_objects.Figure.html",
        "https://pandas.pydata.org/docs/reference/api/pandas.DataFrame.html",
        "https://transformerlensorg.github.io/TransformerLens/generated/code/",
    ):
        assert url in text


def test_a_link_to_a_file_of_the_package_leads_to_its_highlighted_source(site: Path) -> None:
    assert "_modules/steerlens/methods/psr.html" in page_of(site, "docs/methods/psr")


def test_names_in_docstrings_are_links_and_equations_stand_as_they_are(site: Path) -> None:
    steering = page_of(site, "docs/api/steering")
    assert re.search(r'href="scopes\.html#steerlens\.Scope"', steering)
    assert "<blockquote>" not in steering


def test_every_public_name_is_on_one_page_of_the_reference() -> None:
    pages = [path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "api").glob("*.md")]
    told = re.findall(r"^\.\. auto\w+:: (steerlens(?:\.analysis)?)\.(\w+)$", "\n".join(pages), re.M)
    assert len(told) == len(set(told))
    assert {name for home, name in told if home == "steerlens"} == set(sl.__all__)
    assert {name for home, name in told if home != "steerlens"} == set(analysis.__all__)


def test_the_method_pages_and_the_index_of_methods_name_each_other() -> None:
    index = (ROOT / "docs" / "methods" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs" / "methods").glob("*.md")} - {"README.md"}
    assert pages == set(re.findall(r"\]\((\w+\.md)\)", index))
    assert len(pages) >= len(methods.__all__) - 1


def test_an_inventory_is_in_the_format_that_sphinx_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SITE))
    import inventories

    for package in inventories.SITES:
        written = inventories.inventory(package)
        assert written.startswith(b"# Sphinx inventory version 2\n")
        body = zlib.decompress(written.split(b"zlib.\n", 1)[1]).decode()
        assert all(re.fullmatch(r"\S+ py:\w+ 1 \S+\.html#\$ -", line) for line in body.splitlines())


@pytest.mark.parametrize(
    ("docstring", "shown"),
    [
        ("The `at` of it.", "The :py:obj:`at <steerlens.at>` of it."),
        ("Not `this_one`s.", r"Not ``this_one``\ s."),
        ("|h| and 2 * x_ and `a|b`.", r"\|h\| and 2 \* x\_ and ``a|b``."),
        ("It is:\n\n    h' = h + |v|", "It is:\n\n::\n\n        h' = h + |v|"),
        (">>> 2 * 3\n6", ">>> 2 * 3\n6"),
    ],
)
def test_a_docstring_is_read_as_plain_text(
    docstring: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SITE))
    import docstrings

    lines = docstring.split("\n")
    docstrings.rewritten(None, "function", "name", None, None, lines)
    assert "\n".join(lines).strip() == shown
