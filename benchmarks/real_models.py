"""What a real model needs: CPU seconds and memory of loading, writing, fitting and measuring.

    python -m benchmarks.real_models smollm2 --dtype float32

Every task runs in a process of its own, on one thread. Memory is what the process held at most,
less what it held with the model loaded and 16 answers written; of "load" it is all of it. What
every process imports is not timed.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

N_PAIRS, LONGEST, STEPS = 8, 32, 12
TASKS = (
    "load",
    "generate, a token",
    "generate 8 rows, a token",
    "fit CAA",
    "fit ActAdd",
    "fit S-PSR, a step of 2 pairs",
    "fit A-PSR, a step of 2 pairs",
    "fit CLAS, 8 steps of all pairs",
    "fit COLD-Kernel",
    "fit COLD-FD",
    "calibrate",
    "faithfulness of CAA",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", default="bridge")
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.task:
        print(json.dumps(measured(asked.task, asked.model, asked.dtype, asked.backend)))
        return
    print(f"{asked.model}, {asked.dtype}, {asked.backend}: {N_PAIRS} pairs of {LONGEST} tokens\n")
    print("| task | CPU seconds | memory, GB |\n|---|---|---|")
    for task in TASKS:
        call = [sys.executable, "-W", "ignore", "-m", "benchmarks.real_models", asked.model]
        call += ["--dtype", asked.dtype, "--backend", asked.backend, "--task", task]
        ran = subprocess.run(call, capture_output=True, text=True, check=False)
        if ran.returncode:
            print(f"| {task} | failed: {ran.stderr.strip().splitlines()[-1]} | |", flush=True)
            continue
        seconds, gigabytes = json.loads(ran.stdout.strip().splitlines()[-1])
        print(f"| {task} | {seconds:.3g} | {gigabytes:.2f} |", flush=True)


def measured(task: str, name: str, dtype: str, backend: str) -> tuple[float, float]:
    """CPU seconds and gigabytes of one task, in this process."""
    import torch
    import transformer_lens  # noqa: F401  its import takes seconds, whatever the model

    import steerlens as sl

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    begun = time.process_time()
    model: Any = sl.load(name, dtype=dtype, backend=backend)  # pyright: ignore
    if task == "load":
        return time.process_time() - begun, most()
    run, repeats = prepared(task, model)
    before, begun = most(), time.process_time()
    run()
    return (time.process_time() - begun) / repeats, most() - before


def most() -> float:
    """The most memory that the process has held, in gigabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def prepared(task: str, model: Any) -> tuple[Callable[[], Any], int]:
    """What is to be timed, and by how much its time is divided."""
    import steerlens as sl
    from steerlens.demo import pirate

    questions = pirate.TRAIN[:N_PAIRS]
    options: dict[str, Any] = {"max_new_tokens": LONGEST, "temperature": 0.8, "seed": 0}
    pairs = sl.prompted_pairs(model, questions, pirate.INSTRUCTION, **options)
    asked = [sl.Conversation(question) for question in questions]
    answers = sl.generate(model, asked, **options).texts
    told = [model.tokenizer.decode(list(pair.response)) for pair in pairs]
    sides = tuple(
        [sl.Conversation(q, response=text) for q, text in zip(questions, texts, strict=True)]
        for texts in (told, answers)
    )
    return (fits(model, pairs, sides) | runs(model, pairs, sides, asked))[task]


Tasks = dict[str, tuple[Callable[[], Any], int]]


def fits(model: Any, pairs: Any, sides: Any) -> Tasks:
    """Every method's fit."""
    import steerlens as sl

    layer, layers = model.cfg.n_layers * 2 // 5, range(model.cfg.n_layers)
    short = sl.Schedule(steps=STEPS, batch_size=2, validation=0.0, patience=None)

    def clas() -> None:
        found = sl.contrast_directions(model, "means", *sides, [layer], read=sl.generated)
        v = {site: one.direction for site, one in found.items()}
        sl.CLAS.fit(model, pairs[2:], directions=v, validation=pairs[:2])

    return {
        "fit CAA": (lambda: sl.CAA.fit(model, sides, layer, read=sl.generated), 1),
        "fit ActAdd": (lambda: sl.ActAdd.fit(model, (" pirate", " person"), layer), 1),
        "fit S-PSR, a step of 2 pairs": (
            lambda: sl.PSR.fit(model, pairs, layer, schedule=short),
            STEPS,
        ),
        "fit A-PSR, a step of 2 pairs": (
            lambda: sl.PSR.fit(model, pairs, layers, schedule=short),
            STEPS,
        ),
        "fit CLAS, 8 steps of all pairs": (clas, 1),
        "fit COLD-Kernel": (lambda: sl.ColdKernel.fit(model, sides, layer), 1),
        "fit COLD-FD": (lambda: sl.ColdFD.fit(model, sides, layer), 1),
    }


def runs(model: Any, pairs: Any, sides: Any, asked: Any) -> Tasks:
    """Writing, and measuring a steering."""
    import steerlens as sl
    from steerlens.analysis import faithfulness

    layer, tokens = model.cfg.n_layers * 2 // 5, {"max_new_tokens": LONGEST, "stop_at_end": False}
    caa = sl.CAA.fit(model, sides, layer, read=sl.generated).steering.only(sl.scope.response)
    return {
        "generate, a token": (lambda: sl.generate(model, asked[:1], **tokens), LONGEST),
        "generate 8 rows, a token": (lambda: sl.generate(model, asked, **tokens), LONGEST),
        "calibrate": (lambda: sl.calibrate(model, caa, pairs, like="prompt"), 1),
        "faithfulness of CAA": (lambda: faithfulness(model, pairs, {"CAA": caa}), 1),
    }


if __name__ == "__main__":
    main()
