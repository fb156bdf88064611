"""The transformers model inside a bridge, run without the bridge's inner hook points.

A TransformerBridge wraps every module of the model, down to single matrices, so that each has hook
points; on a model of some millions of parameters these take as long as the numbers do. A pass on
which no hook acts but at the blocks' ends has no need of them. `Bare` is the same model put
together anew of the same modules, with only those hook points in it. It has no weights of its own:
what changes in the bridge changes here.

It is used for a pass only where nothing else could be met inside: `suits` looks through the hooks
of all modules, and whether any was replaced. That costs 0.03 ms on six layers, 0.1 ms on thirty.
"""

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from steerlens.types import HookedModel

ORIGINAL = "_original_component"
_LOOKS_FOR_PADDING = "warn_if_padding_and_no_attention_mask"
_BARE: "weakref.WeakKeyDictionary[Any, Bare]" = weakref.WeakKeyDictionary()


@dataclass(eq=False, repr=False)
class Bare:
    """The bare model, and what must not have changed in the bridge for it to be the same."""

    model: Any
    quiet: tuple[dict[Any, Any], ...]
    wired: tuple[dict[Any, Any], ...]
    counts: list[int]
    states: tuple[dict[str, Any], ...]
    names: tuple[str, ...]
    inside: tuple[dict[str, Any], ...]
    children: list[Any]
    tied: tuple[dict[str, Any], ...]
    kinds: tuple[str, ...]
    places: list[int]
    last_hook: int = -1

    @classmethod
    def of(cls, bridge: Any) -> "Bare":
        """The bare model of a bridge; ValueError where it would not be the same function."""
        assembly = _Assembly()
        bare, served = assembly.of(bridge), assembly.served
        everything = [*nn.Module.modules(bridge), *nn.Module.modules(bridge.original_model)]
        used = set(map(id, nn.Module.modules(bare)))
        watched = [one for one in dict.fromkeys(everything) if id(one) not in used | served]
        hooks = [kind for one in watched for kind in (one._forward_hooks, one._forward_pre_hooks)]
        # A bridge puts a few hooks on itself, in its first pass.
        wired = tuple(kind for kind in hooks if kind)
        states = tuple(vars(one) for one in watched if not _is_hook_point(one))
        held = [(one._modules, n, child) for one in watched for n, child in one._modules.items()]
        return cls(
            bare,
            tuple(kind for kind in hooks if not kind),
            wired,
            list(map(len, wired)),
            states,
            tuple(name for _, name, _ in held),
            tuple(modules for modules, _, _ in held),
            [child for _, _, child in held],
            tuple(parameters for parameters, _ in assembly.tied),
            tuple(kind for _, kind in assembly.tied),
            [parameters[kind].data_ptr() for parameters, kind in assembly.tied],
        )

    def suits(self) -> bool:
        """Whether a pass of the bridge would meet nothing that is not in the bare model too."""
        return not (
            any(self.quiet)
            or any(map(dict.get, self.states, repeat("training")))
            or any(map(dict.__contains__, self.states, repeat("forward")))
            or list(map(len, self.wired)) != self.counts
            # By identity: a list looks at that first, and modules know no other equality.
            or list(map(dict.get, self.inside, self.names)) != self.children
            or list(map(Tensor.data_ptr, map(dict.get, self.tied, self.kinds))) != self.places  # pyright: ignore
        )

    def logits(self, tokens: Tensor, **options: Any) -> Float[Tensor, "row wanted d_vocab"]:
        """What the bridge would return for these tokens."""
        return self.model(input_ids=tokens, **options).logits


def bare_of(model: HookedModel, goes_on: bool = False) -> Bare | None:
    """The bare model to run in place of the bridge for a pass without gradients, if one may.

    Amid a text that `goes_on`, it is looked at anew only after a hook was put on somewhere.
    """
    bare = _BARE.get(model) if not torch.is_grad_enabled() else None
    if bare is None:
        return None
    last_hook = RemovableHandle.next_id  # torch numbers all hooks, of whatever module
    if not goes_on or last_hook != bare.last_hook:
        bare.last_hook = last_hook if bare.suits() else -1
    return bare if bare.last_hook == last_hook else None


def keep_bare(model: HookedModel, bare: Bare | None) -> None:
    """Run this in place of the bridge from now on, where it suits; None: always the bridge."""
    _BARE.pop(model, None)
    if bare is not None:
        _BARE[model] = bare


class _Assembly:
    """Puts the modules inside a bridge together without it; each only once."""

    def __init__(self) -> None:
        self.made: dict[int, nn.Module] = {}
        self.served: set[int] = set()
        self.tied: list[tuple[dict[str, Any], str]] = []

    def of(self, bridge: Any) -> nn.Module:
        """The bare model; ValueError if the bridge uses weights that are not in it."""
        self.blocks = {id(block) for block in bridge.blocks}
        self.unembed = id(bridge.unembed)
        bare = self.without(bridge.original_model)
        known = {id(one) for one in bare.parameters()}
        known |= {id(parameters[kind]) for parameters, kind in self.tied}
        if any(id(one) not in known for one in nn.Module.parameters(bridge)):
            raise ValueError("The bridge has weights that transformers' modules do not have.")
        return bare

    def without(self, module: nn.Module) -> nn.Module:
        """The module without anything of a bridge in or around it."""
        if id(module) not in self.made:
            self.made[id(module)] = self._without(module)
        return self.made[id(module)]

    def _without(self, module: nn.Module) -> nn.Module:
        original = module._modules.get(ORIGINAL)
        if original is None:
            return self._with_children(module, dict(self._children(module)))
        own = self.without(original)
        if module._modules.keys() >= {"q", "k", "v", "qkv"}:
            self._tie(module)
        if id(module) in self.blocks:
            own = own if own is not original else _copy_of(own)
            vars(own)["forward"] = self._hooked(module, own)
        if id(module) == self.unembed:
            own = _copy_of(own)
            vars(own)["forward"] = self._fed(module, own)
        return own

    def _children(self, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        for name, child in module._modules.items():
            if child is not None and not _is_hook_point(child):
                yield name, self.without(child)

    def _with_children(self, module: nn.Module, children: dict[str, nn.Module]) -> nn.Module:
        if all(child is module._modules[name] for name, child in children.items()):
            return module
        copy = _copy_of(module)
        copy._modules = {**module._modules, **children}
        if hasattr(copy, _LOOKS_FOR_PADDING):
            # Of every pass that has no mask. Ours have one where there is any padding.
            vars(copy)[_LOOKS_FOR_PADDING] = _nothing
        return copy

    def _tie(self, bridge: Any) -> None:
        """Lay the parts of a joint matrix for Q, K and V over it, of which the bridge has copies.

        So both are changed by whatever changes one, and the copies take no memory.
        """
        joint = bridge.qkv.original_component
        parts = [getattr(bridge, name).original_component for name in "qkv"]
        for kind in ("weight", "bias"):
            whole, pieces = getattr(joint, kind), [getattr(part, kind) for part in parts]
            if whole is None:
                continue
            # GPT-2's Conv1D has its matrix the other way round.
            whole = whole if isinstance(joint, nn.Linear) or kind == "bias" else whole.T
            beside = torch.cat([piece.data for piece in pieces])
            if beside.shape != whole.shape or not torch.equal(beside, whole):
                raise ValueError("The parts of a joint matrix are not one beside the other.")
            laid = whole.data.split([len(piece) for piece in pieces])
            for part, piece, place in zip(parts, pieces, laid, strict=True):
                piece.data = place
                self.tied.append((part._parameters, kind))
            self.tied.append((joint._parameters, kind))

    def _hooked(self, bridge: Any, own: nn.Module) -> Callable[..., Any]:
        """What a block does between the hook points of its bridge."""
        run, enter, leave = type(own).forward, bridge.hook_in, bridge.hook_out
        self.served |= {id(enter), id(leave)}

        def forward(*given: Any, **options: Any) -> Any:
            if enter._forward_hooks:
                given, options = bridge._hook_input_hidden_states(given, options)
            found = run(own, *given, **options)
            return bridge._apply_output_hook(found) if leave._forward_hooks else found

        return forward

    def _fed(self, bridge: Any, own: nn.Module) -> Callable[..., Any]:
        """What the unembedding does after its hook point."""
        run, enter = type(own).forward, bridge.hook_in
        self.served.add(id(enter))

        def forward(activation: Tensor) -> Tensor:
            return run(own, enter(activation) if enter._forward_hooks else activation)

        return forward


def _copy_of(module: nn.Module) -> Any:
    """Another module of the same class with the same parameters, buffers, hooks and children."""
    copy = object.__new__(type(module))
    vars(copy).update(vars(module))
    return copy


def _is_hook_point(module: nn.Module) -> bool:
    return hasattr(module, "fwd_hooks")


def _nothing(*_: Any, **__: Any) -> None:
    """Say nothing."""
