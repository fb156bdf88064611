"""What a look at pairs found: each finding with its numbers, examples, and what to do."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""The worst first. An error: the data are broken; a warning: a direction may be of something else
than the attribute; a note: what one should know."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found; `check` names it, `numbers` are what it rests on."""

    check: str
    severity: Severity
    message: str
    advice: str
    numbers: Mapping[str, int | float] = field(default_factory=dict)
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = "".join(f"\n    {one}" for one in self.examples)
        return f"{self.severity} [{self.check}] {self.message}\n  {self.advice}{shown}"


@dataclass(frozen=True)
class Findings:
    """All findings about some pairs, the worst first; `n` is the number of pairs."""

    about: str
    n: int
    found: tuple[Finding, ...]
    numbers: Mapping[str, int | float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.found)

    @property
    def checks(self) -> tuple[str, ...]:
        """The names of the checks that found something."""
        return tuple(dict.fromkeys(one.check for one in self.found))

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings that are as severe, or worse."""
        worst = SEVERITIES[: SEVERITIES.index(severity) + 1]
        return tuple(one for one in self.found if one.severity in worst)

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        counts = {one: sum(f.severity == one for f in self.found) for one in SEVERITIES}
        found = [{**asdict(one), "examples": list(one.examples)} for one in self.found]
        numbers = dict(self.numbers)
        return {
            "about": self.about,
            "pairs": self.n,
            "counts": counts,
            "findings": found,
            "numbers": numbers,
        }

    def __str__(self) -> str:
        counts = [
            f"{n} {name}{'s' * (n != 1)}"
            for name in SEVERITIES
            if (n := sum(one.severity == name for one in self.found))
        ]
        measured = [f"{name}: {value:.3g}" for name, value in self.numbers.items()]
        head = f"{self.about}, {self.n} pairs: {', '.join(counts) or 'nothing was found'}."
        return "\n".join([head, *measured, *map(str, self.found)])
