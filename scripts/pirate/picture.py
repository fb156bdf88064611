"""The README's picture: what the prompt and three methods do to one answer, on SmolLM2.

    python scripts/pirate/picture.py docs/images/heatmap.png
    python scripts/docs/small_pictures.py

A picture has no buttons on it; for one that a reader can point at, end the name in .html.
"""

import sys

import steerlens as sl
from steerlens.analysis import coefficient_heatmap, coefficients, save
from steerlens.analysis.reports.pirate_demo import pirate_steerings
from steerlens.demo import pirate

SHOWN = ("CAA", "S-PSR", "A-PSR")


def main() -> None:
    model = sl.load(pirate.MODEL)
    pairs = sl.prompted_pairs(
        model, pirate.TEST[:4], pirate.INSTRUCTION, max_new_tokens=28, temperature=0.8, seed=0
    )
    fitted = pirate_steerings(model)
    steerings = {name: fitted[name] for name in SHOWN}
    table = coefficients(model, pairs, range(model.cfg.n_layers), steerings)
    figure = coefficient_heatmap(table, example=0)
    save(figure, sys.argv[1], width=820, dpi=144)


if __name__ == "__main__":
    main()
