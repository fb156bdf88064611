"""The checks of unit 3, directions. Each is named like its exercise."""

import re

import torch
from torch import Tensor

from checks.answers import called, described
from checks.comparing import expect
from checks.material import normal
from checks.verdicts import NotYet, require

NEGATING = {"not", "never", "no", "don", "dont", "avoid", "without", "stop", "nothing", "instead"}


def mean_difference(mean_difference):
    x, y = normal(7, 5, seed=1) + 1, torch.tensor([0.0, 1, 1, 0, 1, 1, 1])
    v = x[y == 1].mean(dim=0) - x[y == 0].mean(dim=0)
    expect(
        called(mean_difference, x, y),
        v,
        [
            (-v, "Wrong sign: this leads from label 1 to label 0."),
            (
                (x[y == 1].mean() - x[y == 0].mean()).expand(5),
                "Wrong axis: you averaged over everything. Average over rows alone, `dim=0`.",
            ),
            (
                x[y == 1].sum(dim=0) - x[y == 0].sum(dim=0),
                "These are sums, not means: the label with more rows weighs more.",
            ),
            (
                x[1::2].mean(dim=0) - x[0::2].mean(dim=0),
                "You took every second row. Here the labels do not alternate; ask `y`.",
            ),
            (
                v / v.norm(),
                "You brought it to length 1. Its length says how far the sets are apart; keep it.",
            ),
            (x[y == 1].mean(dim=0), "This is the mean of one label. Where does it lead *from*?"),
        ],
        what="`mean_difference(x, y)`",
    )
    return "From the middle of one set to the middle of the other."


def pointing(pointing):
    x, y, v = normal(20, 5, seed=2), (torch.arange(20) % 2).float(), 3 * normal(5, seed=3)
    x = x + (y[:, None] - 0.5) * 4 * v / v.norm()
    u = v / v.norm()
    for given in (v, -v):
        expect(
            called(pointing, given, x, y),
            u,
            [
                (
                    given / given.norm(),
                    "The sign is as it was: turn v round where label 1 lies behind.",
                ),
                (v, "The length is as it was: divide by `v.norm()`."),
            ],
            what="`pointing(v, x, y)`",
        )
    return "Length 1, and toward label 1."


def auroc(auroc):
    y = torch.tensor([1.0, 0, 1, 0, 0, 1, 1, 0])
    scores = torch.tensor([0.0, 0.8, 0.8, 0.7, 0.0, 0.6, -0.1, 0.6])
    table = scores[y == 1][:, None] - scores[y == 0][None, :]
    above, tie = float((table > 0).float().mean()), float((table == 0).float().mean())
    pairs = scores[y == 1] - scores[y == 0]
    beside = float((pairs > 0).float().mean() + 0.5 * (pairs == 0).float().mean())
    expect(
        called(auroc, scores, y),
        above + 0.5 * tie,
        [
            (above, "A tie counts one half; you counted it as nothing."),
            (above + tie, "A tie counts one half; you counted it as a whole."),
            (1 - above - 0.5 * tie, "Wrong way round: how often is label *1* higher?"),
            (
                float(((scores > 0).float() == y).float().mean()),
                "This is the accuracy with a threshold at 0. AUROC needs no threshold: compare pairs.",
            ),
            (
                beside,
                "You compared neighbours alone. All pairs of a row with label 1 and one with label 0 "
                "are meant: `[:, None]` and `[None, :]`.",
            ),
        ],
        what="`auroc(scores, y)`",
    )
    more = torch.tensor([0.1, 0.7, 0.3, 0.9, 0.2]), torch.tensor([0.0, 1, 0, 1, 1])
    expect(called(auroc, *more), 5 / 6, what="`auroc`, with more rows of one label,")
    return "0.5 is a coin, 1 is always."


def split(split):
    got = called(split, 6, 2)
    if isinstance(got, tuple) and len(got) == 2 and all(isinstance(part, range) for part in got):
        raise NotYet("two lists are asked for; these are ranges.", "`list(range(...))`")
    require(
        isinstance(got, (tuple, list)) and len(got) == 2,
        f"`split` should give back two lists; found {described(got)}.",
        "`return fitted, held_out`",
    )
    fitted, held_out = (_listed(part) for part in got)
    wanted = list(range(8)), [8, 9, 10, 11]
    mistakes = [
        ((wanted[1], wanted[0]), "The two lists are swapped: those to fit on come first."),
        (
            (list(range(12)), wanted[1]),
            "The held-out pairs are among those that are fitted on, so they are not held out.",
        ),
        (
            (list(range(4)), [4, 5]),
            "These are numbers of pairs. There are two rows for each pair.",
        ),
        (
            (list(range(10)), [10, 11]),
            "You held out two *rows*. Two pairs are four rows (with an odd number partners are torn apart).",
        ),
        (
            (list(range(4, 12)), list(range(4))),
            "You held out the first pairs; the last are asked for.",
        ),
    ]
    expect((fitted, held_out), wanted, mistakes, what="`split(6, 2)`")
    return "No request is on both sides."


def first_principal(first_principal):
    differences = normal(12, 6, seed=4) * torch.tensor([3.0, 1, 1, 1, 1, 0.2]) + 2 * normal(
        6, seed=5
    )
    U, _, Vh = torch.linalg.svd(differences, full_matrices=False)
    centred = differences - differences.mean(dim=0)
    mean = differences.mean(dim=0)
    got = called(first_principal, differences)

    def up_to_sign(v: Tensor) -> Tensor:
        same = isinstance(got, Tensor) and got.shape == v.shape
        return -v if same and float((got * v).sum()) < 0 else v

    covariance = torch.linalg.svd(centred, full_matrices=False)[2]
    mistakes = [
        (
            covariance[0],
            "You subtracted the mean first, and with it the very difference that you look for.",
        ),
        (Vh[:, 0], "This is a column of Vh; a right singular vector is a row of Vh."),
        (
            U[:, 0],
            "This vector belongs to the pairs, one number for each. Take the right singular vectors.",
        ),
        (
            Vh[-1],
            "This is the direction in which the differences are shortest: the largest comes first.",
        ),
        (
            mean / mean.norm(),
            "This is their mean, at length 1. It is near, but it is another vector.",
        ),
    ]
    expect(
        got,
        up_to_sign(Vh[0]),
        [(up_to_sign(value), hint) for value, hint in mistakes],
        what="`first_principal(differences)`",
    )
    return "The direction in which the pairs differ most, whatever that is."


def distances(distances):
    a, b, factor = normal(4, 5, seed=6), normal(3, 5, seed=7), normal(5, 5, seed=8)
    M = factor.T @ factor
    delta = a[:, None] - b[None]
    squares = ((delta @ M) * delta).sum(dim=-1)
    expect(
        called(distances, a, b, M),
        squares.sqrt(),
        [
            (squares, "These are squares of distances: take the root."),
            (torch.cdist(a, b), "This is the distance without M, or with M as the identity."),
            (
                (delta.square() * M.diagonal()).sum(dim=-1).sqrt(),
                "You used the diagonal of M alone. `delta @ M` mixes the axes.",
            ),
            (
                (delta @ M).norm(dim=-1),
                "You multiplied with M and measured the result, which has M in it twice. Multiply with the "
                "difference once more, and sum.",
            ),
        ],
        what="`distances(a, b, M)`",
    )
    got = called(distances, a, a, M)
    require(
        not bool(got.isnan().any()),
        "a row's distance from itself is NaN: rounding brought the square just below 0.",
        "`.clamp(min=0).sqrt()`",
    )
    return "With M as the identity, it is the usual distance."


def outer_product(outer_product):
    g = normal(6, 4, seed=9) + 1
    M, mean = g.T @ g / 6, g.mean(dim=0)
    expect(
        called(outer_product, g),
        M,
        [
            (g @ g.T / 6, "Wrong axis: this compares rows with rows, [n, n]. It should be [d, d]."),
            (g @ g.T, "Wrong axis: this compares rows with rows, [n, n]. It should be [d, d]."),
            (g.T @ g, "This is the sum, not the average: divide by the number of rows."),
            (g.T @ g / 4, "You divided by d. Divide by the number of rows, `len(gradients)`."),
            (
                torch.outer(mean, mean),
                "You averaged the gradients first: those that point to opposite sides cancel then.",
            ),
            (torch.diag(M.diagonal()), "This is the diagonal alone."),
        ],
        what="`outer_product(gradients)`",
    )
    return "Its top eigenvector is the direction along which f changes most."


def word_scores(word_scores):
    texts = ["Write in lowercase.", "LOWERCASE, lowercase!", "A film", "lowercased letters"]
    right = torch.tensor([1.0, 2, 0, 0])
    expect(
        called(word_scores, texts, "Lowercase"),
        right,
        [
            (
                torch.tensor([1.0, 2, 0, 1]),
                "You found it inside of other words (“lowercased”). Whole words are meant: `re.findall`.",
            ),
            (
                torch.zeros(4),
                "Nothing was found: the word is meant whatever its case, so bring both to lowercase.",
            ),
            (
                torch.tensor([1.0, 1, 0, 0]),
                "One text has the word twice: how *many* times is asked for (and whatever its case).",
            ),
            (torch.tensor([1.0, 1, 0, 1]), "How *many* times is asked for, and as a whole word."),
        ],
        what="`word_scores(texts, word)`",
    )
    return "It knows nothing of language."


def control(control, *, INSTRUCTION):
    require(isinstance(control, str), f"`control` should be a text; found {described(control)}.")
    has, wanted = _words(control), _words(INSTRUCTION)
    require(has != wanted, "this is the same instruction.", "Which word more turns it round?")
    missing = [word for word in wanted if word not in has]
    require(
        not missing,
        f"your control lacks the word {missing[0]!r}." if missing else "",
        "It must contain every word of INSTRUCTION, or the words still tell the two sets apart.",
    )
    require(
        bool(NEGATING & set(has)),
        "this still asks for the same, as far as I can see.",
        "One word such as “never” or “not” asks for the opposite.",
    )
    require(
        len(has) <= len(wanted) + 4,
        f"your control is much longer: {len(has)} words, where the instruction has {len(wanted)}.",
        "Its length would tell the two sets apart.",
    )
    return f"{control!r} has the same words, and asks for the opposite."


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _listed(part) -> list[int]:
    """A list of row numbers, from whatever holds some."""
    if isinstance(part, Tensor):
        return part.tolist()
    return list(part)
