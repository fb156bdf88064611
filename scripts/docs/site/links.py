"""Links that mean one thing on GitHub and another on the site.

On GitHub a link to a file of the package leads to the file; here it leads to the page with its
highlighted source, where it has one, and otherwise is a download. Names in signatures are sent to
the names under which they are explained.
"""

import posixpath
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes

ROOT = Path(__file__).parents[3]
# As annotations are written in the code, and where the other package explains the same.
NAMES = {
    "Tensor": "torch.Tensor",
    "torch._C.device": "torch.device",
    "ndarray": "numpy.ndarray",
    "Encoded": "steerlens.prompts.Encoded",
    "pandas.core.frame.DataFrame": "pandas.DataFrame",
    "plotly.graph_objs._figure.Figure": "plotly.graph_objects.Figure",
}


def setup(app: Any) -> dict[str, bool]:
    app.connect("doctree-read", by_public_name)
    app.connect("doctree-resolved", of_source_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def by_public_name(app: Any, doctree: nodes.document) -> None:
    for node in doctree.findall(addnodes.pending_xref):
        if node.get("refdomain") == "py":
            node["reftarget"] = NAMES.get(node["reftarget"], node["reftarget"])


def of_source_files(app: Any, doctree: nodes.document, page: str) -> None:
    for node in list(doctree.findall(addnodes.download_reference)):
        file = (ROOT / posixpath.dirname(page) / node["reftarget"]).resolve()
        link = to_source(app, page, file, node.astext()) if file.suffix == ".py" else None
        if link is not None:
            node.replace_self(link)


def to_source(app: Any, page: str, file: Path, text: str) -> nodes.reference | None:
    """A link to the highlighted source of a module, if the site shows any of it."""
    parts = file.resolve().relative_to(ROOT).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    seen = getattr(app.env, "_viewcode_modules", {})
    below = [name for name in sorted(seen) if name == module or name.startswith(f"{module}.")]
    if not below or not seen[below[0]]:
        return None
    uri = app.builder.get_relative_uri(page, f"_modules/{below[0].replace('.', '/')}")
    return nodes.reference("", "", nodes.literal(text, text), refuri=uri, internal=True)
