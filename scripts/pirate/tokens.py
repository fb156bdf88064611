"""The picture of docs/results/smollm2_samples.md: a prompted text, coloured by the prompt and PSR.

    python scripts/pirate/tokens.py
    python scripts/docs/small_pictures.py

It measures the texts that stand in the page, under the pirate's prompt, with the steering that
`scripts/pirate/samples.py` fitted (build/smollm2/psr.safetensors); that script calls it when it is
done. The first text is drawn, whatever it is; the direction of its push is the mean of the others.
"""

import re
from pathlib import Path

import steerlens as sl
from steerlens.analysis import coefficients, coloured_text, save, token_figure

ROOT = Path(__file__).parents[2]
PAGE, FITTED = ROOT / "docs/results/smollm2_samples.md", ROOT / "build/smollm2/psr.safetensors"
NAME, LAYER, WIDTH, DPI = "smollm2_tokens", 12, 860, 110
INSTRUCTION, QUESTION = "You are a pirate. Talk like a pirate.", "Who are you?"
HEADING = f"## prompt: “{INSTRUCTION}”, “{QUESTION}”"


def texts_of(page: str) -> list[str]:
    """The samples under the pirate's prompt."""
    section = page.partition(HEADING)[2].partition("\n## ")[0]
    found = re.findall(r"^\d+\. (.+)$", section, re.MULTILINE)
    if len(found) < 2:
        raise SystemExit(f"{PAGE} has {len(found)} samples under {HEADING!r}, and 2 are needed.")
    return found


def main() -> None:
    if not FITTED.exists():
        raise SystemExit(f"There is no {FITTED}: python scripts/pirate/samples.py fits it.")
    texts = texts_of(PAGE.read_text(encoding="utf-8"))
    model = sl.load("smollm2")
    pairs = [sl.PromptPair.with_system(QUESTION, INSTRUCTION, text) for text in texts]
    steerings = {"PSR": sl.load_steering(FITTED, model)}
    table = coefficients(model, pairs, [LAYER], steerings)
    view = coloured_text(model, pairs[0], 0, table, steerings, LAYER)
    picture = PAGE.parent / "images" / f"{NAME}.png"
    picture.parent.mkdir(exist_ok=True)
    print(f"Wrote {save(token_figure(view, width=WIDTH), picture, dpi=DPI)}")


if __name__ == "__main__":
    main()
