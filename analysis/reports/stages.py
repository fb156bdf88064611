"""A bar over the stages of a long piece of work, each by its name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stages(*names: str) -> Iterator[Callable[[], None]]:
    """Show the first stage; what it gives is called at the end of each stage but the last."""
    from tqdm.auto import tqdm  # warns when it is imported in a notebook without widgets

    with tqdm(total=len(names), desc=names[0], leave=False, bar_format=BAR) as bar:

        def next_stage() -> None:
            bar.update()
            bar.set_description(names[bar.n])

        yield next_stage


BAR = "{desc} ({n_fmt} of {total_fmt} done, {elapsed})"
