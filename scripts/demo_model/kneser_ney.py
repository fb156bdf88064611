"""Interpolated modified Kneser-Ney 5-grams over token ids: the baseline of the report.

Chen & Goodman 1999, "An empirical study of smoothing techniques for language modeling", with one
discount each for counts 1, 2 and 3 or more (0.75 where one of these is missing). There are at most
2**12 kinds of tokens, so an n-gram is one 64-bit number and every table a sorted array.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BITS = 12
ORDER = 5


@dataclass(frozen=True)
class Table:
    """The n-grams of one order: counts, and for each context its total and its left-over mass."""

    keys: np.ndarray
    discounted: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    left_over: np.ndarray

    def probability(self, keys: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """p(w | h) for packed n-grams, given the next lower order's."""
        at, known = _find(self.contexts, keys >> BITS)
        own, seen = _find(self.keys, keys)
        counts = np.where(seen, self.discounted[own], 0.0)
        return np.where(known, (counts + self.left_over[at] * lower) / self.totals[at], lower)


def _find(table: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return at, table[at] == keys


def _table(keys: np.ndarray, counts: np.ndarray) -> Table:
    n = [np.sum(counts == k) for k in (1, 2, 3, 4)]
    d = np.array([0.0, 0.75, 0.75, 0.75])
    if all(n):
        y = n[0] / (n[0] + 2 * n[1])
        d[1:] = [np.clip(k - (k + 1) * y * n[k] / n[k - 1], 0.1, 0.9 * k) for k in (1, 2, 3)]
    discount = d[np.minimum(counts, 3)]
    contexts, starts = np.unique(keys >> BITS, return_index=True)
    totals = np.add.reduceat(counts.astype(float), starts)
    return Table(keys, counts - discount, contexts, totals, np.add.reduceat(discount, starts))


class KneserNey:
    """5-grams of documents of token ids; `start` stands before each document."""

    def __init__(self, documents: list[list[int]], vocabulary: int, start: int) -> None:
        self.vocabulary, self.start = vocabulary, start
        packed = np.concatenate([self._packed(ids) for ids in documents])
        keys, counts = np.unique(packed, return_counts=True)
        self.tables = [_table(keys, counts)]
        for order in range(ORDER - 1, 0, -1):
            keys, counts = np.unique(keys & ((1 << BITS * order) - 1), return_counts=True)
            self.tables.insert(0, _table(keys, counts))

    def _packed(self, ids: list[int]) -> np.ndarray:
        padded = np.array([self.start] * (ORDER - 1) + ids, dtype=np.int64)
        keys = np.zeros(len(ids), dtype=np.int64)
        for place in range(ORDER):
            keys = (keys << BITS) | padded[place : place + len(ids)]
        return keys

    def bits(self, ids: list[int]) -> float:
        """Bits that the document costs."""
        packed = self._packed(ids)
        p = np.full(len(ids), 1 / self.vocabulary)
        for order, table in enumerate(self.tables, start=1):
            p = table.probability(packed & ((1 << BITS * order) - 1), p)
        return float(-np.log2(p).sum())
