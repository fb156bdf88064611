"""Several threads or asyncio tasks on one model: no pass runs under what another one put there.

Hooks act in the passes of whoever put them on (`hooked`). Passes of ours wait for each other
(`in_turn`), because what is replaced on a model for a pass, such as its weights, every pass would
see. A pass of the caller's own cannot be made to wait, so there it is an error (`alone_with`).

A turn lasts for one pass and never while the caller has the model: between two pieces of a stream,
or inside a `with` block of `steering.applied`. So whoever waits for a turn waits for a pass, and
nobody waits for himself.
"""

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from steerlens.types import HookedModel

Owner: TypeAlias = tuple[int, Any]
Model = TypeVar("Model", bound=HookedModel)
Options = ParamSpec("Options")
Result = TypeVar("Result")
OURS = -1
"""TransformerLens takes hooks off by their level, and gives levels from 0 up to those of others."""

_LOCKS: dict[int, Any] = {}
"""The lock of each model and tokenizer, by its id: a model of the caller's own may have no hash."""
_CHANGING = threading.RLock()
"""Held while a lock is looked up, and while hooks are put on or taken off."""


def here() -> Owner:
    """The thread that asks and, where an event loop runs in it, the task."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        task = None
    return threading.get_ident(), task


@contextmanager
def in_turn(model: HookedModel) -> Iterator[None]:
    """No other thread runs a pass of ours on `model` inside; blocks may be inside each other."""
    with _lock_of(model):
        yield


def _lock_of(shared: Any) -> Any:
    with _CHANGING:
        if id(shared) not in _LOCKS:
            _LOCKS[id(shared)] = threading.RLock()
            weakref.finalize(shared, _LOCKS.pop, id(shared))  # another one may get its id
        return _LOCKS[id(shared)]


def takes_turns(
    run: Callable[Concatenate[Model, Options], Result],
) -> Callable[Concatenate[Model, Options], Result]:
    """A function whose first argument is a model, run in turn on that model."""

    @wraps(run)
    def waiting(model: Model, *given: Options.args, **options: Options.kwargs) -> Result:
        with in_turn(model):
            return run(model, *given, **options)

    return waiting


def tokenizer_in_turn(
    write: Callable[Concatenate[Model, Options], Result],
) -> Callable[Concatenate[Model, Options], Result]:
    """A function whose first argument is a model, whose tokenizer serves one thread at a time.

    It waits for no pass: who holds the tokenizer never waits for the model.
    """

    @wraps(write)
    def waiting(model: Model, *given: Options.args, **options: Options.kwargs) -> Result:
        tokenizer = getattr(model, "tokenizer", None)
        with nullcontext() if tokenizer is None else _lock_of(tokenizer):
            return write(model, *given, **options)

    return waiting


@contextmanager
def hooked(model: HookedModel, hooks: Sequence[tuple[str, Callable[..., Any]]]) -> Iterator[None]:
    """The hooks are on `model` inside, and act in the passes of this thread and task alone."""
    owner = here()
    with _CHANGING:
        handles = _put_on(model, [(name, _owned(hook, owner)) for name, hook in hooks])
    try:
        yield
    finally:
        with _CHANGING:
            for point, handle in handles:
                handle.hook.remove()
                point.fwd_hooks = [one for one in point.fwd_hooks if one is not handle]


def _put_on(
    model: HookedModel, hooks: Sequence[tuple[str, Callable[..., Any]]]
) -> list[tuple[Any, Any]]:
    """Put hooks on that only their own handles take off; (hook point, handle) of each.

    `model.hooks` counts on the model how many blocks are open, and takes the wrong hooks off where
    blocks overlap without one being inside the other, as those of two threads do.
    """
    known = model.hook_dict  # a bridge builds it anew at each look
    added: list[tuple[Any, Any]] = []
    for name, hook in hooks:
        point: Any = known[name]
        point.add_hook(hook, level=OURS)
        added.append((point, point.fwd_hooks[-1]))
    return added


def _owned(hook: Callable[..., Any], owner: Owner) -> Callable[..., Any]:
    """`hook` in the passes of its owner; nothing in those of others."""

    # TransformerLens hands the second argument on by this name.
    def owned(activation: Float[Tensor, "batch pos ..."], hook: Any = None) -> Any:
        if here() != owner:
            return _left_alone()
        return inner(activation, hook)

    inner = hook
    return owned


def _left_alone() -> None:
    """What a hook does in the pass of another thread: nothing, or RuntimeError amid gradients.

    On an accelerator, gradients are taken in threads of torch, and a checkpoint runs the model
    again there: without the hooks, the gradients would be those of another function.
    """
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            "The model is run again while gradients are taken, in another thread than the one that "
            "steers it, as gradient checkpointing does on an accelerator. Switch it off: "
            "model.gradient_checkpointing_disable()."
        )


_GUARDS: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""The hooks by which passes of other threads are refused."""


def is_guard(hook: object) -> bool:
    """Whether a hook of a whole model only refuses the passes of other threads."""
    return hook in _GUARDS


@contextmanager
def alone_with(model: HookedModel) -> Iterator[None]:
    """`in_turn`, and a pass in another thread that does not wait is a RuntimeError inside.

    For a pass whose weights or blocks are replaced.
    """
    with in_turn(model), refusing_others(model):
        yield


@contextmanager
def refusing_others(model: HookedModel) -> Iterator[None]:
    """Inside, every pass in another thread or task is a RuntimeError; for what lasts."""
    owner = here()

    def refuse(module: Any, given: Any) -> None:
        if here() != owner:
            raise RuntimeError(
                "This model is in use: another thread (or asyncio task) has put other weights or "
                "blocks in it for a while, for COLD-Steer, a LoRA or a training. Run your pass "
                "after that (put one lock of your own around both), or load the model a second "
                "time."
            )

    _GUARDS.add(refuse)
    with in_turn(model):  # passes that began before end before
        handle = torch.nn.Module.register_forward_pre_hook(model, refuse)  # pyright: ignore
    try:
        yield
    finally:
        handle.remove()
