"""Pairs and contrasts that commands read: our JSON Lines, and the files that `read_pairs` knows."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steerlens.pairs.records import Pairs
    from steerlens.prompts import Conversation, PromptPair


def read_prompt_pairs(
    path: str | Path, *, system_optional: bool = False
) -> "list[PromptPair | Conversation]":
    """Prompted/unprompted pairs; a Conversation is a line that the model has to answer first."""
    from steerlens.jsonl import read_prompt_pairs as read_ours
    from steerlens.pairs.reading import foreign, read_pairs

    if foreign(Path(path)):
        return read_pairs(path).pairs
    return read_ours(path, system_optional=system_optional)


def read_labelled_pairs(
    path: str | Path,
) -> "tuple[list[PromptPair | Conversation], list[float] | None]":
    """The same, and how much of the attribute each response has."""
    from steerlens.jsonl import read_labelled_pairs as read_ours
    from steerlens.pairs.reading import foreign, read_pairs

    if foreign(Path(path)):
        found = read_pairs(path)
        return found.pairs, found.labels
    return read_ours(path)


def numbers_of(path: str | Path) -> list[int]:
    """The line, row or number of each record of a file."""
    from steerlens.jsonl import line_numbers
    from steerlens.pairs.reading import foreign, read_pairs

    if foreign(Path(path)):
        return [one.number for one in read_pairs(path)]
    return line_numbers(path)


def read_contrasts(path: str | Path) -> "Pairs":
    """A file with a positive and a negative side; `sides(model)` is what a fit takes."""
    from steerlens.jsonl import line_numbers
    from steerlens.jsonl import read_contrasts as read_ours
    from steerlens.pairs.reading import foreign, read_pairs
    from steerlens.pairs.records import Pairs, Record

    if foreign(Path(path)):
        found = read_pairs(path)
        _ = found.contrasts  # ValueError where it has none, before a model is loaded
        return found
    sides = read_ours(path)
    both = zip(line_numbers(path), *sides, strict=True)
    rows = tuple(Record(number, positive=yes, negative=no) for number, yes, no in both)
    return Pairs("contrasts", "contrasts", str(path), "line", rows)


def read_wishes(
    path: str | Path,
) -> "tuple[list[str | Conversation], list[dict[str, float]]]":
    """Prompts, and how often each option should come next."""
    from steerlens.jsonl import read_wishes as read_ours
    from steerlens.pairs.reading import foreign, read_pairs

    return read_pairs(path).shares if foreign(Path(path)) else read_ours(path)
