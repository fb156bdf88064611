"""What the released code of COLD-Steer does with its kernels: the last prompt token decides.

There the last token of the prompt alone is compared with the examples, and all prompt tokens are
moved as it is. Our own kernels compare each token for itself.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from steerlens.saving import saveable
from steerlens.scopes import Window, last, prompt
from steerlens.types import Hook, Residual, Steer


@saveable
@dataclass(frozen=True, eq=False)
class LastTokenChange:
    """The change that a steer makes to the last prompt token, made to all prompt tokens of the row.

    Tokens after the prompt are changed by the steer as ever.
    """

    steer: Steer
    needs_window = True

    def bind(self, window: Window) -> "CopiedChange":
        """The steer with the column whose change each token takes, in the pass of `window`."""
        prompted, ends = prompt.where(window), last.where(window)
        if bool((prompted.any(dim=1) & ~ends.any(dim=1)).any()):
            raise ValueError(
                "This kernel asks the last prompt token, and the pass holds a prompt without its "
                "end. Give the whole prompt in one pass, or fit without compat='released'."
            )
        columns = torch.arange(window.mask.shape[1], device=window.mask.device)
        end = ends.byte().argmax(dim=1)[:, None]
        return CopiedChange(self.steer, torch.where(prompted, end, columns))

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        raise ValueError(
            "This kernel asks the last prompt token, and a hook cannot see where that is. Use "
            "generate(...), or steering.applied(model, window)."
        )


@dataclass(frozen=True, eq=False)
class CopiedChange:
    """The change that a steer makes to the token at another column, for one pass."""

    steer: Steer
    column: Int[Tensor, "batch pos"]

    def __call__(self, activation: Residual, hook: Hook = None) -> Residual:
        source = activation.gather(1, self.column[..., None].expand_as(activation))
        return activation + (self.steer(source) - source)
