"""Directional ablation: one direction is taken out of everything that the residual stream is given.

Arditi et al., "Refusal in Language Models Is Mediated by a Single Direction", arXiv 2406.11717,
section 2.4, at every layer and every token (here but the first, a sink of most models, which breaks
them if it is moved):

    u  = unit( mean h(positive) - mean h(negative) )          read at one layer
    h' = h - (h u) u                                          written at every site

The sites are the input of every block and what its attention and its MLP add, as in the authors'
code, and the output of the last block: after that nothing of the stream lies along u anywhere, as
if no weight could write u. `written="where read"` takes each direction out at its own site alone.
"""

from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from steerlens.checks import require_choice, require_two_sides
from steerlens.directions.checks import require_one_direction, require_unit
from steerlens.directions.means import difference_of_means, unit
from steerlens.forms import Clamped
from steerlens.kinds import require_kinds
from steerlens.methods.caa import CAA
from steerlens.precision import wide
from steerlens.prompts import Prompts
from steerlens.scopes import Scope, after_first
from steerlens.sinks import SINK
from steerlens.sites import Site, Sites, as_sites
from steerlens.steering import Steering
from steerlens.steers import as_vectors, steer
from steerlens.training.fit import Fit
from steerlens.types import Direction, Hook, HookedModel, Residual, VectorLike

Written = Literal["everywhere", "where read"]


@steer
class DirectionalAblation:
    """Take the unit direction u out of each activation; computed in float32 or wider."""

    u: Direction

    def __post_init__(self) -> None:
        require_unit(self.u, "DirectionalAblation's u")

    @property
    def form(self) -> Clamped:
        """For other tools: a projection that is clamped to 0."""
        return Clamped(self.u, 0.0)

    @classmethod
    def from_activations(
        cls,
        positive: Float[Tensor, "positive d_model"],
        negative: Float[Tensor, "negative d_model"],
        *,
        sinks: float = SINK,
    ) -> "DirectionalAblation":
        """The difference of means of both sides at length 1, as `difference_of_means` has it."""
        require_kinds(DirectionalAblation.from_activations, locals())
        return cls(unit(difference_of_means(positive, negative, sinks=sinks)))

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: tuple[Prompts, Prompts],
        sites: Sites,
        *,
        written: Written = "everywhere",
        read: Scope | None = None,
        scope: Scope = after_first,
        sinks: float = SINK,
    ) -> "Fit[DirectionalAblation]":
        """Fit from positive and negative prompts; `sites` is where the direction is read.

        `written` is "everywhere", every site of the model, for which one site is read, or "where
        read". `read` is the scope whose activations are read, and `sinks` what is left out of the
        means, as in CAA. `scope` has the tokens that u is taken out of. ValueError for several
        directions that would all be written everywhere.
        """
        require_kinds(DirectionalAblation.fit, locals())
        require_choice("written", written, get_args(Written))
        require_two_sides(prompts, "DirectionalAblation")
        asked = as_sites(sites, model)
        if written == "everywhere":
            require_one_direction(asked)
        caa = CAA.fit(model, prompts, asked, read=read, sinks=sinks)
        fit: Fit[DirectionalAblation] = caa.mapped(lambda caa: cls(unit(caa.direction)), scope)
        if written == "where read":
            return fit
        u, origin = fit.steer, fit.steering.origin
        steers = dict.fromkeys(every_site(model), u)
        placed = Steering(tuple(steers.items()), origin).only(scope)
        return Fit(placed, steers, sinks=fit.sinks)

    @classmethod
    def everywhere(
        cls, model: HookedModel, direction: VectorLike, *, scope: Scope = after_first
    ) -> Steering:
        """A direction of any length that is at hand, taken out at every site of the model.

        At every token of `scope`: all but the first, unless told otherwise.

        >>> model = sl.load("demo")
        >>> len(sl.DirectionalAblation.everywhere(model, torch.ones(192)).sites)
        19
        """
        require_kinds(DirectionalAblation.everywhere, locals())
        ablation = cls(unit(wide(as_vectors(direction, n_axes=1))))
        placed = tuple((site, ablation) for site in every_site(model))
        return Steering(placed).only(scope)

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h = wide(activation)
        u = self.u.to(h)
        return (h - (h @ u)[..., None] * u).to(activation.dtype)


def every_site(model: HookedModel) -> list[Site]:
    """Every site at which something enters the residual stream, and its end, the lowest first."""
    layers = range(model.cfg.n_layers)
    streams = ("resid_pre", "attn_out", "mlp_out")
    sites = [Site(layer, stream) for layer in layers for stream in streams]
    known = model.hook_dict  # a model without MLPs has fewer
    return [site for site in sites if site.hook_name in known] + [Site(layers[-1])]
