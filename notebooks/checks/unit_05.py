"""The checks of unit 5, whose coefficients look like the prompt's. Each is named like its exercise."""

import re

import torch

from checks.answers import called, described
from checks.comparing import expect
from checks.material import normal
from checks.verdicts import NotYet, require

NEGATING = {"not", "never", "no", "don", "dont", "avoid", "without", "stop", "nothing", "instead"}


def follows(follows):
    example = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    levels = torch.tensor([0.5, 3.0, 1.5])[example]
    prompt = normal(9, seed=1) + levels
    method = 0.7 * prompt + 0.6 * normal(9, seed=2) + levels
    a, b = _within(prompt, example), _within(method, example)
    right = float(a @ b / (a.norm() * b.norm()))
    expect(
        called(follows, prompt, method, example),
        right,
        [
            (
                float(torch.corrcoef(torch.stack([prompt, method]))[0, 1]),
                "This counts the differences *between examples*, too. Subtract from each strength the mean of "
                "its own example.",
            ),
            (
                float(prompt @ method / (prompt.norm() * method.norm())),
                "This is the cosine without subtracting any mean. Center within each example first.",
            ),
            (float((a * b).mean()), "This is a covariance: divide by both norms."),
            (float(a @ b), "Divide by both norms, so that 1 is the most."),
            (-right, "Wrong sign: 1 is a method that goes up where the prompt goes up."),
        ],
        what="`follows(prompt, method, example)`",
    )
    constant = torch.full((9,), 2.0) + 1e-6 * normal(9, seed=3)
    got = called(follows, prompt, constant, example)
    if not float(got) == 0:
        raise NotYet(
            f"`follows` gives {float(got):.3g} for a method with the same strength everywhere.",
            "What remains of it is rounding, and rounding follows nobody: return 0.0 if the norm of what "
            "remains is below a thousandth of the method's norm.",
        )
    return "1 is a method that goes up and down with the prompt, whatever its strength."


def relative_rmse(relative_rmse):
    target = normal(5, 4, seed=4) * torch.tensor([3.0, 1, 1, 0.2, 2])[:, None]
    reached = 0.6 * target + 0.4 * normal(5, 4, seed=5)
    missed, whole = (reached - target).square().sum(), target.square().sum()
    lengths = reached.norm(dim=-1) - target.norm(dim=-1)
    expect(
        called(relative_rmse, reached, target),
        float((missed / whole).sqrt()),
        [
            (float(missed / whole), "The root is missing."),
            (
                float(((reached - target).norm(dim=-1) / target.norm(dim=-1)).mean()),
                "This is the mean of each token's own ratio, which tokens that are hardly pushed rule. Sum "
                "first, then divide.",
            ),
            (
                float((missed / reached.square().sum()).sqrt()),
                "You divided by the method's push. The unit is the *prompt's*, or a strong method would look "
                "good.",
            ),
            (
                float((lengths.square().sum() / whole).sqrt()),
                "You compared lengths. A push of the right length can point elsewhere: subtract the vectors "
                "first.",
            ),
            (float(missed.sqrt()), "It is still to be divided by the length of the prompt's push."),
        ],
        what="`relative_rmse(reached, target)`",
    )
    expect(called(relative_rmse, 0 * target, target), 1.0, what="`relative_rmse` of doing nothing")
    return "0 is the prompt, 1 is doing nothing."


def least_error(least_error):
    target = normal(6, 5, seed=6) + 0.5
    reached = 3 * target + 2 * normal(6, 5, seed=7)

    def error(given):
        return float(((given - target).square().sum() / target.square().sum()).sqrt())

    dot, square = (reached * target).sum(), reached.square().sum()
    cosine = float(dot / (reached.norm() * target.norm()))
    each = (reached * target).sum(dim=-1) / reached.square().sum(dim=-1)
    right = error(dot / square * reached)
    expect(
        called(least_error, reached, target),
        right,
        [
            (
                error(each[:, None] * reached),
                "Each token got a strength of its own. One s for all tokens is asked for: sum over "
                "everything.",
            ),
            (cosine, "This is the cosine. The error is the *sine* of the same angle."),
            (1 - cosine, "This is 1 less the cosine. The error is the sine, the root of 1 - cos²."),
            (1 - cosine**2, "The root is missing."),
            (
                error(reached * target.norm() / reached.norm()),
                "You made both equally long. That is not the best s, unless they point the same way: a push "
                "in a wrong direction should be shorter.",
            ),
            (error(reached), "This is the error with the strength as it is."),
            (
                error(dot / target.square().sum() * reached),
                "This s is divided by the square of the target. Divide by that of `reached`.",
            ),
        ],
        what="`least_error(reached, target)`",
    )
    expect(called(least_error, -2 * target, target), 0.0, what="`least_error` of a push backwards")
    return "What is left is direction, or the choice of tokens."


def equivalents(equivalents, *, INSTRUCTION):
    require(
        isinstance(equivalents, (list, tuple))
        and all(isinstance(text, str) for text in equivalents),
        f"`equivalents` should be a list of texts; found {described(equivalents)}.",
        '`["...", "..."]`',
    )
    require(len(equivalents) >= 2, f"At least two are asked for; found {len(equivalents)}.")
    require(
        len({text.strip().lower() for text in equivalents}) == len(equivalents),
        "there is the same text twice.",
    )
    telling = max(_words(INSTRUCTION), key=len)
    for text in equivalents:
        has = _words(text)
        require(bool(has), "one of them is empty.")
        require(
            telling not in has,
            f"{text!r} has the word {telling!r}.",
            "If a method is close to it, the reason may be the word. Say it in other words.",
        )
        require(
            not NEGATING & set(has),
            f"{text!r} asks for the opposite, as far as I can see.",
        )
        require(
            len(has) <= len(_words(INSTRUCTION)) + 6,
            f"{text!r} is much longer than the instruction.",
            "It would move the response to other positions, and the line would be of that.",
        )
    return f"{len(equivalents)} other ways to ask for the same."


def line(line):
    target = normal(5, 4, seed=8)
    others = [target + size * normal(5, 4, seed=9 + i) for i, size in enumerate((0.2, 0.5, 1.1))]
    whole = target.square().sum()
    missed = torch.stack([(other - target).square().sum() for other in others])
    ratios = (missed / whole).sqrt()
    mean_push = torch.stack(others).mean(dim=0)
    expect(
        called(line, others, target),
        float((missed.mean() / whole).sqrt()),
        [
            (
                float(((mean_push - target).square().sum() / whole).sqrt()),
                "You averaged the *pushes* of the wordings. Their mean is nearer to the target than any of "
                "them, and nobody can say a mean.",
            ),
            (
                float(ratios.mean()),
                "You averaged the roots. Average the squared errors, and take the root of that.",
            ),
            (
                float(ratios.min()),
                "This is the best wording. What does a wording *typically* reach?",
            ),
            (
                float(ratios.max()),
                "This is the worst wording. What does a wording *typically* reach?",
            ),
            (
                float((missed.sum() / whole).sqrt()),
                "You summed over the wordings; average over them, or more wordings make it worse.",
            ),
            (float(missed.mean() / whole), "The root is missing."),
        ],
        what="`line(others, target)`",
    )
    return "It does not sink when more wordings are taken."


def any_share(any_share):
    target = normal(6, 4, seed=12)
    anyone = 0.5 * target + 0.3 * normal(6, 4, seed=13)
    ratio = float((anyone - target).square().sum() / target.square().sum())
    cosine = float((anyone * target).sum() / (anyone.norm() * target.norm()))
    expect(
        called(any_share, anyone, target),
        1 - ratio,
        [
            (
                float(anyone.square().sum() / target.square().sum()),
                "This is how long the push of any instruction is, no matter where it points. Subtract first.",
            ),
            (
                1 - ratio**0.5,
                "This is 1 less the relative RMSE. Shares of *squares* add up to 1, shares of roots do not.",
            ),
            (ratio, "This is the share that *remains*: subtract it from 1."),
            (cosine, "This is a cosine, which does not ask how long the pushes are."),
        ],
        what="`any_share(anyone, target)`",
    )
    return "1: anybody's; 0: nobody else's; below 0: any instruction pushes elsewhere."


def share_along(share_along):
    axes = torch.tensor([4.0, 2.5, 1, 0.5, 0.5, 0.3])
    fitted = normal(14, 6, seed=14) * axes + torch.tensor([0.0, 0, 3, 0, 0, 0])
    held_out = normal(5, 6, seed=15) * axes + torch.tensor([0.0, 0, 3, 0, 0, 1])
    r = 2
    _, S, Vh = torch.linalg.svd(fitted, full_matrices=False)
    own = torch.linalg.svd(held_out, full_matrices=False)[2]
    centred = torch.linalg.svd(fitted - fitted.mean(dim=0), full_matrices=False)[2]
    whole = held_out.square().sum()

    def share(basis):
        return float((held_out @ basis.T).square().sum() / whole)

    each = (held_out @ Vh[:r].T).square().sum(dim=-1) / held_out.square().sum(dim=-1)
    alone = "These are not the first r directions but one of them alone: `Vh[:r]`."
    expect(
        called(share_along, fitted, held_out, r),
        share(Vh[:r]),
        [
            (
                share(own[:r]),
                "These directions were found on `held_out` itself. Find them on `fitted`.",
            ),
            (
                share(centred[:r]),
                "You subtracted the mean first, and with it the mean push, which is what steering adds.",
            ),
            (share(Vh[:, :r].T), "These are columns of Vh; the directions are its rows."),
            (
                float(S[:r].square().sum() / S.square().sum()),
                "This is the share of `fitted` itself. Project `held_out`.",
            ),
            (share(Vh[r : r + 1]), alone),
            (share(Vh[r - 1 : r]), alone),
            (share(Vh[-r:]), "These are the *last* directions, which hold least."),
            (
                float(each.mean()),
                "You averaged each token's share, which tokens that are hardly pushed rule. Sum the squares "
                "first, then divide.",
            ),
            (share(Vh[:r]) ** 0.5, "A share of *squared* lengths is asked for: no root."),
        ],
        what="`share_along(fitted, held_out, r)`",
    )
    return "With all directions it is 1."


def recovered(recovered):
    prompted = normal(6, 12, seed=16).log_softmax(dim=-1)
    plain = (2 * normal(6, 12, seed=17)).log_softmax(dim=-1)
    steered = (0.5 * prompted + 0.5 * plain + 0.3 * normal(6, 12, seed=18)).log_softmax(dim=-1)

    def kl(p, q):
        return (p.exp() * (p - q)).sum(dim=-1)

    left, whole = kl(prompted, steered), kl(prompted, plain)
    right = float(1 - left.sum() / whole.sum())
    expect(
        called(recovered, prompted, steered, plain),
        right,
        [
            (1 - right, "This is the share that is still *missing*: subtract it from 1."),
            (
                float((1 - left / whole).mean()),
                "You averaged the tokens' own shares. Sum both KLs over the tokens first: where the prompt "
                "changes nothing, a share says nothing.",
            ),
            (
                float(1 - kl(steered, prompted).sum() / kl(plain, prompted).sum()),
                "These KLs are the other way round. One averages with the *prompted* distribution.",
            ),
            (
                float(kl(steered, plain).sum() / whole.sum()),
                "This is how *much* changes, in whatever direction. What is asked is how near it comes to the "
                "prompted model.",
            ),
            (
                float(1 - kl(steered, plain).sum() / whole.sum()),
                "You compared the steered run with the plain one. Compare it with the prompted one.",
            ),
        ],
        what="`recovered(prompted, steered, plain)`",
    )
    return "1 is the prompted model's own predictions."


def _within(x, example):
    means = torch.stack([x[example == k].mean() for k in example.unique()])
    return x - means[example]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
