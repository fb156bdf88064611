"""The README's picture: what the prompt and three methods do to one answer, on SmolLM2.

    python scripts/pirate/picture.py heatmap.html

Then a browser makes the image: chromium --headless --screenshot=docs/images/heatmap.png
--window-size=1200,1250 heatmap.html
"""

import sys

import steerlens as sl
from steerlens.analysis import coefficient_heatmap, coefficients
from steerlens.analysis.reports.pirate_demo import pirate_steerings
from steerlens.demo import pirate
from steerlens.whole import write_whole

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
    figure.update_layout(width=1180)
    write_whole(sys.argv[1], figure.to_html(include_plotlyjs=True).encode())


if __name__ == "__main__":
    main()
