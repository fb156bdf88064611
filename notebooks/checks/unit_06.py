"""The checks of unit 6, CLAS. Each is named like its exercise."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from checks.answers import called, described
from checks.comparing import expect
from checks.material import normal
from checks.verdicts import NotYet, require


def alphas(alphas):
    h, c, b = normal(2, 5, 8, seed=21), normal(8, seed=22), 0.75
    right = h @ c + b
    expect(
        called(alphas, h, c, b),
        right,
        [
            (h @ c, "b is missing: α = c · h + b."),
            (
                right.clamp(min=0),
                "Strengths below 0 are cut off at 0. That is the gate of a PSR (unit 7); here a strength "
                "may be negative.",
            ),
            (h * c + b, "You have not summed: one strength for each token, over the last axis."),
            (h * c, "You have not summed: one strength for each token, over the last axis."),
            (
                (h * c + b).sum(dim=-1),
                "You added b before the sum, so it is counted once for each entry of h.",
            ),
            (right.sum(), "One number for all tokens; each token has a strength of its own."),
            (right.mean(), "One number for all tokens; each token has a strength of its own."),
        ],
        what="`alphas(h, c, b)`",
    )
    return "One strength for each token, of either sign."


def clas_hook(clas_hook):
    h, c, v = normal(2, 6, 8, seed=3), normal(8, seed=4), normal(8, seed=5)
    v, b = v / v.norm(), 0.5
    hook = called(clas_hook, c, b, v)
    require(
        callable(hook),
        "`clas_hook(c, b, v)` should give back a hook, which is a function.",
        "Define a function inside yours, and return the function itself, without calling it.",
    )
    alpha = (h @ c + b)[..., None]
    expect(
        called(hook, h, None, name="your hook"),
        h + alpha * v,
        [
            (alpha * v, "You return the push alone. A hook returns the activations *with* it."),
            (
                h + alpha.mean() * v,
                "You added one strength for all tokens. Each token has its own.",
            ),
            (
                h + alpha.mean(dim=1, keepdim=True) * v,
                "You added one strength for all tokens of a text. Each token has its own.",
            ),
            (h + alpha * c, "You pushed along c. c *reads* the strength; the push is along v."),
            (h - alpha * v, "Wrong sign: you subtracted."),
            (h + v, "The strength is missing: α times v is added."),
            (h + (alpha - b) * v, "b is missing in the strength. Use your `alphas`."),
            (h, "Nothing was added. Is the sum what you return?"),
        ],
        what="what your hook returns",
    )
    return "c says how much, v says where to."


def ablation(ablation):
    h, v = normal(2, 5, 8, seed=6), normal(8, seed=7)
    v = v / v.norm()
    got = called(ablation, v)
    if not (isinstance(got, (tuple, list)) and len(got) == 2):
        raise NotYet(
            f"`ablation(v)` should be a pair, c and b; found {described(got)}.", "`return c, b`"
        )
    c, b = got
    require(
        isinstance(c, Tensor) and c.shape == v.shape,
        f"c should be a tensor of shape [{len(v)}]; found {described(c)}.",
        "Which multiple of v is it?",
    )

    def steered(c: Tensor, b: Any) -> Tensor:
        return h + (h @ c + b)[..., None] * v

    expect(
        steered(c, b),
        steered(-v, 0.0),
        [
            (steered(v, 0.0), "Wrong sign: this doubles what lies along v."),
            (
                steered(torch.zeros_like(v), -1.0),
                "This push is the same for all tokens. Each has another amount along v to take away.",
            ),
            (
                steered(-2 * v, 0.0),
                "This goes too far: h' lies as far along v as before, on the other side. That is a "
                "reflection.",
            ),
            (
                steered(-v, -1.0),
                "c is right, but b moves every token away from 0 again. Which b leaves them there?",
            ),
            (
                steered(-v, 1.0),
                "c is right, but b moves every token away from 0 again. Which b leaves them there?",
            ),
        ],
        what="the steered activations, with your c and b,",
    )
    return "Each token loses as much as it has."


def surprise(surprise):
    logits, start = 2 * normal(7, 11, seed=8), 3
    tokens = torch.tensor([0, 4, 10, 2, 7, 5, 1])
    log_p = logits.log_softmax(dim=-1)

    def at(rows: Tensor, wanted: Tensor) -> Tensor:
        return rows.gather(1, wanted[:, None])[:, 0]

    right = -at(log_p[start - 1 : -1], tokens[start:])
    expect(
        called(surprise, logits, tokens, start),
        right,
        [
            (
                -at(log_p[start:], tokens[start:]),
                "Off by one: logits at a position predict the *next* token. You asked how likely each "
                "token is after it has been read.",
            ),
            (
                -at(log_p[start:-1], tokens[start + 1 :]),
                "The first token of the completion is missing: it is predicted at position `start - 1`.",
            ),
            (
                -at(log_p[:-1], tokens[1:]),
                "The prompt is counted, too. The steering should learn to write completions alone.",
            ),
            (-right, "Wrong sign: a surprise is never negative."),
            (
                -at(logits[start - 1 : -1], tokens[start:]),
                "Logits are not probabilities yet, nor their logarithms: `.log_softmax(dim=-1)`.",
            ),
            (
                right.mean(),
                "You averaged already. Averaged by text, a long completion would count as much as a "
                "short one; return one number for each token.",
            ),
            (right.sum(), "You summed already. Return one number for each token."),
            (
                -at(logits[start - 1 : -1].log_softmax(dim=0), tokens[start:]),
                "Wrong axis: you made probabilities over positions. They are over the vocabulary, the "
                "last axis.",
            ),
            (
                right.neg().exp(),
                "These are the probabilities themselves; minus their logarithm is asked for.",
            ),
        ],
        what="`surprise(logits, tokens, start)`",
    )
    return "0 for a token that was certain, and never below."


def one_step(one_step):
    parameters, optimiser, loss_of = _valley()
    losses = [called(one_step, parameters, optimiser, loss_of) for _ in range(2)]
    there = torch.cat([each.detach() for each in parameters])
    if torch.equal(there, torch.cat([each.detach() for each in _valley()[0]])):
        raise NotYet("the parameters have not moved.", "`optimiser.step()` moves them.")

    def bounded(given: Sequence[Tensor]) -> None:
        torch.nn.utils.clip_grad_norm_(given, 1.0)

    def each_bounded(given: Sequence[Tensor]) -> None:
        for parameter in given:
            bounded([parameter])

    expect(
        there,
        _walked(bounded),
        [
            (
                _walked(bounded, forget=False),
                "In the second step the old gradients are still there, and the new ones were added to "
                "them. Forget them first: `optimiser.zero_grad()`.",
            ),
            (
                _walked(lambda given: None),
                "The gradients were not bounded. `clip_grad_norm_` stands between `backward` and `step`.",
            ),
            (
                _walked(each_bounded),
                "You bounded the parameters each on its own, which turns the step. Give "
                "`clip_grad_norm_` the whole list at once.",
            ),
            (
                _walked(bounded, times=1),
                "After two calls the parameters have moved once. Is `step` before `backward`?",
            ),
            (_walked(bounded, times=4), "You moved twice in a single step."),
        ],
        what="where the parameters are after two steps",
    )
    require(
        not isinstance(losses[0], Tensor),
        "The loss should come as a float; this tensor still holds on to the whole computation.",
        "`return loss.item()`",
    )
    before, after = _losses()
    expect(
        losses[0],
        before,
        [(after, "This is the loss after the move. Compute it once, before.")],
        what="the loss that `one_step` returns",
    )
    return "Five lines, and the same ones for every training in this course."


def _valley() -> tuple[list[Tensor], torch.optim.Optimizer, Callable[[], Tensor]]:
    """Two parameters, an optimiser, and a loss that is steep at first."""
    one = torch.tensor([2.0, -1.0, 0.5], requires_grad=True)
    other = torch.tensor([1.5], requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 0.3])
    return (
        [one, other],
        torch.optim.SGD([one, other], lr=0.5),
        lambda: (weights * one.square()).sum() + 3 * (other - 0.2).square().sum(),
    )


def _walked(bound: Callable[[Sequence[Tensor]], None], forget: bool = True, times: int = 2):
    """Where these steps lead."""
    parameters, optimiser, loss_of = _valley()
    for _ in range(times):
        if forget:
            optimiser.zero_grad()
        loss_of().backward()
        bound(parameters)
        optimiser.step()
    return torch.cat([each.detach() for each in parameters])


def _losses() -> tuple[float, float]:
    """The loss before the first step, and after it."""
    parameters, optimiser, loss_of = _valley()
    before = loss_of()
    before.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    return before.item(), loss_of().item()


def kept(kept):
    losses, worse = [3.0, 2.5, 2.25, 2.25, 2.75, 2.5], [1.0, 1.5, 1.25, 1.75]
    got = _whole(called(kept, losses))
    expect(
        got,
        2,
        [
            (2.25, "This is the loss itself. At which *step* is it?"),
            (5, "This is the last step, whatever the losses are."),
            (3, "Of equals the first is asked for; or you are off by one: counting begins at 0."),
        ],
        what=f"`kept({losses})`",
    )
    expect(
        _whole(called(kept, worse)),
        0,
        [
            (2, "Step 0 is left out. Where every step does harm, no steering is the best."),
            (1, "Off by one: counting begins at 0."),
        ],
        what=f"`kept({worse})`",
    )
    return "No training can make it worse than nothing, on the validation pairs at least."


def _whole(got: Any) -> Any:
    """What `argmin` gives as an int; anything else as it is."""
    whole = isinstance(got, Tensor) and got.numel() == 1 and not got.is_floating_point()
    return int(got) if whole else got


def learned(learned):
    n, d = 7, 30
    got = called(learned, n, d)
    names = ["contextual", "layerwise", "single", "directions too"]
    require(isinstance(got, dict), f"`learned` should give back a dict; found {described(got)}.")
    require(
        sorted(got) == sorted(names), f"The dict should have {names}; found {list(got)}.", "Names?"
    )
    for name in names:
        require(got[name] is not ..., f"{name!r} is still `...`.", "Put a number there.")
    expect(
        got["contextual"],
        n * (d + 1),
        [
            (n * d, "You forgot b: each block has a vector c *and* a number b."),
            (d + 1, "This is what is learned at one block. There are several."),
            (n * d + 1, "There is a b at each block, not one for all."),
        ],
        what="'contextual'",
    )
    expect(
        got["layerwise"],
        n,
        [
            (1, "One strength at one block. There are several."),
            (n * d, "A fixed strength is one number a block; v was found beforehand."),
        ],
        what="'layerwise'",
    )
    expect(
        got["single"],
        1,
        [(n, "This strength is the same for all blocks, so it is learned once.")],
        what="'single'",
    )
    expect(
        got["directions too"],
        n * (2 * d + 1),
        [
            (n * (d + 1), "v is learned too, so there are two vectors at each block."),
            (2 * n * (d + 1), "There are two vectors, c and v, but one b."),
            (n * (d + 2), "v is a vector, not a number."),
            (2 * n * d, "You forgot b."),
        ],
        what="'directions too'",
    )
    return "The context costs a vector a block; a fixed strength costs a number."


def contextual_share(contextual_share):
    alpha = normal(6, seed=9) + 0.8
    square = float(alpha.square().mean())
    variance = float(alpha.var(correction=0))
    right = variance / square
    expect(
        called(contextual_share, alpha),
        right,
        [
            (1 - right, "This is the share of the mean; the rest is asked for."),
            (variance, "This is the variance itself. Divide by the mean square."),
            (
                float(alpha.var()) / square,
                "`var` divides by one less than the number of tokens: `correction=0`.",
            ),
            (right**0.5, "This is the square root: a share of squares has no root in it."),
            (
                variance / float(alpha.mean()) ** 2,
                "You divided by the square of the mean; the mean of the squares is meant.",
            ),
        ],
        what="`contextual_share(alpha)`",
    )
    flat = torch.full((5,), 3.0)
    expect(called(contextual_share, flat), 0.0, what="`contextual_share` of a fixed strength")
    return "0 for a fixed strength, 1 where the strengths cancel on average."


def within_correlation(within_correlation):
    text = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2])
    x = normal(12, seed=10) + 2 * text
    y = 0.7 * x + normal(12, seed=11) - 3 * text * (text - 1)

    def centred(values: Tensor) -> Tensor:
        means = torch.stack([values[text == t].mean() for t in range(3)])
        return values - means[text]

    def r(a: Tensor, b: Tensor) -> float:
        return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())

    a, b = centred(x), centred(y)
    each = [r(a[text == t], b[text == t]) for t in range(3)]
    expect(
        called(within_correlation, x, y, text),
        r(a, b),
        [
            (
                r(x - x.mean(), y - y.mean()),
                "The means of the texts are still in it: subtract from each token the mean of *its* text.",
            ),
            (r(x, y), "Nothing was subtracted, so the means of the texts are still in it."),
            (
                sum(each) / 3,
                "You averaged the correlations of the texts, in which a short text counts as much as a "
                "long one. Centre each text, then correlate all tokens at once.",
            ),
            (float((a * b).mean()), "This is a covariance. Divide by both lengths."),
            (float((a * b).sum()), "This is not divided by both lengths."),
            (r(a, y), "x is centred within texts, y is not."),
            (r(x, b), "y is centred within texts, x is not."),
        ],
        what="`within_correlation(x, y, text)`",
    )
    return "Whether both push at the same tokens, whatever they do to whole texts."
