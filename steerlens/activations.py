"""Activations at chosen sites and tokens: batched by length, stopped early, no logits computed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from steerlens.identity import device_of
from steerlens.kinds import require_kinds
from steerlens.prompts import (
    Encoded,
    Prompt,
    Prompts,
    encode,
    encode_all,
    require_side,
    stack,
)
from steerlens.runtime.finite import without_steering
from steerlens.runtime.forward import batches, read
from steerlens.runtime.hooks import Watch, running, watching
from steerlens.runtime.turns import in_turn
from steerlens.scopes import Scope, Window, everywhere, generated, last
from steerlens.sinks import SINK, is_sink, lengths
from steerlens.sites import Layer, Site, Sites, as_site, as_sites
from steerlens.steering import Steering
from steerlens.types import HookedModel, Residual, Tokens, Where

Moment = Literal["after", "before"]
LONG_WORK = 64  # batches from which on a progress bar is shown unasked


@dataclass(frozen=True, eq=False)
class Activations:
    """One activation per chosen token and site, rows of text one after the other.

    `row` is the index of the prompt, `position` the token's absolute position in it. `n_layers` is
    the model's number of layers, from which a layer such as -1 counts; 0 where it is not known.
    `typical` has for each token the median norm of the activations of its whole text at the site,
    by which sinks are known.
    """

    values: dict[Site, Float[Tensor, "token d_model"]]
    row: Int[Tensor, "token"]
    position: Int[Tensor, "token"]
    tokens: Int[Tensor, "token"]
    n_layers: int = 0
    typical: dict[Site, Float[Tensor, "token"]] = field(default_factory=dict)

    def at(self, site: Layer | Site) -> Float[Tensor, "token d_model"]:
        """All activations at a site, in order of row, then position."""
        wanted = self._place(site)
        if wanted not in self.values:
            held = ", ".join(str(site) for site in self.values)
            raise ValueError(f"Nothing was captured at {wanted}; captured: {held}.")
        return self.values[wanted]

    def _place(self, site: Layer | Site) -> Site:
        return as_site(site).among(self.n_layers) if self.n_layers else as_site(site)

    def of(self, row: int, site: Layer | Site) -> Float[Tensor, "token d_model"]:
        """The activations of one row at a site, in order of position."""
        require_kinds(Activations.of, locals())
        if row < 0:
            raise ValueError(f"Rows count from 0, in the order of the prompts; found {row}.")
        return self.at(site)[self.row == row]

    def sinks(self, site: Layer | Site, times: float = SINK) -> Bool[Tensor, "token"]:
        """Which tokens are sinks at a site: their norm is above `times` the median of the texts."""
        require_kinds(Activations.sinks, locals())
        values, typical = self.at(site), self.typical.get(self._place(site))
        return is_sink(values, lengths(values) if typical is None else typical, times)

    def without(self, tokens: Bool[Tensor, "token"]) -> "Activations":
        """The same without these tokens."""
        keep = ~tokens
        return replace(
            self,
            values={site: value[keep] for site, value in self.values.items()},
            row=self.row[keep],
            position=self.position[keep],
            tokens=self.tokens[keep],
            typical={site: value[keep] for site, value in self.typical.items()},
        )

    def ordinary_means(
        self, site: Layer | Site, rows: int, times: float = SINK
    ) -> tuple[Float[Tensor, "row d_model"], Bool[Tensor, "row"]]:
        """The mean of each of `rows` rows over its tokens that are no sinks, and which have any.

        The mean of a row that has none is over all of its tokens.
        """
        require_kinds(Activations.ordinary_means, locals())
        whole, sinks = self.row_means(site, rows), self.sinks(site, times)
        counts = torch.bincount(self.row[~sinks], minlength=rows)
        if not bool(sinks.any()):
            return whole, counts > 0
        sums = torch.zeros_like(whole).index_add(0, self.row[~sinks], self.at(site)[~sinks])
        means = sums / counts.clamp(min=1)[:, None]
        return torch.where((counts > 0)[:, None], means, whole), counts > 0

    def row_means(self, site: Layer | Site, rows: int = 0) -> Float[Tensor, "row d_model"]:
        """The mean activation of each row at a site, over all tokens that were captured of it.

        `rows`, if given, is how many rows there are.
        """
        require_kinds(Activations.row_means, locals())
        counts = torch.bincount(self.row, minlength=rows)
        if bool((counts == 0).any()):
            raise ValueError(
                f"Row {int(counts.argmin())} of {len(counts)} has no captured token, so it has no "
                "mean. Choose a scope that holds a token of every prompt: `last` does."
            )
        sums = torch.zeros((len(counts), self.at(site).shape[1]), dtype=self.at(site).dtype)
        return sums.index_add(0, self.row, self.at(site)) / counts[:, None]


def default_read(rows: Sequence[Encoded]) -> Scope:
    """The response where all rows have one, the last prompt token where none has."""
    answered = [len(row.ids) > row.response for row in rows]
    if all(answered):
        return generated
    if not any(answered):
        return last
    raise ValueError(
        f"{sum(answered)} of {len(rows)} prompts have a response and the others have none, so it "
        "is not clear which tokens to read. Say it: read=steerlens.last or steerlens.generated."
    )


def capture(
    model: HookedModel,
    prompts: Prompts,
    sites: Sites,
    *,
    scope: Scope = everywhere,
    steering: Steering | None = None,
    batch_size: int = 16,
    side: str = "left",
    moment: Moment = "after",
    progress: bool | None = None,
) -> Activations:
    """The activations at `sites` on the tokens of `scope`, under `steering` if one is given.

    `moment` says whether a steered site is read "after" its steers or "before" them (what they
    were given). Kept in the model's dtype, on the CPU. `progress=None` shows a bar on long work.

    >>> model = sl.load("demo")
    >>> sl.capture(model, ["The film", "A story"], [2, 3], scope=sl.last).at(3).shape
    torch.Size([2, 192])
    """
    require_kinds(capture, locals())
    _require_batches(batch_size, side)
    with in_turn(model):  # a tokenizer serves one thread at a time
        rows = encode_all(model, prompts)
    with watching() as watch:
        pieces = _batches(model, rows, sites, scope, steering, batch_size, side, watch, moment)
        return joined(_with_progress(pieces, len(rows), batch_size, progress))


def capture_watched(
    model: HookedModel,
    rows: Sequence[Encoded],
    sites: Sites,
    scope: Scope,
    steering: Steering,
    watch: Watch,
    moment: Moment = "after",
) -> Activations:
    """`capture` of some of the rows of a measurement, which asks at its end who was idle."""
    return joined(_batches(model, rows, sites, scope, steering, 16, "left", watch, moment))


def capture_stream(
    model: HookedModel,
    prompts: Iterable[Prompt],
    sites: Sites,
    *,
    scope: Scope = everywhere,
    steering: Steering | None = None,
    batch_size: int = 16,
    side: str = "left",
    buffer: int = 64,
) -> Iterator[Activations]:
    """`capture` for data larger than memory: one `Activations` a batch, `row` counting throughout.

    `buffer` batches at a time are read and sorted by length, so order within a buffer is by length.
    """
    require_kinds(capture_stream, locals())
    _require_batches(batch_size, side, buffer)
    texts, start = iter(prompts), 0
    with watching() as watch:
        while chunk := list(islice(texts, buffer * batch_size)):
            rows = [encode(model, prompt) for prompt in chunk]
            options = (steering, batch_size, side, watch)
            yield from _batches(model, rows, sites, scope, *options, start=start)
            start += len(chunk)
    if start == 0:
        raise ValueError("No prompts were given. Pass at least one string or Conversation.")


def joined(pieces: Iterable[Activations]) -> Activations:
    """All pieces as one, ordered by row, then position.

    The pieces of an iterator are taken apart as they are joined, so that no site is held twice.
    """
    ours, pieces = isinstance(pieces, Iterator), list(pieces)
    row = torch.cat([piece.row for piece in pieces])
    order = torch.argsort(row, stable=True)
    if len(order) == 0:
        raise ValueError(
            "The scope holds no token of these prompts, so nothing was captured. Choose another "
            "scope: `last` and `everywhere` hold some of every prompt."
        )
    values: dict[Site, Tensor] = {}
    for site in list(pieces[0].values):
        taken = [piece.values.pop(site) if ours else piece.values[site] for piece in pieces]
        values[site] = torch.cat(taken)[order]
    return Activations(
        values=values,
        row=row[order],
        position=torch.cat([piece.position for piece in pieces])[order],
        tokens=torch.cat([piece.tokens for piece in pieces])[order],
        n_layers=pieces[0].n_layers,
        typical={
            site: torch.cat([piece.typical[site] for piece in pieces])[order]
            for site in pieces[0].typical
        },
    )


def _require_batches(batch_size: int, side: str, buffer: int = 1) -> None:
    for name, found in (("batch_size", batch_size), ("buffer", buffer)):
        if found < 1:
            raise ValueError(f"{name} must be at least 1; found {found}.")
    require_side(side)


def _batches(
    model: HookedModel,
    rows: Sequence[Encoded],
    sites: Sites,
    scope: Scope,
    steering: Steering | None,
    batch_size: int,
    side: str,
    watch: Watch,
    moment: Moment = "after",
    start: int = 0,
) -> Iterator[Activations]:
    """The activations batch by batch; `start` is the number of the first row."""
    wanted = as_sites(sites, model)
    if not isinstance(scope, Scope):
        raise TypeError(
            f"scope is a Scope, such as steerlens.last; found {scope!r}. "
            "steerlens.scope_named('last') makes one of text."
        )
    if moment not in get_args(Moment):
        raise ValueError(f"A moment is 'after' or 'before' the steers of a site; found {moment!r}.")
    order = sorted(range(len(rows)), key=lambda number: len(rows[number].ids))
    lengths = [len(rows[number].ids) for number in order]
    for places in batches(model, lengths, batch_size, side):
        chosen = {start + order[place]: rows[order[place]] for place in places}
        yield _one_batch(model, chosen, wanted, scope, steering, side, watch, moment)


@torch.no_grad()
def _one_batch(
    model: HookedModel,
    chosen: Mapping[int, Encoded],
    sites: Sequence[Site],
    scope: Scope,
    steering: Steering | None,
    side: str,
    watch: Watch,
    moment: Moment,
) -> Activations:
    tokens, window = stack(list(chosen.values()), side)
    window = replace(window, row=torch.tensor(list(chosen)))
    inside = scope.where(window)
    given = (model, tokens, window, inside, sites)
    values, typical = _read_inside(*given, steering, watch, moment)
    if not _finite(values):
        plain = None if steering is None else _read_inside(*given, None, watch, moment)[0]
        _require_finite(values, plain, without_steering(model))
    row = torch.tensor(list(chosen))[:, None].expand(tokens.shape)
    where = row[inside], window.positions[inside], tokens[inside]
    return Activations(values, *where, n_layers=model.cfg.n_layers, typical=typical)


def _read_inside(
    model: HookedModel,
    tokens: Tokens,
    window: Window,
    inside: Where,
    sites: Sequence[Site],
    steering: Steering | None,
    watch: Watch,
    moment: Moment,
) -> tuple[dict[Site, Tensor], dict[Site, Tensor]]:
    """The activations at `sites` on the tokens of `inside`, from one pass on the model's device.

    With each the median norm of all tokens of its row.
    """
    device, values, typical = device_of(model), dict[Site, Tensor](), dict[Site, Tensor]()
    here = inside.cpu(), window.mask.cpu()
    tokens, window, inside = tokens.to(device), window.to(device), inside.to(device)

    def keep(site: Site, activation: Residual) -> None:
        values[site] = activation[inside].cpu()
        typical[site] = typical_norms(lengths(activation).cpu(), *here)

    readers = {site: partial(keep, site) for site in sites}
    with running(model, steering, watch) as run:
        if run is not None:
            run.plan(tokens, window)
        attach = None if run is None else run.attach
        read(model, tokens, window, readers, attach, before=moment == "before")
    return values, typical


def typical_norms(norms: Float[Tensor, "batch pos"], inside: Where, real: Where) -> Tensor:
    """For each token that is read, the median norm of the tokens of its row, padding left out."""
    medians = norms.masked_fill(~real, torch.nan).nanmedian(dim=1).values
    return medians[:, None].expand(norms.shape)[inside]


def _finite(values: dict[Site, Tensor]) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in values.values())


def _require_finite(
    values: dict[Site, Tensor], plain: dict[Site, Tensor] | None, otherwise: str
) -> None:
    """Raise ValueError that says where, and whether the steering did it: `plain` is without it."""
    for site, value in values.items():
        if bool(torch.isfinite(value).all()):
            continue
        bad = int((~torch.isfinite(value)).any(dim=-1).sum())
        found = f"{bad} of {len(value)} activations at {site} are NaN or infinite"
        if plain is not None and _finite(plain):
            raise ValueError(f"{found}; without the steering none is: lower the strength.")
        also = "" if plain is None else ", without the steering too"
        raise ValueError(f"{found}{also}: {otherwise}")


def _with_progress(
    pieces: Iterator[Activations], n: int, batch_size: int, progress: bool | None
) -> Iterator[Any]:
    total = -(-n // batch_size)
    if progress is False or (progress is None and total < LONG_WORK):
        return pieces
    from tqdm.auto import tqdm

    return iter(tqdm(pieces, total=total, desc="capture", unit="batch"))
