"""Bi-directional preference optimisation: a vector whose two signs prefer the two answers.

Cao et al., "Personalized Steering of Large Language Models: Versatile Steering Vectors Through
Bi-directional Preference Optimization", arXiv 2406.00045, section 3, at the output of a block:

    h' = h + d v                                             d = 1 or -1 in training
    L  = - mean_d log sigmoid( d beta ( r_d(positive) - r_d(negative) ) )
    r_d(y) = log p(y | x; d v) - log p(y | x)

So with v the positive answers get likelier than the negative ones, and with -v the other way
round, each against the model without v: the vector works from both ends. The strength is the
paper's multiplier. v begins at 0. The paper draws d for each batch; here both signs of every
example are in each step.
"""

from steerlens.checks import require_two_sides
from steerlens.directions.checks import require_pairs_of_prompts
from steerlens.forms import Added
from steerlens.kinds import require_kinds
from steerlens.prompts import Prompts, encode_all
from steerlens.scopes import Scope, everywhere
from steerlens.sites import Sites, as_sites
from steerlens.steers import steer
from steerlens.training.fit import Fit, token_ids
from steerlens.training.gates import key_of
from steerlens.training.loop import train
from steerlens.training.preferences import Preferences
from steerlens.training.schedule import Schedule
from steerlens.types import Direction, Hook, HookedModel, Residual

TWENTY = Schedule(epochs=20, batch_size=4)
"""The authors' passes and batches; the rate is by the number of steps, as everywhere here."""
BETA = 0.1


@steer
class BiPO:
    """Add `direction` to every position."""

    direction: Direction

    @property
    def form(self) -> Added:
        """For other tools: one vector, added everywhere."""
        return Added(self.direction)

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: tuple[Prompts, Prompts],
        sites: Sites,
        *,
        beta: float = BETA,
        schedule: Schedule = TWENTY,
        scope: Scope = everywhere,
        progress: bool = False,
    ) -> "Fit[BiPO]":
        """Train a vector at each site, all at once, from preferred and rejected answers in pairs.

        Both sides are conversations with a response, answers to the same questions. `beta` is how
        fast a preference counts as strong enough. `scope` is where the vectors act in training and
        afterwards. The epoch with the best loss on the pairs that `schedule` holds back is kept.
        """
        require_kinds(BiPO.fit, locals())
        require_two_sides(prompts, "BiPO")
        positive, negative = (encode_all(model, side) for side in prompts)
        require_pairs_of_prompts(positive, negative, "BiPO")
        places = tuple(sorted(as_sites(sites, model)))
        task = Preferences(model, positive, negative, places, scope, beta)
        trained = train(task, schedule, progress=progress)
        steers = {site: cls(trained.parameters[key_of(site, "v")]) for site in places}
        ids = token_ids([*positive, *negative])
        return Fit.of(
            model, steers, ids, scope=scope, seed=schedule.seed, trained=trained, name="BiPO"
        )

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        h, v = activation, self.direction.to(activation)
        return h + v
