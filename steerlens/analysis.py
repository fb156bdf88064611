"""The package `analysis` under a name that no folder of a project can hide.

`steerlens.analysis` is `analysis` itself, the same modules and functions, as long as that name
leads to ours. Where a project has an `analysis` of its own, ours is loaded from its place beside
`steerlens`, under this name alone, and the project's is neither run nor replaced.

Which of the two it is, is looked up once, when this module is first imported: put a project's
folder on `sys.path` before that. One that comes later finds ours under the name `analysis`.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis import *  # noqa: F403

_PLACE = Path(__file__).resolve().parent.parent / "analysis" / "__init__.py"


class _Alias(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `steerlens.analysis.x` and puts the module `analysis.x` in its place."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{__name__}."):
            return None
        if importlib.util.find_spec(fullname.removeprefix("steerlens.")) is None:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        # The import system gives what stands in sys.modules at the end, not what it was handed.
        sys.modules[module.__name__] = importlib.import_module(
            module.__name__.removeprefix("steerlens.")
        )


def _is_ours() -> bool:
    """Whether the name `analysis` leads to our package; it is looked up, and nothing is run."""
    if "analysis" in sys.modules:
        file = getattr(sys.modules["analysis"], "__file__", None)
    else:
        spec = importlib.util.find_spec("analysis")
        file = spec.origin if spec else None
    return file is not None and Path(file).resolve() == _PLACE


def _load() -> None:
    if _is_ours():
        # Before other finders: by the package's path they would find its files and run them twice.
        sys.meta_path.insert(0, _Alias())
        sys.modules[__name__] = importlib.import_module("analysis")
        return
    spec = importlib.util.spec_from_file_location(
        __name__, _PLACE, submodule_search_locations=[str(_PLACE.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    sys.modules[__name__] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[__name__])


_load()
