"""The checks of unit 1, hooks by hand. Each is named like its exercise."""

import torch
from torch import Tensor

from checks.answers import called
from checks.comparing import expect
from checks.material import normal
from checks.verdicts import NotYet, require


def lengths(lengths, *, model):
    cache, layer = _cache(model)
    h = cache[f"blocks.{layer}.hook_resid_post"][0]
    expect(
        called(lengths, cache, layer),
        h.norm(dim=-1),
        [
            (
                h.norm(dim=0),
                "Wrong axis: this has one number for each of the d_model, over tokens.",
            ),
            (
                cache[f"blocks.{layer}.hook_resid_pre"][0].norm(dim=-1),
                "This is what there is *before* the layer (`resid_pre`).",
            ),
            (h.norm(), "One number for the whole text. Keep one for each token: `dim=-1`."),
            (h.square().sum(dim=-1), "These are squares of lengths: take the root."),
        ],
        what="`lengths(cache, layer)`",
    )
    return "One length for each token."


def rebuilt(rebuilt, *, model):
    cache, layer = _cache(model)

    def at(number: int, *names: str) -> Tensor:
        return sum(cache[f"blocks.{number}.hook_{name}"][0] for name in names)

    expect(
        called(rebuilt, cache, layer),
        at(layer, "resid_post"),
        [
            (
                at(layer, "resid_pre", "attn_out"),
                "What the MLP adds is missing: the MLP is missing.",
            ),
            (at(layer, "resid_pre", "mlp_out"), "Attention is missing: it adds something, too."),
            (at(layer, "attn_out", "mlp_out"), "What went in is missing: a layer adds *to* it."),
            (at(layer, "resid_pre"), "This is only what went in."),
            (at(layer + 1, "resid_post"), "Wrong layer: off by one, this is the layer above."),
        ],
        what="`rebuilt(cache, layer)`",
    )
    return "A layer adds to the stream, twice, and takes nothing out."


def adding(adding):
    v, h = normal(8, seed=1), normal(2, 5, 8, seed=2)
    last = h.clone()
    last[:, -1] += v
    first = h.clone()
    first[:, 0] += v
    expect(
        _hooked(called(adding, v), h, "`adding(v)`"),
        h + v,
        [
            (
                v.expand_as(h),
                "You return the push alone. A hook returns the activations *with* it.",
            ),
            (h - v, "Wrong sign: you subtracted."),
            (last, "You changed the last token alone; every token is meant."),
            (first, "You changed the first token alone; every token is meant."),
            (h, "Nothing was added."),
        ],
        what="what your hook returns",
    )
    return "A new tensor, and the old one is as it was."


def adding_from(adding_from):
    v, h, first = normal(8, seed=3), normal(5, 7, 8, seed=4), 3

    def added(*where: slice) -> Tensor:
        moved = h.clone()
        moved[where] += v
        return moved

    every = slice(None)
    expect(
        _hooked(called(adding_from, v, first), h, "`adding_from(v, first)`"),
        added(every, slice(first, None)),
        [
            (
                added(slice(first, None)),
                "Wrong axis: you left out texts, not positions. Positions are the second axis.",
            ),
            (
                added(every, slice(first + 1, None)),
                "Off by one: position `first` itself belongs to it.",
            ),
            (added(every, slice(first - 1, None)), "Off by one: you began one position too early."),
            (added(every, slice(None, first)), "You added up to that position, not from it on."),
            (added(every, slice(first, first + 1)), "You changed position `first` alone."),
            (h + v, "You changed every position."),
        ],
        what="what your hook returns",
    )
    return "Positions before `first` stay as they are."


def run_steered(run_steered, *, model):
    tokens, name = model.to_tokens("A film that I liked"), "blocks.0.hook_resid_post"
    with torch.no_grad():
        plain = model(tokens)
        wanted = model.run_with_hooks(tokens, fwd_hooks=[(name, _half)])
        got = called(run_steered, model, tokens, name, _half)
        left = not torch.equal(model(tokens), plain)
        model.reset_hooks()
        require(
            not left,
            "the hook is still on the model after your function: every later run is steered.",
            "`run_with_hooks`, or `with model.hooks(...)`, takes it off again.",
        )
        mistakes = [(plain, "These are the plain logits: the pass ran without the hook.")]
        expect(got, wanted, mistakes, what="`run_steered(model, tokens, name, hook)`")
        try:
            run_steered(model, tokens, name, _raising)
        except ZeroDivisionError:
            pass
        else:
            raise NotYet("an error in the hook got lost. Let it through.")
        left = _is_left(model, tokens, plain)
        model.reset_hooks()
    require(
        not left,
        "if the hook raises an error, it stays on the model: your last line is never reached.",
        "`run_with_hooks`, or `with model.hooks(...)`, takes it off whatever happens.",
    )
    return "The model is as it was, even after an error."


def removing(removing):
    v, h = 3 * normal(8, seed=5), normal(2, 5, 8, seed=6)
    u = v / v.norm()
    along = (h @ u)[..., None] * u
    expect(
        _hooked(called(removing, v), h, "`removing(v)`"),
        h - along,
        [
            (
                h - (h @ v)[..., None] * v,
                "v is not of length 1 here, so too much is taken: bring it to length 1 first.",
            ),
            (
                h - (h @ u)[..., None] * v,
                "You measured with u and took away v. Take away as much of u as there is: bring it to "
                "length 1 in both places.",
            ),
            (h + along, "You added what lies along v; take it away."),
            (
                h - u,
                "You took the same vector from every token. How much of it is in *this* token?",
            ),
            (
                h - v,
                "You took the same vector from every token. How much of it is in *this* token?",
            ),
            (along, "This is what lies along v; what remains without it is asked for."),
        ],
        what="what your hook returns",
        atol=1e-4,
    )
    return "Nothing of any activation lies along v."


def lens(lens, *, model):
    with torch.no_grad():
        cache, layer = _cache(model)
        h = cache[f"blocks.{layer}.hook_resid_post"]
        right = model.unembed(model.ln_final(h))
        expect(
            called(lens, model, h),
            right,
            [
                (model.unembed(h), "The last norm is missing: `model.ln_final` comes first."),
                (
                    model.ln_final(h),
                    "This is only normalised: compare with the words, `model.unembed`.",
                ),
                (right.softmax(dim=-1), "Logits are asked for; these are probabilities."),
                (right.log_softmax(dim=-1), "Logits are asked for; these are log-probabilities."),
            ],
            what="`lens(model, h)`",
        )
    return "What the model would say if it stopped there."


def swapping(swapping):
    h, other, position = normal(6, 7, 8, seed=7), normal(6, 7, 8, seed=8), 4

    def swapped(*where) -> Tensor:
        changed = h.clone()
        changed[where] = other[where]
        return changed

    every = slice(None)
    both = h.clone()
    both[:, position] += other[:, position]
    expect(
        _hooked(called(swapping, other, position), h, "`swapping(other, position)`"),
        swapped(every, position),
        [
            (other, "You swapped whole texts; one position is meant."),
            (
                swapped(position),
                "Wrong axis: you swapped one text. Positions are the second axis, `[:, position]`.",
            ),
            (both, "You added; the old activation should be gone."),
            (swapped(every, slice(None, position)), "You swapped all up to that position."),
            (swapped(every, slice(None, position + 1)), "You swapped all up to that position."),
            (swapped(every, position + 1), "Off by one: this is the position after it."),
            (h, "Nothing was swapped."),
        ],
        what="what your hook returns",
    )
    return "One position from another run, the rest as it was."


def centred(centred):
    h = normal(2, 5, 8, seed=9) + 3
    right = h - h.mean(dim=-1, keepdim=True)
    expect(
        called(centred, h),
        right,
        [
            (
                h - h.mean(dim=1, keepdim=True),
                "You took the mean over positions. Each token has a mean of its own numbers: `dim=-1`.",
            ),
            (
                h - h.mean(),
                "You took one mean of everything. Each token has a mean of its own numbers: `dim=-1`.",
            ),
            (
                right / h.std(dim=-1, keepdim=True),
                "You divided by the standard deviation as well, as the norm does. Only subtract.",
            ),
        ],
        what="`centred(h)`",
    )
    return "The numbers of each token add up to 0."


def _cache(model):
    """A cache of one text, and a layer that has one above it."""
    _, cache = model.run_with_cache(model.to_tokens("A film that I liked"))
    return cache, max(0, model.cfg.n_layers // 2 - 1)


def _hooked(hook, h: Tensor, what: str) -> Tensor:
    require(
        callable(hook),
        f"{what} should give back a hook, which is a function.",
        "Define a function inside yours, and return the function itself, without calling it.",
    )
    return called(hook, h, None, name="your hook")


def _half(activation, hook=None):
    return activation / 2


def _raising(activation, hook=None):
    return 1 / 0


def _is_left(model, tokens: Tensor, plain: Tensor) -> bool:
    try:
        return not torch.equal(model(tokens), plain)
    except ZeroDivisionError:
        return True
