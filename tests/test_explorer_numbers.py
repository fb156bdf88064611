"""The explorer's numbers are those of the measures that are called the same, on every model."""

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import steerlens
from analysis import coefficients, faithfulness, logit_shift
from analysis.explorer.explorer import Explorer
from analysis.explorer.payload import key_of, measures_json, number_text, rounded
from analysis.explorer.readings import MEASURES, VIEWS, Reading
from analysis.measures.aligned import align
from analysis.measures.deltas import acts_on, prompt_deltas
from analysis.measures.entries import Entry
from steerlens import CAA, PromptPair, Site, Steering, at
from steerlens.divergence import log_probabilities
from steerlens.prompts import encode_pair
from steerlens.runtime.hooks import Watch
from steerlens.scopes import generated, response

PAIRS = [
    PromptPair.with_system(f"What is {thing}?", "You are kind.", f"{thing} is a very good day{end}")
    for thing, end in (("it", ""), ("love", " indeed"), ("the sea", " by the sun"))
]
close = partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5)


def steerings(model: Any) -> dict[str, Any]:
    v = steerlens.capture(model, ["I love it because you are kind"], 1).at(1)[-1]
    caa = at(1, CAA(v / v.norm()))
    return {
        "CAA": caa.only(response),
        "family": {0: at(0, CAA(v)), 2: at(2, CAA(v)).only(generated)},
        "two": 0.5 * at(Site(1, "resid_pre"), CAA(v)) + at(2, CAA(v)),
    }


@pytest.fixture
def explorer(model: Any) -> Explorer:
    return steerlens.explore(
        model, steerings=steerings(model), pairs=PAIRS, max_new_tokens=4, seed=3
    )


def every_reading(explorer: Explorer, strength: float) -> list[tuple[str, Steering, Reading]]:
    """Every method at every place on the second text, under a name for tables."""
    return [
        (f"{method.name} {place.label}", place.steering, reading)
        for method in explorer.study.methods[1:]
        for place in method.offered(True)
        for reading in [explorer.study.reading(1, method.name, place, strength)]
        if place.steering is not None
    ]


@pytest.mark.parametrize("view", VIEWS)
def test_the_cells_are_those_of_the_table_of_coefficients(explorer: Explorer, view: Any) -> None:
    model, readings = explorer.study.model, every_reading(explorer, 0.5)
    assert len(readings) == 6
    entries = [Entry(name, steering.scaled(0.5)) for name, steering, _ in readings]
    table = coefficients(model, PAIRS, range(model.cfg.n_layers), entries, view=view)
    prompt = explorer.study.reading(1, "prompt", explorer.study.methods[0].places[0], 1.0)
    for name, reading in [("prompt", prompt), *((name, one) for name, _, one in readings)]:
        rows = table.loc[(table["example"] == 1) & (table["method"] == name)]
        for measure in MEASURES:
            want = rows.pivot(index="layer", columns="token_index", values=measure).to_numpy()
            close(reading.cells[view][measure], want, err_msg=f"{name} {measure}")
        sinks = rows.pivot(index="layer", columns="token_index", values="sink").to_numpy()
        assert (reading.sinks == sinks).all()


def test_the_distance_is_that_of_faithfulness_and_the_effect_that_of_logit_shift(
    explorer: Explorer,
) -> None:
    model, readings = explorer.study.model, every_reading(explorer, 2.0)
    entries = [Entry(name, steering.scaled(2.0)) for name, steering, _ in readings]
    errors = faithfulness(model, [PAIRS[1]], entries, n_bootstrap=1)
    shifts = logit_shift(model, [PAIRS[1]], entries).set_index("method")
    for name, _, reading in readings:
        close(reading.rmse, errors.loc[errors["method"] == name, "relative_rmse"])
        close(reading.kl, shifts.loc[name, "mean_kl"])
        close(reading.recovered, shifts.loc[name, "recovered"])
        close(reading.kl_by_token.mean(), shifts.loc[name, "mean_kl"])
    prompt = explorer.study.reading(1, "prompt", explorer.study.methods[0].places[0], 1.0)
    assert prompt.rmse.tolist() == [0.0] * model.cfg.n_layers
    assert prompt.recovered == 1
    close(prompt.kl, shifts.loc["prompt", "mean_kl"])
    references = {line["name"]: line["rmse"] for line in explorer.study.references(1)}
    want = errors.loc[errors["method"] == "any instruction", "relative_rmse"]
    close(references["any instruction"], want)


def test_the_next_words_are_those_whose_probability_changed_most(explorer: Explorer) -> None:
    model, (_, steering, reading) = explorer.study.model, every_reading(explorer, 2.0)[0]
    row, _ = encode_pair(model, PAIRS[1])
    plain, moved = (
        log_probabilities(model, [row], [0], one, Watch()) for one in (None, 2.0 * steering)
    )
    # What is predicted before the second token is the prediction after the first.
    change, weight = moved[1] - plain[1], moved[1].exp() * (moved[1] - plain[1])
    ids = [id_ for id_, _ in reading.changes[0].up]
    assert ids == weight.topk(len(ids)).indices.tolist()
    close([value for _, value in reading.changes[0].up], change[ids])
    assert all(value < 0 for change in reading.changes for _, value in change.down)
    assert len(reading.changes) == len(reading.kl_by_token) == len(row.ids) - row.response


def test_the_lens_at_the_last_layer_is_the_change_of_the_logits_themselves(
    explorer: Explorer,
) -> None:
    study = explorer.study
    method = study.methods[1]
    reading = study.with_lens(1, method.name, method.places[0], 2.0)
    assert reading.lens is not None
    plain, moved = study.text(1).plain.logits, study.passes[1, "CAA", "layer 1", 2.0].logits
    for token, found in enumerate(reading.lens[-1]):
        change = (moved - plain)[token + 1]
        change = change - change.mean()
        assert [i for i, _ in found.up] == change.topk(3).indices.tolist()
        np.testing.assert_allclose([v for _, v in found.up], change.topk(3).values, atol=1e-3)
        np.testing.assert_allclose([v for _, v in found.down], -(-change).topk(3).values, atol=1e-3)
    assert all(not change.up for change in reading.lens[0])  # below the site nothing changed


def test_a_token_counts_as_steered_where_its_activation_was_changed(explorer: Explorer) -> None:
    model = explorer.study.model
    row, _ = encode_pair(model, PAIRS[1])
    for name, steering, reading in every_reading(explorer, 0.5):
        acting = acts_on(model, row, steering, steering.sites)
        assert reading.steered == tuple(i for i, acts in enumerate(acting) if acts), name


def test_strength_0_is_exactly_nothing_and_runs_nothing(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer.study.text(1)
    monkeypatch.delattr("analysis.explorer.study.run_of")
    for _, _, reading in every_reading(explorer, 0.0):
        zero = [reading.cells[view][name] for view in VIEWS for name in MEASURES[:-1]]
        assert not np.stack(zero).any()
        assert np.isnan(reading.cells["accumulated"]["rank1_share"]).all()  # no direction
        assert (reading.kl, reading.recovered, reading.steered) == (0, 0, ())
        assert not reading.kl_by_token.any()
        layers = reading.rmse[np.isfinite(reading.rmse)]
        assert len(layers)
        assert (layers == 1).all()
        assert all(change.up == change.down == [] for change in reading.changes)


def test_a_question_of_ones_own_is_measured_by_the_mean_push_on_all_pairs(
    explorer: Explorer,
) -> None:
    asked = explorer.ask("What is the house?", "You are kind.")
    study, number = asked.study, asked.state["text"]
    assert number == 3
    aligned = align(study.model, PAIRS, range(study.model.cfg.n_layers))
    for site, delta in prompt_deltas(study.model, aligned).items():
        want = delta[~aligned.sinks(site)].mean(dim=0)
        torch.testing.assert_close(study.text(3).axes[site], want, rtol=1e-4, atol=1e-6)
    assert explorer.ask("What is the house?", "You are kind.").state["text"] == 3
    label = asked.payload([number], [1.0], completions=False, lens=False)["measures"][0]["label"]
    assert label == "along (1 = mean prompt push)"
    assert measures_json(study, asks=True)[0]["label"] == (
        "along (1 = mean prompt push of the given pairs)"
    )
    assert set(asked.table["unit"]) == {"mean prompt push"}


def test_a_single_pair_has_its_own_mean_push_for_a_unit_and_says_so(gpt2: Any) -> None:
    explorer = steerlens.explore(gpt2, steerings=steerings(gpt2), pairs=PAIRS[:1])
    prompt = explorer.study.reading(0, "prompt", explorer.study.methods[0].places[0], 1.0)
    along = prompt.cells["accumulated"]["along"]
    kept = ~prompt.sinks
    close([row[keep].mean() for row, keep in zip(along, kept, strict=True)], 1)
    label = explorer.payload([0], [1.0], completions=False, lens=False)["measures"][0]["label"]
    assert label == "along (1 = this text's own mean prompt push)"


def test_the_table_holds_every_reading_and_the_page_the_same_numbers(explorer: Explorer) -> None:
    explorer = explorer.set(method="family", place="layer 2", strength=0.5, text=1)
    content = json.loads(json.dumps(explorer.payload([1], [0.5], completions=False, lens=False)))
    assert explorer.study.text(1).line.question == content["texts"][0]["question"]
    table = explorer.table
    assert not table.duplicated(
        ["example", "token_index", "layer", "method", "place", "strength_value", "view"]
    ).any()
    columns = coefficients(explorer.study.model, PAIRS, 1, {}).columns
    assert set(columns) <= set(table.columns)
    for index, label in enumerate(("layer 0", "layer 2")):
        rows = table.loc[(table["method"] == "family") & (table["place"] == label)]
        rows = rows.loc[(rows["view"] == "local") & (rows["strength_value"] == 0.5)]
        cells = content["readings"][key_of(0, "family", index, 0.5)]["cells"]["local"]
        for name in MEASURES:
            wide = rows.pivot(index="layer", columns="token_index", values=name)
            assert cells[name] == [[rounded(v) for v in row] for row in wide.to_numpy().tolist()]
    assert content["state"]["text"] == 0
    assert content["state"]["place"] == 1
    effect = content["effect"]["0"]
    assert {(one["method"], one["place"]) for one in effect} == {
        ("CAA", 0), ("family", 0), ("family", 1), ("two", 0),
    }  # fmt: skip


def test_every_word_that_a_page_names_is_in_its_vocabulary(explorer: Explorer) -> None:
    content = explorer.payload([0], [1.0], completions=False)
    for reading in content["readings"].values():
        layers = [reading["next"], *reading["lens"]]
        ids = {str(i) for layer in layers for c in layer for i, _ in (*c["up"], *c["down"])}
        assert ids <= set(content["vocabulary"])


@pytest.mark.parametrize(
    ("value", "written"),
    [(1.0, "1"), (0.5, "0.5"), (-2.0, "-2"), (0.0, "0"), (1.23, "1.23"), (1e21, "1e+21")],
)
def test_numbers_in_keys_are_written_as_a_browser_writes_them(value: float, written: str) -> None:
    assert number_text(value) == written


def test_numbers_have_four_digits_and_what_is_not_finite_is_null() -> None:
    assert [rounded(v) for v in (0.123456, 123456.0, 1.0, float("nan"), float("inf"), 0.0)] == [
        0.1235, 123500, 1, None, None, 0,
    ]  # fmt: skip
