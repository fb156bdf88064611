"""The precision in which steers compute: float32, or float64 where the model is in it."""

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.types import HookedModel


def wide(tensor: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The tensor in float32, or in float64 if it is in float64."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def wide_dtype(model: HookedModel) -> torch.dtype:
    """The dtype in which steers of `model` compute and are trained."""
    return torch.promote_types(model.cfg.dtype, torch.float32)
