"""Every equation again, in plain NumPy, one token at a time, written from the papers.

`h` is `[pos, d_model]` in float64: the real tokens of one row, no padding. Nothing here is fast.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Oracle = Callable[[Array, "Row"], Array]


@dataclass(frozen=True)
class Row:
    """One row: its ids, where its user turn and its response begin, whether it starts with BOS."""

    tokens: tuple[int, ...]
    question: int
    response: int
    bos: bool


def caa(h: Array, v: Array) -> Array:
    """h' = h + v at every token (CAA, section 3)."""
    out = np.empty_like(h)
    for t in range(len(h)):
        out[t] = h[t] + v
    return out


def fit_caa(positive: Array, negative: Array) -> Array:
    """v = (1/N) sum_i (positive_i - negative_i), one number at a time."""
    pairs, width = positive.shape
    v = np.zeros(width)
    for d in range(width):
        total = 0.0
        for i in range(pairs):
            total += float(positive[i, d]) - float(negative[i, d])
        v[d] = total / pairs
    return v


def psr(h: Array, W: Array, b: Array, Z: Array, alpha: float = 1.0, b_m: float = 0.0) -> Array:
    """h' = h + (alpha + b_m) sum_k relu(w_k . h + b_k) z_k (PSR, equations 7 and 8)."""
    out = h.copy()
    for t in range(len(h)):
        for k in range(len(W)):
            gate = max(0.0, float(np.dot(W[k], h[t])) + float(b[k]))
            out[t] = out[t] + (alpha + b_m) * gate * Z[k]
    return out


def clas(h: Array, c: Array, b: Array, v: Array, limit: float | None = None) -> Array:
    """h' = h + sum_k (c_k . h + b_k) v_k, each strength within +-limit."""
    out = h.copy()
    for t in range(len(h)):
        for k in range(len(c)):
            alpha = float(np.dot(c[k], h[t])) + float(b[k])
            if limit is not None:
                alpha = max(-limit, min(limit, alpha))
            out[t] = out[t] + alpha * v[k]
    return out


def loreft(h: Array, R: Array, W: Array, b: Array) -> Array:
    """h' = h + R^T (W h + b - R h), for the rows of R one by one (ReFT, equation 3)."""
    out = h.copy()
    for t in range(len(h)):
        for k in range(len(R)):
            moved = float(np.dot(W[k], h[t])) + float(b[k]) - float(np.dot(R[k], h[t]))
            out[t] = out[t] + moved * R[k]
    return out


def reft_r1(h: Array, w: Array, a_max: float) -> Array:
    """h' = h + a_max w at every token (AxBench, ReFT-r1 as it steers)."""
    out = np.empty_like(h)
    for t in range(len(h)):
        out[t] = h[t] + a_max * w
    return out


def reft_r1_in_training(
    h: Array, w: Array, k: int, inside: Callable[[int], bool]
) -> tuple[Array, float]:
    """h' = h + mean(TopK(relu(h w), k)) w, and the mean over tokens of the other latents."""
    latents = [max(0.0, float(np.dot(h[t], w))) for t in range(len(h)) if inside(t)]
    ordered = sorted(latents, reverse=True)
    top, rest = ordered[:k], ordered[k:]
    return h + sum(top) / len(top) * w, sum(rest) / len(latents)


def instruction(h: Array, u: Array, z: float) -> Array:
    """h' = h + (z - h u) u at every token (Stolfo et al., "adjust")."""
    out = np.empty_like(h)
    for t in range(len(h)):
        out[t] = h[t] + (z - float(np.dot(h[t], u))) * u
    return out


def angular(h: Array, v: Array, degrees: float) -> Array:
    """h turned towards v by an angle in their plane, its length kept (angular steering).

    By polar coordinates in the plane: h at angle 0, v at the angle between them.
    """
    out = h.copy()
    for t in range(len(h)):
        length = math.sqrt(float(np.dot(h[t], h[t])))
        first = h[t] / length
        second = v - float(np.dot(v, first)) * first
        second = second / math.sqrt(float(np.dot(second, second)))
        turn = math.pi * degrees / 180
        out[t] = length * (math.cos(turn) * first + math.sin(turn) * second)
    return out


def ablation(h: Array, u: Array) -> Array:
    """h' = h - (h u) u at every token (Arditi et al., section 2.4)."""
    out = np.empty_like(h)
    for t in range(len(h)):
        along = sum(float(h[t, d]) * float(u[d]) for d in range(len(u)))
        out[t] = h[t] - along * u
    return out


def icv(h: Array, v: Array, lam: float) -> Array:
    """h' = |h| unit(unit(h) + lam v): moved by a share of its length, the length kept (ICV)."""
    out = np.empty_like(h)
    for t in range(len(h)):
        length = math.sqrt(float(np.dot(h[t], h[t])))
        moved = h[t] / length + lam * v
        out[t] = length * moved / math.sqrt(float(np.dot(moved, moved)))
    return out


def cast(h: Array, row: Row, c: Array, threshold: float, above: bool, v: Array) -> Array:
    """h' = h + v from the last prompt token on, if cos(mean of unit h over the prompt, c) > s."""
    m = np.zeros(h.shape[1])
    for t in range(row.response):
        if not (t == 0 and row.bos):
            m = m + h[t] / math.sqrt(float(np.dot(h[t], h[t])))
    similarity = float(np.dot(m, c)) / math.sqrt(float(np.dot(m, m)) * float(np.dot(c, c)))
    met = similarity > threshold if above else similarity < threshold
    return where(h, caa(h, v), lambda t: met and t >= row.response - 1)


def iti(z: Array, theta: Array, sigma: Array, alpha: float) -> Array:
    """z'_k = z_k + alpha sigma_k theta_k for each head k, heads one beside the other (ITI)."""
    out = z.copy()
    heads, width = theta.shape
    for t in range(len(z)):
        for k in range(heads):
            for d in range(width):
                out[t, k * width + d] += alpha * sigma[k] * theta[k, d]
    return out


def cold_kernel(
    h: Array, dL: Array, anchors: Array | None, kernel: str, eta: float, width: float = 1.0
) -> Array:
    """h' = h - eta sum_i kappa(h, h_i) dL_i, each dL_i already over N (COLD-Kernel)."""
    out = h.copy()
    for t in range(len(h)):
        for i in range(len(dL)):
            kappa = 1.0 if kernel == "unit" else float(np.dot(h[t], anchors[i]))
            if kernel == "cosine":
                kappa /= float(np.sqrt(np.dot(h[t], h[t]) * np.dot(anchors[i], anchors[i])))
            if kernel == "rbf":
                apart = h[t] - anchors[i]
                kappa = float(np.exp(-np.dot(apart, apart) / (2 * width**2)))
            out[t] = out[t] - eta * kappa * dL[i]
    return out


def act_add(
    h: Array,
    row: Row,
    v: Array,
    c: float = 1.0,
    alignment: str = "front",
    dims: tuple[int, int] | None = None,
) -> Array:
    """h'[start + i] = h[start + i] + c v[i] for the rows of v (ActAdd, algorithm 1; A3)."""
    n, rows = row.response, len(v)
    start = {"front": 0, "mid": n // 2 - rows // 2, "back": n - rows}[alignment]
    first, stop = dims or (0, h.shape[1])
    out = h.copy()
    for i in range(rows):
        for d in range(first, stop):
            if 0 <= start + i < len(h):
                out[start + i, d] = h[start + i, d] + c * v[i, d]
    return out


def by_token(h: Array, row: Row, v: Array, d_vocab: int) -> Array:
    """The catalogue's toy: h' = h + (mean token id so far / d_vocab) v."""
    out, total = h.copy(), 0
    for t, token in enumerate(row.tokens):
        total += token
        out[t] = h[t] + total / (t + 1) / d_vocab * v
    return out


def scaled(h: Array, steered: Array, s: float) -> Array:
    """h + s (steer(h) - h)."""
    out = np.empty_like(h)
    for t in range(len(h)):
        out[t] = h[t] + s * (steered[t] - h[t])
    return out


def in_scope(name: str, t: int, row: Row) -> bool:
    """Whether the token at absolute position `t` is in the scope called `name`."""
    if name == "everywhere":
        return True
    if name == "after_first":
        return t > 0
    if name == "prompt":
        return t in range(row.response)
    if name == "response":
        return t not in range(row.response - 1)
    if name == "question_and_response":
        return t not in range(row.question - 1)
    if name == "generated":
        return t not in range(row.response)
    if name == "last":
        return t == row.response - 1
    raise KeyError(name)


def where(h: Array, steered: Array, inside: Callable[[int], bool]) -> Array:
    """steer(h) at the tokens where `inside`, h at the others."""
    out = h.copy()
    for t in range(len(h)):
        if inside(t):
            out[t] = steered[t]
    return out


def next_token(
    scores: Array,
    counts: Array,
    uniform: float,
    temperature: float,
    top_p: float,
    frequency_penalty: float,
) -> int:
    """The sampler of the ActAdd authors (A7): temperature, then penalty, then top-p, then draw."""
    if temperature == 0:
        return int(np.argmax(scores))
    penalised = scores.astype(np.float64) / temperature
    for token in range(len(scores)):
        penalised[token] -= frequency_penalty * counts[token]
    weight = np.exp(penalised - penalised.max())
    probability = weight / weight.sum()
    kept, total = set(), 0.0
    for token in sorted(range(len(scores)), key=lambda token: -probability[token]):
        kept.add(token)
        total += probability[token]
        if total > top_p:
            break
    mass = sum(probability[token] for token in sorted(kept))
    height = 0.0
    for token in sorted(kept):
        height += probability[token]
        if height > uniform * mass:
            return token
    raise AssertionError("The uniform number was not below 1.")
