"""The checks of unit 7, PSR. Each is named like its exercise."""

from types import SimpleNamespace

import torch
from torch import Tensor

from checks.answers import called, described
from checks.comparing import expect
from checks.material import normal
from checks.verdicts import NotYet, require


def n_steered(n_steered):
    row = SimpleNamespace(ids=list(range(100, 120)), response=13)
    expect(
        called(n_steered, row),
        8,
        [
            (
                7,
                "These are the tokens of the response. The last token of the prompt is missing: it "
                "predicts the response's first word.",
            ),
            (6, "You are off by two: the response goes to the end of the row."),
            (9, "Off by one: one token of the prompt is steered, not two."),
            (13, "This is the number of *prompt* tokens. How many come from there on?"),
            (14, "These are the tokens from the start on. The end of the row is steered."),
            (20, "These are all tokens of the row; most of the prompt is not steered."),
        ],
        what="`n_steered` of a row of 20 tokens, whose response begins at position 13,",
    )
    return "From the last token of the prompt to the end."


def targets(targets, *, model):
    ids = model.to_tokens("A film that I liked, and one that I did not")[0].tolist()
    first, n = max(1, model.cfg.n_layers // 2), 3
    layers = list(range(first, model.cfg.n_layers))
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([ids]))
    got = called(targets, model, ids, n, layers)
    require(
        isinstance(got, (list, tuple)) and all(isinstance(each, Tensor) for each in got),
        f"`targets` should be a list of tensors; found {described(got)}.",
        "`return [... for name in names]`",
    )
    if len(got) == 1 < len(layers):
        raise NotYet("this is the lowest layer alone. All layers above it are targets, too.")
    require(
        len(got) == len(layers),
        f"`targets` gives {len(got)} tensors for {len(layers)} layers.",
        "One for each of `layers`, in their order.",
    )

    def at(name: str, positions: slice, lower: int = 0) -> Tensor:
        hooks = [f"blocks.{i - lower}.hook_{name}" for i in layers]
        return torch.stack([cache[hook][0, positions] for hook in hooks])

    right = at("resid_post", slice(-n, None))
    if got[0].ndim == 3:
        raise NotYet(
            "The axis of texts is still there, [1, n, d_model].", "There is one text: `[0, -n:]`."
        )
    expect(
        torch.stack(list(got)),
        right,
        [
            (
                at("resid_pre", slice(-n, None)),
                "These activations go *into* the layers (`resid_pre`). What leaves them is steered.",
            ),
            (
                at("resid_post", slice(None, n)),
                "These are the first n positions. The response stands at the end.",
            ),
            (
                at("resid_post", slice(-n - 1, -1)),
                "Off by one: the last token is missing. `[-n:]` goes to the end.",
            ),
            (
                right.flip(0),
                "The layers are in the wrong order. Keep that of `layers`.",
            ),
        ],
        what="`targets(model, ids, n, layers)`",
    )
    return "What the steered run shall look like, from our layer to the last."


def best_constant(best_constant):
    plain, prompted = normal(9, 5, seed=1), 1 + normal(9, 5, seed=2)
    delta = prompted - plain
    z = delta.mean(dim=0)
    expect(
        called(best_constant, plain, prompted),
        z,
        [
            (-z, "Wrong sign: this leads from prompted to plain."),
            (
                delta.median(dim=0).values,
                "The *median* makes absolute distances smallest. For squares it is another average.",
            ),
            (
                z / z.norm(),
                "You brought it to length 1. Here its length counts: z is added as it is.",
            ),
            (delta, "This is a vector for each token. One for all of them is asked for."),
            (
                delta.mean(dim=1),
                "Is it the right axis? You averaged over width; average over tokens, `dim=0`.",
            ),
            (delta.sum(dim=0), "This is the sum over tokens, which grows with their number."),
            (delta[-1], "This is what the last token wants. There are others."),
            (prompted.mean(dim=0), "This is a mean of activations. What leads *from* plain there?"),
            (delta.mean().expand(5), "You averaged over everything; keep the width."),
        ],
        what="`best_constant(plain, prompted)`",
    )
    return "No other single vector comes closer, at this layer."


def gate(gate):
    h, w, b = normal(3, 6, 8, seed=3), normal(8, seed=4), 0.5
    inside = h @ w + b
    expect(
        called(gate, h, w, b),
        inside.relu(),
        [
            (inside, "This gate never closes: relu puts 0 in place of whatever is negative."),
            ((h @ w).relu() + b, "b stands outside of the relu. It shifts where the gate opens."),
            ((h @ w).relu(), "b is missing: relu(w · h + b)."),
            (
                inside.sigmoid(),
                "This is a sigmoid, which is never quite 0 and at most 1. Use relu.",
            ),
            ((h * w + b).relu(), "You have not summed over the width: one gate for each token."),
            ((-inside).relu(), "Wrong sign: it is open where it should be closed."),
            (inside.abs(), "An absolute value opens on both sides. relu opens on one."),
        ],
        what="`gate(h, w, b)`",
    )
    return "Closed on one side of a plane, and wider and wider open on the other."


def psr_hook(psr_hook):
    h, n, b = normal(2, 9, 8, seed=5), 4, 0.5
    w, z = normal(8, seed=6), normal(8, seed=7)
    hook = called(psr_hook, w, b, z, n)
    require(
        callable(hook),
        "`psr_hook(w, b, z, n)` should give back a hook, which is a function.",
        "Define a function inside yours, and return the function itself, without calling it.",
    )
    gates = (h @ w + b).relu()[..., None]

    def on(tokens: slice, push: Tensor) -> Tensor:
        steered = h.clone()
        steered[:, tokens] += push[:, tokens]
        return steered

    end = slice(-n, None)
    right = on(end, gates * z)
    expect(
        called(hook, h, None, name="your hook"),
        right,
        [
            (h + gates * z, "You steered every token. Only the last n are steered."),
            (on(slice(0, n), gates * z), "You steered the *first* n tokens; the end is meant."),
            (
                right[:, end],
                "You return the last n alone: the tokens before are lost. `torch.cat`.",
            ),
            (on(end, z.expand_as(h)), "The gate is missing: every token gets all of z."),
            (on(end, gates * w), "You pushed along w, which the gate reads. The push is along z."),
            (
                on(slice(-n - 1, -1), gates * z),
                "Off by one: the last token is not steered. `[:, -n:]` goes to the end.",
            ),
            (
                on(slice(-n + 1, None), gates * z),
                "Off by one: the first of the n tokens is not steered.",
            ),
            (
                on(end, (h @ w + b)[..., None] * z),
                "The gate never closes. Use your `gate`, with its relu.",
            ),
            (on(end, -gates * z), "Wrong sign: you subtracted."),
            (right - h, "You return the push alone. A hook returns the activations *with* it."),
            (h, "Nothing was added. Is the steered tensor what you return?"),
        ],
        what="what your hook returns",
    )
    return "The prompt before stays as it was, but for its last token."


def imitation_loss(imitation_loss):
    reached = [normal(5, 8, seed=seed) for seed in (10, 11, 12)]
    wanted = [normal(5, 8, seed=seed) + seed / 20 for seed in (13, 14, 15)]
    deltas = [a - b for a, b in zip(reached, wanted, strict=True)]
    each = torch.stack([delta.square().mean() for delta in deltas])
    expect(
        called(imitation_loss, reached, wanted),
        each.sum(),
        [
            (each.mean(), "You averaged over layers. Over layers it is a sum."),
            (
                torch.stack([delta.square().sum() for delta in deltas]).sum(),
                "You summed over tokens, so a long response would weigh more than a short one. At a "
                "layer take the mean.",
            ),
            (
                torch.stack([delta.square().sum(dim=-1).mean() for delta in deltas]).sum(),
                "You summed over the width. Take the mean over tokens and width.",
            ),
            (each[0], "This is one layer alone, the lowest. All of them count."),
            (each[-1], "This is one layer alone, the highest. All of them count."),
            (
                torch.stack([delta.abs().mean() for delta in deltas]).sum(),
                "The differences are not squared.",
            ),
            (
                torch.stack([delta.mean().square() for delta in deltas]).sum(),
                "You averaged before you squared, so differences of opposite sign cancel.",
            ),
            (each.sqrt().sum(), "There is a square root too many: the mean *square* is meant."),
            (each, "One number for each layer. Add them up."),
        ],
        what="`imitation_loss(reached, wanted)`",
    )
    return "0 if the steered run has the prompted activations everywhere."


def firing_rate(firing_rate):
    h = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1], [3, 1], [0.5, 0], [-2, 0.25]])
    w, b = torch.tensor([1.0, 0.0]), -0.5  # gates .5, 0, 0, 0, 2.5, 0, 0
    got = called(firing_rate, h, w, b)
    expect(
        got,
        2 / 7,
        [
            (
                3 / 7,
                "This is how *far* it is open on average. At how many tokens is it open at all?",
            ),
            (2.0, "This is how many tokens, not the share of them."),
            (1.0, "A closed gate is 0, so `>= 0` holds everywhere. Open is *above* 0."),
            (5 / 7, "This is the share at which it is closed."),
        ],
        what="`firing_rate(h, w, b)`",
    )
    return "0 is dead, 1 is a dial."


def closed(closed):
    few, many = torch.tensor([0.1, 0.0, 0.3, 0.05]), torch.tensor([0.5, 1.5, 0.0, 1.0, 0.25])
    for gates, right in ((few, 0.55), (many, 0.0)):
        total = gates.sum()
        expect(
            called(closed, gates),
            torch.tensor(right),
            [
                (
                    1 - total,
                    "Where the gates are wide open this is negative: it rewards opening them further and "
                    "further. Stop at 0.",
                ),
                (
                    torch.relu(1 - gates).sum(),
                    "You ask each gate on its own to be 1. Only their *sum* has to be: most gates may "
                    "stay closed.",
                ),
                (
                    torch.relu(1 - gates.mean()),
                    "This is the mean of the gates. Their *sum* has to be 1: one open gate is enough.",
                ),
                (
                    torch.relu(total - 1),
                    "Wrong sign: this penalises open gates. It is closed ones that are to be avoided.",
                ),
                (
                    torch.tensor(1.0) * (total < 1),
                    "This has no gradient: 1 or 0, whatever the gates.",
                ),
            ],
            what=f"`closed({[round(float(gate), 2) for gate in gates]})`",
        )
    leaf = few.clone().requires_grad_()
    require(
        called(closed, leaf).requires_grad,
        "gradients do not get through it.",
        "Do not convert with `float(...)`, `.item()` or `.detach()` on the way.",
    )
    return "It asks that somewhere in a response the gate is open."


def rank_r(rank_r):
    h, W, Z = normal(2, 6, 8, seed=20), normal(3, 8, seed=21), normal(3, 8, seed=22)
    b = torch.tensor([0.5, -0.25, 0.1])
    inside = h @ W.T + b
    gates = inside.relu()
    expect(
        called(rank_r, h, W, b, Z),
        h + gates @ Z,
        [
            (
                h + inside.sum(dim=-1, keepdim=True).relu() * Z.sum(dim=0),
                "One gate for all directions: relu stands around the sum. Each k has a gate of its own.",
            ),
            (
                h + gates.sum(dim=-1, keepdim=True) * Z.sum(dim=0),
                "Here every gate opens every direction. Gate k belongs to direction k alone.",
            ),
            (h + inside @ Z, "These gates never close: relu is missing."),
            (gates @ Z, "This is the push alone. h itself belongs to the result."),
            (h + (h @ W.T).relu() @ Z, "b is missing."),
            (h + ((h @ W.T).relu() + b) @ Z, "b stands outside of the relu."),
            (h + gates[..., :1] * Z[0], "This is the first gate alone."),
            (h - gates @ Z, "Wrong sign: you subtracted."),
        ],
        what="`rank_r(h, W, b, Z)`",
    )
    return "With r = 1 it is the PSR from above."
