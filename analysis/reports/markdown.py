"""Tables and pictures in Markdown, for pages that are kept beside the code."""

from collections.abc import Sequence


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A head, a rule, and a line for each row."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_folded(title: str, content: str) -> str:
    """What opens at a tap."""
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def markdown_picture(name: str, shows: str, says: str) -> str:
    """A picture of the folder `images` beside the page: what it shows, and a caption below."""
    return f"![{shows}](images/{name}.png)\n\n*{says}*"
