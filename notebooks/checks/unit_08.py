"""The checks of unit 8, COLD. Each is named like its exercise."""

from typing import Any

import torch
from torch import Tensor

from checks.answers import called, described
from checks.comparing import expect
from checks.material import normal
from checks.verdicts import NotYet, require

Weights = dict[str, Tensor]
NO_TANGENT = (
    "A tangent is None if no dual number arrives (do yours come last in `{**theta, **duals}`?), and if "
    "it is asked for after the `with`."
)


def dpo(dpo):
    plus, minus, beta = torch.tensor([-2.0, -1.0, -4.0]), torch.tensor([-3.0, -2.5, -1.0]), 0.5
    margin = plus - minus
    log_sigmoid = torch.nn.functional.logsigmoid
    expect(
        called(dpo, plus, minus, beta),
        -log_sigmoid(beta * margin),
        [
            (
                -log_sigmoid(-beta * margin),
                "Wrong way round: this is low where the *unwanted* answer is the likelier one.",
            ),
            (log_sigmoid(beta * margin), "Wrong sign: a loss is low where all is well. -log σ."),
            (-log_sigmoid(margin), "β is missing: it stands inside, before the margin."),
            (-beta * log_sigmoid(margin), "β stands outside; it belongs inside of σ."),
            (torch.sigmoid(beta * margin), "This is σ itself. Its logarithm is missing."),
            (-torch.sigmoid(beta * margin), "This is -σ. The logarithm is missing."),
            (-beta * margin, "σ and its logarithm are missing."),
            (
                -log_sigmoid(beta * plus - minus),
                "β stands before `plus` alone: β (plus - minus) has brackets.",
            ),
        ],
        what="`dpo(plus, minus, beta)`",
    )
    far = called(dpo, torch.tensor(-2000.0), torch.tensor(0.0), 0.5)
    require(
        bool(torch.isfinite(far)),
        "far from 0 it is infinite: σ of -1000 is rounded to 0, and log 0 is minus infinity.",
        "`torch.nn.functional.logsigmoid` takes both at once, without that.",
    )
    require(
        abs(float(far) - 1000) < 1,
        f"far from 0 it is {float(far):.4g}, and should be 1000: something holds σ away from 0.",
        "No `clamp` and no small number added: `torch.nn.functional.logsigmoid` needs neither.",
    )
    return "log 2 where the two answers are alike, and near 0 where the wanted one wins."


def stepped(stepped):
    theta, g, eta = _theta(), _direction(), 0.5
    got = called(stepped, theta, g, eta)
    _require_names(got, theta, "`stepped`")
    right = _flat(
        {name: theta[name] - eta * g[name] if name in g else theta[name] for name in theta}
    )
    length = torch.cat([each.flatten() for each in g.values()]).norm()

    def gone(factor: Any) -> Tensor:
        return _flat({n: theta[n] - factor * g[n] if n in g else theta[n] for n in theta})

    expect(
        _flat(got),
        right,
        [
            (
                gone(-eta),
                "Wrong sign: this goes uphill. The loss falls along *minus* the gradient.",
            ),
            (gone(1.0), "eta is missing: how far do you go?"),
            (
                gone(eta / length),
                "You brought the gradient to length 1. Gradient descent takes it as long as it is.",
            ),
            (gone(0.0), "Nothing has moved."),
            (
                _flat({n: -eta * g[n] if n in g else theta[n] for n in theta}),
                "This is the step alone. Add it to theta.",
            ),
            (
                _flat({n: theta[n] - eta * g[n] if n in g else 0 * theta[n] for n in theta}),
                "Parameters without a gradient became 0. They stay as they are.",
            ),
            *(
                (
                    _flat({**theta, n: theta[n] - eta * g[n]}),
                    f"Of all parameters only `{n}` has moved. Does `return` stand in the loop?",
                )
                for n in g
            ),
        ],
        what="`stepped(theta, g, eta)`",
    )
    return "A step on a copy: the model is as it was."


def forward_difference(forward_difference):
    theta, g, eps = _theta(), _direction(), 0.25
    got = called(forward_difference, _network, theta, g, eps)
    here, up, down = (_network(_along(theta, g, step)) for step in (0, eps, -eps))
    right = (up - here) / eps
    expect(
        got,
        right,
        [
            (-right, "Wrong sign: where you are going, less where you are."),
            (
                (down - here) / eps,
                "You went along *minus* g. `stepped` subtracts: give it a negative eta.",
            ),
            (
                (here - down) / eps,
                "This is the difference *backwards*. It is as good, but take θ + ε g.",
            ),
            (up - here, "It is not divided by ε: then it shrinks as ε does."),
            ((up - here) * eps, "You multiplied by ε. Divide."),
            (
                (up - down) / (2 * eps),
                "This is the difference to *both* sides, with a pass more. We come to it below.",
            ),
            ((up - down) / eps, "You went to both sides, which is 2 ε apart. Go to one side."),
            (up - here / eps, "Brackets: the *difference* is divided by ε."),
            (up / eps, "Nothing was subtracted: how far did Z *move*?"),
        ],
        what="`forward_difference(z_of, theta, g, eps)`",
    )
    return "Two passes, a subtraction, a division."


def rounding(rounding):
    Z, dZ, eps = 3 * normal(6, 8, seed=31), 0.2 * normal(6, 8, seed=32), 1e-6
    right = float(2**-24 * Z.norm() / (eps * dZ.norm()))
    expect(
        called(rounding, Z, dZ, eps),
        right,
        [
            (
                float(2**-24 * Z.norm() / eps),
                "This is the error itself. Relative to what? To the length of dZ.",
            ),
            (
                right * eps,
                "The division by ε is missing: what is lost of Z is divided by it, too.",
            ),
            (right * eps**2, "You multiplied by ε. What is lost of Z is *divided* by it."),
            (
                float(2**-24 / eps),
                "The lengths are missing. A large Z loses more, and a small dZ feels it more.",
            ),
            (
                1 / right,
                "Upside down: the error grows with Z, and shrinks as ε and dZ grow.",
            ),
            (
                float((2**-24 * Z.norm(dim=-1) / (eps * dZ.norm(dim=-1))).mean()),
                "You averaged over tokens. Take the length over all of them at once, `Z.norm()`.",
            ),
            (
                float(2**-24 * Z.norm() / eps * dZ.norm()),
                "Brackets: a / b * c is (a / b) c. Divide by the product, `(eps * dZ.norm())`.",
            ),
            (
                float(2**-24 * dZ.norm() / (eps * Z.norm())),
                "Z and dZ are swapped: Z is what is rounded.",
            ),
        ],
        what="`rounding(Z, dZ, eps)`",
    )
    return "Ten times as small a step loses ten times as much."


def step_size(step_size):
    theta, g, r = _theta(), _direction(), 0.5
    of_g = {name: theta[name] for name in g}
    a, b = float(_flat(of_g).norm()), float(_flat(g).norm())
    sums = [sum(float(each.norm()) for each in one.values()) for one in (of_g, g)]
    each = [float(theta[name].norm() / g[name].norm()) for name in g]
    expect(
        called(step_size, theta, g, r),
        r * a / b,
        [
            (a / b, "r is missing."),
            (
                r * b / a,
                "Upside down. A long gradient needs a *small* step to go as far.",
            ),
            (
                r * float(_flat(theta).norm()) / b,
                "θ has parameters that g does not have, and that do not move. Leave them out.",
            ),
            (
                r * sums[0] / sums[1],
                "You added lengths. Together they are one long vector: the root of the sum of squares.",
            ),
            (r * sum(each) / len(each), "You averaged over tensors. Take one length for all."),
            (r / b, "The length of θ is missing: the step is a share *of it*."),
            (r * a**2 / b**2, "These are squares of lengths; a root is missing."),
        ],
        what="`step_size(theta, g, r)`",
    )
    return "So far that float32 can see it, and no further."


def matmul_rule(matmul_rule):
    x, dx = normal(5, 4, seed=33), normal(5, 4, seed=34)
    W, dW = normal(4, 3, seed=35), normal(4, 3, seed=36)
    value, tangent = _pair(called(matmul_rule, (x, dx), (W, dW)), "`matmul_rule(x, W)`")
    expect(
        value,
        x @ W,
        [
            (dx @ dW, "The value is x W."),
            (dx @ W + x @ dW, "This is the tangent. The value comes first."),
        ],
        what="the value",
    )
    expect(
        tangent,
        dx @ W + x @ dW,
        [
            (
                dx @ W,
                "You carried on the change of x alone. W changes too: that is what this unit is about.",
            ),
            (x @ dW, "You carried on the change of W alone. x changes too, by the layers below."),
            (dx @ dW, "Both changes at once are of second order. Change one, then the other."),
            (
                dx @ W + x @ dW + dx @ dW,
                "x' W' is of second order: it comes with ε², which is 0.",
            ),
            (dx @ W - x @ dW, "The two changes are added."),
        ],
        what="the tangent",
    )
    return "The product rule: three products where there was one."


def softmax_rule(softmax_rule):
    z, dz = normal(3, 5, seed=37), normal(3, 5, seed=38)
    p = z.softmax(dim=-1)
    value, tangent = _pair(called(softmax_rule, (z, dz)), "`softmax_rule(z)`")
    expect(
        value,
        p,
        [(z.softmax(dim=0), "Wrong axis: the numbers of a *row* add up to 1, `dim=-1`.")],
        what="the value",
    )
    expect(
        tangent,
        p * (dz - (p * dz).sum(dim=-1, keepdim=True)),
        [
            (
                p * dz,
                "Something is missing: the numbers of a row add up to 1, so their changes to 0.",
            ),
            (
                p * (1 - p) * dz,
                "This is how each p changes by its *own* z. It changes by the others, too.",
            ),
            (
                p * (dz - dz.mean(dim=-1, keepdim=True)),
                "You took the plain mean of z'. The likely ones weigh more: Σ p z'.",
            ),
            (
                p * (dz - (p * dz).sum()),
                "The sum runs over all rows. Each row has its own: `dim=-1, keepdim=True`.",
            ),
            (
                p * (dz + (p * dz).sum(dim=-1, keepdim=True)),
                "The sum is *subtracted*: what one gains, the others lose.",
            ),
            (
                p * (dz - (p * dz).sum(dim=0, keepdim=True)),
                "The sum runs over the wrong axis. It is over the last one.",
            ),
            (
                p * (dz - (p * dz).mean(dim=-1, keepdim=True)),
                "Σ is a sum: p is a weight already, so there is nothing to divide by.",
            ),
            (
                (z + dz).softmax(dim=-1) - p,
                "This is a difference, for a step of size 1. A derivative has no step.",
            ),
            (dz.softmax(dim=-1), "softmax of z' is no change of anything. Use the formula."),
            (dz - (p * dz).sum(dim=-1, keepdim=True), "The first factor is missing: p."),
        ],
        what="the tangent",
    )
    return "What one gains, the others lose."


def exact_derivative(exact_derivative):
    theta, g = _theta(), _direction()
    steps = {name: g.get(name, torch.zeros_like(theta[name])) for name in theta}
    _, right = torch.func.jvp(_network, (theta,), (steps,))
    own = {name: theta[name] for name in g}
    own |= {name: torch.zeros_like(theta[name]) for name in theta if name not in g}
    _, along_theta = torch.func.jvp(_network, (theta,), (own,))
    (_, swapped), (_, moved) = (
        torch.func.jvp(_network, ({**theta, **at},), ({**steps, **along},))
        for at, along in (
            (g, {name: theta[name] for name in g}),
            ({name: theta[name] + g[name] for name in g}, {}),
        )
    )
    got = called(exact_derivative, _network, theta, g, if_none=NO_TANGENT)
    require(
        isinstance(got, Tensor),
        f"It should be a tensor; found {described(got)}.",
        "`dual.unpack_dual(Z)` is a pair; its `.tangent` is the derivative.",
    )
    apart = float((got - right).norm() / right.norm()) if got.shape == right.shape else 1.0
    if 1e-5 < apart < 0.1:
        raise NotYet(
            f"it is near, but off by {apart:.1g} of its length: there is still a step in it.",
            "Let torch carry the tangents: `dual.make_dual`, and no division.",
        )
    expect(
        got,
        right,
        [
            (_network(theta), "This is Z itself, the *primal*. The tangent is the derivative."),
            (-right, "Wrong sign: along +g is asked for."),
            (along_theta, "This is the derivative along θ. The second of a dual number is g."),
            (swapped, "Value and tangent are swapped: `make_dual(theta[name], g[name])`."),
            (moved, "This is the derivative at θ + g. The value of a dual number is θ itself."),
        ],
        what="`exact_derivative(z_of, theta, g)`",
    )
    return "No step, so nothing to choose, and nothing to divide."


def kernel_push(kernel_push):
    kappa, gradients, eta = normal(5, 4, seed=39) + 0.3, normal(4, 6, seed=40), 0.5
    right = -eta / 4 * kappa @ gradients
    expect(
        called(kernel_push, kappa, gradients, eta),
        right,
        [
            (-right, "Wrong sign: a step goes along *minus* the gradient."),
            (4 * right, "This is the sum over examples. The loss is their *mean*: 1/N."),
            (right / eta, "eta is missing."),
            (
                -eta * gradients.mean(dim=0).expand(5, 6),
                "κ is missing: this is the same push for every token, the unit kernel's.",
            ),
            (-eta * gradients.mean(dim=0), "One push for each token: κ has a row for each."),
            (
                -eta * (kappa / kappa.sum(dim=1, keepdim=True)) @ gradients,
                "You made κ add up to 1. It does not: far from all examples it may be 0.",
            ),
            (
                -eta * kappa.softmax(dim=-1) @ gradients,
                "You made κ add up to 1, by softmax. It does not: κ may be 0 everywhere.",
            ),
            (right * 4 / 6, "You divided by `d_model`. N is the number of examples."),
            (
                -eta / 4 * kappa.sum(dim=1, keepdim=True) * gradients.sum(dim=0),
                "You summed κ and the gradients apart. Each gradient has its own κ.",
            ),
            (
                right * 4 / 5,
                "You divided by the number of tokens. N is the number of examples.",
            ),
        ],
        what="`kernel_push(kappa, gradients, eta)`",
    )
    return "Each example pushes the tokens that are like it."


def approximation_error(approximation_error):
    step = normal(7, 6, seed=41) * torch.tensor([1.0, 1, 1, 0.2, 3, 1, 0.5])[:, None]
    found = step + 0.3 * normal(7, 6, seed=42)
    lengths = (found - step).norm(dim=-1)
    each = lengths / step.norm(dim=-1)
    cosine = torch.cosine_similarity(found, step, dim=-1)
    expect(
        called(approximation_error, found, step),
        float(each.median()),
        [
            (
                float(each.mean()),
                "This is the mean. A token that hardly moves has a huge error: take the median.",
            ),
            (
                float((found - step).norm() / step.norm()),
                "All tokens at once: then the longest count for most. One error for each token.",
            ),
            (
                float((lengths / found.norm(dim=-1)).median()),
                "You divided by the length of what was found. The step is the reference.",
            ),
            (
                float(((found - step).norm(dim=0) / step.norm(dim=0)).median()),
                "Wrong axis: the length of a token is over `dim=-1`.",
            ),
            (
                float(lengths.median() / step.norm(dim=-1).median()),
                "You divided two medians. Divide token by token, then take the median.",
            ),
            (
                float(((found - step).abs() / step.abs()).median()),
                "You divided number by number. A token has *one* length.",
            ),
            (float((each**2).median()), "The root is missing: these are squares of lengths."),
            (
                float(1 - cosine.median()),
                "A cosine does not see a push that is too long. Take the length of the difference.",
            ),
            (
                float(lengths.median()),
                "This is not relative yet: divide by the length of the step.",
            ),
            (
                float(cosine.median()),
                "A cosine does not see a push that is too long. Take the length of the difference.",
            ),
            (
                float((found.norm(dim=-1) / step.norm(dim=-1) - 1).abs().median()),
                "You compared lengths. Two vectors of one length can point anywhere.",
            ),
        ],
        what="`approximation_error(found, step)`",
    )
    return "0 is the step itself; 1 is as far from it as doing nothing."


def _theta() -> Weights:
    return {
        "first": normal(4, 6, seed=23),
        "second": 2 * normal(6, 3, seed=24),
        "bias": normal(3, seed=25),
    }


def _direction() -> Weights:
    """A gradient that does not have all parameters."""
    return {"first": normal(4, 6, seed=26), "second": 0.5 * normal(6, 3, seed=27)}


def _network(weights: Weights) -> Tensor:
    """Activations of five texts in a network of two layers."""
    return (normal(5, 4, seed=28) @ weights["first"]).tanh() @ weights["second"] + weights["bias"]


def _along(theta: Weights, g: Weights, step: float) -> Weights:
    return {name: theta[name] + step * g[name] if name in g else theta[name] for name in theta}


def _flat(weights: Weights) -> Tensor:
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def _require_names(got: Any, theta: Weights, name: str) -> None:
    require(isinstance(got, dict), f"{name} should give back a dict; found {described(got)}.")
    missing = sorted(set(theta) - set(got))
    require(
        not missing,
        f"parameters without a gradient are lost: {', '.join(missing)}.",
        "They do not move, but the model needs them: keep them as they are.",
    )
    require(set(got) == set(theta), f"{name} has names that theta does not have.")
    none = [name for name in sorted(theta) if not isinstance(got[name], Tensor)]
    require(
        not none,
        f"what was a tensor is none any more: {', '.join(none)}.",
        "Parameters without a gradient stay as they are, `theta[name]`.",
    )
    other = [name for name in sorted(theta) if got[name].shape != theta[name].shape]
    require(not other, f"the shape of a parameter has changed: {', '.join(other)}.")


def _pair(got: Any, name: str) -> tuple[Any, Any]:
    require(
        isinstance(got, (tuple, list)) and len(got) == 2,
        f"{name} should be a pair, value and tangent; found {described(got)}.",
        "`return value, tangent`",
    )
    require(got[1] is not ..., "the tangent is still `...`.", "Put your formula there.")
    return got[0], got[1]
