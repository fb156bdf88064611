"""The strength at which a steering has the effect that is asked for, on any model.

A steering's own numbers (the eta of COLD, the c of ActAdd, the length of a CAA vector) mean
something else on every model. What carries over is what comes of them:

    share       median over steered tokens of |steer(h) - h|, over the median of |h| at the site
    target_kl   mean over response tokens of KL(steered || unsteered), in nats a token
    like        the same, as much as the pairs' own instruction: KL(prompted || unsteered)

All runs are given the same responses. A share is proportional to the strength, so one pass tells
the strength. A KL need not rise with the strength for long, so the smallest strength that reaches
the target is searched for, upwards from a push of a tenth of the activations' length.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.activations import capture
from steerlens.baselines.gradient_step import GradientStep
from steerlens.baselines.lora import LoRA
from steerlens.baselines.weights import Change, Weights, changed
from steerlens.checks import require_seed
from steerlens.combinators import Chain, bind
from steerlens.divergence import chunks, divergence, log_probabilities
from steerlens.generation import generate
from steerlens.kinds import require_kinds
from steerlens.precision import wide_dtype
from steerlens.prompts import Encoded, PromptPair, Prompts, encode_all, encode_pair
from steerlens.runtime.hooks import Watch
from steerlens.sampling import Sampling
from steerlens.scopes import Window
from steerlens.sites import Site
from steerlens.steering import Steering
from steerlens.types import Hook, HookedModel, Residual, Steer, SteeringWarning, Where

Scalable = TypeVar("Scalable", Steering, LoRA, GradientStep)
Unit = Literal["share", "target_kl", "prompt"]
Texts: TypeAlias = "Prompts | PromptPair | Sequence[PromptPair]"
AUTO_KL = 0.3
"""Nats a token that `strength auto` asks for where there is no instruction to match: what "You are
a pirate. Talk like a pirate." does to SmolLM2-135M-Instruct (0.32)."""
FIRST_SHARE, MOST_SHARE = 0.1, 4.0
"""Where the search for a KL begins, and the longest push that it tries, over the activations."""
LEAST_PUSH = 2e-3
"""A push below this share of an activation is rounding, or below the dtype's own if that is less.
"""
TOLERANCE, JUMP = 0.05, 2.0
"""How far from the target, as a share of it, an effect may be."""
ROUNDING = 1e-6
"""Nats a token that two runs of the same may differ by: the plain side of float32 and narrower
models is kept in float32."""
CLOSER = 6
"""Trials at most between a strength that is too weak and one that is strong enough."""
LONG = 0.5
"""Seconds of one pass from which on a progress bar is shown unasked."""


@dataclass(frozen=True)
class Tried:
    """One strength: the share of the residual norm that it pushes, and its mean KL in nats a token.

    `kl` is NaN where only a share was asked for.
    """

    strength: float
    share: float
    kl: float = math.nan


@dataclass(frozen=True, eq=False)
class Calibration(Generic[Scalable]):
    """A steering at the strength found, what was asked for, and every strength tried.

    `effect` is what the strength has, in the unit of the `target`; `reached` is False where no
    strength has as much, and the strength then is the one with the largest effect.
    """

    steering: Scalable
    strength: float
    unit: Unit
    target: float
    effect: float
    reached: bool
    trials: tuple[Tried, ...]

    def table(self) -> Any:
        """The trials as a pandas table, by strength: strength, share, kl."""
        import pandas as pd

        rows = sorted(self.trials, key=lambda trial: trial.strength)
        return pd.DataFrame([vars(trial) for trial in rows])

    def __str__(self) -> str:
        moved = f"{self.effect:.3g} {UNITS[self.unit]}"
        wanted = "" if self.reached else f", short of the {self.target:.3g} asked for"
        return f"strength {self.strength:.3g} ({moved}{wanted})"


UNITS: dict[Unit, str] = {
    "share": "of the residual norm",
    "target_kl": "nats a token",
    "prompt": "nats a token, as the prompt",
}


def calibrate(
    model: HookedModel,
    steering: Scalable,
    texts: Texts,
    *,
    share: float | None = None,
    target_kl: float | None = None,
    like: Literal["prompt"] | None = None,
    max_new_tokens: int = 48,
    seed: int = 0,
    progress: bool | None = None,
    bare: bool = False,
) -> Calibration[Scalable]:
    """`steering` at the smallest strength that has the effect asked for on these texts.

    One of `share` (of the residual norm), `target_kl` (nats a token) and `like="prompt"` (as much
    KL as the instruction of the pairs has); with none of them it is the prompt's where pairs are
    given, and else `target_kl=0.3`. Pairs are run without their instruction; `bare` leaves out the
    system turn too that the chat template gives them by itself, as in `encode_pair`. A prompt
    without a response is first answered by the unsteered model, in `max_new_tokens` tokens, from
    `seed`. What is held in memory is one distribution a response token. A LoRA and a GradientStep
    are calibrated too: the strength multiplies alpha or eta, and they have no share, since they
    push at no site.

    ValueError where the steering moves no activation, or no prediction; a SteeringWarning where no
    strength reaches the target.

    >>> model = sl.load("demo")
    >>> caa = sl.CAA.fit(model, (["I loved it"], ["I hated it"]), 3).steering
    >>> found = sl.calibrate(model, caa, ["The film was long."], share=0.3)
    >>> found.unit, found.strength > 0
    ('share', True)
    """
    require_kinds(calibrate, locals())
    require_seed(seed)
    Sampling(max_new_tokens)
    unit, target = _asked(share, target_kl, like, texts)
    sides = _Sides.of(model, texts, max_new_tokens, seed, bare)
    if isinstance(steering, Weights):
        at_one = _without_share(unit)
    else:
        at_one = share_at_one(model, steering, sides.plain)
    if unit == "share":
        strength = target / at_one
        found = Tried(strength, target)
        return Calibration(
            steering.scaled(strength), strength, unit, target, target, True, (found,)
        )
    measured = _Measured.of(model, sides.plain, steering, progress)
    if unit == "prompt":
        target = measured.of_prompt(sides.prompted)
    search = _Search(measured.kl, at_one, target)
    with measured.shown():
        search.run()
    return search.result(steering, unit)


def _asked(
    share: float | None, target_kl: float | None, like: str | None, texts: object
) -> tuple[Unit, float]:
    """The unit and the target; ValueError unless one of them is asked for, and it makes sense."""
    given = {"share": share, "target_kl": target_kl, "like": like}
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) > 1:
        raise ValueError(
            f"{' and '.join(named)} were given, and a strength is found by one of share, target_kl "
            "and like='prompt'. Leave the others out."
        )
    if like not in (None, "prompt"):
        raise ValueError(f"like is 'prompt', the pairs' own instruction; found {like!r}.")
    for name, value in (("share", share), ("target_kl", target_kl)):
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be a number above 0; found {value}.")
    pairs = _are_pairs(texts)
    if like and not pairs:
        raise ValueError(
            "like='prompt' matches the effect of an instruction, so it needs pairs with one: "
            "prompted_pairs(model, questions, instruction). For prompts alone give target_kl."
        )
    if share is not None:
        return "share", share
    if target_kl is not None:
        return "target_kl", target_kl
    return ("prompt", math.nan) if pairs else ("target_kl", AUTO_KL)


def _are_pairs(texts: object) -> bool:
    """Whether all are PromptPairs; ValueError where only some are."""
    listed = list(texts) if isinstance(texts, Sequence) and not isinstance(texts, str) else [texts]
    pairs = [isinstance(text, PromptPair) for text in listed]
    if any(pairs) and not all(pairs):
        raise ValueError("Some of the texts are PromptPairs and some are not. Give one kind.")
    return any(pairs)


# -- Texts and what is predicted on them -----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Sides:
    """The rows that are steered, and those of the prompted run, if there is one."""

    plain: list[Encoded]
    prompted: list[Encoded]

    @classmethod
    def of(
        cls, model: HookedModel, texts: Texts, longest: int, seed: int, bare: bool = False
    ) -> "_Sides":
        """Every text as a row with a response."""
        if _are_pairs(texts):
            listed = cast(
                "Sequence[PromptPair]", [texts] if isinstance(texts, PromptPair) else texts
            )
            both = [encode_pair(model, pair, bare=bare) for pair in listed]
            return cls([plain for plain, _ in both], [prompted for _, prompted in both])
        if bare:
            raise ValueError(
                "bare=True leaves out a system turn of the plain sides of pairs, and these texts "
                "are no PromptPairs. steerlens.load(..., template=steerlens.Template(system=None)) "
                "leaves it out of all conversations."
            )
        return cls(_answered(model, encode_all(model, cast("Prompts", texts)), longest, seed), [])


def _answered(
    model: HookedModel, rows: Sequence[Encoded], longest: int, seed: int
) -> list[Encoded]:
    """The rows, those without a response answered by the unsteered model."""
    asked = [row for row in rows if len(row.ids) == row.response]
    if not asked:
        return list(rows)
    written = generate(model, asked, max_new_tokens=longest, seed=seed)
    answers = iter([written.response_ids(number) for number in range(len(asked))])
    return [
        replace(row, ids=(*row.ids, *next(answers))) if len(row.ids) == row.response else row
        for row in rows
    ]


@dataclass(eq=False)
class _Measured:
    """The unsteered predictions, and the mean KL of others to them."""

    model: HookedModel
    rows: list[Encoded]
    steering: Steering | Weights
    plain: list[Float[Tensor, "_ d_vocab"]]
    bar: Any

    @classmethod
    def of(
        cls,
        model: HookedModel,
        rows: list[Encoded],
        steering: Steering | Weights,
        progress: bool | None,
    ) -> "_Measured":
        from tqdm.auto import tqdm

        begun = time.monotonic()
        plain = [
            log_probabilities(model, rows, chosen, None, Watch()).to(wide_dtype(model))
            for chosen in chunks(len(rows))
        ]
        hidden = time.monotonic() - begun < LONG if progress is None else not progress
        return cls(
            model, rows, steering, plain, tqdm(desc="calibrate", unit="trial", disable=hidden)
        )

    def shown(self) -> Any:
        """The progress bar, which is closed on leaving."""
        return self.bar

    def kl(self, strength: float) -> float:
        """Of the steering at a strength; infinite where its predictions are no numbers."""
        self.bar.update()
        return self._mean(self.rows, self.steering.scaled(strength))

    def of_prompt(self, prompted: list[Encoded]) -> float:
        """Of the instruction; ValueError where it changes nothing."""
        kl = self._mean(prompted, None)
        if kl <= ROUNDING:
            raise ValueError(
                "The instruction of these pairs changes no prediction, so there is no effect to "
                "match. Is it there? PromptPair.with_system(question, instruction, response)."
            )
        return kl

    def _mean(self, rows: list[Encoded], steering: Change) -> float:
        total, n = 0.0, 0
        with changed(self.model, steering) as hooks:
            for chosen, plain in zip(chunks(len(rows)), self.plain, strict=True):
                # A trial that does nothing is no mistake of the caller's: its watch warns nobody.
                there = log_probabilities(self.model, rows, chosen, hooks, Watch())
                moved = divergence(there, plain.double())
                total, n = total + float(moved.sum()), n + len(moved)
        # Rounding of the plain side, which may be kept in float32, can make 0 less than 0.
        return max(total / n, 0.0) if math.isfinite(total) else math.inf


# -- The share of the residual norm ----------------------------------------------------------------


def share_at_one(model: HookedModel, steering: Steering, rows: Sequence[Encoded]) -> float:
    """The share of the residual norm that the steering pushes at strength 1, each steer by itself.

    Measured on the activations of the unsteered run: the median over all steered tokens and sites
    of |steer(h) - h|, over the median of |h| at that site on its steered tokens. ValueError where
    no token is pushed.
    """
    steering, seen = steering.on(model), dict[Site, list[Tensor]]()
    probes = tuple(
        (site, _Probe(_all_at(steering, site), seen.setdefault(site, [])))
        for site in steering.sites
    )
    capture(model, rows, list(steering.sites), steering=replace(steering, placed=probes))
    shares = []
    for site in steering.sites:
        push, length = torch.cat(seen[site], dim=1)
        # What rounding leaves of two steers that cancel out is no push.
        steered = push > min(torch.finfo(model.cfg.dtype).eps, LEAST_PUSH) * length
        if bool(steered.any()):
            shares.append(push[steered] / length[steered].median().clamp(min=1e-30))
    if not shares:
        _refuse_idle(steering)
    return float(torch.cat(shares).median())


def _without_share(unit: Unit) -> float:
    """What stands for the share at strength 1 of what changes weights; ValueError if asked for."""
    if unit == "share":
        raise ValueError(
            "A LoRA or a GradientStep changes weights and pushes at no site, so it has no share of "
            "a residual norm. Give target_kl, or like='prompt'."
        )
    return FIRST_SHARE


def _all_at(steering: Steering, site: Site) -> Steer:
    """Every steer at a site as one, in the order in which they act."""
    steers = tuple(steer for place, steer in steering.placed if place == site)
    return steers[0] if len(steers) == 1 else Chain(steers)


def _refuse_idle(steering: Steering) -> None:
    sites = ", ".join(map(str, steering.sites[:3])) + (", ..." if len(steering.sites) > 3 else "")
    raise ValueError(
        f"The steering changes no activation of these texts ({sites}), so no strength has an "
        "effect. Its scope meets none of their tokens, its gates stay closed on them, its "
        "direction is zero, or what it adds is lost in rounding (give the method a larger eta or "
        "c, or load the model in float32)."
    )


@dataclass(frozen=True, eq=False)
class _Probe:
    """Leaves the activation as it is, and notes how far a steer would push each token."""

    steer: Steer
    seen: list[Float[Tensor, "2 _"]] = field(repr=False)
    needs_window = True
    may_be_idle = True

    def bind(self, window: Window) -> "_BoundProbe":
        """The probe for one pass."""
        return _BoundProbe(bind(self.steer, window), window.mask, self.seen)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError("A probe needs the window of its pass.")


@dataclass(frozen=True, eq=False)
class _BoundProbe:
    """The probe of one pass, which knows what is padding."""

    steer: Steer
    mask: Where
    seen: list[Float[Tensor, "2 _"]] = field(repr=False)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h = activation[self.mask].double()
        push = self.steer(activation, hook)[self.mask].double() - h
        self.seen.append(torch.stack([push.norm(dim=-1), h.norm(dim=-1)]).cpu())
        return activation


# -- The search ------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Search:
    """The strengths tried, and the mean KL of each, which is asked for once."""

    kl_at: Callable[[float], float]
    share_at_one: float
    target: float
    tried: dict[float, float] = field(default_factory=dict)

    def run(self) -> None:
        """Until the smallest strength with the target's effect is known, or none is found."""
        strength = FIRST_SHARE / self.share_at_one
        while self._reaches(strength) and strength * self.share_at_one > FIRST_SHARE / 1e6:
            strength *= self._stride(strength, 0.25, 0.8)
        while not self._reaching and strength * self.share_at_one < MOST_SHARE:
            strength *= self._stride(strength, 1.25, 2.0)
            self.kl(strength)
        for _ in range(CLOSER):
            if self.kl(self.best) <= (1 + TOLERANCE) * self.target:
                return
            self.kl(self._between())

    def kl(self, strength: float) -> float:
        """The effect of a strength."""
        if strength not in self.tried:
            self.tried[strength] = self.kl_at(strength)
        return self.tried[strength]

    @property
    def best(self) -> float:
        """The smallest strength with the target's effect, or the one with the most."""
        if self._reaching:
            return min(self._reaching)
        return self._strongest

    @property
    def _strongest(self) -> float:
        """The smallest strength with nearly the largest effect that is finite."""
        finite = {s: kl for s, kl in self.tried.items() if math.isfinite(kl)}
        most = max(finite.values())
        return min(s for s, kl in finite.items() if kl >= (1 - TOLERANCE) * most)

    @property
    def _reaching(self) -> list[float]:
        """The strengths tried that have the target's effect."""
        return [strength for strength in self.tried if self._reaches(strength)]

    def _reaches(self, strength: float) -> bool:
        return self.kl(strength) >= (1 - TOLERANCE) * self.target

    def _stride(self, strength: float, least: float, most: float) -> float:
        """By how much to go on: a KL grows with the square of a small strength."""
        kl = self.kl(strength)
        return min(max(math.sqrt(self.target / kl), least), most) if kl > 0 else most

    def _between(self) -> float:
        """Between the best and the strongest that is too weak, where a power law has the target."""
        high = self.best
        low = max((s for s in self.tried if s < high), default=high / 2)
        if not 0 < self.kl(low) < self.kl(high) < math.inf:
            return math.sqrt(low * high)
        whole = math.log(self.kl(high) / self.kl(low))
        part = min(max(math.log(self.target / self.kl(low)) / whole, 0.1), 0.9)
        return low * (high / low) ** part

    def result(self, steering: Scalable, unit: Unit) -> Calibration[Scalable]:
        """What was found; ValueError where no strength moves a prediction."""
        trials = self._trials(pushes=isinstance(steering, Steering))
        # Where a steering breaks the model, the KL is infinite: no effect that anybody asked for.
        usable = [one for one in self._reaching if math.isfinite(self.kl(one))]
        strength, reached = min(usable) if usable else self._strongest, bool(usable)
        effect = self.kl(strength)
        if effect <= ROUNDING:
            raise ValueError(
                "The steering changes activations, but no prediction of the response tokens, at "
                f"any strength up to {max(self.tried):.3g}. Steer another layer or scope."
            )
        if not reached:
            self._warn(strength, effect)
        elif effect > JUMP * self.target:
            self._warn_of_jump(strength, effect)
        return Calibration(
            steering.scaled(strength), strength, unit, self.target, effect, reached, trials
        )

    def _trials(self, *, pushes: bool) -> tuple[Tried, ...]:
        shares = {s: s * self.share_at_one if pushes else math.nan for s in self.tried}
        return tuple(Tried(s, shares[s], kl) for s, kl in self.tried.items())

    def _warn_of_jump(self, strength: float, effect: float) -> None:
        warnings.warn(
            "The effect of this steering jumps: the smallest strength found that reaches "
            f"{self.target:.3g} nats a token, {strength:.3g}, has {effect:.3g}, and nothing "
            "between. Look at the trials (.table()); take less if the text falls apart.",
            SteeringWarning,
            stacklevel=4,
        )

    def _warn(self, strength: float, effect: float) -> None:
        warnings.warn(
            f"No strength of this steering reaches {self.target:.3g} nats a token: the largest "
            f"effect found is {effect:.3g}, at strength {strength:.3g}, which is taken (strengths "
            f"up to {max(self.tried):.3g} were tried; beyond, text falls apart). Ask for less, or "
            "steer more layers or tokens.",
            SteeringWarning,
            stacklevel=4,
        )
