"""One forward pass on any backend: explicit mask, explicit positions, optional cache, early stop.

HookedTransformer keeps its cache in its own class and takes the mask of the new tokens alone;
TransformerBridge takes transformers' cache, the mask of all tokens so far, and position ids. Both
derive wrong positions for left-padded batches in some call or other, so here they are always given.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.identity import device_of, is_bridge, loaded
from steerlens.runtime.bare import bare_of, blocks_run
from steerlens.runtime.turns import alone_with, hooked, takes_turns
from steerlens.scopes import Window
from steerlens.sites import Site, require_site
from steerlens.types import HookedModel, Residual, Tokens, Where

Wanted = Literal["all", "last"]


class _Enough(Exception):
    """Raised in the deepest hook that is needed; nothing above it runs."""


@dataclass(eq=False)
class Cache:
    """Keys and values of earlier passes, in the backend's own class, and the mask so far.

    `entries` is None where the model keeps none: its layers carry a state of another kind, or hand
    nothing on. The first pass is then like any other, and every later one must begin anew.
    """

    entries: Any
    mask: Where

    @classmethod
    def empty(cls, model: HookedModel, batch: int) -> "Cache":
        """A cache that holds nothing yet."""
        device = device_of(model)
        return cls(
            _entries(model, batch, device), torch.ones((batch, 0), dtype=torch.bool).to(device)
        )

    def grown(self, window: Window) -> Where:
        """Remember the mask of the coming pass; return the mask of all tokens so far."""
        self.mask = torch.cat([self.mask, window.mask], dim=1)
        return self.mask


def _entries(model: HookedModel, batch: int, device: torch.device) -> Any:
    if keeps_state(model):
        return None
    if is_bridge(model):
        from transformers import DynamicCache, PretrainedConfig

        config = getattr(model.original_model, "config", None)  # pyright: ignore
        return (
            DynamicCache(config=config) if isinstance(config, PretrainedConfig) else DynamicCache()
        )
    from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache

    return TransformerLensKeyValueCache.init_cache(model.cfg, device, batch)


@takes_turns
def logits(
    model: HookedModel,
    tokens: Tokens,
    window: Window,
    wanted: Wanted = "all",
    cache: Cache | None = None,
) -> Float[Tensor, "row wanted d_vocab"]:
    """Next-token logits at every column, or at the last column alone.

    One row a text; within `logits_where` a single row of the chosen tokens.
    """
    if is_bridge(model):
        return _bridge(model, tokens, window, cache, wanted)
    if wanted == "all":
        return _hooked(model, tokens, window, cache)
    top = _hooked(model, tokens, window, cache, stop_at_layer=model.cfg.n_layers)
    return _unembed(model, top[:, -1:])


@takes_turns
def blocks_only(model: HookedModel, run: Callable[[], Any], last: int) -> None:
    """Call `run` and break its pass off after block `last`: no later block, no logits.

    Hooks that are on the model see what they see in a full pass, gradients included.
    """

    def enough(activation: Residual, hook: Any = None) -> None:
        raise _Enough

    with hooked(model, [(Site(last).hook_name, enough)]):
        try:
            run()
        except _Enough:
            return
    raise RuntimeError(f"The forward pass never met {Site(last)}.")


@takes_turns
def logits_where(
    model: HookedModel, run: Callable[[], Float[Tensor, "row wanted d_vocab"]], where: Where
) -> Float[Tensor, "token d_vocab"]:
    """The logits of `run`, a full pass, at the tokens of `where` alone; no others are made."""
    name = UNEMBEDDED[is_bridge(model)]
    if name not in model.hook_dict:
        return run()[where]
    with hooked(model, [(name, lambda h, hook=None: h[where][None])]):
        return run()[0]


@takes_turns
def logits_from(
    model: HookedModel, residual: Residual, layer: int, tokens: Tokens, window: Window
) -> Float[Tensor, "row wanted d_vocab"]:
    """Next-token logits of a pass that enters block `layer` with `residual`; nothing below runs.

    `layer` may be the number of layers, where only the final norm and the unembedding are left.
    Gradients reach `residual`.
    """
    if not 0 < layer <= model.cfg.n_layers:
        raise ValueError(
            f"A pass can enter at layers 1 to {model.cfg.n_layers} of this model (the last of them "
            f"above all blocks); asked for layer {layer}."
        )
    if not is_bridge(model):
        options = {"attention_mask": window.mask.long(), "start_at_layer": layer}
        return model(residual, **options)  # pyright: ignore
    with alone_with(model), _entering(model, residual, layer):
        return _bridge(model, tokens, window, None, "all")


def keeps_state(model: HookedModel) -> bool:
    """Whether layers carry a state from token to token that no key-value cache holds (Mamba)."""
    return bool(getattr(getattr(model, "original_model", None), "_is_stateful", False))


def pads_left(model: HookedModel) -> bool:
    """Whether rows with padding on their left come out as they do alone.

    `load` has tried it. Of a model that it did not load it is only believed where no state goes
    from token to token.
    """
    known = loaded(model)
    return known.pads if known is not None else not keeps_state(model)


def batches(
    model: HookedModel, lengths: Sequence[int], size: int, side: str = "left"
) -> Iterator[list[int]]:
    """The numbers of the rows of each batch, at most `size`, in the order given.

    A model that cannot be padded on the left gets rows of one length at a time.
    """
    alike = side == "left" and not pads_left(model)
    groups: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        groups.setdefault(length if alike else 0, []).append(number)
    for group in groups.values():
        for start in range(0, len(group), size):
            yield group[start : start + size]


UNEMBEDDED = {True: "unembed.hook_in", False: "ln_final.hook_normalized"}
"""Where the tokens to unembed can be chosen, by whether the model is a bridge: from there on each
token goes by itself."""


@contextmanager
def _entering(model: Any, residual: Residual, layer: int) -> Iterator[None]:
    """Blocks below `layer` hand on what they are given; the last of them hands on `residual`.

    A bridge leaves its loop over the blocks to transformers, which knows no entry but the first.
    """
    with ExitStack() as stack:
        for number, block in enumerate(blocks_run(model)[:layer], start=1):
            instead = residual if number == layer else None
            handing = functools.partial(_hand_on, block, block.forward, instead)
            stack.enter_context(in_place_of(block, handing))
        yield


@contextmanager
def in_place_of(block: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """`forward` instead of the block's own inside."""
    # What is in the instance hides the method of its class until it is taken out. Plain assignment
    # would set it on the transformers block that a bridge wraps as well.
    held, before = vars(block), vars(block).get("forward")
    held["forward"] = forward
    try:
        yield
    finally:
        held.pop("forward") if before is None else held.update(forward=before)


def _hand_on(
    block: Any, forward: Callable[..., Any], instead: Residual | None, *given: Any, **named: Any
) -> Any:
    """What a block returns that changes nothing: the residual, in the form that the loop expects.

    Some architectures' blocks return a tuple, with states or attention patterns behind the
    residual. Which is known after a block of this kind has run once.
    """
    kind = type(block), type(getattr(block, "original_component", None))
    if kind not in _BEHIND:
        with torch.no_grad():
            returned = forward(*given, **named)
        _BEHIND[kind] = len(returned) - 1 if isinstance(returned, tuple) else None
    handed = instead
    if handed is None:
        handed = given[0] if given else named["hidden_states"]
    behind = _BEHIND[kind]
    return handed if behind is None else (handed, *(None,) * behind)


_BEHIND: dict[tuple[type, type], int | None] = {}
"""How many things stand behind the residual in what a kind of block returns; None: no tuple."""


@takes_turns
def read(
    model: HookedModel,
    tokens: Tokens,
    window: Window,
    readers: Mapping[Site, Callable[[Residual], None]],
    attach: Callable[[], None] | None = None,
    before: bool = False,
    cache: Cache | None = None,
) -> None:
    """Call each reader with the activation at its site; stop the pass after the deepest of them.

    `attach` puts steering hooks on; the readers see what these return, or, with `before`, what
    they are given. A `cache` serves only passes that read the same sites.
    """
    known = model.hook_dict  # a bridge builds it anew at each look
    for site in readers:
        if site.hook_name not in known:
            require_site(model, site)
    waiting = {site.hook_name for site in readers}

    def hook_of(site: Site) -> Callable[..., None]:
        def hook(activation: Residual, hook: Any = None) -> None:
            readers[site](activation)
            waiting.discard(site.hook_name)
            if not waiting:
                raise _Enough

        return hook

    hooks = [site.hook(hook_of(site)) for site in readers]
    if attach is not None and not before:
        attach()
    with hooked(model, hooks):
        if attach is not None and before:
            attach()
        try:
            if is_bridge(model):
                _bridge(model, tokens, window, cache, "last")
            else:
                _hooked(model, tokens, window, cache, return_type=None)
        except _Enough:
            return
    raise RuntimeError(f"The forward pass ended before these hook points were met: {waiting}.")


def _hooked(
    model: HookedModel, tokens: Tokens, window: Window, cache: Cache | None, **options: Any
) -> Any:
    if cache is not None:
        cache.grown(window)
        options["past_kv_cache"] = cache.entries
    return model(tokens, attention_mask=window.mask.long(), **options)


def _unembed(
    model: Any, top: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "batch wanted d_vocab"]:
    final = model.ln_final(top) if model.cfg.normalization_type is not None else top
    scores = model.unembed(final)
    cap = model.cfg.output_logits_soft_cap
    return cap * torch.tanh(scores / cap) if cap > 0 else scores


def _bridge(
    model: Any, tokens: Tokens, window: Window, cache: Cache | None, wanted: Wanted
) -> Float[Tensor, "row wanted d_vocab"]:
    positions = window.positions.clamp(min=0) if window.padded else window.positions
    options: dict[str, Any] = {"position_ids": positions, "use_cache": False}
    _require_filled(cache)  # a pass that was broken off has not been checked yet
    seen = window.mask if cache is None else cache.grown(window)
    # An all-true mask says nothing; without it transformers keeps its fast causal path.
    if not bool(seen.all()):
        _require_pads(model, window)
        options["attention_mask"] = seen.long()
    if cache is not None and cache.entries is not None:
        options |= {_cache_name(type(model.original_model)): cache.entries, "use_cache": True}
    if wanted == "last" and _keeps_logits(type(model.original_model)):
        options["logits_to_keep"] = 1
    bare = bare_of(model, goes_on=seen.shape[1] > tokens.shape[1])
    scores = _through(model, tokens, options) if bare is None else bare.logits(tokens, **options)
    if cache is not None and not _filled(cache):
        cache.entries = None  # this pass needed nothing of what it should have left behind
    return scores[:, -1:] if wanted == "last" else scores


def _through(model: Any, tokens: Tokens, options: Mapping[str, Any]) -> Tensor:
    """The bridge itself, with all of its hook points."""
    with ExitStack() as stack:
        if "attention_mask" in options:
            stack.enter_context(_mask_for_float32(model))
        if options["use_cache"]:
            stack.enter_context(_cache_reaches_attention(model))
        return model(tokens, **options)


def _require_filled(cache: Cache | None) -> None:
    if cache is not None and cache.mask.shape[1] > 0 and not _filled(cache):
        raise ValueError(
            "This model does not fill a key-value cache (a bridge made by boot_native does not, "
            "nor does one whose layers carry a state): call generate(..., cache=False)."
        )


def _require_pads(model: Any, window: Window) -> None:
    if window.mask.shape[1] == 1:
        return  # looked at with the first pass of these texts
    before_token = ~window.mask[:, :-1] & window.mask[:, 1:]
    if bool(before_token.any()) and not pads_left(model):
        raise ValueError(
            "This model reads padding: a row with padding on its left comes out otherwise than "
            "alone. Pad on the right, batch(model, prompts, side='right'), or give rows of one "
            "length; generate and capture do so by themselves."
        )


def _filled(cache: Cache) -> bool:
    return cache.entries is not None and cache.entries.get_seq_length() == cache.mask.shape[1]


@functools.cache
def _keeps_logits(kind: type[torch.nn.Module]) -> bool:
    return "logits_to_keep" in inspect.signature(kind.forward).parameters


@functools.cache
def _cache_name(kind: type[torch.nn.Module]) -> str:
    """What a class of transformers calls its cache: `cache` since 5.24."""
    known = inspect.signature(kind.forward).parameters
    return "cache" if "cache" in known else "past_key_values"


@contextmanager
def _mask_for_float32(model: Any) -> Iterator[None]:
    """`limit_masks` for the length of a pass, on a bridge in float64 that `load` did not make."""
    in_doubt = loaded(model) is None and next(model.parameters()).dtype == torch.float64
    handles = limit_masks(model) if in_doubt else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def limit_masks(model: Any) -> list[Any]:
    """Keep the numbers of a bridge's masks within float32, in which attention takes its softmax.

    The least number of float64 is minus infinity there, and a row of nothing else, that of a
    padding token, becomes NaN. Returns handles that take this back.
    """
    return [
        block.register_forward_pre_hook(_with_lesser_mask, with_kwargs=True)
        for block in model.blocks
    ]


def _with_lesser_mask(_: Any, given: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    mask = options.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim < 4:
        return given, options
    # Half of the least number, so that adding a score to it gives no infinity either.
    least = torch.tensor(torch.finfo(torch.float32).min / 2, dtype=torch.float64).to(mask.device)
    added = torch.where(mask, 0.0, least) if mask.dtype == torch.bool else mask.clamp(min=least)
    return given, options | {"attention_mask": added}


@contextmanager
def _cache_reaches_attention(model: Any) -> Iterator[None]:
    """The bridge's own attention finds the cache that transformers' blocks hand it.

    Blocks hand it under the name that transformers' attention knows. A bridge computes attention
    itself and looks for `past_key_values` alone (up to 4.3), so under a new name nothing is filled.
    """
    with ExitStack() as stack:
        for block in model.blocks:
            attention: Any = getattr(block, "attn", None)
            original = getattr(attention, "original_component", None)
            if _misses_cache(type(attention), type(original)):
                handle = attention.register_forward_pre_hook(_also_as_past, with_kwargs=True)
                stack.callback(handle.remove)
        yield


@functools.cache
def _misses_cache(attention: type, original: type) -> bool:
    """Whether a bridge's attention looks for its cache under another name than it is given."""
    from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge

    if not issubclass(attention, AttentionBridge) or not issubclass(original, torch.nn.Module):
        return False
    # One that leaves the work to transformers' attention hands on what it is given.
    itself = attention.forward is not AttentionBridge.forward
    return itself and _cache_name(original) == "cache"


def _also_as_past(_: Any, given: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return given, {"past_key_values": options.get("cache"), **options}
