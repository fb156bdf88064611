"""What a check says of an answer that is not right yet."""

ORANGE, PLAIN = "\x1b[38;5;130m", "\x1b[0m"


class NotYet(Exception):
    """An answer is not right yet: why, and what to look at. Shown as this text alone, no traceback.

    It stops "Run All" at the exercise, so that what builds on the answer does not fail in its place.
    """

    def __init__(self, because: str, hint: str = "") -> None:
        super().__init__(because, hint)
        self.because, self.hint = because, hint

    def __str__(self) -> str:
        return f"Not yet: {self.because}" + (f"\nHint: {self.hint}" if self.hint else "")

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        first, *more = str(self).splitlines()
        return [f"{ORANGE}{first}{PLAIN}", *more]


def require(holds: bool, because: str, hint: str = "") -> None:
    """`NotYet` unless it holds."""
    if not holds:
        raise NotYet(because, hint)
