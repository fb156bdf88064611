"""The CLAS study: strengths read off each token, against fixed ones, and against other fine-tuning.

    python scripts/studies/clas.py                     # the demonstration model, about an hour
    python scripts/studies/clas.py --until validation  # stop before the test split is opened

The work folder keeps every result: run the command again to go on. Ten pairs "plain prompt ->
completion that shows the attribute" train, ten choose among the steps, both drawn by the seed.

search   every method in six configurations (seed 0), scored on validation questions
test     the best configuration of each, fitted with three seeds, on test questions
beyond   CLAS fitted on film reviews, on questions about something else: strengths and coherence,
         and what a bound on the strength, or leaving BOS alone, changes
stronger what CLAS has fitted, times 1 to 3, on validation questions (added after the results)
page     the hypotheses, the verdicts, and the tables behind them
"""

from __future__ import annotations

import argparse
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from cells import Cells
from material import DEMO_ATTRIBUTES, Material, demo

import steerlens
from analysis.measures.coefficients import strengths
from analysis.measures.tradeoff import Scored, Setting, by_question
from steerlens import (
    CLAS,
    Conversation,
    InstructionVector,
    LoReFT,
    PromptPair,
    ReFTr1,
    Site,
    capture,
    contrast_directions,
    everywhere,
)
from steerlens.baselines import las
from steerlens.baselines.lora import RATE as LORA_RATE
from steerlens.baselines.lora import LoRA
from steerlens.demo import benchmark_set
from steerlens.identity import fingerprint
from steerlens.methods.clas import BIAS_SHARE, RATE, Kind
from steerlens.methods.loreft import RATE as LOREFT_RATE
from steerlens.steering import AnySteering, Steering, scaled
from steerlens.types import Direction, HookedModel

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "results" / "clas.md"
VERSION = 1
"""Of the cells: raise it when one of them is computed differently."""

N_TRAIN, N_VALIDATION, N_PROBE = 10, 10, 100
MULTIPLES = (1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)
"""Of a method's own learning rate: the six configurations of every learned method."""
SHARES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
"""Strengths of a fixed direction, over the median length of the activations."""
BEYOND = ("positive", "negative")
"""Attributes whose questions are all about films."""
OTHER = "lowercase"
"""An attribute with questions of every kind; those that are not about films are *beyond*."""
NO_FILM = ("encyclopedia", "What do you know about", "fairy tale", "a story")
FACTORS = (1.0, 1.5, 2.0, 3.0)
CLAMP = 0.99
"""The quantile of |alpha| on the training tokens that bounds alpha, a site."""


@dataclass(frozen=True)
class Options:
    """What a study is made of; the work folder remembers it."""

    folder: str
    attributes: tuple[str, ...] = DEMO_ATTRIBUTES
    seeds: int = 3
    n_validation: int = 40
    n_test: int = 120
    n_beyond: int = 60
    configurations: int = 6


# -- What every process has ------------------------------------------------------------------------

_OPTIONS: list[Options] = []


def begin(options: Options) -> None:
    """Ready this process."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    _OPTIONS[:] = [options]


def options() -> Options:
    return _OPTIONS[0]


@cache
def model(backend: str = "auto") -> HookedModel:
    return steerlens.load("demo", backend=backend)  # pyright: ignore[reportArgumentType]


@cache
def material(attribute: str) -> Material:
    return demo(attribute)


# -- Methods ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """An attribute and a seed: the pairs to fit on, and prompts that show where directions lie."""

    attribute: str
    seed: int

    @cached_property
    def drawn(self) -> list[PromptPair]:
        return material(self.attribute).training(model(), N_TRAIN + N_VALIDATION, self.seed)

    @property
    def train(self) -> list[PromptPair]:
        return self.drawn[:N_TRAIN]

    @property
    def held(self) -> list[PromptPair]:
        return self.drawn[N_TRAIN:]

    @cached_property
    def probes(self) -> list[str]:
        """Training questions that no pair of this seed asks."""
        found = material(self.attribute)
        assert found.questions is not None
        asked = {_user(pair) for pair in self.drawn}
        return [one for one in found.questions["train"] if one not in asked][:N_PROBE]

    @cached_property
    def length(self) -> float:
        """The median length of the plain activations of the training pairs, over all blocks."""
        rows = [steerlens.encode_pair(model(), pair)[0] for pair in self.train]
        sites = [Site(layer) for layer in range(model().cfg.n_layers)]
        found = capture(model(), rows, sites, scope=everywhere.without_bos)
        return float(torch.cat([found.at(site).norm(dim=-1) for site in sites]).median())

    def directions(self, kind: Any) -> dict[Site, Direction]:
        """A unit vector at every block, from the last prompt token with and without instruction."""
        instruction = material(self.attribute).instruction
        found = contrast_directions(
            kind,
            model(),
            [Conversation(question, instruction) for question in self.probes],
            [Conversation(question) for question in self.probes],
            range(model().cfg.n_layers),
            seed=self.seed,
        )
        return {site: one.direction for site, one in found.items()}


@dataclass(frozen=True, eq=False)
class Fitted:
    """A steering, or a model changed for as long as a `with` block lasts."""

    steering: AnySteering | None
    lora: LoRA | None = None
    best_step: int | None = None

    @contextmanager
    def model(self) -> Iterator[HookedModel]:
        bare = model("bridge") if self.lora else model()
        with self.lora.applied(bare) if self.lora else nullcontext(bare) as adapted:
            yield adapted


def _linear(case: Case, configuration: int) -> Fitted:
    strength = SHARES[configuration] * case.length
    return Fitted(las.fixed(case.directions("rfm"), strength))


def _fit_clas(case: Case, configuration: int, directions: str, **more: Any) -> Any:
    times = MULTIPLES[configuration]
    return CLAS.fit(
        model(),
        case.train,
        case.held,
        case.directions(directions),
        rate=RATE * times,
        bias_share=BIAS_SHARE * times,
        seed=case.seed,
        **more,
    )


def _clas(directions: str, kind: Kind = "contextual") -> Callable[[Case, int], Fitted]:
    def fit(case: Case, configuration: int) -> Fitted:
        found = _fit_clas(case, configuration, directions, kind=kind)
        return Fitted(found.steering, best_step=found.trained.best_epoch)

    return fit


def _reft(case: Case, configuration: int) -> Fitted:
    """The CLAS paper's ReFT: v is learnt too, from a random one, and one rate is for everything."""
    rate = RATE * MULTIPLES[configuration]
    v, both = case.directions("random"), (case.train, case.held)
    found = CLAS.fit(
        model(), *both, v, learn_directions=True, rate=rate, bias_rate=rate, seed=case.seed
    )
    return Fitted(found.steering, best_step=found.trained.best_epoch)


def _loreft(case: Case, configuration: int) -> Fitted:
    rate, sites = LOREFT_RATE * MULTIPLES[configuration], range(model().cfg.n_layers)
    found = LoReFT.fit(model(), case.train, case.held, sites, rate=rate, seed=case.seed)
    return Fitted(found.steering, best_step=found.trained.best_epoch)


def _reft_r1(case: Case, configuration: int) -> Fitted:
    """At one block, which is its configuration; other responses to the prompts are negatives."""
    schedule = replace(steerlens.methods.reft_r1.AXBENCH, epochs=24, seed=case.seed)
    try:
        found = ReFTr1.fit(
            model(),
            case.train,
            case.held,
            _layer(configuration),
            negatives=_unsteered(case.attribute, case.seed),
            schedule=schedule,
        )
    except ValueError as error:
        if "a_max" not in str(error):
            raise
        return Fitted(None)  # its latent opens on no training token: the model as it is
    return Fitted(found.steering, best_step=found.trained.best_epoch)


def _instruction(case: Case, configuration: int) -> Fitted:
    """At one block, which is its configuration; the prompts alone are read."""
    instruction = material(case.attribute).instruction
    assert instruction is not None
    pairs = [PromptPair.with_system(question, instruction, "x") for question in case.probes]
    return Fitted(InstructionVector.fit(model(), pairs, _layer(configuration)).adjust)


def _lora(case: Case, configuration: int) -> Fitted:
    rate = LORA_RATE * MULTIPLES[configuration]
    found = LoRA.fit(model("bridge"), case.train, case.held, rate=rate, seed=case.seed)
    return Fitted(None, found.lora, found.trained.best_epoch)


METHODS: dict[str, Callable[[Case, int], Fitted]] = {
    "LAS grid": _linear,
    "LAS single": _clas("rfm", "single"),
    "LAS layerwise": _clas("rfm", "layerwise"),
    "CLAS, RFM": _clas("rfm"),
    "CLAS, means": _clas("means"),
    "CLAS, random": _clas("random"),
    "ReFT": _reft,
    "LoReFT": _loreft,
    "ReFT-r1": _reft_r1,
    "instruction vector": _instruction,
    "LoRA": _lora,
}


def described(method: str, configuration: int) -> str:
    """What a configuration of a method is."""
    if method == "LAS grid":
        return f"strength {SHARES[configuration]:g} of the length"
    if method in ("ReFT-r1", "instruction vector"):
        return f"layer {_layer(configuration)}"
    return f"rate x {MULTIPLES[configuration]:g}"


def _layer(configuration: int) -> int:
    """The demonstration model has as many blocks as there are configurations."""
    return configuration


def _user(pair: PromptPair) -> str:
    assert isinstance(pair.plain, Conversation)
    return pair.plain.user


@cache
def _unsteered(attribute: str, seed: int) -> list[PromptPair]:
    """What the model itself answers to the training prompts of a seed."""
    users = [_user(pair) for pair in Case(attribute, seed).train]
    asked = [Conversation(user) for user in users]
    texts = steerlens.generate(model(), asked, temperature=1.0, max_new_tokens=64, seed=seed).texts
    both = zip(users, texts, strict=True)
    return [PromptPair(Conversation(u), Conversation(u), text) for u, text in both if text]


# -- Cells -----------------------------------------------------------------------------------------


def reference(attribute: str, split: str, seed: int) -> dict[str, Any]:
    """The unsteered and the prompted scores of a split: the floor and the ceiling."""
    setting = _setting(attribute, split, seed)
    instruction = material(attribute).instruction
    return {
        "unsteered": _kept(setting.score()),
        "prompt": _kept(setting.score(instruction=instruction)),
    }


def search(attribute: str, method: str, configuration: int, seed: int) -> dict[str, Any]:
    """The validation scores of a configuration."""
    return _scores(attribute, method, configuration, seed, "validation")


def test(attribute: str, method: str, configuration: int, seed: int) -> dict[str, Any]:
    """The test scores of a configuration."""
    return _scores(attribute, method, configuration, seed, "test")


def beyond(attribute: str, configuration: int, seed: int) -> dict[str, Any]:
    """CLAS (RFM) on its own test questions and on others, as fitted, bounded, and without BOS."""
    case = Case(attribute, seed)
    fit = _fit_clas(case, configuration, "rfm")
    skipping = _fit_clas(case, configuration, "rfm", scope=everywhere.without_bos)
    steerings = {
        "as fitted": fit.steering,
        "bounded": _bounded(fit, case),
        "without BOS": skipping.steering,
    }
    return {
        where: _where(setting, steerings, fit)
        for where, setting in (
            ("own", _setting(attribute, "test", seed, options().n_beyond)),
            ("beyond", _elsewhere(attribute, seed)),
        )
    }


def stronger(attribute: str, configuration: int, factor: float) -> dict[str, Any]:
    """The validation scores of CLAS (RFM) at so many times the strength that was fitted."""
    fit = _fit_clas(Case(attribute, 0), configuration, "rfm")
    setting = _setting(attribute, "validation", 0)
    return {**_kept(setting.score(scaled(fit.steering, factor))), "step": fit.trained.best_epoch}


# -- Pieces of cells -------------------------------------------------------------------------------


def _setting(attribute: str, split: str, seed: int, n: int | None = None) -> Setting:
    found = material(attribute).setting(model(), split, 1, seed)
    assert found is not None
    size = n or (options().n_test if split == "test" else options().n_validation)
    return replace(found, questions=list(found.questions)[:size])


def _elsewhere(attribute: str, seed: int) -> Setting:
    """Questions about no film, under the attribute's judge."""
    asked = material(OTHER).questions
    assert asked is not None
    some = [one for one in asked["test"] if any(words in one for words in NO_FILM)]
    own = _setting(attribute, "test", seed)
    return replace(own, questions=some[: options().n_beyond])


def _scores(
    attribute: str, method: str, configuration: int, seed: int, split: str
) -> dict[str, Any]:
    case = Case(attribute, seed)
    _ = case.drawn, case.probes  # judging which responses show the attribute is not fitting
    started = process_time()
    fitted = METHODS[method](case, configuration)
    seconds = process_time() - started
    with fitted.model() as adapted:
        scored = replace(_setting(attribute, split, seed), model=adapted).score(fitted.steering)
    return {**_kept(scored), "seconds": seconds, "step": fitted.best_step}


def _kept(scored: Scored) -> dict[str, Any]:
    """Means, and the scores of questions; the harmonic mean is that of each completion."""
    return {
        kind: by_question(values).tolist()
        for kind, values in (
            ("attribute", scored.attribute),
            ("coherence", scored.coherence),
            ("harmonic", harmonic(scored.attribute, scored.coherence)),
        )
    }


def harmonic(attribute: np.ndarray, coherence: np.ndarray) -> np.ndarray:
    """2 a c / (a + c); 0 where either is 0, and where the attribute could not be judged."""
    a, c = np.nan_to_num(attribute), np.nan_to_num(coherence)
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(2 * a * c / (a + c))


def _bounded(fit: Any, case: Case) -> Steering:
    """Alpha kept within what nearly all training tokens had, at each site."""
    texts = [steerlens.encode_pair(model(), pair)[0] for pair in case.train]
    directions = {site: steer.v[0] for site, steer in fit.steers.items()}
    table = strengths(
        model(), texts, {"CLAS": fit.steering}, directions, span=everywhere.without_bos
    )
    limits = table["along"].abs().groupby(table["layer"]).quantile(CLAMP)
    placed = [
        (site, replace(steer, limit=max(float(limits[site.layer]), 1e-6)))
        for site, steer in fit.steers.items()
    ]
    return Steering(tuple(placed), fit.steering.origin)


def _where(setting: Setting, steerings: Mapping[str, AnySteering], fit: Any) -> dict[str, Any]:
    """Scores, and how strong `fit` is on BOS and on the tokens of the model's own answers."""
    scores = {"unsteered": _kept(setting.score())}
    scores |= {name: _kept(setting.score(one)) for name, one in steerings.items()}
    asked = [Conversation(question) for question in setting.questions]
    made = steerlens.generate(model(), asked, **vars(setting.sampling))
    rows = [
        steerlens.encode(model(), replace(prompt, response=text))
        for prompt, text in zip(asked, made.texts, strict=True)
    ]
    v = {site: steer.v[0] for site, steer in fit.steers.items()}
    table = strengths(model(), rows, {"CLAS": fit.steering}, v)
    first = table["token_index"] == 0
    return {
        "scores": scores,
        "alpha": {
            name: part.groupby("layer")["along"].apply(lambda a: a.abs().mean()).tolist()
            for name, part in (("BOS", table[first]), ("text", table[~first]))
        },
        "relative": {
            name: part.groupby("layer")["relative_norm"].mean().tolist()
            for name, part in (("BOS", table[first]), ("text", table[~first]))
        },
        "by_text": table[~first]["along"].abs().groupby(table["example"]).mean().tolist(),
    }


# -- Stages ----------------------------------------------------------------------------------------


def chosen(cells: Cells, attribute: str, method: str) -> int:
    """The configuration with the best mean harmonic score on validation questions, at seed 0."""
    found = [
        np.mean(cells.get("search", attribute, method, configuration, 0)["harmonic"])
        for configuration in range(cells.options.configurations)
    ]
    return int(np.argmax(found))


def run(chosen_options: Options, workers: int, until: str) -> Cells:
    """All stages up to `until`, as far as they are missing."""
    begin(chosen_options)
    cells = Cells(Path(chosen_options.folder), _about(chosen_options), begin, chosen_options)
    cells.open()
    names, seeds = chosen_options.attributes, range(chosen_options.seeds)
    tried = range(chosen_options.configurations)
    cells.make(reference, [(a, "validation", 0) for a in names], workers)
    cells.make(search, [(a, m, c, 0) for a in names for m in METHODS for c in tried], workers)
    if until == "validation":
        return cells
    kept = {(a, m): chosen(cells, a, m) for a in names for m in METHODS}
    cells.make(reference, [(a, "test", s) for a in names for s in seeds], workers)
    cells.make(test, [(a, m, c, s) for (a, m), c in kept.items() for s in seeds], workers)
    films = [a for a in names if a in BEYOND]
    cells.make(beyond, [(a, kept[a, "CLAS, RFM"], s) for a in films for s in seeds], workers)
    cells.make(stronger, [(a, kept[a, "CLAS, RFM"], f) for a in names for f in FACTORS], workers)
    return cells


def _about(chosen_options: Options) -> dict[str, Any]:
    about = {key: value for key, value in asdict(chosen_options).items() if key != "folder"}
    return {
        **about,
        "version": VERSION,
        "methods": list(METHODS),
        "searches": [MULTIPLES, SHARES, CLAMP, N_TRAIN, N_VALIDATION, N_PROBE],
        "data": hashlib.sha256(benchmark_set.FILE.read_bytes()).hexdigest()[:16],
        "fingerprint": fingerprint(steerlens.load("demo")),
    }


def main() -> None:
    """Run the study and write its page."""
    from clas_page import page

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attributes", nargs="+", default=DEMO_ATTRIBUTES, help="only these")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "build" / "studies" / "clas")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--until", choices=("hypotheses", "validation", "page"), default="page")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    given = parser.parse_args()
    sizes = {"seeds": 2, "n_validation": 4, "n_test": 6, "n_beyond": 4, "configurations": 2}
    options_given = Options(
        str(given.work_dir), tuple(given.attributes), **(sizes if given.quick else {})
    )
    cells = None
    if given.until != "hypotheses":
        cells = run(options_given, given.workers, given.until)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(page(cells, options_given, given.until), encoding="utf-8")
    print(f"Wrote {given.out}")


if __name__ == "__main__":
    main()
