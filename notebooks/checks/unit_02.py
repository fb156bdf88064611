"""The checks of unit 2, ActAdd. Each is named like its exercise."""

import torch

from checks.answers import called
from checks.comparing import expect
from checks.material import normal
from checks.verdicts import NotYet, require


def padded(padded, *, model):
    ids = model.to_tokens(" terrible")
    n, space = ids.shape[1], 7
    got = called(padded, ids, n + 2, space)
    filled = torch.tensor([[space, space]])
    bos = ids[:, :1]
    expect(
        got,
        torch.cat([ids, filled], dim=1),
        [
            (
                torch.cat([filled, ids], dim=1),
                "The spaces are in front, so BOS and the words have moved to other positions. "
                "Fill up at the end.",
            ),
            (
                torch.cat([bos, filled, ids[:, 1:]], dim=1),
                "The spaces stand between BOS and the words. Fill up at the end.",
            ),
            (
                torch.cat([ids, torch.full((1, n + 2), space)], dim=1),
                "You added `length` spaces. How many are *missing*?",
            ),
            (
                torch.cat([ids, filled[:, :1]], dim=1),
                "One space too few: off by one. How many are missing up to `length`?",
            ),
            (ids, "Nothing was added, though two tokens are missing."),
        ],
        what="`padded(tokens, length, space)`",
    )
    expect(
        called(padded, ids, n, space),
        ids,
        what="`padded`, where the tokens are long enough already,",
    )
    return "Both prompts can have the same length now, and no word has changed its position."


def activations_into(activations_into, *, model):
    tokens, layer = model.to_tokens("A film that I liked"), max(1, model.cfg.n_layers // 2)
    _, cache = model.run_with_cache(tokens)

    def at(number: int, name: str) -> torch.Tensor:
        return cache[f"blocks.{number}.hook_resid_{name}"][0]

    expect(
        called(activations_into, model, tokens, layer),
        at(layer, "pre"),
        [
            (
                at(layer, "post"),
                "This is what comes *out* of the layer (`resid_post`). ActAdd reads what goes in.",
            ),
            (
                at(layer - 1, "pre"),
                "Wrong layer: this goes into the layer below. Layers are counted from 0.",
            ),
            (
                at(layer, "pre")[None],
                "The axis of texts is still there, [1, positions, d_model]. There is one text: take it "
                "out with `[0]`.",
            ),
            (
                at(layer, "pre")[-1],
                "This is the last position alone. ActAdd needs all of them.",
            ),
        ],
        what="`activations_into(model, tokens, layer)`",
    )
    return "One row for each position, as they go into the layer."


def difference(difference):
    plus, minus = normal(4, 8, seed=1), normal(4, 8, seed=2)
    v = plus - minus
    expect(
        called(difference, plus, minus),
        v,
        [
            (-v, "Wrong sign: this leads from plus to minus. The text shall move *toward* plus."),
            (
                v.mean(dim=0),
                "You averaged over positions. ActAdd keeps a row for each position; it is CAA that "
                "averages.",
            ),
            (
                v.mean(dim=0, keepdim=True),
                "You averaged over positions. ActAdd keeps a row for each position.",
            ),
            (
                v / v.norm(dim=-1, keepdim=True),
                "You brought the rows to length 1. In the paper nothing is normalised: the length of a "
                "row says how much the two prompts differ there.",
            ),
            (
                v / v.norm(),
                "You brought the matrix to length 1. In the paper nothing is normalised.",
            ),
        ],
        what="`difference(plus, minus)`",
    )
    return "A small matrix, one row for each position."


def add_to_front(add_to_front):
    v, h = normal(3, 8, seed=3), normal(2, 6, 8, seed=4)
    hook = called(add_to_front, v, 4.0)
    require(
        callable(hook),
        "`add_to_front(v, c)` should give back a hook, which is a function.",
        "Define a function inside yours, and return the function itself, without calling it.",
    )

    def added(first: int, rows: torch.Tensor) -> torch.Tensor:
        moved = h.clone()
        moved[:, first : first + len(rows)] += rows
        return moved

    expect(
        called(hook, h, None, name="your hook"),
        added(0, 4 * v),
        [
            (added(0, v), "The strength is missing: c times v is added."),
            (
                added(1, 4 * v),
                "Off by one: row 0 of v belongs to position 0. That BOS's row is zero is no reason to "
                "leave the place out.",
            ),
            (added(3, 4 * v), "This is the end of the text. The paper adds at the front."),
            (added(0, -4 * v), "Wrong sign: you subtracted."),
            (
                h + 4 * v.mean(dim=0),
                "The mean row went to every position. Here each row has its own position.",
            ),
            (h, "Nothing was added. Is the changed copy what you return?"),
            (
                added(0, 4 * v) - h,
                "You return the push alone. A hook returns the activations *with* it.",
            ),
        ],
        what="what your hook returns",
    )
    return "Row i goes to position i, and the tensor of the model stays as it was."


def odds(odds):
    log_p = normal(5, 40, seed=5).log_softmax(dim=-1)
    praise, blame = [3, 8, 9], [0, 20]
    p = log_p.exp()
    right = (p[:, praise].sum(dim=-1) / p[:, blame].sum(dim=-1)).log()
    expect(
        called(odds, log_p, praise, blame),
        right,
        [
            (-right, "Wrong sign: praise stands above the line, blame below."),
            (
                log_p[:, praise].sum(dim=-1) - log_p[:, blame].sum(dim=-1),
                "You summed log-probabilities, which multiplies the probabilities. “Any of these words” "
                "is the *sum of probabilities*: logsumexp.",
            ),
            (
                log_p[:, praise].mean(dim=-1) - log_p[:, blame].mean(dim=-1),
                "You averaged log-probabilities. “Any of these words” is the *sum of probabilities*: "
                "logsumexp.",
            ),
            (
                p[:, praise].sum(dim=-1) / p[:, blame].sum(dim=-1),
                "These are the odds themselves; the logarithm of them is asked for.",
            ),
            (
                p[:, praise].sum(dim=-1) - p[:, blame].sum(dim=-1),
                "A difference of probabilities is no odds. Take the difference of their *logarithms*.",
            ),
            (
                right.mean(),
                "One number for all tokens; each token should keep its own. Sum over words alone.",
            ),
        ],
        what="`odds(log_p, praise, blame)`",
    )
    return "+1 means that the odds of praise rise by a factor of e, which is about 2.7."


def kl(kl):
    p = normal(5, 12, seed=6).log_softmax(dim=-1)
    q = normal(5, 12, seed=7).log_softmax(dim=-1)
    right = (p.exp() * (p - q)).sum(dim=-1)
    expect(
        called(kl, p, q),
        right,
        [
            (
                (q.exp() * (q - p)).sum(dim=-1),
                "This is the other KL, from unsteered to steered. KL is not symmetric: the first argument "
                "is the distribution that one averages with.",
            ),
            (
                (p.exp() * (p - q)).mean(dim=-1),
                "A mean over the vocabulary divides by its size. The probabilities are the weights "
                "already, so sum.",
            ),
            (
                (p - q).sum(dim=-1),
                "Every word counts the same here. Weight each by its probability under the steered model.",
            ),
            (-right, "Wrong sign: a KL is never negative."),
            (
                (p.exp() * (p - q)).sum(dim=0),
                "Wrong axis: you summed over tokens. Sum over the vocabulary, the last axis.",
            ),
            (
                (p * (p - q)).sum(dim=-1),
                "The weights are log-probabilities here. Take `.exp()` of them.",
            ),
            (right.mean(), "One number for all tokens; each token should keep its own."),
        ],
        what="`kl(moved, unsteered)`",
    )
    return "Zero where nothing changes, and never below."


def add_to_back(add_to_back):
    v, h, n_prompt = normal(2, 8, seed=8), normal(1, 9, 8, seed=9), 6
    hook = called(add_to_back, v, 4.0, n_prompt)
    require(callable(hook), "`add_to_back(v, c, n_prompt)` should give back a hook.")

    def added(first: int) -> torch.Tensor:
        moved = h.clone()
        moved[:, first : first + len(v)] += 4 * v
        return moved

    expect(
        called(hook, h, None, name="your hook"),
        added(n_prompt - len(v)),
        [
            (
                added(h.shape[1] - len(v)),
                "You added at the end of the *pass*, on the response. As the response grows, that place "
                "moves. Count from `n_prompt`.",
            ),
            (
                added(n_prompt),
                "You began at the first token of the response. The last row of v belongs to the last "
                "token of the prompt.",
            ),
            (
                added(n_prompt - len(v) + 1),
                "Off by one: a token of the response was changed. Positions of the prompt end at "
                "`n_prompt - 1`.",
            ),
            (
                added(n_prompt - len(v) - 1),
                "Off by one: the last token of the prompt was not changed. A slice leaves out its end.",
            ),
            (added(0), "This is the front."),
        ],
        what="what your hook returns",
    )
    return "The end of the prompt keeps its place, however long the response grows."


def joint(joint, *, first_v, second_v):
    n = max(len(first_v), len(second_v))

    def both(a: float, b: float, back: bool = False) -> torch.Tensor:
        rows = torch.zeros(n, first_v.shape[1])
        for c, v in ((a, first_v), (b, second_v)):
            start = n - len(v) if back else 0
            rows[start : start + len(v)] += c * v
        return rows

    short = min(len(first_v), len(second_v))
    expect(
        joint,
        both(3, -2),
        [
            (both(1, 1), "The strengths are missing: 3 for the first, -2 for the second."),
            (both(3, 2), "Wrong sign: the strength of the second is -2."),
            (both(1, -1), "The strengths are missing: 3 for the first, -2 for the second."),
            (
                both(3, -2)[:short],
                "Rows of the longer matrix got lost. Fill the shorter one up with zeros.",
            ),
            (
                both(3, -2, back=True),
                "The shorter matrix is at the back. Both begin at position 0.",
            ),
        ],
        what="`joint`",
    )
    return "One matrix does what the two additions do, in either order."


def evenly(evenly):
    v, met = normal(4, 8, seed=10), 5 * normal(4, 8, seed=11)
    v[0] = 0
    directions = v / v.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    lengths = met.norm(dim=-1, keepdim=True)
    right = directions * lengths / 4
    got = called(evenly, v, met, 0.25)
    if isinstance(got, torch.Tensor) and got.shape == v.shape and bool(got[0].isnan().any()):
        raise NotYet(
            "row 0 is NaN: its length is 0, and you divided by that.",
            "Divide by `length.clamp(min=1e-9)`: zero divided by something small is zero.",
        )
    expect(
        got,
        right,
        [
            (4 * right, "The share is missing: each row adds all of what it meets."),
            (
                v * lengths / 4,
                "The rows keep a length of their own: bring each to length 1 first.",
            ),
            (
                v / 4,
                "This is a quarter of v itself. A quarter of the length of `met` is asked for.",
            ),
            (
                directions / 4,
                "Every row has length 1/4. It should be a quarter of the length of the activation.",
            ),
            (
                met / 4,
                "These are the directions of `met`, the text's own activations. Keep those of v.",
            ),
            (
                directions * met.norm() / 4,
                "One length for the whole matrix. Each row meets its own activation: `norm(dim=-1)`.",
            ),
            (
                directions * met.norm(dim=-1).mean() / 4,
                "The mean length, the same for all rows. Each row meets its own activation.",
            ),
        ],
        what="`evenly(v, met, share)`",
    )
    return "Every row adds the same share of what it meets."
