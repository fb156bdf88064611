"""The checks of unit 10, a method of one's own. Each is named like its exercise."""

import dataclasses
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checks.answers import called, described, require_touched
from checks.comparing import expect
from checks.material import normal
from checks.verdicts import NotYet, require

MOVED = "`self.u.to(activation)` has the dtype and the device of the activation; `self.w` needs it, too."


def pushes(pushes):
    plain, prompted = normal(9, 6, seed=1), normal(9, 6, seed=2) + 1.5
    push = prompted - plain
    mean = push.mean(dim=0)
    u = _unit(mean)
    got_u, got_y = _pair(called(pushes, plain, prompted), "`pushes(plain, prompted)`", "u and y")
    expect(
        got_u,
        u,
        [
            (mean, "u is not at length 1 yet: divide it by its norm."),
            (-u, "Wrong sign: a push leads *from* plain *to* prompted."),
            (-mean, "Wrong sign: a push leads *from* plain *to* prompted."),
            (
                push / push.norm(dim=-1, keepdim=True),
                "One direction for all tokens: take the mean.",
            ),
            (
                _unit((push / push.norm(dim=-1, keepdim=True)).mean(dim=0)),
                "You brought each push to length 1 before the mean. Take the mean first.",
            ),
            (
                _unit(prompted.mean(dim=0)),
                "This is the mean of the prompted activations. A push is a difference.",
            ),
        ],
        what="u",
    )
    expect(
        got_y,
        push @ u,
        [
            (push @ mean, "y is taken along the mean push before it was brought to length 1."),
            (-(push @ u), "Wrong sign: a push leads *from* plain *to* prompted."),
            (
                push.norm(dim=-1),
                "This is the length of each push, whatever its direction. How far does it go along u?",
            ),
            (
                prompted @ u,
                "This is where the token already lies along u, with the push. How far was it *pushed*?",
            ),
            (plain @ u, "This is where the plain token lies along u. How far was it pushed?"),
            ((push @ u).mean(), "This is the mean. Each token has its own."),
            (
                torch.cosine_similarity(push, u[None], dim=-1),
                "This is a cosine, which does not know how long a push is. Take the dot product.",
            ),
        ],
        what="y",
    )
    return "One direction, and a number for each token."


def ridge(ridge):
    h = normal(30, 5, seed=3) + torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])
    y = h @ normal(5, seed=4) + 2.0 + 0.5 * normal(30, seed=5)
    penalty, (n, d) = 0.7, h.shape
    eye, mean, x = torch.eye(d), h.mean(dim=0), h - h.mean(dim=0)
    centred = y - y.mean()
    w = torch.linalg.solve(x.T @ x / n + penalty * eye, x.T @ centred / n)
    got_w, got_b = _pair(called(ridge, h, y, penalty), "`ridge(h, y, penalty)`", "w and b")
    expect(
        got_w,
        w,
        [
            (
                torch.linalg.solve(x.T @ x, x.T @ centred),
                "The penalty is missing: this is plain least squares.",
            ),
            (
                torch.linalg.solve(h.T @ h / n + penalty * eye, h.T @ y / n),
                "C and g were made before the means are subtracted. Use x = h - mean, and y - its mean.",
            ),
            (
                torch.linalg.solve(x.T @ x / n + penalty, x.T @ centred / n),
                "The penalty was added to every entry of C. `penalty * torch.eye(d)` has it on the "
                "diagonal alone.",
            ),
            (
                torch.linalg.solve(x.T @ x + penalty * eye, x.T @ centred),
                "C is not divided by the number of tokens, so the penalty means less the more there are.",
            ),
            (
                torch.linalg.solve(x.T @ x + penalty * eye, x.T @ centred / n),
                "C is not divided by the number of tokens.",
            ),
            (n * w, "g is not divided by the number of tokens."),
            (
                torch.linalg.solve(x.T @ x / (n - 1) + penalty * eye, x.T @ centred / (n - 1)),
                "You divided by n - 1. A mean divides by n.",
            ),
            (
                torch.linalg.solve(x.T @ x / n + penalty**2 * eye, x.T @ centred / n),
                "The penalty is squared; it is λ itself that is added.",
            ),
            (x.T @ centred / n, "This is g alone. The matrix C + λI is missing."),
        ],
        what="w",
    )
    require(
        isinstance(got_b, float),
        f"b should be a float; found {described(got_b)}.",
        "`float(...)` around it. Fields of a method that are one number are saved as such.",
    )
    expect(
        got_b,
        float(y.mean() - w @ mean),
        [
            (
                float(y.mean()),
                "b is the mean of y here. But w · h is not 0 on average: subtract w times the mean of h.",
            ),
            (float(y.mean() + w @ mean), "Wrong sign: the mean of w · h is *subtracted*."),
            (-float(w @ mean), "The mean of y is missing in b."),
        ],
        what="b",
    )
    return (
        "No step, no learning rate, no seed: the best answer there is, for this form and penalty."
    )


def Readout(Readout):  # noqa: N802  named like the exercise
    require(
        isinstance(Readout, type),
        f"`Readout` should be a class; found {described(Readout)}.",
        "Keep the line with `class`.",
    )
    require_touched("`Readout.__call__`", Readout.__call__)
    made_by_steer = dataclasses.is_dataclass(Readout)
    method: Any = Readout
    require(
        made_by_steer and hasattr(method, "d_model"),
        "this is a class without `@steer`, so it has no checks and no files.",
        "Keep `@steer` and the three fields above `__call__`.",
    )
    h, u, w, b = normal(2, 6, 8, seed=6), normal(8, seed=7), normal(8, seed=8), 0.5
    try:
        steer: Any = method(u=u, w=w, b=b)
    except TypeError as error:
        raise NotYet(
            f"`Readout` cannot be made of u, w and b: {error}.",
            "Keep the three fields above `__call__` as they were given.",
        ) from None
    strength = (h @ w + b)[..., None]
    expect(
        called(steer, h, None, name="`Readout.__call__`"),
        h + strength * u,
        [
            (h + (h @ w)[..., None] * u, "b is missing: the strength is w · h + b."),
            (
                h + (h @ u + b)[..., None] * w,
                "u and w are in each other's place: w reads, u pushes.",
            ),
            (h + strength * w, "You push along w. w reads, u pushes."),
            (h + (h @ u + b)[..., None] * u, "You read off along u. w reads, u pushes."),
            (strength * u, "You return the push alone. A steer returns the activations *with* it."),
            (h - strength * u, "Wrong sign: you subtracted."),
            (h + strength.relu() * u, "A relu is too many here: that is a PSR."),
            (h + b * u, "The strength is the same for all tokens. Read it off: w · h + b."),
            (
                h + strength.mean(dim=1, keepdim=True) * u,
                "Each token has a strength of its own: no mean over positions.",
            ),
            (h, "Nothing was added. Is the sum what you return?"),
        ],
        what="what `Readout` makes of activations",
    )
    _require_bfloat16(steer, h)
    return "The equation, and no line more."


def _require_bfloat16(steer: Callable, h: Tensor) -> None:
    try:
        got = steer(h.bfloat16())
    except RuntimeError as error:
        raise NotYet(f"In bfloat16 it stops: {error}.", MOVED) from None
    require(
        got.dtype == torch.bfloat16,
        f"In bfloat16 it gives {got.dtype}, and the model behind it wants bfloat16.",
        MOVED,
    )


def fit(fit, Readout, *, model, PENALTY):
    import steerlens
    from steerlens import Conversation, PromptPair, capture, scope

    questions = ("How was it?", "Tell me about the film.")
    answers = (" It was good, and I liked it.", " A film about a train.")
    pairs = [
        PromptPair(Conversation(user), Conversation(user, "Be kind."), response)
        for user, response in zip(questions, answers, strict=True)
    ]
    layer, penalty = max(1, model.cfg.n_layers // 2), 10 * PENALTY
    rows = zip(*(steerlens.encode_pair(model, pair) for pair in pairs), strict=True)
    plain, prompted = (capture(model, side, layer, scope=scope.response).at(layer) for side in rows)
    got = called(fit, Readout, model, pairs, layer, penalty)
    require(
        isinstance(got, steerlens.Fit),
        f"`fit` should be a `Fit`; found a {type(got).__name__}.",
        "Keep the last line: `Fit.of` places the steer and notes what it was fitted on.",
    )
    site = steerlens.Site(layer)
    require(list(got.steers) == [site], f"The steer should be at {site}; found {list(got.steers)}.")
    made = got.steers[site]
    require(
        isinstance(made, Readout),
        f"At the layer there should be a Readout; found a {type(made).__name__}.",
        "`made = cls(u=..., w=..., b=...)`",
    )
    _require_fitted(made, plain, prompted, {"asked": penalty, "notebook's": PENALTY})
    inside = getattr(got.steering.placed[0][1], "scope", None)
    require(
        inside == scope.response,
        "it steers every token. It was fitted on the response, from the last token of the prompt on.",
        "Keep `scope=scope.response` in the last line.",
    )
    return "Fitted in one pass over each side."


def _require_fitted(
    made: Any, plain: Tensor, prompted: Tensor, penalties: dict[str, float]
) -> None:
    push = prompted - plain
    u, penalty = _unit(push.mean(dim=0)), penalties["asked"]
    w, b = _ridge(plain, push @ u, penalty)
    swapped = "u and w are swapped: the class reads with w and pushes along u."
    room, size = {"rtol": 0.02, "atol": 1e-3}, float(w.norm())  # w can be very short
    expect(
        made.u,
        u,
        [
            (-u, "Wrong sign: `pushes` takes plain first, prompted second."),
            (w, swapped),
        ],
        what="u of the fitted steer",
        **room,
    )
    gives = "w was fitted to read the *prompted* activations. "
    mistakes = [
        (
            _ridge(prompted, push @ u, penalty)[0],
            gives + "That side does not exist when the steering is used.",
        ),
        (_ridge(plain, prompted @ u, penalty)[0], "The targets are y, the pushes along u."),
        (_ridge(plain, push @ u, 0.0)[0], "The penalty did not arrive in `ridge`."),
        (
            _ridge(plain, push @ u, penalties["notebook's"])[0],
            "You took the notebook's `PENALTY`. Take the `penalty` that `fit` is given.",
        ),
    ]
    scaled = [(wrong / size, hint) for wrong, hint in mistakes]
    expect(made.w / size, w / size, scaled, what="w of the fitted steer", **room)
    expect(made.b, b, [(float((push @ u).mean()), "b is the mean of y here.")], what="b", **room)


def _ridge(h: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, float]:
    x, eye = h - h.mean(dim=0), torch.eye(h.shape[1])
    least = penalty if penalty else 1e-6
    w = torch.linalg.solve(x.T @ x / len(h) + least * eye, x.T @ (y - y.mean()) / len(h))
    return w, float(y.mean() - w @ h.mean(dim=0))


def by_hand(by_hand):
    h, u, w = (
        normal(*shape, seed=seed).double().numpy()
        for shape, seed in (((5, 4), 9), ((4,), 10), ((4,), 11))
    )
    b = 0.5
    got = called(by_hand, h, u, w, b)
    require(
        isinstance(got, np.ndarray),
        f"`by_hand` should be an array of NumPy; found {described(got)}.",
        "It is a second way of writing the equation, so it uses nothing of the first.",
    )
    strength = (h * w).sum(axis=1, keepdims=True) + b
    first_kept = h + strength * u
    last_kept = first_kept.copy()
    first_kept[0], last_kept[-1] = h[0], h[-1]
    expect(
        torch.from_numpy(np.array(got)),
        torch.from_numpy(h + strength * u),
        [
            (h + (strength - b) * u, "b is missing: the strength is w · h + b."),
            (
                h + strength.cumsum(axis=0) * u,
                "The strength adds up from token to token. Each token has its own: begin anew in the loop.",
            ),
            (first_kept, "The first token is left out. Counting begins at 0."),
            (last_kept, "The last token is left out. `range(len(h))` ends at the last one."),
            (strength * u, "This is the push alone; h is missing."),
            (h + strength * w, "You push along w. w reads, u pushes."),
            (h, "Nothing was added."),
        ],
        what="`by_hand(h, u, w, b)`",
        rtol=1e-9,
        atol=1e-9,
    )
    return "Slow, plain, and written without looking at the class."


# -- The laws --------------------------------------------------------------------------------------


def _plain(h: Tensor, hook: Any = None) -> Tensor:
    return h + 1


def _by_activation(h: Tensor, hook: Any = None) -> Tensor:
    return h + h[..., :1] ** 2


def _in_place(h: Tensor, hook: Any = None) -> Tensor:
    h += 1
    return h


def _overwriting(h: Tensor, hook: Any = None) -> Tensor:
    return h.zero_()


def _noisy(h: Tensor, hook: Any = None) -> Tensor:
    return h + torch.randn(h.shape)


def _hardly_noisy(h: Tensor, hook: Any = None) -> Tensor:
    return h * (1 + 1e-6 * torch.rand(h.shape))


def _counting() -> Callable:
    calls = []

    def steer(h: Tensor, hook: Any = None) -> Tensor:
        calls.append(1)
        return h + len(calls)

    return steer


def _judged(
    law: Callable, tried: Iterable[tuple[Any, bool, str]], name: str, *given: Any, **options: Any
) -> None:
    """Ask a law about steerings that obey, and that do not; `NotYet` with the hint of the first."""
    for steer, obeys, hint in tried:
        fresh = {key: _fresh(value) for key, value in options.items()}
        verdict = called(law, steer, *given, **fresh)
        if not isinstance(verdict, (bool, np.bool_)):
            raise NotYet(
                f"{name} should be True or False; found {described(verdict)}.",
                "`torch.equal` and `torch.allclose` give one answer for whole tensors.",
            )
        if bool(verdict) != obeys:
            said = (
                "True of a steering that breaks the law" if verdict else "False of one that obeys"
            )
            raise NotYet(f"{name} is {said}: {hint}")


def _fresh(value: Any) -> Any:
    if isinstance(value, list):
        return [_fresh(each) for each in value]
    return value.clone() if isinstance(value, Tensor) else value


def is_pure(is_pure):
    written = (
        "it writes into `h`, and was not caught. `before = h` is no copy, and both results may be one "
        "and the same tensor. Take `h.clone()` before the first call."
    )
    random = (
        "it adds random numbers, so two calls on the same activations differ. Call it twice, and "
        "compare."
    )
    changes = (
        "it adds 1, always the same. A steer is meant to change activations; what must stay is the "
        "tensor that it was given."
    )
    with torch.random.fork_rng():
        _judged(
            is_pure,
            [
                (_plain, True, changes),
                (_in_place, False, written),
                (_overwriting, False, written),
                (_noisy, False, random),
                (
                    _hardly_noisy,
                    False,
                    "it adds random numbers that are very small. `torch.allclose` does not see them; "
                    "`torch.equal` does.",
                ),
                (_counting(), False, "it pushes harder at each call. " + random),
                (_by_activation, True, changes),
            ],
            "`is_pure`",
            h=normal(2, 5, 4, seed=12),
        )
    return "Whoever calls a steer keeps what it gave, and can ask again."


def _promoting(h: Tensor, hook: Any = None) -> Tensor:
    return h + torch.ones(h.shape[-1], dtype=torch.float32)


def _flattening(h: Tensor, hook: Any = None) -> Tensor:
    return h.mean(dim=1)


def _always_float32(h: Tensor, hook: Any = None) -> Tensor:
    return h.float() + 1


def _always_bfloat16(h: Tensor, hook: Any = None) -> Tensor:
    return h.bfloat16() + 1


def keeps_form(keeps_form):
    _judged(
        keeps_form,
        [
            (
                _plain,
                True,
                "it keeps shape and dtype in float32 and in bfloat16. Is what comes out in bfloat16 "
                "compared with the dtype of `h`, which is float32?",
            ),
            (
                _promoting,
                False,
                "it adds a vector of float32, which promotes bfloat16 to float32. That is another "
                "dtype, and only shows in bfloat16.",
            ),
            (_flattening, False, "it averages over positions, and gives back a shape too small."),
            (_always_float32, False, "it turns everything into float32, which is another dtype."),
            (
                _always_bfloat16,
                False,
                "it turns everything into bfloat16, which only shows in float32. Try both.",
            ),
        ],
        "`keeps_form`",
        h=normal(2, 5, 4, seed=13),
    )
    return "A model in half precision stays in half precision."


def off_at_zero(off_at_zero):
    v = normal(6, seed=14)

    def dial(push: Callable) -> Callable:
        return lambda s: lambda h, hook=None: push(h, s)

    def renormed(h: Tensor, s: float) -> Tensor:
        moved = h + s * v
        return moved / moved.norm(dim=-1, keepdim=True) * h.norm(dim=-1, keepdim=True)

    try:
        _judged(
            off_at_zero,
            [
                (
                    dial(lambda h, s: h + s * v),
                    True,
                    "it adds s times v. Which strengths did you try?",
                ),
                (
                    dial(lambda h, s: h),
                    False,
                    "it never does anything, so 0 is no off switch. Ask about strength 1, too.",
                ),
                (
                    dial(lambda h, s: h + v),
                    False,
                    "it adds v whatever the strength. What does it do at strength 0?",
                ),
                (
                    dial(lambda h, s: h + (s + 1) * v),
                    False,
                    "at strength 0 it still adds v, and at 1 twice that. Compare both with `h` itself, not "
                    "with each other.",
                ),
                (
                    dial(renormed),
                    False,
                    "at strength 0 it divides by a length and multiplies by it again, so the last bits "
                    "differ. The law says bit for bit: `torch.equal`.",
                ),
            ],
            "`off_at_zero`",
            h=normal(3, 7, 6, seed=15),
        )
    except NotYet as reason:
        if "must be Tensor, not function" in str(reason):
            raise NotYet(
                "you gave the activations to the dial itself. `dial(0.0)` is a steer; that takes them.",
                "`dial(0.0)(h)`",
            ) from None
        raise
    return "Off means off."


def _centring(h: Tensor, hook: Any = None) -> Tensor:
    return h - h.mean(dim=1, keepdim=True)


def _across_texts(h: Tensor, hook: Any = None) -> Tensor:
    return h - h.mean(dim=0, keepdim=True)


def _second_text_only(h: Tensor, hook: Any = None) -> Tensor:
    steered = h + 1
    steered[1:] = h[1:] + 2
    return steered


def _first_of_several(h: Tensor, hook: Any = None) -> Tensor:
    steered = h + 1
    if len(h) > 1:
        steered[0] = h[0] + 2
    return steered


def _in_three_axes(h: Tensor, hook: Any = None) -> Tensor:
    if h.ndim != 3:
        raise NotYet(
            f"a steer was given {described(h)}; it gets [texts, positions, d_model].",
            "`row[None]` is a batch of one text, and `[0]` takes that text out again.",
        )
    return h + h[..., :1] ** 2


def rows_alike(rows_alike, *, padded):
    rows = [normal(6, 4, seed=16), normal(3, 4, seed=17), normal(2, 4, seed=18)]
    every = "Every row has to be compared, also the shorter ones: `all(...)`, not `any`."
    _judged(
        rows_alike,
        [
            (
                _in_three_axes,
                True,
                "it looks at one token at a time. Are only real positions compared?",
            ),
            (
                _counting(),
                False,
                "it pushes harder at each call. Did you compare without steering anything?",
            ),
            (
                _second_text_only,
                False,
                "it treats the first row alone as it should, and the others otherwise. " + every,
            ),
            (
                _first_of_several,
                False,
                "it treats the first row otherwise if there are others. " + every,
            ),
            (
                _centring,
                False,
                "it subtracts the mean over positions, padding included. Did you compare padded rows on "
                "both sides? Alone means `row[None]`. " + every,
            ),
            (
                _across_texts,
                False,
                "it subtracts the mean over texts. Compare the batch with each row alone.",
            ),
        ],
        "`rows_alike`",
        rows=rows,
    )
    return "What a text gets does not depend on its company."


def _at_the_first(h: Tensor, hook: Any = None) -> Tensor:
    steered = h.clone()
    steered[:, 0] += 1
    return steered


def _running_mean(h: Tensor, hook: Any = None) -> Tensor:
    counts = torch.arange(1, h.shape[1] + 1)[:, None]
    return h + h.cumsum(dim=1) / counts


def _long_ones_otherwise(h: Tensor, hook: Any = None) -> Tensor:
    return h + (1.0 if h.shape[1] > 1 else 2.0)


def _twos_otherwise(h: Tensor, hook: Any = None) -> Tensor:
    return h + (2.0 if h.shape[1] == 2 else 1.0)


def _largest_so_far(h: Tensor, hook: Any = None) -> Tensor:
    return h + h[..., :1].cummax(dim=1).values


def _largest_to_come(h: Tensor, hook: Any = None) -> Tensor:
    return h + h[..., 1:2].flip(1).cummax(dim=1).values.flip(1)


def _in_pieces(h: Tensor, hook: Any = None) -> Tensor:
    if h.shape[1] == 0:
        raise NotYet("a piece has no token in it.", "Cut from 1 on: `range(1, h.shape[1])`.")
    return h + h[..., :1] ** 2


def pieces_alike(pieces_alike):
    h = normal(3, 6, 4, seed=19)
    # Of the two steerings that look for the largest, each shows at a single cut: the last, the first.
    h[..., 0] = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 1.0])
    h[..., 1] = torch.tensor([1.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    _judged(
        pieces_alike,
        [
            (
                _in_pieces,
                True,
                "it looks at one token at a time. Was something steered twice, or cut between texts?",
            ),
            (
                _at_the_first,
                False,
                "it pushes the first position of whatever it is given, as ActAdd did in unit 2. Cut "
                "along positions, not between texts, and do not compare the first piece alone.",
            ),
            (
                _long_ones_otherwise,
                False,
                "it treats a piece of one token in another way. One cut alone does not show it: try "
                "every place from 1 on, and look at both pieces.",
            ),
            (
                _running_mean,
                False,
                "it adds the mean of what came before, and a piece does not know what came before. The "
                "first piece alone does not show it.",
            ),
            (
                _twos_otherwise,
                False,
                "it treats a piece of two tokens in another way. Cut in two pieces, not in single tokens.",
            ),
            (
                _largest_so_far,
                False,
                "only a cut before the last token shows what it does. `range(1, n)` ends at n - 1.",
            ),
            (
                _largest_to_come,
                False,
                "only the first piece of the first cut shows what it does. Look at both pieces, and begin "
                "to cut at 1.",
            ),
        ],
        "`pieces_alike`",
        h=h,
    )
    return "With a cache and without it, the same text."


def survives(survives, *, model):
    from steerlens import Site, at

    width, site = model.cfg.d_model, Site(0)
    forgetful, honest = (_forgetful()(v=normal(width, seed=seed)) for seed in (21, 22))
    object.__setattr__(forgetful, "_factor", 3.0)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "steering.safetensors"
        h = normal(2, 5, width, seed=20)
        for steer, obeys, hint in (
            (
                honest,
                True,
                "all that it has is in its fields. Are two steerings compared, or whether one changes "
                "the activations at all?",
            ),
            (
                forgetful,
                False,
                "it keeps a factor outside of its fields, and that is not in the file. Did the loaded "
                "one never act on h, or did you compare what it *is*, and not what it does?",
            ),
        ):
            verdict = called(survives, at(site, steer), model, file, h)
            require(file.exists(), "No file was written.", "`steering.save(file, model)`")
            file.unlink()
            require(
                isinstance(verdict, bool),
                f"`survives` should be True or False; found {described(verdict)}.",
            )
            said = "True of a steering that is lost" if verdict else "False of one that survives"
            require(verdict == obeys, f"`survives` is {said}: {hint}")
    return "What is in the fields is in the file, and nothing else is."


@cache
def _forgetful() -> type:
    """A steer that can have a hidden factor, which its file does not hold."""
    from steerlens import steer
    from steerlens.types import Direction

    @steer
    class Forgetful:
        v: Direction

        def __call__(self, activation: Tensor, hook: Any = None) -> Tensor:
            return activation + getattr(self, "_factor", 1.0) * self.v.to(activation)

    return Forgetful


def _unit(v: Tensor) -> Tensor:
    return v / v.norm()


def _pair(got: Any, name: str, what: str) -> tuple[Any, Any]:
    if not (isinstance(got, (tuple, list)) and len(got) == 2):
        raise NotYet(f"{name} should be a pair, {what}; found {described(got)}.", "`return a, b`")
    return got[0], got[1]
