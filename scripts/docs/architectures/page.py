"""docs/architectures.md from the results of each environment: one row an architecture."""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steerlens.whole import write_whole

Cells = Mapping[str, Mapping[str, str]]

HEAD = """\
# Architectures

Written by `make architectures`. Each row is a model of random weights of one of transformers'
configuration classes, some of them with an option that changes what is computed; all are tiny:
{size}. It is saved to a folder, loaded with
`steerlens.load`, and always compared with the same folder in plain transformers, in float32.
Real weights, other sizes, other types of numbers and other machines are not tried here.

{made}

| tried | what is compared |
|---|---|
| load | `steerlens.load(folder, backend=...)` |
| logits | of three prompts |
| resid_pre, resid_post | logits with a vector added before or after block 1; a hook does it to \
transformers' block |
| padded | prompts of unequal length at once (one length at a time where the model cannot be \
padded): greedy text, captured activations, logits; against each alone |
| cached | greedy text with and without a cache, unsteered and steered; against whole passes |
| PSR, CLAS, COLD | fits at block 1: what was fitted acts as it does in a hook on transformers' \
block; for CLAS also the pass by which it is trained, which enters the model above block 1 |
| saved | a steering saved and loaded acts as before |
| identity | one fingerprint on all backends and versions: what is saved on one loads on the other |
| context | as many tokens as the configuration has positions are taken, and not one more |

**✓** all of it works. **–** refused with a sentence of ours before anything wrong was returned (the
footnote has it). **✗** an error of another library. **≠** wrong: another result than transformers'
(the footnote says by how many standard deviations of it). Where loading fails nothing else is
tried; elsewhere the trials that are not named work. *auto* is the backend that `backend="auto"`,
the default, takes. The sentences at load begin with "... cannot be loaded rightly here." and end
with "Try another version of transformer-lens" (and, where the logits differ, "or take it all the
same with verify=False"); here they are without.
"""


@dataclass(eq=False)
class Notes:
    """Sentences, each once, numbered in the order of their first use."""

    numbers: dict[str, int] = field(default_factory=dict)

    def mark(self, sentence: str) -> str:
        """The reference to a sentence."""
        return f"[^{self.numbers.setdefault(sentence, len(self.numbers) + 1)}]"

    def listed(self) -> str:
        """All of them, as the foot of the page."""
        return "\n".join(f"[^{number}]: {said}" for said, number in self.numbers.items())


ADVICE = re.compile(r" Try another version of transformer-lens[^.]*\.$")
SYMBOLS = {"WRONG": "≠", "error": "✗", "refused": "–"}
"""From the worst to the best."""


def write(files: Iterable[Path], page: Path) -> None:
    """Write the page from the results in `files`."""
    environments = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    write_whole(page, text(environments).encode())
    print(f"wrote {page}", file=sys.stderr)


def text(environments: list[dict[str, Any]]) -> str:
    """The whole page."""
    from architectures.zoo import D_MODEL, D_VOCAB, N_LAYERS

    environments = sorted(environments, key=lambda each: each["versions"]["transformer-lens"])
    _compare_identities(environments)
    notes = Notes()
    table = _table(environments, notes)
    size = f"{N_LAYERS} or 4 layers, {D_MODEL} dimensions, a vocabulary of {D_VOCAB}"
    head = HEAD.format(size=size, made="\n".join(map(_made, environments)))
    parts = [head, _counts(environments), "", table, "", _left_out(), "", notes.listed(), ""]
    return "\n".join(parts)


def _left_out() -> str:
    """What transformers has beside them."""
    from architectures.zoo import LEFT_OUT

    reasons = [f"- {reason}: {', '.join(names.split())}" for reason, names in LEFT_OUT.items()]
    return "\n".join(["Not tried, of what `AutoModelForCausalLM` knows:", "", *reasons])


def _made(environment: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    built = [row for row in environment["rows"].values() if "build" not in row]
    python = environment["python"]
    return f"- {environment['date']}: {len(built)} models on {versions}, Python {python}."


def _columns(environments: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str, str]]:
    """(environment, backend, title) of every column; `auto` comes last."""
    columns = []
    for environment in environments:
        version = ".".join(environment["versions"]["transformer-lens"].split(".")[:2])
        held = {backend for row in environment["rows"].values() for backend in row}
        columns += [
            (environment, backend, f"{title} {version}")
            for backend, title in TITLES.items()
            if backend in held
        ]
    return sorted(columns, key=lambda column: list(TITLES).index(column[1]))


TITLES = {"hooked": "HookedTransformer", "bridge": "bridge", "auto": "*auto*"}


def _table(environments: list[dict[str, Any]], notes: Notes) -> str:
    columns = _columns(environments)
    titles = ["architecture", *(title for _, _, title in columns)]
    lines = [titles, ["---"] * len(titles)]
    names = dict.fromkeys(name for each in environments for name in each["rows"])
    for name in names:
        rows = [(each["rows"].get(name, {}), backend) for each, backend, _ in columns]
        lines.append([name, *(_cell(row, backend, notes) for row, backend in rows)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Mapping[str, Any], backend: str, notes: Notes) -> str:
    if "build" in row:
        return f"not built{notes.mark(_said(row['build']))}"
    cells = row.get(backend)
    if not cells:
        return ""
    if backend == "auto" and not _faults(cells):
        return str(cells["load"]["said"])
    if backend == "auto" and cells["load"]["state"] == "refused":
        return SYMBOLS["refused"]  # for the reasons of each backend, which stand beside it
    return _short(cells, notes)


def _short(cells: Cells, notes: Notes) -> str:
    """✓, or what fails and how, the worst first; what follows from wrong logits is left out."""
    faults = _faults(cells)
    if faults.get("logits", {}).get("state") == "WRONG":
        faults = {"logits": faults["logits"]}
    if not faults:
        return "✓"
    groups: dict[tuple[str, str], list[str]] = {}
    for name, cell in faults.items():
        groups.setdefault((cell["state"], _said(cell)), []).append(name)
    ordered = sorted(groups.items(), key=lambda group: list(SYMBOLS).index(group[0][0]))
    return "; ".join(
        SYMBOLS[state] + ("" if names == ["load"] else " " + ", ".join(names)) + notes.mark(said)
        for (state, said), names in ordered
    )


def _faults(cells: Cells) -> dict[str, Mapping[str, str]]:
    return {name: cell for name, cell in cells.items() if cell["state"] in SYMBOLS}


def _said(cell: Mapping[str, str]) -> str:
    # One footnote for all classes that a backend does not know; line numbers say nothing here.
    said = re.sub(r"\w+ (is not currently supported)", r"... \1", " ".join(cell["said"].split()))
    said = re.sub(r"transformer-lens \S+ (has no bridge for) \w+", r"transformer-lens \1 it", said)
    said = re.sub(r" \(\w+\.py, line \d+\)", "", said)
    said = ADVICE.sub("", said.replace("'the folder' cannot be loaded rightly here. ", ""))
    return said.replace("|", "\\|").replace("[", "\\[")


def _counts(environments: list[dict[str, Any]]) -> str:
    """How many models end how, by the worst of their trials."""
    kinds = {"": "all works", "refused": "some –", "error": "some ✗", "WRONG": "some ≠"}
    head = ["models", *kinds.values(), "– at load", "✗ at load"]
    lines = [head, ["---"] * len(head)]
    for environment, backend, title in _columns(environments):
        counts = Counter(
            _outcome(row[backend]) for row in environment["rows"].values() if backend in row
        )
        endings = [*kinds, "load refused", "load error"]
        lines.append([title, *(str(counts[ending]) for ending in endings)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _outcome(cells: Cells) -> str:
    faults = _faults(cells)
    if "load" in faults:
        return f"load {faults['load']['state']}"
    states = {cell["state"] for cell in faults.values()}
    return next((state for state in SYMBOLS if state in states), "")


def _compare_identities(environments: list[dict[str, Any]]) -> None:
    """A fingerprint that differs from that of the first backend is wrong."""
    first: dict[str, str] = {}
    for environment, backend, _ in _columns(environments):
        for name, row in environment["rows"].items():
            cell = row.get(backend, {}).get("identity", {"state": "none"})
            if cell["state"] == "works" and first.setdefault(name, cell["said"]) != cell["said"]:
                cell |= {"state": "WRONG", "said": "the fingerprint of another backend differs"}
