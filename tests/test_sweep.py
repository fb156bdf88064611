"""Sweeps: every cell is what the functions for one method find, however the work is shared."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from catalogue import CATALOGUE
from tiny_models import D_MODEL, load

import steerlens
from analysis import (
    at_layers,
    faithfulness,
    logit_shift,
    prompt_effect_recovered,
    sweep,
    sweep_heatmap,
    sweep_report,
)
from analysis.measures import by_layer, entering
from analysis.measures import sweep as sweeping
from analysis.measures.entering import Entry as Entrance
from analysis.measures.entries import Entry
from analysis.measures.row_strengths import RowStrengths, at_strengths, repeated
from steerlens import CAA, PSR, ActAdd, InstructionVector, PromptPair, Site, Steering, at, calibrate
from steerlens.combinators import Scaled, bind
from steerlens.divergence import response_log_p
from steerlens.methods.psr import difference_of_means
from steerlens.prompts import Encoded, encode_pair, stack
from steerlens.training.schedule import Schedule

QUESTIONS = ("What is it?", "They went home, and then", "I love you because", "The dog ran")
RESPONSES = (" A very good day indeed.", " to the sea", " you are kind.", " home")
PAIRS = [
    PromptPair.with_system(q, "You are not kind.", r)
    for q, r in zip((*QUESTIONS, *QUESTIONS[:2]), (*RESPONSES, *RESPONSES[:1:-1]), strict=True)
]
V = torch.from_numpy(np.random.default_rng(0).standard_normal(D_MODEL)).float()
LAYERS = {f"CAA, layer {n}": at(n, CAA(V)) for n in range(4)}
few = pytest.mark.filterwarnings("ignore:.*over 4 questions")
pytestmark = few
BOOTSTRAP: dict[str, Any] = {"n_bootstrap": 40, "seed": 3}


def one_by_one(
    model: Any, steerings: dict[str, Steering], strengths: Any, scopes: Any, **against: Any
) -> pd.DataFrame:
    """The same cells by the functions that measure methods, in the order of a sweep."""
    cells = [
        (name, scope, s, steering.scaled(s) if scope is None else steering.scaled(s).only(scope))
        for name, steering in steerings.items()
        for scope in scopes
        for s in strengths
    ]
    entries = [Entry(f"{name} {scope} {s}", one) for name, scope, s, one in cells]
    baseline = {k: v for k, v in against.items() if k == "baseline"}
    shift = logit_shift(model, PAIRS, entries, **baseline).iloc[1:]
    left = prompt_effect_recovered(model, PAIRS, entries, **BOOTSTRAP, **baseline).iloc[1:]
    errors = faithfulness(model, PAIRS, entries, any_instruction=False, **BOOTSTRAP, **against)
    at_layer = errors.set_index(["method", "layer"])
    own = [min(site.layer for site in one.on(model).sites) for *_, one in cells]
    keys = [entry.key for entry in entries]
    last = at_layer.loc[[(key, model.cfg.n_layers - 1) for key in keys]]
    here = at_layer.loc[list(zip(keys, own, strict=True))]
    return pd.DataFrame(
        {
            "mean_kl": shift["mean_kl"].to_numpy(),
            "kl_left": left["kl_left"].to_numpy(),
            "recovered": left["recovered"].to_numpy(),
            "recovered_low": left["low"].to_numpy(),
            "recovered_high": left["high"].to_numpy(),
            "relative_rmse": last["relative_rmse"].to_numpy(),
            "relative_rmse_low": last["low"].to_numpy(),
            "relative_rmse_high": last["high"].to_numpy(),
            "relative_rmse_own_layer": here["relative_rmse"].to_numpy(),
            "relative_rmse_own_layer_high": here["high"].to_numpy(),
            "kl_prompt": left["kl_prompt"].to_numpy(),
        }
    )


def assert_same(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Up to rounding, as the docstring of the module says it."""
    for column in expected:
        found, wanted = table[column].to_numpy(), expected[column].to_numpy()
        rtol = 1e-4 if "rmse" in column or "recovered" in column else 1e-5
        atol = 1e-5 if "recovered" in column else 1e-7
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol, err_msg=column)


def built(model: Any, *names: str) -> dict[str, Steering]:
    return {name: CATALOGUE[name].build(model) for name in names}


def test_every_cell_is_what_the_functions_find(model: Any) -> None:
    steerings = {
        "CAA, layer 0": LAYERS["CAA, layer 0"],
        "CAA, layer 3": LAYERS["CAA, layer 3"],
        "several layers": at(1, CAA(V)) + at([2, 3], PSR.constant(0.1 * V)),
        "into a layer": at(Site(2, "resid_pre"), CAA(V)),
        "attention": at(Site(1, "attn_out"), CAA(V)),
        "twice": at(-2, CAA(V)) + at(2, InstructionVector(V / V.norm(), 3.0)),
    }
    table = sweep(model, PAIRS, steerings, strengths=(-0.4, 1.0), **BOOTSTRAP)
    assert table.attrs["whole_passes"] == {}
    assert_same(table, one_by_one(model, steerings, (-0.4, 1.0), (None,)))


def test_a_row_says_which_cell_it_is(gpt2: Any) -> None:
    steerings = LAYERS | {"into the first": at(Site(0, "resid_pre"), CAA(V))}
    strengths, scopes = (0.0, 0.5), (None, steerlens.response)
    table = sweep(gpt2, PAIRS, steerings, strengths=strengths, scopes=scopes, **BOOTSTRAP)
    assert_same(table, one_by_one(gpt2, steerings, strengths, scopes))
    assert (table.loc[table["strength"] == 0, "mean_kl"].abs() < 1e-9).all()
    assert table["method"].tolist() == ["CAA"] * 16 + ["into the first"] * 4
    assert table["layer"].tolist() == [n for n in (0, 1, 2, 3, 0) for _ in range(4)]
    assert table["strength"].tolist() == table["strength_value"].tolist() == [0.0, 0.5] * 10
    assert table["scope"].tolist() == [*["as fitted"] * 2, *["response"] * 2] * 5
    assert (table["n_examples"] == len(PAIRS)).all()


@pytest.mark.filterwarnings("ignore:.*changed no activation")
def test_steers_that_see_positions_gates_and_tokens_are_swept_too(model: Any) -> None:
    steerings = built(
        model, "ActAdd", "When, of a scope", "wrapped together", "ColdFD",
        "a steer that sees the tokens after a steering",
    )  # fmt: skip
    scope = steerlens.question_and_response
    table = sweep(model, PAIRS, steerings, strengths=(0.3, 1.0), scopes=[scope], **BOOTSTRAP)
    alone = {name: steering.only(scope) for name, steering in steerings.items()}
    assert_same(table, one_by_one(model, alone, (0.3, 1.0), (None,)))
    by_name = table.loc[table["strength"] == 1].groupby("method")["mean_kl"].max()
    assert (by_name > 1e-6).all()


def test_every_steer_of_the_catalogue_is_swept(gpt2: Any) -> None:
    steerings = {name: entry.build(gpt2) for name, entry in CATALOGUE.items()}
    table = sweep(gpt2, PAIRS, steerings, strengths=(0.6, 1.0), n_bootstrap=10)
    entries = [Entry(name, steering.scaled(0.6)) for name, steering in steerings.items()]
    shift = logit_shift(gpt2, PAIRS, entries).iloc[1:]
    found = table.loc[table["strength"] == 0.6, ["mean_kl", "recovered"]].to_numpy()
    np.testing.assert_allclose(found, shift[["mean_kl", "recovered"]], rtol=1e-5, atol=1e-6)


def test_sinks_and_the_plain_side_are_as_in_the_functions(gpt2: Any) -> None:
    against = {"sinks": 1.15, "baseline": "neutral"}
    table = sweep(gpt2, PAIRS, LAYERS, strengths=(0.7,), **against, **BOOTSTRAP)
    assert_same(table, one_by_one(gpt2, LAYERS, (0.7,), (None,), **against))
    assert table.attrs["baseline"] == "neutral"
    loose = sweep(gpt2, PAIRS, LAYERS, strengths=(0.7,), baseline="neutral", **BOOTSTRAP)
    assert (table["relative_rmse"] - loose["relative_rmse"]).abs().max() > 1e-4


def test_a_model_that_cannot_be_entered_gets_whole_passes_and_the_same_numbers(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steerings = {"CAA, layer 1": LAYERS["CAA, layer 1"], "CAA, layer 2": LAYERS["CAA, layer 2"]}
    expected = sweep(model, PAIRS, steerings, strengths=(0.5, 1.0), **BOOTSTRAP)
    enter = entering.logits_from

    def refuse(*given: Any) -> Any:
        raise AssertionError("no way in")

    def astray(model: Any, residual: Any, layer: int, *given: Any) -> Any:
        scores = enter(model, residual, layer, *given)
        return scores + 0.01 * scores.roll(1, dims=-1) if layer == 2 else scores

    for lie, said in ((refuse, "no way in"), (astray, "differ by")):
        monkeypatch.setattr(entering, "logits_from", lie)
        table = sweep(model, PAIRS, steerings, strengths=(0.5, 1.0), **BOOTSTRAP)
        assert said in table.attrs["whole_passes"]["layer 1 resid_post"]
        assert_same(table, expected[["mean_kl", "recovered", "relative_rmse", "log_p"]])
    assert list(table.attrs["whole_passes"]) == ["layer 1 resid_post"]  # layer 3 was entered


def test_nothing_below_the_steered_layer_runs_again(gpt2: Any) -> None:
    rows: list[int] = []
    hook = [("blocks.2.attn.hook_z", lambda activation, hook: rows.append(len(activation)))]
    with gpt2.hooks(fwd_hooks=hook):
        sweep(gpt2, PAIRS, {"high": at(2, CAA(V))}, strengths=(0.3, 0.6), n_bootstrap=10)
    assert rows == [2, 6, 6]  # the trial, the plain and the prompted pass
    rows.clear()
    with gpt2.hooks(fwd_hooks=hook):
        sweep(gpt2, PAIRS, {"low": at(1, CAA(V))}, strengths=(0.3, 0.6), n_bootstrap=10)
    assert rows == [2, 2, 6, 6, 12]


def test_a_steer_that_a_pass_never_met_is_an_error(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter = entering.logits_from
    monkeypatch.setattr(entering.Entrances, "open", lambda self, entry: True)
    monkeypatch.setattr(
        entering, "logits_from", lambda model, h, layer, *rest: enter(model, h, layer + 1, *rest)
    )
    with pytest.raises(RuntimeError, match="without the steer at layer 2 resid_pre"):
        sweep(gpt2, PAIRS, {"CAA": at(Site(2, "resid_pre"), CAA(V))}, strengths=(1.0,))


def test_what_is_kept_is_a_copy(gpt2: Any) -> None:
    rows = [encode_pair(gpt2, pair)[0] for pair in PAIRS]
    batch = entering.Batch.of(gpt2, rows, [0, 1])
    expected = entering.whole_pass(gpt2, batch, [Site(1)]).held[Site(1)]
    written = [("blocks.2.hook_resid_pre", lambda activation, hook: activation.add_(1.0))]
    with gpt2.hooks(fwd_hooks=written):
        found = entering.whole_pass(gpt2, batch, [Site(1)]).held[Site(1)]
    assert torch.equal(found, expected)


@dataclass(frozen=True, eq=False)
class Opening:
    """A steer that wants something open around its pass."""

    opened: list[int]
    needs_window = True
    needs_run = True

    def bind(self, window: steerlens.Window) -> Any:
        assert window.context is not None
        window.context.around.append(self.around())
        return CAA(V)

    @contextmanager
    def around(self) -> Iterator[None]:
        self.opened.append(1)
        yield

    def __call__(self, activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        raise ValueError("bind it")


def test_a_steer_that_wants_something_open_gets_whole_passes(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steer, entered, enter = Opening([]), list[int](), entering.logits_from
    monkeypatch.setattr(entering, "logits_from", lambda *given: entered.append(1) or enter(*given))
    table = sweep(gpt2, PAIRS, {"one": at(2, steer)}, strengths=(0.5,), n_bootstrap=10)
    assert steer.opened == [1]
    assert entered == [1]  # the trial
    plain = sweep(gpt2, PAIRS, {"one": at(2, CAA(V))}, strengths=(0.5,), n_bootstrap=10)
    assert_same(table, plain[["mean_kl", "recovered", "relative_rmse"]])


def test_few_rows_a_pass_change_nothing(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    strengths, rows = (0.2, 0.5, 1.0), list[int]()
    expected = sweep(gpt2, PAIRS, LAYERS, strengths=strengths, **BOOTSTRAP)
    passed = entering.logits_from

    def counted(model: Any, residual: torch.Tensor, *given: Any) -> torch.Tensor:
        rows.append(len(residual))
        return passed(model, residual, *given)

    monkeypatch.setattr(entering, "logits_from", counted)
    plain = [encode_pair(gpt2, pair)[0] for pair in PAIRS]
    widest = max(len(row.ids) - row.response for row in plain) * gpt2.cfg.d_vocab
    for most in (2, 7):
        monkeypatch.setattr(sweeping, "NUMBERS", most * widest)
        rows.clear()
        table = sweep(gpt2, PAIRS, LAYERS, strengths=strengths, **BOOTSTRAP)
        assert max(rows) <= most
        assert_same(table, expected[["mean_kl", "recovered", "relative_rmse", "log_p"]])


def test_the_log_probability_is_that_of_the_response(gpt2: Any) -> None:
    table = sweep(gpt2, PAIRS, LAYERS, strengths=(0.0, 1.0), n_bootstrap=20)
    plain, prompted = (
        torch.cat(response_log_p(gpt2, [encode_pair(gpt2, pair)[side] for pair in PAIRS])).mean()
        for side in (0, 1)
    )
    assert table["log_p_unsteered"].iloc[0] == pytest.approx(float(plain), rel=1e-5)
    assert table["log_p_prompted"].iloc[0] == pytest.approx(float(prompted), rel=1e-5)
    off = table.loc[table["strength"] == 0, "log_p"]
    assert off.to_numpy() == pytest.approx(float(plain), rel=1e-5)
    on = table.loc[table["strength"] == 1]
    assert ((on["log_p"] - float(plain)).abs() > 1e-3).all()
    assert (on["log_p_low"] < on["log_p"]).all()
    assert (on["log_p"] < on["log_p_high"]).all()
    assert (table["mean_kl_low"] <= table["mean_kl"] + 1e-12).all()
    assert (table["mean_kl"] <= table["mean_kl_high"] + 1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_strengths_by_row_are_scaled_steers_to_the_bit(dtype: torch.dtype) -> None:
    h = torch.randn((6, 5, D_MODEL), generator=torch.Generator().manual_seed(0)).to(dtype)
    _, window = stack([Encoded((1, 2, 3, 4, 5), 1, 3, bos=False)] * 2)
    _, several = repeated(torch.zeros(2, 5, dtype=torch.long), window, 3)
    for steer in (CAA(3 * V), ActAdd(torch.stack([V, V]))):
        strengths = (0.0, 0.3, 1.0)
        found = bind(RowStrengths(steer, strengths), several)(h)
        for part, before, s in zip(found.chunk(3), h.chunk(3), strengths, strict=True):
            assert torch.equal(part, bind(Scaled(steer, s), window)(before))
        assert torch.equal(found[:2], h[:2])
    calls: list[int] = []
    counted = RowStrengths(lambda h, hook=None: calls.append(len(h)) or h + 1, (0.5, 1.0, 2.0))
    bind(counted, several)(h)
    assert calls == [6]  # what depends on no position is asked once
    limited = at_strengths(at(1, CAA(V)), (0.5,), steerlens.last).placed[0][1]
    assert isinstance(limited, steerlens.Only)
    with pytest.raises(ValueError, match="window"):
        RowStrengths(CAA(V), (1.0,))(h)


def test_where_a_pass_begins() -> None:
    assert Entrance.of([Site(2), Site(4)]) == Entrance(Site(2), 3, by_hand=True)
    assert Entrance.of([Site(2), Site(2, "attn_out")]) == Entrance(Site(2, "resid_pre"), 2, False)
    assert Entrance.of([Site(3, "resid_pre")]).layer == 3


def test_a_strength_of_one_can_be_as_much_as_the_prompt(gpt2: Any) -> None:
    scopes = [steerlens.response, steerlens.everywhere]
    steerings = {"CAA, layer 1": at(1, CAA(0.2 * V))}
    table = sweep(gpt2, PAIRS, steerings, strengths=(1.0, 2.0), scopes=scopes, unit="kl")
    found = calibrate(gpt2, at(1, CAA(0.2 * V)).only(steerlens.response), PAIRS, like="prompt")
    one = table.loc[table["strength"] == 1]
    assert one["strength_value"].iloc[0] == found.strength
    assert one["mean_kl"].to_numpy() == pytest.approx(one["kl_prompt"].to_numpy(), rel=0.06)
    assert table["strength_value"].tolist()[1] == 2 * found.strength
    assert one["strength_value"].nunique() == 2  # on each scope its own
    assert (table["strength_unit"] == "kl").all()
    other = sweep(gpt2, PAIRS, steerings, strengths=(1.0,), unit="kl", calibrate_on=PAIRS[:1])
    assert other["strength_value"].iloc[0] != table["strength_value"].iloc[2]


def test_what_breaks_the_model_is_not_a_number_and_is_warned_of(gpt2: Any) -> None:
    steerings = {"CAA, layer 3": at(3, CAA(1e37 * V))}
    with pytest.warns(steerlens.SteeringWarning, match="1 of 2 cells .* strength 100"):
        table = sweep(gpt2, PAIRS, steerings, strengths=(0.0, 100.0), n_bootstrap=10)
    assert np.isfinite(table["mean_kl"].iloc[0])
    assert not np.isfinite(table["mean_kl"].iloc[1])
    assert np.isnan(table["mean_kl_low"].iloc[1])


def test_a_steer_that_does_nothing_is_warned_of(gpt2: Any) -> None:
    past = {"CAA": at(1, CAA(V)).only(steerlens.positions(90, 95))}
    with pytest.warns(steerlens.SteeringWarning, match="changed no activation"):
        sweep(gpt2, PAIRS, past, strengths=(0.5, 1.0), n_bootstrap=10)


def test_bad_input_is_an_error_that_says_what_to_do(gpt2: Any) -> None:
    asked = partial(sweep, gpt2, PAIRS)
    with pytest.raises(ValueError, match="steerings by name"):
        asked({})
    with pytest.raises(ValueError, match="finite numbers"):
        asked(LAYERS, strengths=(1.0, float("nan")))
    with pytest.raises(ValueError, match="twice"):
        asked(LAYERS, strengths=(1.0, 1.0))
    with pytest.raises(TypeError, match="scope_named"):
        asked(LAYERS, scopes=[])
    with pytest.raises(ValueError, match="Two steerings are 'CAA' at layer 1"):
        asked({"CAA, layer 1": at(1, CAA(V)), "CAA": at(1, CAA(-V))})
    with pytest.raises(ValueError, match="reference"):
        asked({"prompt": at(1, CAA(V))})
    same = [PromptPair(pair.plain, pair.plain, pair.response) for pair in PAIRS]
    with pytest.raises(ValueError, match="changes no prediction"):
        sweep(gpt2, same, LAYERS)
    with pytest.raises(ValueError, match="No pairs"):
        sweep(gpt2, [], LAYERS)


@pytest.mark.usefixtures("unchecked")
def test_what_is_no_steering_is_an_error_too(gpt2: Any) -> None:
    lora = steerlens.LoRA(A={"1.out": torch.ones(1, 2)}, B={"1.out": torch.ones(2, 1)})
    with pytest.raises(ValueError, match=r"LoRA.*no layer"):
        sweep(gpt2, PAIRS, {"LoRA": lora})  # pyright: ignore
    fit = CAA.fit(gpt2, (["I love you"], ["I hate you"]), 1)
    with pytest.raises(TypeError, match=r"fit\.steering"):
        sweep(gpt2, PAIRS, {"CAA": fit})  # pyright: ignore
    with pytest.raises(ValueError, match="Unknown unit"):
        sweep(gpt2, PAIRS, LAYERS, unit="nats")  # pyright: ignore
    with pytest.raises(TypeError, match="scope_named"):
        sweep(gpt2, PAIRS, LAYERS, scopes=["response"])  # pyright: ignore


# -- One method at each layer ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["CAA", "instruction vector", "DiM", "Angular"])
def test_one_capture_gives_what_each_layer_alone_is_fitted_to(gpt2: Any, method: str) -> None:
    together = at_layers(gpt2, PAIRS, method, range(4))
    names = {"instruction vector": "InstructionVector"}
    assert list(together) == [f"{names.get(method, method)}, layer {n}" for n in range(4)]
    for n, steering in enumerate(together.values()):
        (alone,) = at_layers(gpt2, PAIRS, method, [n]).values()
        assert steering.sites == alone.sites == (Site(n),)
        assert steering.origin == alone.origin
        (_, one), (_, other) = steering.placed[0], alone.placed[0]
        assert repr(one) == repr(other)
        h = torch.randn((1, 4, D_MODEL), generator=torch.Generator().manual_seed(0))
        inner = [getattr(steer, "steer", steer)(h) for steer in (one, other)]
        torch.testing.assert_close(*inner, rtol=1e-6, atol=1e-6)


def test_what_reads_activations_captures_once_for_all_layers(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites: list[int] = []
    capture = steerlens.methods.caa.capture

    def counted(model: Any, rows: Any, where: Any, **options: Any) -> Any:
        sites.append(len(where))
        return capture(model, rows, where, **options)

    monkeypatch.setattr(steerlens.methods.caa, "capture", counted)
    at_layers(gpt2, PAIRS, CAA, range(4))
    assert sites == [4, 4]


def test_pairs_are_the_two_sides_of_a_contrast(gpt2: Any) -> None:
    found = at_layers(gpt2, PAIRS, "CAA", [1])["CAA, layer 1"]
    rows = [encode_pair(gpt2, pair) for pair in PAIRS]
    expected = CAA.fit(gpt2, ([after for _, after in rows], [before for before, _ in rows]), 1)
    assert torch.equal(found.placed[0][1].direction, expected.steer.direction)  # pyright: ignore
    sides = (["I love you"], ["I hate you"])
    given = at_layers(gpt2, sides, "CAA", [1])["CAA, layer 1"].placed[0][1]
    assert torch.equal(given.direction, CAA.fit(gpt2, sides, 1).steer.direction)  # pyright: ignore


@pytest.mark.filterwarnings("ignore:.*(validation|training) loss", "ignore:.* opened on no token")
@pytest.mark.filterwarnings("ignore:.* can move a parameter")
def test_what_is_trained_is_fitted_layer_by_layer(gpt2: Any) -> None:
    schedule = Schedule(epochs=1, batch_size=4)
    fit = partial(PSR.fit, schedule=schedule)
    found = at_layers(gpt2, PAIRS, fit, [1, 2], name="S-PSR")
    assert list(found) == ["S-PSR, layer 1", "S-PSR, layer 2"]
    alone = PSR.fit(gpt2, PAIRS, 2, schedule=schedule).steer
    assert torch.equal(found["S-PSR, layer 2"].placed[0][1].steer.W, alone.W)  # pyright: ignore
    with pytest.raises(ValueError, match="name="):
        at_layers(gpt2, PAIRS, fit, [1])


def test_a_method_that_cannot_be_fitted_so_is_an_error(gpt2: Any) -> None:
    with pytest.raises(ValueError, match=r"no method 'CAAA'.*CAA"):
        at_layers(gpt2, PAIRS, "CAAA", [1])
    with pytest.raises(ValueError, match=r"directions and validation.*functools.partial"):
        at_layers(gpt2, PAIRS, "CLAS", [1])
    with pytest.raises(TypeError, match="returned a int"):
        at_layers(gpt2, PAIRS, lambda model, pairs, sites: 3, [1], name="mine")
    for name in ("ActAdd", "ColdFD"):
        with pytest.raises(ValueError, match="not fitted on pairs"):
            by_layer.require_method(name)
    by_layer.require_method("caa")
    assert at_layers(gpt2, PAIRS, difference_of_means, [2]).keys() == {"DiM, layer 2"}


# -- Pictures --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(gpt2: Any) -> pd.DataFrame:
    steerings = LAYERS | {"other, layer 0": at(0, CAA(0.3 * V))}
    scopes = (steerlens.response, steerlens.everywhere)
    return sweep(gpt2, PAIRS, steerings, strengths=(0.1, 0.2, 0.4), scopes=scopes, n_bootstrap=50)


def test_a_map_has_every_cell_and_a_frame_around_the_best(table: pd.DataFrame) -> None:
    figure: Any = sweep_heatmap(table)
    maps = [trace for trace in figure.data if trace.type == "heatmap"]  # pyright: ignore
    frames = [trace for trace in figure.data if trace.type == "scatter"]  # pyright: ignore
    assert len(maps) == len(frames) == 4
    rows = table.loc[(table["method"] == "CAA") & (table["scope"] == "everywhere")]
    cells = rows.pivot(index="layer", columns="strength", values="recovered")
    np.testing.assert_allclose(np.asarray(maps[1].z, dtype=float), cells)
    best = rows.loc[rows["recovered"].idxmax()]
    assert min(frames[1].y) + 0.5 == best["layer"]
    assert min(frames[1].x) + 0.5 == [0.1, 0.2, 0.4].index(best["strength"])
    other = np.asarray(maps[2].z, dtype=float)
    assert np.isnan(other[1:]).all()  # it is at layer 0 alone
    assert np.isfinite(other[0]).all()


def test_the_map_of_a_kl_is_white_at_the_prompts_own(table: pd.DataFrame) -> None:
    made = table.assign(mean_kl=table["kl_prompt"] * 2)
    figure: Any = sweep_heatmap(made, "mean_kl", methods=["CAA"])
    first = figure.data[0]
    assert np.asarray(first.z, dtype=float) == pytest.approx(1.0)  # an octave above
    assert first.text[0][0] == f"{made['mean_kl'].iloc[0]:.2f}"
    # Room between the title of the colour bar and the bar, for plotly lays one over the other.
    assert "<br>" in figure.layout.coloraxis.colorbar.title.text


def test_a_map_of_what_cannot_be_drawn_is_an_error(table: pd.DataFrame) -> None:
    with pytest.raises(ValueError, match="no measure 'along'"):
        sweep_heatmap(table, "along")
    with pytest.raises(ValueError, match="lacks"):
        sweep_heatmap(table.drop(columns="scope"))
    with pytest.raises(ValueError, match="several rows at one layer and strength"):
        sweep_heatmap(pd.concat([table, table]))


def test_the_page_begins_with_the_best_cells_and_has_all_numbers(table: pd.DataFrame) -> None:
    html = sweep_report(table, {"seed": 0}, title="A sweep", intro="Tiny.").html
    best = table.loc[table["method"] == "CAA"].sort_values("recovered").iloc[-1]
    assert f"CAA recovers at most {best['recovered']:.0%}" in html
    assert f"at layer {best['layer']}, strength {best['strength']:g}" in html
    assert html.count('<div class="plot">') == 6
    assert "Table of 30 rows" in html
    assert "began at the lowest steered layer" in html
    table.attrs["whole_passes"], before = {"layer 1": "no way in"}, table.attrs["whole_passes"]
    html = sweep_report(table, {"seed": 0}, title="A sweep", intro="Tiny.").html
    table.attrs["whole_passes"] = before
    assert "whole ones" in html
    assert "no way in" in html


def test_in_half_precision_too(folders: Any) -> None:
    model = load(folders["llama"], "bridge", torch.bfloat16)
    table = sweep(model, PAIRS, LAYERS, strengths=(0.5, 1.0), n_bootstrap=10)
    assert table.attrs["whole_passes"] == {}
    entries = [Entry("a", at(2, CAA(V)).scaled(0.5))]
    shift = logit_shift(model, PAIRS, entries).iloc[1]
    found = table.loc[(table["layer"] == 2) & (table["strength"] == 0.5)].iloc[0]
    assert found["mean_kl"] == pytest.approx(shift["mean_kl"], rel=0.05)
