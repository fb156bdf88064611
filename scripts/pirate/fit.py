"""Fit the steerings of the demonstration on SmolLM2, and write their files.

    python scripts/pirate/fit.py

Half an hour on a busy machine. Every steering is fitted on the questions of
`steerlens.demo.pirate.TRAIN` and the answers that the prompted model gave to them (seed 0), and is
saved at the strength at which it changes the predictions on those answers as much as the
instruction does (`sl.calibrate`).
"""

import time
from collections.abc import Callable, Iterator

import steerlens as sl
from steerlens.demo import pirate

LAYER = 12
LONGEST = 48
ADDED = (" Arrr, matey, I am a pirate captain", " Hello, sir, I am a polite assistant")


def main() -> None:
    model = sl.load(pirate.MODEL)
    pirate.FITTED.mkdir(exist_ok=True)
    options = {"max_new_tokens": LONGEST, "temperature": 0.8, "seed": 0}
    pairs = sl.prompted_pairs(model, pirate.TRAIN, pirate.INSTRUCTION, **options)
    plain = [sl.Conversation(question) for question in pirate.TRAIN]
    answers = sl.generate(model, plain, **options).texts
    told = [model.tokenizer.decode(list(pair.response)) for pair in pairs]
    sides = (
        [sl.Conversation(q, response=text) for q, text in zip(pirate.TRAIN, told, strict=True)],
        [sl.Conversation(q, response=text) for q, text in zip(pirate.TRAIN, answers, strict=True)],
    )
    for name, fit in fits(model, pairs, sides):
        begun = time.monotonic()
        steering = fit()
        found = sl.calibrate(model, steering, pairs, like="prompt")
        found.steering.save(pirate.FITTED / f"{name}.safetensors", model)
        print(f"{name}: {found}; {time.monotonic() - begun:.0f} s", flush=True)


def fits(model, pairs, sides) -> Iterator[tuple[str, Callable[[], sl.Steering]]]:
    """Every method by name, and what fits it."""
    response, all_layers = sl.scope.response, range(model.cfg.n_layers)
    yield "CAA", lambda: sl.CAA.fit(model, sides, LAYER, read=sl.generated).steering.only(response)
    yield "ActAdd", lambda: sl.ActAdd.fit(model, ADDED, LAYER // 2).steering
    yield "S-PSR", lambda: sl.PSR.fit(model, pairs, LAYER, progress=True).steering
    yield "CLAS", lambda: clas(model, pairs, sides)
    yield "A-PSR", lambda: sl.PSR.fit(model, pairs, all_layers, progress=True).steering


def clas(model, pairs, sides) -> sl.Steering:
    """CLAS along mean differences, at the layers between a quarter and three quarters."""
    n = model.cfg.n_layers
    found = sl.contrast_directions(
        model, "means", *sides, range(n // 4, 3 * n // 4), read=sl.generated
    )
    v = {site: one.direction for site, one in found.items()}
    fit = sl.CLAS.fit(model, pairs[:12], directions=v, validation=pairs[12:], progress=True)
    return fit.steering


if __name__ == "__main__":
    main()
