"""Reports hold the explorer's views, and draw errors far above 1 on a logarithmic axis."""

from typing import Any

import pytest

import steerlens
from analysis import compare, comparison_report, faithfulness_report, faithfulness_study
from steerlens import CAA, PromptPair, at

PAIRS = [
    PromptPair.with_system(f"What is {thing}?", "You are kind.", f"{thing} is a very good day")
    for thing in ("it", "love", "the sea")
]


@pytest.mark.parametrize(("strength", "logarithmic"), [(100.0, True), (0.01, False)])
@pytest.mark.parametrize("kind", ["compare", "faithfulness"])
def test_a_report_has_the_views_and_an_axis_that_fits(
    gpt2: Any, kind: str, strength: float, logarithmic: bool
) -> None:
    v = steerlens.capture(gpt2, ["I love it because you are kind"], 1).at(1)[-1]
    steerings = {"CAA": at(1, CAA(v)).scaled(strength)}
    if kind == "compare":
        compared = compare(gpt2, PAIRS, steerings, equivalents=["Be kind."])
        page = comparison_report(compared, {"seed": 0}, title="Compared", intro="Three pairs.")
        content = compared.explorer
        assert "Too few" not in page.html
        assert "too few to rely on" in page.html
    else:
        studied = faithfulness_study(gpt2, PAIRS, steerings, equivalents=["Be kind."])
        page = faithfulness_report(studied, {"seed": 0}, "Studied", "Three pairs.")
        content = studied.explorer
    assert content is not None
    assert [curve["name"] for curve in content["curves"]["0"]] == [
        "equivalent prompts",
        "any instruction",
    ]
    assert page.html.count("data-steerlens-explorer>") == 1
    assert ('"type":"log"' in page.html) == logarithmic
    assert len(page.html.encode()) < 8e6
