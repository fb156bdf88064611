"""A figure in the look of a paper, a notebook or slides: `styled`, and the caption it leaves."""

from __future__ import annotations

from dataclasses import replace

import plotly.graph_objects as go

from .frame import fit
from .looks import look_of, template_of, users_template
from .plan import plan_of
from .tokens import TokenView


def styled(
    figure: go.Figure,
    style: str = "notebook",
    *,
    columns: int | None = None,
    font: str | None = None,
    dark: bool = False,
    title: bool | None = None,
) -> go.Figure:
    """A copy of the figure in a style: "paper", "notebook" or "slides".

    "paper" is one column wide, 3.25 in, or two with `columns=2` (6.75 in), in letters of 8 pt, and
    has no title: `caption(figure)` is the text for below. `font` is "sans" or "serif", `dark` a
    dark page, `title` whether the figure has its title and subtitle. A plotly template of your own,
    set on the figure or as `plotly.io.templates.default`, wins where it says something.
    """
    if isinstance(figure, TokenView):
        raise TypeError(
            "styled takes a plotly figure; found a coloured text. Make a figure of it, "
            "token_figure(view, style), or save it: save(view, 'f.pdf', style='paper')."
        )
    look = look_of(style, columns, font, dark)
    look = look if title is None else replace(look, title=title)
    copy = go.Figure(figure)
    if plan_of(copy) is None:
        template = template_of(look, users_template(copy))
        return copy.update_layout(template=template, width=look.width)
    return fit(copy, look)


def caption(figure: go.Figure) -> str:
    """Title and subtitle of a figure as running text, for below it in a paper."""
    plan = plan_of(figure)
    if plan is not None:
        return plan.caption
    title = figure.layout.title  # pyright: ignore[reportAttributeAccessIssue]
    return ". ".join(text for text in (title.text, title.subtitle.text) if text)
