"""How well a logistic regression tells two sides apart that it was not fitted on."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Sides = Float[Tensor, "side row d"]


def accuracy(fitted: Sides, held_out: Float[Tensor, "side other d"]) -> float:
    """The share of `held_out` rows whose side a probe finds that is fitted on the others.

    Side 0 is the positive one. Rows are brought to a common scale first; 0.5 where the two sides
    are the same.
    """
    from sklearn.linear_model import LogisticRegression

    scale = float(fitted.double().std()) or 1.0
    x, x_out = (side.double().flatten(0, 1).numpy() / scale for side in (fitted, held_out))
    y, y_out = (np.repeat([1, 0], side.shape[1]) for side in (fitted, held_out))
    if bool(torch.equal(fitted[0], fitted[1])):
        return 0.5
    probe = LogisticRegression(max_iter=1000).fit(x, y)
    return float((probe.predict(x_out) == y_out).mean())
