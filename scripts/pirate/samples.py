"""What the README's commands write on SmolLM2: three samples of each, seeds 0, 1 and 2, all shown.

    python scripts/pirate/samples.py

It runs the commands as a user would, and writes docs/results/smollm2_samples.md. A quarter of an
hour on one core. A fit that is there (in build/smollm2) is not made again. `tokens.py` draws.
"""

import json
import subprocess
import sys
from pathlib import Path

from analysis.reports.markdown import markdown_picture
from steerlens.whole import write_whole

ROOT = Path(__file__).parents[2]
WORK, PAGE = ROOT / "build/smollm2", ROOT / "docs/results/smollm2_samples.md"
MODEL = ["--model", "smollm2"]
REVIEW, JOB = "Review a movie you watched.", "Who are you?"
POSITIVE, PIRATE = "Be positive.", "You are a pirate. Talk like a pirate."
CONTRASTS = ["--pairs", "examples/contrasts.jsonl"]
WORDS = ["--positive", " wonderful", "--negative", " terrible"]
SAMPLING = ["--temperature", "0.7", "--max-new-tokens", "48"]
AUTO = ["--strength", "auto"]
FITS = {
    "caa": ["fit", "caa", *CONTRASTS, "--layer", "12", *AUTO],
    "act-add": ["fit", "act-add", *WORDS, "--layer", "6", *AUTO],
    "angular": ["fit", "angular", *CONTRASTS, "--layers", "12", *AUTO],
    "cold-kernel": ["fit", "cold-kernel", *CONTRASTS, "--layers", "12", "--loss", "sft"],
    "cold-fd": ["fit", "cold-fd", *CONTRASTS, "--layers", "12", "--loss", "dpo"],
    "psr": ["fit", "psr", "--pairs", "examples/pirate.jsonl", "--layers", "12"],
    "clas": ["fit", "clas", "--pairs", "examples/pirate.jsonl", "--layers", "8-22", *AUTO],
}
"""Each steering, and the command that fits it."""


def main() -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    lines = ["# What SmolLM2 writes, steered by the README's commands", "", WHAT]
    for name, question, system in (
        ("no steering, no instruction", REVIEW, None),
        (f"prompt: “{POSITIVE}”", REVIEW, POSITIVE),
        ("no steering, no instruction", JOB, None),
        (f"prompt: “{PIRATE}”", JOB, PIRATE),
    ):
        lines += section(
            name,
            question,
            ["--system", system] if system else [],
            "prompted" if system else "unsteered",
        )
    for name, command in FITS.items():
        file = WORK / f"{name}.safetensors"
        command = [*command, *MODEL, "--out", str(file)]
        if not file.exists():
            steerlens(command)
        question = JOB if name in ("psr", "clas") else REVIEW
        lines += section(name, question, ["--steering", str(file)], "steered", command)
        lines += ["", PICTURE] if name == "psr" else []
    write_whole(PAGE, ("\n".join(lines) + "\n").encode())
    print(f"wrote {PAGE.relative_to(ROOT)}", flush=True)
    subprocess.run([sys.executable, ROOT / "scripts/pirate/tokens.py"], check=True)


WHAT = """Made by `python scripts/pirate/samples.py`, which runs `steerlens fit` and `steerlens
generate` on SmolLM2-135M-Instruct (4-bit weights) at temperature 0.7, 48 tokens. (At 1, the
default, a model of this size often falls apart without any steering.) Nothing is chosen: seeds 0, 1
and 2 are all there are. A model of 135 M parameters writes much that is not so. Texts end where the
tokens do."""
PICTURE = markdown_picture(
    "smollm2_tokens",
    "A text twice, its tokens coloured by the push of the prompt and by that of PSR.",
    "The first text (seed 0) under the pirate's prompt, coloured at layer 12 by what the prompt "
    "does to its tokens and what this PSR does to the same ones; one text, so no interval, and the "
    "direction is the mean push on the other two. Made by `python scripts/pirate/tokens.py`.",
)
"""What `tokens.py` draws of the page."""


def section(
    name: str, question: str, options: list[str], key: str, fit: list[str] | None = None
) -> list[str]:
    """A heading, the commands, and three samples."""
    command = ["generate", *MODEL, "--prompt", question, *options, *SAMPLING]
    lines = ["", f"## {name}, “{question}”", "", "```bash"]
    lines += [shown(fit)] if fit else []
    lines += [shown([*command, "--seed", "SEED"]), "```", ""]
    for seed in range(3):
        said = json.loads(steerlens([*command, "--seed", str(seed), "--json"]))
        lines.append(f"{seed}. {' '.join(said[key][0].split())}")
        print(name, lines[-1], flush=True)
    return lines


def shown(command: list[str]) -> str:
    words = [f'"{word}"' if " " in word or not word else word for word in command]
    return "steerlens " + " ".join(words).replace(str(WORK) + "/", "")


def steerlens(command: list[str]) -> str:
    """What a command prints; its error ends the script."""
    call = [sys.executable, "-m", "steerlens.cli", *command]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{shown(command)}: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
