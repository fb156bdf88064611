"""The transformers model inside a bridge, run without the bridge's inner hook points.

A TransformerBridge wraps every module of the model, down to single matrices, so that each has hook
points; on a model of some millions of parameters these take as long as the numbers do. A pass on
which no hook acts but at our sites has no need of them. `Bare` is the same model put together anew
of the same modules, with only those hook points in it. It has no weights of its own: what changes
in the bridge changes here.

It is used for a pass only where nothing else could be met inside: `suits` looks through the hooks
of all modules, and whether any was replaced. That costs 0.03 ms on six layers, 0.1 ms on thirty.
Passes with gradients are the bridge's own.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from operator import is_
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from steerlens.runtime.turns import is_guard
from steerlens.sites import RESIDUAL, Site, Stream
from steerlens.types import HookedModel

ORIGINAL = "_original_component"
ALL_STREAMS = RESIDUAL
"""All but z: a hook there, inside attention, makes the bridge itself run."""
RESIDUAL_ENDS: tuple[Stream, ...] = ("resid_pre", "resid_post")
LISTED = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_LOOKS_FOR_PADDING = "warn_if_padding_and_no_attention_mask"
_BARE: "weakref.WeakKeyDictionary[Any, Bare]" = weakref.WeakKeyDictionary()


@dataclass(eq=False, repr=False)
class Bare:
    """The bare model, and what must not have changed in the bridge for it to be the same.

    `guards` are the hooks of the bridge as a whole; those that refuse other threads may be there.
    """

    model: Any
    blocks: list[Any]
    guards: dict[Any, Any]
    quiet: tuple[dict[Any, Any], ...]
    wired: tuple[dict[Any, Any], ...]
    counts: list[int]
    states: tuple[dict[str, Any], ...]
    names: tuple[str, ...]
    inside: tuple[dict[str, Any], ...]
    children: list[Any]
    last_hook: int = -1

    @classmethod
    def of(cls, bridge: Any, streams: Iterable[Stream] = ALL_STREAMS) -> "Bare":
        """The bare model of a bridge, with hook points for these streams.

        ValueError where the bridge has weights that the model inside it has not.
        """
        assembly = _Assembly(bridge, streams)
        bare = assembly.whole()
        used = {*map(id, nn.Module.modules(bare)), *assembly.served}
        everything = [*nn.Module.modules(bridge), *nn.Module.modules(bridge.original_model)]
        watched = [one for one in dict.fromkeys(everything) if id(one) not in used]
        hooks = [one._forward_hooks for one in watched]
        hooks += [one._forward_pre_hooks for one in watched if one is not bridge]
        # A bridge puts a few hooks on itself, in its first pass.
        wired = tuple(kind for kind in hooks if kind)
        held = [(one._modules, n, child) for one in watched for n, child in one._modules.items()]
        return cls(
            model=bare,
            blocks=[assembly.without(block) for block in bridge.blocks],
            guards=bridge._forward_pre_hooks,
            quiet=tuple(kind for kind in hooks if not kind),
            wired=wired,
            counts=list(map(len, wired)),
            states=tuple(vars(one) for one in watched if not _is_hook_point(one)),
            names=tuple(name for _, name, _ in held),
            inside=tuple(modules for modules, _, _ in held),
            children=[child for _, _, child in held],
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
            or not all(map(is_guard, self.guards.values()))
        )

    def logits(self, tokens: Tensor, **options: Any) -> Float[Tensor, "row wanted d_vocab"]:
        """What the bridge would return for these tokens."""
        for guard in list(self.guards.values()):
            guard(self.model, (tokens,))
        return self.model(input_ids=tokens, **options).logits


def bare_of(model: HookedModel, goes_on: bool = False) -> Bare | None:
    """The bare model to run in place of the bridge for a pass without gradients, if one may.

    Amid a text that `goes_on`, it is looked at anew only after a hook was put on somewhere.
    """
    bare = _BARE.get(model) if _BARE and not torch.is_grad_enabled() else None
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


def blocks_run(model: Any) -> list[Any]:
    """The blocks that the coming pass runs: those of the bare model, or the model's own."""
    bare = bare_of(model)
    return list(model.blocks) if bare is None else bare.blocks


class _Assembly:
    """Puts the modules inside a bridge together without it, each only once."""

    def __init__(self, bridge: Any, streams: Iterable[Stream]) -> None:
        self.bridge, known = bridge, bridge.hook_dict
        names = [
            Site(n, stream).hook_name for n in range(bridge.cfg.n_layers) for stream in streams
        ]
        points = [known[name] for name in names if name in known]
        self.wanted = {*map(id, points), id(bridge.unembed.hook_in)}
        self.made: dict[int, nn.Module] = {}
        self.served: set[int] = set()
        self.joint: list[Any] = []

    def whole(self) -> nn.Module:
        """The bare model; ValueError if the bridge uses weights that are not in it."""
        bare = self.without(self.bridge.original_model)
        known = {id(one) for one in bare.parameters()}
        if any(id(one) not in known for one in nn.Module.parameters(self.bridge)):
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
            own = self._joined(module, own)
        ends = [module._modules.get(name) for name in ("hook_in", "hook_out")]
        enter, leave = (end if id(end) in self.wanted else None for end in ends)
        if enter is None and leave is None:
            return own
        self.served |= {id(end) for end in (enter, leave) if end is not None}
        hooked = _copy_of(own)
        # What is in the instance hides the method of its class.
        run = partial(type(hooked).forward, hooked)
        if module is self.bridge.unembed:
            run = partial(_of_contiguous, run)
        vars(hooked)["forward"] = partial(_between, enter, run, leave)
        return hooked

    def _children(self, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        for name, child in module._modules.items():
            if child is not None and not _is_hook_point(child):
                yield name, self.without(child)

    def _with_children(self, module: nn.Module, children: dict[str, nn.Module]) -> nn.Module:
        idle = (
            []
            if isinstance(module, LISTED)
            else [name for name, child in children.items() if type(child) is nn.Dropout]
        )
        if not idle and all(child is module._modules[name] for name, child in children.items()):
            return module
        copy = _copy_of(module)
        copy._modules = {**module._modules, **children}
        for name in idle:  # in training the bridge itself is run
            del copy._modules[name]
            vars(copy)[name] = _itself
        if hasattr(copy, _LOOKS_FOR_PADDING):
            # Of every pass that has no mask. Ours have one where there is any padding.
            vars(copy)[_LOOKS_FOR_PADDING] = _nothing
        return copy

    def _joined(self, bridge: Any, own: nn.Module) -> nn.Module:
        """Attention with one matrix for Q, K and V, of whose parts the bridge has copies."""
        joint = bridge.qkv.original_component
        places = [name for name, child in own._modules.items() if child is joint]
        parts = [getattr(bridge, name).original_component for name in "qkv"]
        if len(places) != 1:
            raise ValueError("The joint matrix of Q, K and V is not where it was looked for.")
        return self._with_children(own, {places[0]: _Joint(joint, parts)})


def _of_contiguous(run: Callable[[Tensor], Tensor], activation: Tensor) -> Tensor:
    """The unembedding, to which a bridge has given a bias of zeros.

    With a bias, and of a slice such as the last position, torch would copy the whole matrix once
    for every row of the batch.
    """
    return run(activation.contiguous())


def _between(enter: Any, run: Callable[..., Any], leave: Any, *given: Any, **options: Any) -> Any:
    """What a module does between the hook points of the bridge around it."""
    if enter is not None and enter._forward_hooks:
        if given:
            given = (enter(given[0]), *given[1:])
        else:
            options["hidden_states"] = enter(options["hidden_states"])
    found = run(*given, **options)
    if leave is None or not leave._forward_hooks:
        return found
    return (leave(found[0]), *found[1:]) if isinstance(found, tuple) else leave(found)


class _Joint(nn.Module):
    """One matrix for Q, K and V that is what the bridge's copies of its parts are.

    The parts are laid over the joint matrix, so that whatever is written into one is in both, and
    the copies take no memory. Where others stand in for the parts, they make the joint matrix.
    """

    def __init__(self, joint: Any, parts: list[Any]) -> None:
        super().__init__()
        self.joint, self.parts = joint, nn.ModuleList(parts)
        # GPT-2's Conv1D has its matrix the other way round.
        self.axis = {"weight": 0 if isinstance(joint, nn.Linear) else 1, "bias": 0}
        self.kinds = [kind for kind in self.axis if getattr(joint, kind) is not None]
        for kind in self.kinds:
            self._lay(kind)
        self.modules_read = [one._parameters for one in (joint, *parts) for _ in self.kinds]
        self.kinds_read = self.kinds * (1 + len(parts))
        self.known = self._found()
        self.places = list(map(Tensor.data_ptr, self.known))

    def forward(self, activation: Float[Tensor, "batch pos d_in"]) -> Float[Tensor, "batch pos d"]:
        if self._are_laid():
            return self.joint(activation)
        whole = {kind: self._together(kind) for kind in self.kinds}
        return torch.func.functional_call(self.joint, whole, (activation,))

    def _found(self) -> tuple[Any, ...]:
        """The tensors as they are now."""
        return tuple(map(dict.get, self.modules_read, self.kinds_read))

    def _are_laid(self) -> bool:
        """Whether all are as they were laid: the same ones, since a dual one lies on its value."""
        found = self._found()
        same = all(map(is_, found, self.known))
        return same and list(map(Tensor.data_ptr, found)) == self.places

    def _together(self, kind: str) -> Tensor:
        """The joint matrix that the parts make."""
        axis = self.axis[kind]
        parts: list[Any] = [part._parameters[kind] for part in self.parts]
        return torch.cat([part.T if axis else part for part in parts], dim=axis)

    def _lay(self, kind: str) -> None:
        whole, axis = getattr(self.joint, kind).data, self.axis[kind]
        parts: list[Any] = [part._parameters[kind] for part in self.parts]
        together = self._together(kind)
        if together.shape != whole.shape or not torch.equal(together, whole):
            raise ValueError("The parts of a joint matrix are not one beside the other.")
        sizes = [len(part) for part in parts]
        for part, place in zip(parts, whole.split(sizes, dim=axis), strict=True):
            part.data = place.T if axis else place


def _copy_of(module: nn.Module) -> Any:
    """Another module of the same class with the same parameters, buffers, hooks and children."""
    copy = object.__new__(type(module))
    vars(copy).update(vars(module))
    return copy


def _is_hook_point(module: nn.Module) -> bool:
    return type(module).__name__ == "HookPoint"


def _itself(activation: Tensor) -> Tensor:
    """What dropout does where nothing is trained."""
    return activation


def _nothing(*_: Any, **__: Any) -> None:
    """Say nothing."""
