"""What an exporter is given, and how it says no."""

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steerlens.combinators import innermost
from steerlens.forms import Added, Form, forms_of
from steerlens.identity import identity_of
from steerlens.parsing import short
from steerlens.precision import wide
from steerlens.saving import Placing
from steerlens.scopes import everywhere
from steerlens.sites import Site, require_fit, require_site
from steerlens.types import Direction, HookedModel, Steer

EMBEDDINGS = -1
"""The block whose output `resid_pre` of block 0 is: what the embeddings give."""


class ExportError(ValueError):
    """What a target cannot express; the message says why, and what there is instead."""


class Refused(ExportError):
    """What a target cannot express, nor anything near it: `approximate` is no way out."""


@dataclass(frozen=True, eq=False)
class Request:
    """A steering for one target: the model it steers, where to write it, and the target's options.

    `target` is what messages call the target.
    """

    steering: Placing
    model: HookedModel
    path: Path
    target: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """The target at the beginning of a sentence."""
        return self.target[:1].upper() + self.target[1:]

    def forms(self, *, sensed: bool = False) -> list[tuple[int, Form]]:
        """Every form with the block at whose output (`resid_post`) it acts, -1 the embeddings.

        In the order in which they act at one place. ExportError where a steer has no form (or is
        `sensed`, for a target that does not know that), or acts anywhere but on the residual stream
        between blocks.
        """
        found: list[tuple[int, Form]] = []
        for place, steer in self.steering.placed:
            site = place.on(self.model)
            require_site(self.model, site)
            require_fit(self.model, site, steer)
            forms = forms_of(steer, sensed=sensed)
            if forms is None:
                raise ExportError(self._formless(site, steer))
            found += [(self._block(site), form) for form in forms]
        if not found:
            raise ExportError(f"At strength 0 there is nothing to write for {self.target}.")
        return found

    def constants(self) -> dict[int, Direction]:
        """The vector that is added to every token at the output of each block, in float32 or wider.

        What acts at one place is summed. ExportError where anything but that is asked for.
        """
        summed: dict[int, Direction] = {}
        for block, form in self.forms():
            if not isinstance(form, Added):
                raise ExportError(
                    f"{self.subject} adds one vector to every token; at the output of block "
                    f"{block} this steering does something else "
                    f"({type(form).__name__.lower()}). {NEAREST}"
                )
            if form.scope != everywhere:
                raise ExportError(
                    f"{self.subject} adds to every token; this steering is limited to "
                    f"'{form.scope}'. {UNSCOPED} {NEAREST}"
                )
            v = wide(form.v).detach().cpu()
            summed[block] = summed[block] + v if block in summed else v
        return dict(sorted(summed.items()))

    def require_above_embeddings(self, blocks: Iterable[int]) -> None:
        """Raise Refused for a target that begins at the output of the first block."""
        if EMBEDDINGS in blocks:
            raise Refused(
                f"{self.subject} cannot steer the embeddings (resid_pre of layer 0): it begins at "
                "the output of the first block. Place the steering at resid_post of a layer."
            )

    def require_unfolded(self) -> None:
        """Raise ExportError for what depends on activations where those of the model are others."""
        if identity_of(self.model).processing == "fold":
            raise ExportError(
                f"{self.subject} sees the activations of the unprocessed model, and this one is "
                "folded and centred, so its projections are others. Fit it on the model as it is: "
                "processing='none'."
            )

    def require_options(self, *known: str) -> None:
        """Raise ValueError for an option that the target does not have."""
        unknown = [name for name in self.options if name not in known]
        if unknown:
            listed = f"It has {', '.join(known)}" if known else "It has none"
            raise ValueError(f"{self.subject} has no option {short(unknown[0])}. {listed}.")

    def provenance(self) -> dict[str, str]:
        """What was written by what, and for which model, as texts under plain names."""
        here, origin = identity_of(self.model), self.steering.origin
        told = {
            "version": importlib.metadata.version("steerlens"),
            "model": here.name,
            "fingerprint": here.fingerprint,
            "processing": here.processing,
            "made_of": here.made_of,
            "method": ", ".join(dict.fromkeys(map(_name, self.steering.placed))),
            "data": origin.data if origin else "",
            "seed": str(origin.seed) if origin and origin.seed is not None else "",
            "moved_from": origin.moved_from if origin else "",
        }
        return {name: text for name, text in told.items() if text}

    def _block(self, site: Site) -> int:
        if site.stream == "resid_post":
            return site.layer
        if site.stream == "resid_pre":
            return site.layer - 1
        heads = " What acts on attention's heads (z) is no vector of the stream." * (
            site.stream == "z"
        )
        raise Refused(
            f"{self.subject} writes to the residual stream between blocks; this steering acts at "
            f"{site}. What is added to mlp_out is the same at resid_post of that layer: place it "
            "there; what is added to attn_out or resid_mid passes the MLP first, and has no "
            f"equal there.{heads}"
        )

    def _formless(self, site: Site, steer: Steer) -> str:
        name = _name((site, steer))
        return (
            f"{self.subject} cannot compute what {name} does at {site}: it depends on each token's "
            f"own activation, or is no method of steerlens. {NEAREST}"
        )


def _name(placed: tuple[Site, Steer]) -> str:
    """What the steer at a site is called without what is wrapped around it."""
    kind = innermost(placed[1])
    return getattr(kind, "__name__", type(kind).__name__)


UNSCOPED = "One that was fitted with the scope everywhere is written as it is (--scope everywhere)."
"""What can be done where a target steers every token, or has other scopes."""
NEAREST = (
    "approximate=True (--approximate) writes the nearest constant, and measures by how much it "
    "differs."
)
