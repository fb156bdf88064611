"""A progress bar on work that takes longer than five seconds, for who can see it."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
PATIENCE = 5.0  # seconds


def watched(items: Iterable[Item], what: str, unit: str) -> Iterator[Item]:
    """The items, with a bar from the fifth second on, in a terminal and in a notebook alone."""
    from tqdm.auto import tqdm

    seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    return iter(tqdm(items, desc=what, unit=unit, delay=PATIENCE, disable=not seen))
