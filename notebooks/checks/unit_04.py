"""The checks of unit 4, a prompt is an intervention. Each is named like its exercise."""

from functools import partial

import torch

from checks.answers import called, described
from checks.comparing import expect
from checks.material import normal
from checks.verdicts import require


def push(push):
    plain, prompted, n = normal(6, 5, seed=1), normal(9, 5, seed=2), 3
    right = prompted[-n:] - plain[-n:]
    start = len(plain) - n
    expect(
        called(push, plain, prompted, n),
        right,
        [
            (-right, "Wrong sign: this leads from the prompted activations to the plain ones."),
            (
                prompted[:n] - plain[:n],
                "You counted from the left, where the prompts stand. The response stands at the right end.",
            ),
            (
                prompted[start : start + n] - plain[start:],
                "You took the same positions in both rows. The prompted row is longer, so the same "
                "*position* holds another token there. Count from the right end.",
            ),
        ],
        what="`push(plain, prompted, n)`",
    )
    return "The same words after two prompts, word by word."


def putting(putting):
    values, h = normal(3, 8, seed=3), normal(2, 7, 8, seed=4)
    hook = called(putting, values)
    require(
        callable(hook),
        f"`putting(values)` should give back a hook, which is a function; found {described(hook)}.",
        "Define a function inside yours, and return the function itself, without calling it.",
    )
    right = torch.cat([h[:, :-3], values.expand(2, -1, -1)], dim=1)
    front = torch.cat([values.expand(2, -1, -1), h[:, 3:]], dim=1)
    added = torch.cat([h[:, :-3], h[:, -3:] + values], dim=1)
    one_text = torch.cat([right[:1], h[1:]])
    expect(
        called(hook, h, None, name="your hook"),
        right,
        [
            (added, "You *added* the values. They shall stand in place of what was there: `=`."),
            (front, "The values are at the front. The response stands at the end."),
            (
                values.expand(2, -1, -1),
                "The positions before them are gone. Keep those as they are.",
            ),
            (h, "Nothing was replaced. Is the changed copy what you return?"),
            (
                one_text,
                "You changed the first text alone. The first axis holds the texts: `[:, ...]`.",
            ),
        ],
        what="what your hook returns",
    )
    return "The last positions are replaced, and the tensor of the model stays as it was."


def local_push(local_push, *, model):
    response, layer = (
        model.to_tokens(" a film that I liked", prepend_bos=False),
        model.cfg.n_layers // 2,
    )
    rows = [
        torch.cat([model.to_tokens(text), response], dim=1)
        for text in ("I went to the cinema. It was", "Be kind. I went to the cinema. It was")
    ]
    name, n = f"blocks.{layer}.hook_resid_", response.shape[1]
    places = (f"{name}pre", f"{name}post")
    before, after = _read(model, rows[1], places, n)
    plain_after = _read(model, rows[0], places, n)[1]
    through = _read(model, rows[0], places[1:], n, [(places[0], _hook(before, add=False))])[0]
    right = after - through
    expect(
        called(local_push, model, rows[0], layer, before, after),
        right,
        [
            (
                after - plain_after,
                "This is the accumulated push: the layer was given its *plain* input. Put `before` in place "
                "at its `resid_pre` first.",
            ),
            (
                after - before,
                "This is all that the layer adds in the prompted run, or `before` was put in place *after* "
                "the layer. What would it make of `before` if it attended to the plain prompt?",
            ),
            (-right, "Wrong sign: what the prompted run has more is asked for."),
            (through, "This is what the layer makes of `before`; it is still to be subtracted."),
        ],
        what="`local_push(...)`",
        atol=1e-4,
    )
    return "What comes from below is in `before`; this is what the layer itself adds."


def hooks_of(hooks_of):
    entry, local, h = normal(3, 5, seed=5), normal(4, 3, 5, seed=6), normal(2, 7, 5, seed=7)
    first, after = "blocks.0.hook_resid_pre", [f"blocks.{i}.hook_resid_post" for i in range(4)]
    got = called(hooks_of, entry, local)
    require(
        isinstance(got, (list, tuple))
        and all(isinstance(one, (list, tuple)) and len(one) == 2 for one in got),
        f"`hooks_of` should give back a list of (name, hook); found {described(got)}.",
    )
    names = [name for name, _ in got]
    require(
        f"{first.replace('0', '1')}" not in names,
        "you add what a layer adds to what goes *into* a layer.",
        "A local push comes out of its layer: `resid_post`. Only `entry` is added at `resid_pre` of layer 0.",
    )
    require(first in names, "`entry` is missing.", f"It is added at `{first}`.")
    missing = [name for name in after if name not in names]
    require(not missing, f"there is no hook at {', '.join(missing)}.", "One for every layer.")
    require(len(got) == 5, f"there are {len(got)} hooks; one for each place is enough.")
    found = dict(got)
    for name, values in zip((first, *after), (entry, *local), strict=True):
        _expect_added(found[name], name, values, local[-1], h)
    return "With these the plain prompt becomes the prompted one."


def leave_one_out(leave_one_out):
    example = torch.tensor([0, 0, 0, 0, 1, 2, 2, 1])
    deltas = normal(8, 5, seed=8) + 1
    sums = torch.stack([deltas[example == k].sum(dim=0) for k in range(3)])
    counts = torch.tensor([4.0, 2, 2])[:, None]
    of_others = (sums.sum(dim=0) - sums) / (8 - counts)
    means = sums / counts
    expect(
        called(leave_one_out, deltas, example),
        of_others[example],
        [
            (
                deltas.mean(dim=0).expand(8, -1),
                "This is the mean over all tokens: each has a part in its own ruler.",
            ),
            (
                (deltas.sum(dim=0) - deltas) / 7,
                "You left out the token, but not the others of its example, which are much like it.",
            ),
            (means[example], "This is the mean of its *own* example; all others are asked for."),
            (
                ((means.sum(dim=0) - means) / 2)[example],
                "You averaged means of examples: short examples weigh as much as long ones then. Every "
                "*token* shall count the same.",
            ),
            (
                of_others,
                "There is one row for each example; each *token* shall have its row. `axes[example == k] = ...`",
            ),
        ],
        what="`leave_one_out(deltas, example)`",
    )
    return "No token has a part in its own ruler."


def gini(gini):
    x = torch.tensor([3.0, 0.5, 1.0, 7.0, 2.0, 0.0])
    differences = x[:, None] - x[None, :]
    right = float(differences.abs().mean() / (2 * x.mean()))
    expect(
        called(gini, x),
        right,
        [
            (2 * right, "*Half* of the mean difference is asked for, so that 1 is the most."),
            (0.0, "The signs cancel: take absolute differences."),
            (
                right * float(x.mean()),
                "It is still to be divided by the mean, or it depends on the unit.",
            ),
            (
                right * 6 / 5,
                "You left out the pairs of each with itself. Here all pairs count, each with itself, too.",
            ),
            (
                float((x[1:] - x[:-1]).abs().mean() / (2 * x.mean())),
                "You compared neighbours alone. All pairs are meant.",
            ),
        ],
        what="`gini(x)`",
    )
    expect(called(gini, torch.ones(7)), 0.0, what="`gini` of seven ones")
    return "It does not change when all pushes are doubled."


def r_squared(r_squared):
    y, mean = normal(9, seed=9) + 1, torch.tensor(0.4)
    guess = 0.5 * y + 0.3 * normal(9, seed=10) + 0.7
    missed, without = (y - guess).square().sum(), (y - mean).square().sum()
    right = float(1 - missed / without)
    correlation = float(torch.corrcoef(torch.stack([y, guess]))[0, 1])
    expect(
        called(r_squared, y, guess, mean),
        right,
        [
            (1 - right, "This is the share of what is *missed*: subtract it from 1."),
            (
                correlation**2,
                "This is the square of the correlation, which forgives a guess that is too high everywhere, or "
                "twice too large. A gate would push so.",
            ),
            (
                float(1 - missed / (y - y.mean()).square().sum()),
                "You took the mean of `y` itself, which is not known before one has measured. Use `mean`.",
            ),
            (
                float(1 - (y - guess).abs().sum() / (y - mean).abs().sum()),
                "Square the errors before you sum them.",
            ),
            (
                float(1 - (y - guess).square().sum().sqrt() / (y - mean).square().sum().sqrt()),
                "No root is taken: R² is made of squares.",
            ),
        ],
        what="`r_squared(y, guess, mean)`",
    )
    return "Below 0 is possible, and it is worse than no read-out at all."


def _hook(values, add):
    """A hook that adds values to the last positions, or puts them in place."""

    def hook(activation, hook=None):
        changed = activation.clone()
        changed[:, -len(values) :] = values + (changed[:, -len(values) :] if add else 0)
        return changed

    return hook


def _read(model, tokens, places, n, hooks=()):
    """The activations of the last n positions at some places."""
    kept = {}

    def keep(activation, hook=None, place=""):
        kept[place] = activation[0, -n:].detach().clone()

    reading = [(place, partial(keep, place=place)) for place in places]
    model.run_with_hooks(tokens, fwd_hooks=[*hooks, *reading])
    return [kept[place] for place in places]


def _expect_added(hook, name, values, last, h):
    got = called(hook, h, None, name=f"your hook at `{name}`")
    expect(
        got,
        _hook(values, add=True)(h),
        [
            (
                _hook(last, add=True)(h),
                "Every hook adds the push of the last layer. A function that is made in a loop looks up `i` "
                "when it runs; let another function make it, such as `adding(values)`.",
            ),
            (
                _hook(values, add=False)(h),
                "Your hook replaces the activations. The pushes are *added* to them.",
            ),
            (
                h + values.mean(dim=0),
                "The mean went to every position. Each token has its own push.",
            ),
            (h, "Nothing was added. Is the changed copy what you return?"),
        ],
        what=f"what your hook at `{name}` returns",
    )
