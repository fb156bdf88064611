"""Where the names of other packages are explained: small inventories for the names that we use.

Sphinx fetches each package's own inventory from its site, which needs a network and lists tens of
thousands of names. Here the names are lines of a text file, and become an inventory at each build.
"""

import zlib
from pathlib import Path

from steerlens.whole import write_whole

HERE = Path(__file__).parent
SITES = {
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "plotly": "https://plotly.com/python-api-reference/",
    "python": "https://docs.python.org/3/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "transformer_lens": "https://transformerlensorg.github.io/TransformerLens/",
}


def mapping(folder: Path) -> dict[str, tuple[str, str]]:
    """Sphinx's `intersphinx_mapping`: a site and a local inventory for each package."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in SITES:
        write_whole(folder / f"{package}.inv", inventory(package))
    return {package: (site, str(folder / f"{package}.inv")) for package, site in SITES.items()}


def inventory(package: str) -> bytes:
    """The names of a package in the second format of Sphinx's inventories."""
    head = f"# Sphinx inventory version 2\n# Project: {package}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    lines = (HERE / "inventories" / f"{package}.txt").read_text(encoding="utf-8").splitlines()
    body = "".join(entry(line) for line in lines if line and not line.startswith("#"))
    return head.encode() + zlib.compress(body.encode())


def entry(line: str) -> str:
    """`name role page` as a line of an inventory; the anchor on the page is the name."""
    name, role, page = line.split()
    return f"{name} py:{role} 1 {page}#$ -\n"
