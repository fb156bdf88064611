"""What a caller of COLD-Steer may get wrong."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steerlens.checks import require_choice, require_finite
from steerlens.identity import identity_of
from steerlens.parsing import short
from steerlens.prompts import Encoded
from steerlens.scopes import Context, Window
from steerlens.sites import Site, Sites, as_sites, require_writable
from steerlens.types import HookedModel, finite

Kernel = Literal["unit", "dot", "cosine", "rbf"]
Mode = Literal["jvp", "fd"]
Compat = Literal["released"]
Stored = Literal["auto", "float32", "bfloat16"]
RELEASED_STEP = 1e-6


def writable_sites(model: HookedModel, sites: Sites) -> tuple[Site, ...]:
    """The sites from the lowest up, each checked to be one that can be written on `model`."""
    places = as_sites(sites, model)
    for site in places:
        require_writable(model, site)
    return tuple(sorted(places))


def is_number(value: object) -> bool:
    """Whether `value` is an int or a float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def require_eta(eta: float) -> None:
    """Raise ValueError unless eta is a finite number."""
    if not is_number(eta) or not finite(eta):
        raise ValueError(
            f"eta is the size of the step and must be a finite number; found {short(eta)}."
        )


def require_kernel(kernel: str, width: float | None) -> None:
    """Raise an error unless the kernel is known, and has a width only where it looks at one."""
    require_choice("kernel", kernel, get_args(Kernel))
    if width is not None and not is_number(width):
        raise TypeError(f"width is a number or None, the median distance; found {width!r}.")
    if width is not None and not 0 < width < math.inf:
        raise ValueError(f"The 'rbf' kernel needs a width above 0, and finite; found {width}.")
    if kernel != "rbf" and width is not None:
        raise ValueError(f"Only the 'rbf' kernel has a width; asked for {kernel!r} with {width}.")


def require_anchors(
    kernel: str,
    gradients: Float[Tensor, "row d_model"],
    anchors: Float[Tensor, "row d_model"] | None,
    width: float,
) -> None:
    """Raise ValueError unless the kernel has the anchors and the width that it looks at."""
    require_choice("kernel", kernel, get_args(Kernel))
    require_finite(gradients, "ColdKernel's gradients")
    if (kernel == "unit") != (anchors is None):
        raise ValueError(
            "The 'unit' kernel looks at no anchors, the activations Z(x_i), and every other "
            f"needs them; found {kernel!r} with{'out' if anchors is None else ''}."
        )
    if anchors is not None:
        require_finite(anchors, "ColdKernel's anchors")
        if anchors.shape != gradients.shape:
            raise ValueError(
                "There is one anchor for each gradient; found anchors of shape "
                f"{list(anchors.shape)} and gradients of {list(gradients.shape)}."
            )
    if kernel == "rbf" and not 0 < width < math.inf:
        raise ValueError(f"The 'rbf' kernel needs a width above 0, and finite; found {width}.")


def require_step(mode: str, eps: float | None, central: bool) -> None:
    """Raise ValueError unless a difference has a step that can be taken, and a derivative none."""
    require_choice("mode", mode, get_args(Mode))
    if mode == "jvp" and (eps is not None or central):
        raise ValueError(
            "mode='jvp' is the derivative itself and has no step: leave out eps and central, "
            "or ask for mode='fd'."
        )
    if eps is not None and not (is_number(eps) and 0 < eps < math.inf):
        raise ValueError(f"eps is a step and must be finite and above 0; found {eps!r}.")


def is_released(compat: str | None) -> bool:
    """Whether the authors' released code is to be followed where the paper says otherwise."""
    if compat is not None:
        require_choice("compat", compat, get_args(Compat))
    return compat is not None


def step_options(
    compat: str | None, mode: Mode, eps: float | None, central: bool
) -> tuple[Mode, float | None, bool]:
    """mode, eps and central: as given, or those of the released code."""
    if not is_released(compat):
        return mode, eps, central
    if (mode, eps, central) != ("jvp", None, False):
        raise ValueError(
            f"The released code steps forward by {RELEASED_STEP}: with compat='released' "
            "leave out mode, eps and central."
        )
    return "fd", RELEASED_STEP, False


def require_differentiation() -> None:
    """Raise RuntimeError inside `torch.inference_mode()`, where nothing can be differentiated."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "COLD-Steer takes derivatives, which torch.inference_mode() forbids. Use "
            "torch.no_grad() instead; fitting and steering need not be inside either."
        )


def require_unfolded(model: HookedModel) -> None:
    """Raise ValueError if the weights of `model` were folded: a step in them is another step."""
    if identity_of(model).processing != "none":
        raise ValueError(
            "This model's weights are folded, and a gradient step in folded weights is another "
            "step than in the model's own. Load it with processing='none'."
        )


def require_precise(model: HookedModel, by_difference: bool = False) -> None:
    """Raise ValueError if the dtype of `model` is too coarse for gradients, or for differences."""
    dtype = next(nn.Module.parameters(model)).dtype  # pyright: ignore[reportArgumentType]
    if dtype == torch.float16 or (by_difference and dtype == torch.bfloat16):
        raise ValueError(
            f"The model is in {dtype}: gradients underflow in float16, and a finite difference in "
            "half precision is all rounding. Load it in float32, or in bfloat16 with mode='jvp'."
        )


def require_parameters(
    g: Mapping[str, Float[Tensor, "..."]], weights: Mapping[str, Float[Tensor, "..."]]
) -> None:
    """Raise ValueError unless every gradient belongs to a parameter of its shape."""
    for name, value in g.items():
        here = tuple(weights[name].shape) if name in weights else "no such parameter"
        if here != tuple(value.shape):
            raise ValueError(
                f"There is a gradient for {name!r} of shape {tuple(value.shape)}; the "
                f"model has {here}. It was fitted on the other "
                "backend or on another model: load that one, or fit it again on this one."
            )


def require_finite_gradient(g: Mapping[str, Float[Tensor, "..."]]) -> None:
    """Raise ValueError if a gradient holds NaN or infinity."""
    for name, value in g.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(
                f"The gradient of the loss for {name!r} holds NaN or infinity, though the loss is "
                "finite. Look for a square root or a logarithm of 0 in the loss, and load the "
                "model in float32."
            )


def require_loss_value(value: object) -> None:
    """Raise ValueError unless a loss gave a finite scalar that can be differentiated."""
    if not isinstance(value, Tensor) or value.ndim != 0 or not value.requires_grad:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(
            f"A loss is a function (logits, batch) -> scalar tensor that depends on the logits; "
            f"this one returned {found}. Take the mean or the sum, and detach nothing."
        )
    if not bool(torch.isfinite(value)):
        raise ValueError(
            f"The loss of an example is {float(value.detach())}. Load the model in float32 or "
            "bfloat16, and look for an answer that the model cannot give."
        )


# -- Examples --------------------------------------------------------------------------------------


def require_two_sides(given: object) -> None:
    """Raise TypeError unless the examples are a pair of prompts."""
    # A list of two is two prompts of one side; two tensors are tokens and their mask.
    if not isinstance(given, tuple) or len(given) != 2 or isinstance(given[0], Tensor):
        raise TypeError(
            "The examples are a pair (positive prompts, negative prompts), with () for a side that "
            "the loss does not look at, or an Examples(positive, negative, probabilities); found "
            f"{type(given).__name__}. The order is fit(model, examples, sites)."
        )


def require_sides(loss: str, looked: Sequence[str], given: Mapping[str, Sequence[Encoded]]) -> None:
    """Raise ValueError unless the sides that the loss looks at are there, and as long."""
    absent = [name for name in looked if name not in given]
    if absent:
        raise ValueError(
            f"The loss {loss!r} needs the {' and the '.join(absent)} prompts, which were not given."
        )
    unused = [name for name in given if name not in looked]
    if unused:
        raise ValueError(
            f"The loss {loss!r} does not look at the {unused[0]} prompts. Leave them out, "
            "or use 'dpo', which looks at both."
        )
    if len({len(given[name]) for name in looked}) > 1:
        raise ValueError(
            f"{len(given['positive'])} positive and {len(given['negative'])} negative prompts were "
            "given. Give as many of each, in the same order."
        )


def require_answer(number: int, row: Encoded, chosen_among: bool) -> None:
    """Raise ValueError unless the row has an answer, or, where options follow, none."""
    if (len(row.ids) > row.response) == chosen_among:
        raise ValueError(
            f"Example {number} has {len(row.ids) - row.response} answer tokens. "
            + (
                "With option probabilities, prompts end where the option is due: give no response."
                if chosen_among
                else "Give each a response: Conversation(user, response=...), or Encoded rows."
            )
        )


def require_some_difference(rows: Sequence[tuple[Encoded, ...]]) -> None:
    """Raise ValueError if both answers of every example are the same."""
    if all(positive.ids == negative.ids for positive, negative in rows):
        raise ValueError(
            "The positive and the negative answer of every example are the same, so the gradient "
            "of 'dpo' is zero but for rounding. Give different answers."
        )


def require_probabilities(loss: object, probabilities: Sequence[object] | None, n: int) -> None:
    """Raise ValueError unless the loss 'options', and it alone, has them for every prompt."""
    if isinstance(loss, str) and (loss == "options") != (probabilities is not None):
        raise ValueError(
            "The loss 'options' needs the probabilities of the options, and no other looks at "
            f"them; asked for {loss!r} with{'out' if probabilities is None else ''} probabilities."
        )
    if probabilities is not None and len(probabilities) != n:
        raise ValueError(
            f"{n} prompts and {len(probabilities)} sets of option probabilities were given. Give "
            "one for each prompt."
        )


def require_shares(number: int, wish: Mapping[Any, float]) -> None:
    """Raise ValueError unless the options of an example are tokens with shares that sum to 1."""
    if not isinstance(wish, Mapping) or not all(type(name) in (int, str) for name in wish):
        raise ValueError(
            f"The options of example {number} must be {{token: probability, ...}}, with tokens "
            f"named by their text or by whole numbers as ids; found {wish!r}."
        )
    if not all(isinstance(share, Real) for share in wish.values()):
        raise ValueError(f"The probabilities of example {number} must be numbers; found {wish!r}.")
    total = sum(wish.values())
    if len(wish) < 2 or not min(wish.values()) >= 0 or not abs(total - 1) <= 1e-6:
        raise ValueError(
            f"The options of example {number} must be two or more tokens with probabilities "
            f"that sum to 1; found {len(wish)} that sum to {total:g}."
        )


def require_known_once(number: int, ids: Sequence[int], names: object, d_vocab: int) -> None:
    """Raise ValueError unless every option is a token of the model, and none is there twice."""
    if len(set(ids)) < len(ids):
        raise ValueError(f"Example {number} names a token twice among its options: {names}.")
    unknown = [token for token in ids if not 0 <= token < d_vocab]
    if unknown:
        raise ValueError(
            f"Example {number} has options {unknown[:5]}, which are not in this model's "
            f"vocabulary of {d_vocab}."
        )


# -- Steps -----------------------------------------------------------------------------------------


def require_own_site(site: Site, sites: Sequence[Site]) -> None:
    """Raise ValueError unless a step at a site belongs to a fit of that site."""
    if site not in sites:
        raise ValueError(
            f"ColdFD at {site} has sites {list(map(str, sites))}, without its own. "
            "Pass a layer, a Site, or a list of them to fit."
        )


def require_whole_texts(window: Window) -> None:
    """Raise ValueError unless the pass holds texts from their first token on."""
    if bool(window.first.any()):
        raise ValueError(
            "The derivative at a token depends on all tokens before it: give whole texts, as "
            "steerlens.batch makes them."
        )


def context_of(window: Window) -> Context:
    """The run that a pass belongs to; ValueError where the window does not know it."""
    if window.context is None:
        raise ValueError(
            "COLD-FD must see the tokens, and this window does not know them. Take a window of "
            "tokens, window = steerlens.batch(model, prompts), or use generate(...), which keeps "
            "count from pass to pass."
        )
    return window.context
