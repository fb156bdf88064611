"""What the methods are called and what they are, read from their files without running them.

So `import steerlens` and `steerlens --help` know every method and do not wait for torch.
"""

import ast
from functools import cache
from pathlib import Path

HOME = Path(__file__).parent


@cache
def exported(package: str) -> dict[str, str]:
    """The module of each name that `steerlens/<package>/__init__.py` imports, in its order."""
    return {
        alias.asname or alias.name: node.module
        for node in ast.parse(_text(f"steerlens.{package}")).body
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }


def title_of(module: str) -> str:
    """The first line of a module of steerlens, which says what the method is."""
    return _text(module).partition("\n")[0].strip('"')


def file_of(module: str) -> Path:
    """The file of a module of steerlens, or the `__init__.py` of a package."""
    path = HOME.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _text(module: str) -> str:
    return file_of(module).read_text(encoding="utf-8")
