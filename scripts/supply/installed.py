"""What is installed: a software bill of materials, and whether the licences are those we know.

python scripts/supply/installed.py bill OUT.json    CycloneDX 1.5, of this environment
python scripts/supply/installed.py licences         exit code 1 for one that nobody has looked at
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from steerlens.whole import write_whole

# Permissive ones, and MPL-2.0, which is about changed files of the package itself.
KNOWN = re.compile(
    r"mit|mit-0|mit-cmu|the mit license.*|mit license.*|bsd.*|\d-clause bsd.*|0bsd|apache.*|isc.*"
    r"|psf.*|python software foundation.*|mpl-2\.0|mozilla public license 2\.0.*|zlib|cc0-1\.0"
    r"|bsl-1\.0"
    r"|cnri-python|afl-2\.1|public domain|unlicense.*|hpnd.*|llvm-exception",
    re.IGNORECASE,
)
BY_HAND = {"docutils": "public domain, and BSD-2-Clause for parts; its GPL part is Emacs Lisp"}
"""Packages whose metadata say more or less than holds, looked at by hand."""


def installed() -> Iterator[Distribution]:
    """Every package of this environment once, by name."""
    found = {one.metadata["Name"].lower(): one for one in distributions()}
    yield from (found[name] for name in sorted(found))


def licence_of(one: Distribution) -> str:
    """The licence as the package's metadata name it; "" where they do not."""
    about = one.metadata
    classes = [text.split(" :: ")[-1] for text in about.get_all("Classifier", [])
               if text.startswith("License ::")]  # fmt: skip
    said = about.get("License-Expression") or " OR ".join(classes) or about.get("License") or ""
    return " ".join(said.split("\n")[0].split())[:120]


def is_known(licence: str) -> bool:
    """Whether every part of a licence expression is one that we know."""
    parts = re.split(r"\s+(?:AND|OR|WITH)\s+", licence.replace("(", "").replace(")", ""))
    return bool(licence) and all(KNOWN.fullmatch(part.strip()) for part in parts)


def bill() -> dict[str, object]:
    """The bill of materials; a component's hash is that of its list of files, which has theirs."""
    components = []
    for one in installed():
        record = one.read_text("RECORD")
        part: dict[str, object] = {
            "type": "library",
            "name": one.metadata["Name"],
            "version": one.version,
            "purl": f"pkg:pypi/{one.metadata['Name'].lower()}@{one.version}",
            "licenses": [{"license": {"name": licence_of(one) or "not named"}}],
        }
        if record is not None:
            digest = hashlib.sha256(record.encode()).hexdigest()
            part["hashes"] = [{"alg": "SHA-256", "content": digest}]
        components.append(part)
    return {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}


def unknown() -> list[str]:
    """Packages whose licence nobody has looked at, each with what it says."""
    asked = [one for one in installed() if one.metadata["Name"].lower() not in BY_HAND]
    return [
        f"{one.metadata['Name']} {one.version}: {licence_of(one) or 'no licence is named'}"
        for one in asked
        if not is_known(licence_of(one))
    ]


def main() -> None:
    if sys.argv[1:2] == ["bill"] and len(sys.argv) == 3:
        out = Path(sys.argv[2])
        out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(out, (f"{json.dumps(bill(), indent=1)}\n").encode())
        print(f"{len(list(installed()))} packages in {out}")
    elif sys.argv[1:] == ["licences"]:
        left = unknown()
        print("\n".join(left) or f"{len(list(installed()))} packages, all under known licences")
        sys.exit(bool(left))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
