"""Payloads of format 1 with numbers drawn at random: shapes that a layout must stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

COLOURS = ("#0072b2", "#009e73", "#cc79a7", "#d55e00", "#e69f00", "#56b4e9", "#332288", "#117733")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
WORDS = [
    *("this", "film", "was", "a", "real", "joy", "to", "watch", "and", "the", "ending", "moved"),
    *("me", "deeply", "so", "I", "would", "see", "it", "again"),
]
SCRIPTS = [
    *("🎬", "👩‍👩‍👧", "·فيلم", "·جميل", "电影", "很", "好看", "·naïve", "⟨byte E2⟩", "⏎", "·"),
    *("Straßen", "ﷺ", "·עברית"),
]
MEASURES = (("along", "along (1 = mean prompt push)", True), ("norm", "norm of the change", False))


def payload(
    *,
    tokens: int = 24,
    layers: int = 6,
    methods: tuple[str, ...] = ("CAA", "PSR", "ActAdd"),
    strengths: tuple[float, ...] = (0, 0.5, 1, 2, 4),
    words: list[str] | None = None,
    views: tuple[str, ...] = ("accumulated", "local"),
    places: tuple[int, ...] = (),
    measured: bool = True,
    curves: bool = True,
    texts: int = 1,
) -> dict[str, Any]:
    """A payload of this size; every number is random, and the same at every call."""
    rng = np.random.default_rng(0)
    at = places or (layers // 2,)
    made: dict[str, Any] = {
        "format": 1,
        "title": "What a prompt does, and what steering does",
        "made": {"model": "demo", "seed": "0", "pairs": "drawn at random, for a test"},
        "model": "demo",
        "layers": list(range(layers)),
        "vocabulary": {str(i): f" {WORDS[i]}" for i in range(len(WORDS))},
        "measures": [{"name": n, "label": label, "signed": s} for n, label, s in MEASURES],
        "views": list(views),
        "texts": [_text(tokens, words, number) for number in range(texts)],
        "methods": [_method("prompt", 0, [], [1])]
        + [_method(name, i + 1, list(at), list(strengths)) for i, name in enumerate(methods)],
        "readings": {},
        "curves": {},
        "effect": {},
        "state": {"text": 0, "method": methods[0] if methods else "prompt", "place": 0},
    }
    made["state"] |= {"strength": 1, "layer": at[0], "view": "accumulated", "measure": "along"}
    made["state"] |= {"minus": None, "token": min(4, tokens - 1)}
    for text in range(texts):
        _read(made, text, rng, measured=measured)
        made["curves"][str(text)] = _curves(rng, layers) if curves else []
    return made


def _text(tokens: int, words: list[str] | None, number: int) -> dict[str, Any]:
    before = [("<s>", True), ("user", True), ("⏎", True), ("Review", False), ("·a", False)]
    before += [("·movie", False), (".", False), ("</s>", True), ("assistant", True)]
    row: list[dict[str, Any]] = [
        {"text": t, "index": None, "template": folded, "position": p}
        for p, (t, folded) in enumerate(before)
    ]
    words = words or [("·" if i else "") + word for i, word in enumerate(WORDS)]
    said = [words[i % len(words)] for i in range(tokens)]
    for i, word in enumerate(said):
        raw = word.replace("·", " ").replace("⏎", "\n")
        row.append(
            {"text": word, "raw": raw, "index": i, "template": False, "position": len(before) + i}
        )
    return {
        "question": "Review a movie." if not number else f"What do you think of number {number}?",
        "instruction": "Answer as somebody would who loved every minute of it.",
        "tokens": row,
        "completions": [
            {"method": "unsteered", "text": "It is a movie. It has two people in it and a house."},
            {"method": "prompt", "text": "".join(token["raw"] for token in row[len(before) :])},
        ],
    }


def _method(name: str, i: int, places: list[int], strengths: list[float]) -> dict[str, Any]:
    at = [{"label": f"layer {place}", "layers": [place]} for place in places]
    return {
        "name": name,
        "colour": COLOURS[i % len(COLOURS)],
        "dash": DASHES[i % len(DASHES)],
        "places": at or [{"label": "", "layers": []}],
        "strengths": strengths,
    }


def _read(made: dict[str, Any], text: int, rng: np.random.Generator, *, measured: bool) -> None:
    tokens = sum(token["index"] is not None for token in made["texts"][text]["tokens"])
    shape = (len(made["layers"]), tokens)
    push = rng.normal(1, 0.5, shape) * np.linspace(0.3, 1.2, shape[0])[:, None]
    made["effect"][str(text)] = []
    for method in made["methods"]:
        for place, at in enumerate(method["places"]):
            for strength in method["strengths"]:
                start = at["layers"][0] if at["layers"] else 0
                here = strength * (push * 0.6 + rng.normal(0, 0.15, shape))
                here[:start] = 0
                prompt = method["name"] == "prompt"
                cells = _cells(push if prompt else here, made["views"], measured)
                reading = _reading(rng, cells, made, text, strength, start)
                if prompt:
                    reading["steered"] = []
                    reading |= {"rmse": [0.0] * shape[0], "kl": 0.9, "recovered": 1.0}
                made["readings"][f"{text}|{method['name']}|{place}|{strength:g}"] = reading
                row = {"method": method["name"], "place": place, "strength": strength}
                row |= {name: reading[name] for name in ("kl", "recovered")}
                if not prompt:
                    made["effect"][str(text)].append(row | {"rmse": 0.8})


def _cells(values: np.ndarray, views: list[str], measured: bool) -> dict[str, Any]:
    def rounded(array: np.ndarray) -> list[Any]:
        return [[float(f"{v:.4g}") if measured else None for v in row] for row in array]

    local = np.diff(values, axis=0, prepend=0)
    return {
        view: {"along": rounded(of), "norm": rounded(np.abs(of) * 12)}
        for view, of in (("accumulated", values), ("local", local))
        if view in views
    }


def _reading(
    rng: np.random.Generator,
    cells: dict[str, Any],
    made: dict[str, Any],
    text: int,
    strength: float,
    start: int,
) -> dict[str, Any]:
    row = [token["position"] for token in made["texts"][text]["tokens"]]
    layers, tokens = len(made["layers"]), len(cells["accumulated"]["along"][0])
    rmse = [1.0] * start + [abs(1 - 0.3 * strength) + 0.05 * i for i in range(layers - start)]

    def words(most: int) -> dict[str, Any]:
        ids, sizes = rng.permutation(len(WORDS)), np.sort(rng.uniform(0.05, 1.6, most))[::-1]
        up = [[int(ids[i]), round(float(strength * sizes[i]), 3)] for i in range(most)]
        return {"up": up, "down": [[int(ids[-1 - i]), -v] for i, (_, v) in enumerate(up)]}

    return {
        "cells": cells,
        "sink": [[0] if layer > 1 and tokens > 2 else [] for layer in range(layers)],
        "steered": row[5:],
        "rmse": [round(value, 4) for value in rmse],
        "kl": round(0.3 * strength**1.5, 4),
        "recovered": round(1 - (1 - 0.45 * strength) ** 2, 4),
        "kl_by_token": [round(0.3 * strength, 4)] * tokens,
        "next": [words(5) for _ in range(tokens)],
        "lens": [[words(3) for _ in range(tokens)] for _ in range(layers)],
        "text": f"This film was a joy at strength {strength:g}; I would see it again and again.",
        "text_state": "done",
    }


def _curves(rng: np.random.Generator, layers: int) -> list[dict[str, Any]]:
    middle = np.linspace(0.35, 0.55, layers) + rng.normal(0, 0.02, layers)
    return [
        {
            "name": name,
            "rmse": np.round(middle + above, 4).tolist(),
            "low": np.round(middle + above - 0.1, 4).tolist(),
            "high": np.round(middle + above + 0.1, 4).tolist(),
        }
        for name, above in (("equivalent prompts", 0.0), ("any instruction", 0.4))
    ]


def _without_extras() -> dict[str, Any]:
    """The least that format 1 allows: no lens, no next words, no curves, no effect, no texts."""
    made = payload(curves=False, views=("accumulated",))
    for reading in made["readings"].values():
        for part in ("lens", "next", "sink", "kl_by_token"):
            del reading[part]
        reading |= {"text": None, "text_state": "none", "kl": None, "recovered": None}
    made |= {"effect": {}, "curves": {}, "made": {}}
    made["texts"][0]["completions"] = []
    return made


MANY = tuple(f"A-PSR_MSE {i}" for i in range(17))
LONG = tuple(f"a method whose name says all about how it was fitted, number {i}" for i in range(3))
ODD: dict[str, Callable[[], dict[str, Any]]] = {
    "usual": lambda: payload(places=(1, 2, 3, 4), texts=2),
    "one token": lambda: payload(tokens=1),
    "400 tokens": lambda: payload(tokens=400, methods=("CAA",), strengths=(0.5, 1)),
    "30 layers": lambda: payload(layers=30, tokens=60, methods=("CAA", "PSR"), strengths=(1, 2)),
    "one layer": lambda: payload(layers=1),
    "many scripts": lambda: payload(words=SCRIPTS, tokens=40),
    "long names": lambda: payload(methods=LONG),
    "17 methods": lambda: payload(methods=MANY, strengths=(1,)),
    "only the prompt": lambda: payload(methods=()),
    "nothing measured": lambda: payload(measured=False, curves=False),
    "nothing beside": _without_extras,
}
"""Shapes that a layout must stand, by name."""
