"""Tables and figures that the notebooks draw, so that their cells stay short."""

import logging
import math
import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from IPython.display import HTML
from torch import Tensor

BLUE = "#0072b2"


def quiet() -> None:
    """Three decimals in tables, and no warnings of other libraries about what the course means to do.

    These are a progress bar that we do without, and a text that begins with the padding token.
    """
    warnings.filterwarnings("ignore", message="IProgress not found")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    pd.set_option("display.precision", 3)


def flush_left(table: pd.DataFrame) -> HTML:
    """A table of texts, which read badly flush right, with nothing cut off."""
    left = 'style="text-align: left"'
    with pd.option_context("display.max_colwidth", None):
        html = table.to_html()
    return HTML(html.replace("<td>", f"<td {left}>").replace("<th>", f"<th {left}>"))


def tokens_in_order(model: Any, tokens: Tensor) -> pd.DataFrame:
    """One row of token ids as a table: position above, token below."""
    words = [repr(model.tokenizer.decode([token])) for token in tokens.flatten().tolist()]
    return pd.DataFrame({"position": range(len(words)), "token": words}).set_index("position").T


def likeliest(model: Any, logits: Tensor, k: int = 6) -> list[str]:
    """The k likeliest next tokens after the last position, with their probabilities."""
    probabilities, ids = logits[0, -1].softmax(dim=-1).topk(k)
    words = [repr(model.tokenizer.decode([token])) for token in ids.tolist()]
    return [f"{word} {p:.0%}" for word, p in zip(words, probabilities.tolist(), strict=True)]


def panels(
    table: pd.DataFrame, x: str, lines: Mapping[str, float] | None = None, label: str = ""
) -> go.Figure:
    """One panel for each "measure": its "change" over `x`, and a dotted line where one is given."""
    measures = list(dict.fromkeys(table["measure"]))
    figure = px.line(
        table, x=x, y="change", facet_row="measure", markers=True, height=460, width=760
    )
    figure.update_yaxes(matches=None, title="")
    figure.for_each_annotation(lambda note: note.update(text=note.text.split("=")[-1]))
    for row, measure in enumerate(reversed(measures), 1):  # plotly counts from the bottom
        if lines and measure in lines:
            note = {"text": label, "font_color": BLUE}
            style = {"dash": "dot", "color": BLUE}
            figure.add_hline(lines[measure], row=row, line=style, annotation=note)
    return figure.update_layout(template="plotly_white")


def error_curves(errors: pd.DataFrame, mark: float, label: str) -> go.Figure:
    """Relative errors over a step size, both on scales of powers of ten; 1 is as bad as nothing."""
    colours = (BLUE, "#56b4e9", "#7f7f7f")
    looks = zip(errors, colours, ("circle", "square", "x"), strict=False)
    figure = go.Figure(
        [
            go.Scatter(
                x=errors.index,
                y=errors[name].where(errors[name] > 0),
                name=name,
                mode="lines+markers",
                line={"color": colour},
                marker={"symbol": symbol},
            )
            for name, colour, symbol in looks
        ]
    )
    figure.add_vline(mark, line={"dash": "dot"})
    figure.add_hline(1, line={"dash": "dash", "color": "#7f7f7f"})
    place = {"x": math.log10(mark), "y": 1.02, "yref": "paper", "yanchor": "bottom"}
    figure.add_annotation(text=label, showarrow=False, **place)
    powers = {"type": "log", "exponentformat": "power", "dtick": 1}
    figure.update_xaxes(title=errors.index.name, **powers)
    figure.update_yaxes(title="relative error", **powers)
    return figure.update_layout(template="plotly_white", height=420, width=760)
