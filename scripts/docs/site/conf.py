"""How Sphinx builds the documentation site: `make docs`, into build/docs-site.

The source folder is the root of the repository, so that a relative link means the same here as on
GitHub; the pages are README.md, those of docs/, and the notebooks. Nothing is downloaded.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import inventories  # noqa: E402  beside this file

# The version has one place, steerlens/__init__.py; read, so that nothing heavy is imported for it.
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "steerlens" / "__init__.py").read_text("utf-8"), re.M
)
assert VERSION is not None

# Type variables and aliases of annotations, which signatures show by name.
ALIASES = (
    "AnySteer|Cache|Class|Classifier|Directions|Family|Gated|Imported|Kept|MadeOf|Measured"
    "|Messages|ModelIdentity|Objective|OtherSteer|Own|Part|Place|Prompt|PromptCondition|Prompts|Pulled"
    "|Pushed|Record|Rows|Scalable|Scale|Share|Sides|Sign|Storage|Study|Watch"
)

project = "steerlens"
author = "steerlens contributors"
copyright = author
version = release = VERSION[1]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "docstrings",
    "links",
]

root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**",
    "notebooks/*.ipynb",
    "notebooks/README.md",
    "steerlens/demo/model/MODEL_CARD.md",
]
# Folders that need not be looked through; the notebooks' .py halves are not pages.
exclude_patterns = ["**/.ipynb_checkpoints", "**/__pycache__", "build", "out", "shared", "tests"]
exclude_patterns += sorted(path.name for path in ROOT.glob(".*"))
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

# A name that leads nowhere is an error. What may be unknown is listed, with the reason.
nitpicky = True
nitpick_ignore_regex = [
    # Shape annotations: jaxtyping has no inventory, and makes its classes as they are used.
    (r"py:class", r"jaxtyping\.(Float|Int|Bool)"),
    # Python's own names beyond the few that are in inventories/python.txt.
    (r"py:class", r"(collections\.abc|contextlib|numbers|os|types|typing)\.\S+"),
    # An annotation in quotes is cut at its commas, and the pieces are looked up.
    (r"py:(class|obj)", r".*\[[^\]]*"),
    # They have no page.
    (r"py:class", rf"(.*\.)?({ALIASES})"),
]
suppress_warnings = [
    # Stored plotly figures of a notebook; JupyterLab draws them, the site shows the rest.
    "mystnb.unknown_mime_type",
]

myst_heading_anchors = 6
myst_enable_extensions = ["colon_fence", "fieldlist"]
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 72
add_module_names = False

intersphinx_mapping = inventories.mapping(ROOT / "build" / "docs-inventories")

html_theme = "furo"
html_title = f"steerlens {version}"
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False
html_additional_pages = {"index": "redirect.html"}
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["site.css"]
