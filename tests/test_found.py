"""The headline of a report: its numbers are the tables', and it claims no more than they show."""

from dataclasses import replace

import pandas as pd
import pytest

from analysis.reports.compared import Comparison
from analysis.reports.found import found


def comparison(n_test: int = 20, **errors: tuple[float, float, float]) -> Comparison:
    """Ten tokens at two layers, one of which gets nearly all; methods by (error, low, high)."""
    methods = errors or {"CAA": (1.3, 1.2, 1.4), "S-PSR": (0.5, 0.4, 0.6)}
    tokens = pd.DataFrame({"norm": [91.0] + [1.0] * 9, "sink": False, "method": "prompt"})
    table = pd.concat([tokens.assign(layer=layer, strength="") for layer in (0, 1)])
    shift = pd.DataFrame(
        {
            "method": ["prompt", *methods],
            "strength": ["", *("as fitted" for _ in methods)],
            "mean_kl": 0.25,
            "recovered": [1.0, *(1 - error for error, *_ in methods.values())],
            "top_changed": 0.3,
            "n_tokens": 200,
        }
    )
    rows = [
        {"method": name, "strength": label, "relative_rmse": e * far, "low": low, "high": high}
        for name, (e, low, high) in methods.items()
        for label, far in (("as fitted", 1), ("least squares", 9))
    ]
    of_layers = [pd.DataFrame(rows).assign(layer=layer) for layer in (0, 1)]
    of_layers[0]["relative_rmse"] = 7.0
    return Comparison(table, pd.concat(of_layers), shift, (), 1, 0, n_test, 0)


def test_the_numbers_are_those_of_the_tables() -> None:
    prompt, predictions, errors = found(comparison())
    assert "0.25 nats a token (KL, 20 examples, 200 tokens)" in prompt
    assert "at 30 % of the places" in prompt
    assert "hardest gets 91 % of the push at layer 1" in prompt
    assert predictions.startswith("S-PSR goes 50 % of the way")
    assert "Of the others: CAA −30 %." in predictions
    assert "At layer 1, the last" in errors
    assert "Nearer to the prompt than that: S-PSR 0.50 [0.40, 0.60]." in errors
    assert "Further away: CAA 1.30 [1.20, 1.40]." in errors
    assert "7.0" not in errors
    assert "least" not in errors


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ((0.9, 0.8, 0.99), "Nearer to the prompt than that: CAA"),
        ((0.9, 0.8, 1.01), "Not told apart from it: CAA"),
        ((1.1, 0.99, 1.2), "Not told apart from it: CAA"),
        ((1.1, 1.01, 1.2), "Further away: CAA"),
    ],
)
def test_what_lies_inside_the_interval_is_not_told_apart(
    error: tuple[float, float, float], said: str
) -> None:
    text = found(comparison(CAA=error))[2]
    assert said in text
    assert sum(how in text for how in ("Nearer to", "Further away", "Not told apart")) == 1


def test_methods_that_all_lead_away_are_said_to() -> None:
    text = found(comparison(CAA=(1.5, 1.2, 1.6)))[1]
    assert text.startswith("As fitted, no method brings the predictions nearer")
    assert "CAA −50 %" in text


@pytest.mark.parametrize(("n", "few"), [(7, True), (8, False)])
def test_few_examples_are_said_to_be_few(n: int, few: bool) -> None:
    assert any("too few to rely on" in text for text in found(comparison(n))) is few


def test_the_least_squares_strength_is_told_where_it_was_looked_for() -> None:
    one = comparison()
    shift = one.logit_shift.assign(strength_value=1.0)
    better = shift.assign(strength="least squares", strength_value=0.25, recovered=0.19).iloc[1:]
    both = pd.concat([shift, better], ignore_index=True)
    text = found(replace(one, logit_shift=both))[1]
    assert text.endswith("on other pairs: CAA (× 0.25) 19 %, S-PSR (× 0.25) 19 %.")
    assert "S-PSR goes 50 %" in text


def test_sinks_have_no_part_in_how_uneven_the_push_is() -> None:
    one = comparison()
    sinks = one.coefficients.assign(sink=lambda table: table["norm"] == 91.0)
    (prompt, *_) = found(replace(one, coefficients=sinks))
    assert "hardest gets 11 % of the push" in prompt
