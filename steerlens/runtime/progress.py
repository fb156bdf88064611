"""A progress bar on work that takes longer than five seconds, for who can see it."""

import sys
from typing import Any

PATIENCE = 5.0
"""Seconds of work after which a bar appears."""


def progress_bar(total: int, what: str, unit: str, shown: bool | None = None) -> Any:
    """The bar of tqdm; without `shown` it is for a terminal and a notebook alone."""
    from tqdm.auto import tqdm  # warns when it is imported in a notebook without widgets

    seen = (sys.stderr.isatty() or "ipykernel" in sys.modules) if shown is None else shown
    return tqdm(
        total=total, desc=what, unit=unit, delay=PATIENCE, disable=not seen, leave=shown is True
    )
