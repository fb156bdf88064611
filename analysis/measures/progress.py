"""A progress bar over items that take longer than five seconds, for who can see it."""

from collections.abc import Collection, Iterator
from typing import TypeVar

from steerlens.runtime.progress import progress_bar

Item = TypeVar("Item")


def watched(items: Collection[Item], what: str, unit: str) -> Iterator[Item]:
    """The items, with a bar from the fifth second on, in a terminal and in a notebook alone."""
    with progress_bar(len(items), what, unit) as bar:
        for item in items:
            yield item
            bar.update()
