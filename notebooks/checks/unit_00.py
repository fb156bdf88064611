"""The checks of unit 0, the tour. Each is named like its exercise."""

import torch

from checks.answers import called, described
from checks.comparing import expect
from checks.material import normal
from checks.verdicts import require

TEXT = "Floccinaucinihilipilification, extraordinarily: what a film!"
OPINIONS = (
    *("positive", "negative", "happy", "kind", "glad", "warm", "cheerful", "enthusiastic", "nice"),
    *("good", "great", "bad", "sad", "love", "hate", "praise", "blame", "optimistic", "friendly"),
)


def n_tokens(n_tokens, *, model):
    right = len(model.tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    expect(
        called(n_tokens, TEXT),
        right,
        [
            (len(TEXT.split()), "You counted words. A long word may have several tokens."),
            (len(TEXT), "You counted characters."),
            (
                model.to_tokens(TEXT).shape[1],
                "A special token is counted as well: `to_tokens` puts BOS in front.",
            ),
        ],
        what="`n_tokens(text)`",
    )
    return "Tokens are neither words nor letters."


def first_difference(first_difference):
    one, other = list("abcdefg"), list("abxdyyy")
    expect(
        called(first_difference, one, other),
        2,
        [
            (3, "Counted from 1: off by one. The first place is 0."),
            (4, "This is how many places differ."),
            (0, "This is the first place at which they are *the same*."),
            ("x", "The place is asked for, not what stands there."),
        ],
        what="`first_difference(one, other)`",
    )
    expect(
        called(first_difference, one, one[:4]),
        4,
        what="`first_difference`, where one list is the beginning of the other,",
    )
    return "Up to there both are the same."


def pushed(pushed):
    h, v = normal(2, 5, 8, seed=1), 3 * normal(8, seed=2)
    u, sizes = v / v.norm(), h.norm(dim=-1, keepdim=True)
    expect(
        called(pushed, h, v),
        h + u * sizes,
        [
            (h + v * sizes, "The direction has a length of its own: bring it to length 1 first."),
            (
                h + u * h.norm(),
                "You used one length for everything. Each token has its own: `norm(dim=-1, keepdim=True)`.",
            ),
            (
                h + u * h.norm(dim=1, keepdim=True),
                "Wrong axis: you measured over positions. The length of one activation is over d_model.",
            ),
            (h + u, "The push has length 1; it should be as long as the token's activation."),
            (
                h + v,
                "The push should be as long as the token's activation, whatever the length of v.",
            ),
            (h - u * sizes, "Wrong sign: you subtracted."),
            (u * sizes, "You return the push alone. Add it to the activation."),
        ],
        what="`pushed(activation, direction)`",
    )
    return "A push as long as what it meets, so it fits any model."


def along(along):
    deltas, v = normal(6, 8, seed=3), 3 * normal(8, seed=4)
    right = deltas @ v / (v @ v)
    expect(
        called(along, deltas, v),
        right,
        [
            (
                deltas @ v / v.norm(),
                "You divided by the length of v. `along(v[None], v)` should be 1, so divide by the square "
                "of the length.",
            ),
            (deltas @ v, "It is not divided by anything, so it grows with the length of v."),
            (
                torch.cosine_similarity(deltas, v[None], dim=-1),
                "This is the cosine, which does not know how far a token went.",
            ),
            (
                right[:, None] * v,
                "These are the parts along v, as vectors. One number for each token is asked for.",
            ),
            (right.mean(), "One number for all; each token should keep its own."),
        ],
        what="`along(deltas, v)`",
    )
    return "1 is as far as v itself."


def off_axis(off_axis):
    deltas, v = normal(6, 8, seed=5), 2 * normal(8, seed=6)
    part = (deltas @ v / (v @ v))[:, None] * v
    rest = deltas - part
    expect(
        called(off_axis, deltas, v),
        rest.norm(dim=-1),
        [
            (
                deltas.norm(dim=-1) - part.norm(dim=-1),
                "Subtract the vectors, not their lengths (think of a right angle), and measure afterwards.",
            ),
            (
                (deltas - v).norm(dim=-1),
                "You compared with v, as if each token should have moved by just v. Take away *its* part.",
            ),
            (rest, "This is what remains, as vectors. Its length is asked for."),
            (rest.norm(dim=0), "Wrong axis: one length for each token, `dim=-1`."),
            (rest.square().sum(dim=-1), "These are squares of lengths: take the root."),
            (part.norm(dim=-1), "This is the length of what lies *along* v."),
        ],
        what="`off_axis(deltas, v)`",
    )
    return "Along and off the axis, squared, add up to the square of the whole change."


def relative_rmse(relative_rmse):
    steered, prompted, plain = (normal(6, 8, seed=seed) + seed for seed in (7, 8, 11))
    off, nothing = steered - prompted, plain - prompted
    right = float(off.norm() / nothing.norm())
    expect(
        called(relative_rmse, steered, prompted, plain),
        right,
        [
            (right**2, "The root is missing: this is a ratio of squares."),
            (
                float(off.norm() / prompted.norm()),
                "You divided by the size of the activations. Divide by how far the *plain* run is off.",
            ),
            (
                float((off.norm(dim=-1) / nothing.norm(dim=-1)).mean()),
                "You took a ratio for each token, and then the mean. Sum first, above and below the line.",
            ),
            (1 / right, "It is upside down: the steered run belongs above the line."),
            (
                float((steered - plain).norm() / nothing.norm()),
                "This is what the steering did, by its size. How far is it from the *prompted* run?",
            ),
            (
                float(off.square().mean().sqrt()),
                "This is the RMSE; divide by that of the plain run.",
            ),
        ],
        what="`relative_rmse(steered, prompted, plain)`",
    )
    return "Doing nothing gives exactly 1."


def best_strength(best_strength):
    delta = normal(6, 8, seed=12)
    target = 0.4 * delta + 0.5 * normal(6, 8, seed=13)
    dd, dt, tt = (
        float((a * b).sum()) for a, b in ((delta, delta), (delta, target), (target, target))
    )
    expect(
        called(best_strength, delta, target),
        dt / dd,
        [
            (-dt / dd, "Wrong sign."),
            (tt / dt, "It is upside down. Set the derivative to 0, and solve for s."),
            (dd / dt, "It is upside down. Set the derivative to 0, and solve for s."),
            (dt / (dd * tt) ** 0.5, "This is the cosine, which does not know the lengths."),
            (
                dt / tt,
                "You divided by the target's own size. Solve the derivative for s once more.",
            ),
            (
                (tt / dd) ** 0.5,
                "This is the ratio of lengths: right only if both point the same way.",
            ),
            (2 * dt / dd, "A factor 2 is too much. It stands on both sides."),
        ],
        what="`best_strength(delta, target)`",
    )
    return "One division in place of a search."


def neutral(neutral, *, INSTRUCTION, model):
    require(isinstance(neutral, str), f"`neutral` should be a text; found {described(neutral)}.")
    require(neutral.strip() != INSTRUCTION, "this is the instruction itself.")
    has, wanted = (
        len(model.tokenizer(text, add_special_tokens=False)["input_ids"])
        for text in (neutral, INSTRUCTION)
    )
    require(
        has == wanted,
        f"your text has {has} tokens, the instruction {wanted}: another length is another move.",
        "Try others; `n_tokens` counts.",
    )
    found = [word for word in OPINIONS if word in neutral.lower()]
    require(not found, f"{(found or [''])[0]!r} asks for an opinion.", "Something dull will do.")
    return f"{neutral!r} moves the response as far, and asks for nothing."
