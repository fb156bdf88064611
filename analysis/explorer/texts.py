"""The texts of an explorer: one question under one instruction, run plain and prompted."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.conversations import Conversation
from steerlens.prompts import Encoded, PromptPair, show
from steerlens.runtime.turns import in_turn
from steerlens.sinks import require_ordinary
from steerlens.sites import Site
from steerlens.types import HookedModel

from ..figures.tokens import PART, part_shown, visible
from ..measures.aligned import Aligned, align
from ..measures.coefficients import MEAN_PUSH
from ..measures.deltas import Deltas, prompt_deltas
from ..measures.mean_push import push_of_others, pushes_of
from ..measures.parts import Parts
from ..measures.plain_side import rows_of
from ..measures.template_tokens import of_template
from .passes import Pass, run_of

Vectors = dict[Site, Float[Tensor, "d_model"]]
Kept = dict[Site, Bool[Tensor, "_"]]


@dataclass(frozen=True, eq=False)
class Units:
    """What 1 is in `along`, for every given pair and for a text of the user's own.

    `of_pair` has for each pair the mean prompt push on the tokens of all others; `mean` is that on
    the tokens of all. Where there is a single pair both are None, and each text has its own.
    """

    of_pair: tuple[Vectors, ...] | None
    mean: Vectors | None
    kept: tuple[Kept, ...]

    @classmethod
    def of(
        cls, model: HookedModel, pairs: Sequence[PromptPair], baseline: str, sinks: float
    ) -> "Units":
        """The directions of these pairs; sinks have no part in them."""
        parts = Parts.of(model, pairs, range(model.cfg.n_layers), baseline=baseline)
        single = len(pairs) == 1
        totals = {} if single else pushes_of(model, parts, sinks)
        kept: list[Kept] = []
        each: list[Vectors] = []
        for aligned in parts:
            keep = _kept(aligned, sinks)
            kept += [
                {site: keep[site][aligned.example == number] for site in aligned.sites}
                for number in range(len(aligned.plain_rows))
            ]
            if single:
                return cls(None, None, tuple(kept))
            deltas = prompt_deltas(model, aligned)
            axes = {
                site: push_of_others(aligned, site, deltas[site], sinks, totals)
                for site in aligned.sites
            }
            each += [
                {site: axis[number] for site, axis in axes.items()}
                for number in range(len(aligned.plain_rows))
            ]
        mean = {site: push.total / push.tokens for site, push in totals.items()}
        return cls(tuple(each), mean, tuple(kept))

    @property
    def unit(self) -> str:
        """In words, what 1 is."""
        if self.mean is None:
            return "this text's own mean prompt push"
        return MEAN_PUSH

    @property
    def unit_of_asked(self) -> str:
        """In words, what 1 is where a text may be under an instruction of its own."""
        return self.unit if self.mean is None else f"{MEAN_PUSH} of the given pairs"


@dataclass(frozen=True, eq=False)
class Line:
    """A pair as one reads it, before anything is run: its plain row, and what the template wrote.

    `question` and `instruction` are those of a conversation; of raw text they are the two sides.
    """

    pair: PromptPair
    rows: tuple[Encoded, Encoded]
    tokens: tuple[str, ...]
    template: tuple[bool, ...]

    @classmethod
    def of(cls, model: HookedModel, pair: PromptPair, baseline: str) -> "Line":
        """The tokens of both sides of a pair; ValueError where they cannot be compared."""
        with in_turn(model):  # a tokenizer serves one thread at a time
            plain, prompted = rows_of(model, pair, baseline)
            template = of_template(model, plain, pair)
            return cls(pair, (plain, prompted), tuple(show(model, plain.ids)), tuple(template))

    @property
    def row(self) -> Encoded:
        """The plain side."""
        return self.rows[0]

    @property
    def response(self) -> tuple[str, ...]:
        """The tokens that are measured."""
        return self.tokens[self.row.response :]

    @property
    def question(self) -> str:
        """What is asked."""
        plain = self.pair.plain
        return plain.user if isinstance(plain, Conversation) else str(plain)

    @property
    def instruction(self) -> str:
        """The instruction, or the whole prompted text where it is no turn of its own."""
        prompted = self.pair.prompted
        return (prompted.system or "") if isinstance(prompted, Conversation) else str(prompted)


@dataclass(frozen=True, eq=False)
class Text:
    """One pair, both of its runs, and what everything is measured by.

    `target` is the prompt's accumulated change, `local` what each layer adds because of it; `kept`
    are the tokens that are no sinks. `number` is that of the pair.
    """

    number: int
    line: Line
    plain: Pass
    prompted: Pass
    target: Deltas
    local: Deltas
    axes: Vectors
    kept: Kept


def text_of(
    model: HookedModel, line: Line, number: int, units: Units, baseline: str, sinks: float
) -> Text:
    """A text with both runs; `number` beyond the given pairs is one of the user's own."""
    aligned = align(model, [line.pair], range(model.cfg.n_layers), baseline=baseline)
    plain, prompted = (run_of(model, row, number) for row in line.rows)
    target = {
        site: prompted.outputs[site].double() - plain.outputs[site].double()
        for site in aligned.sites
    }
    given = number < len(units.kept)
    kept = units.kept[number] if given else _kept(aligned, sinks)
    axes = units.mean if units.of_pair is None or not given else units.of_pair[number]
    local = prompt_deltas(model, aligned, "local")
    own = _own(target, kept) if axes is None else axes
    return Text(number, line, plain, prompted, target, local, own, kept)


def _kept(aligned: Aligned, sinks: float) -> Kept:
    return {site: ~aligned.sinks(site, sinks) for site in aligned.sites}


def _own(target: Deltas, kept: Kept) -> Vectors:
    for site, keep in kept.items():
        require_ordinary(keep, f"tokens at {site}")
    return {site: target[site][keep].mean(dim=0) for site, keep in kept.items()}


def _written(token: str) -> str:
    """What a token writes: of a character in several tokens the first writes it all."""
    part = PART.fullmatch(token)
    return token if part is None else part[1] * (part[2] == "1")


def tokens_of(line: Line) -> list[dict[str, object]]:
    """The whole plain row as the payload has it."""
    first = line.row.response
    listed: list[dict[str, object]] = []
    for place, (token, template) in enumerate(zip(line.tokens, line.template, strict=True)):
        entry: dict[str, object] = {
            "text": visible(part_shown(token)),
            "index": place - first if place >= first else None,
            "template": template,
            "position": place,
        }
        if entry["text"] != token:
            entry["raw"] = _written(token).encode("utf-8", "backslashreplace").decode("utf-8")
        listed.append(entry)
    return listed
