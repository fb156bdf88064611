"""Finding a direction: a recursive feature machine, all its configurations, beside simpler kinds.

Rows of the size that CLAS asks for in a small model: 240 to fit on and 60 to choose by, 768 wide,
with a planted concept beside eight strong directions of no interest. No model is run.
"""

from typing import Any

import torch
from torch import Tensor

from benchmarks.jobs import Job, compared
from benchmarks.timing import Task, versions
from steerlens.directions.labelled import Kind, fit_direction
from steerlens.directions.rfm import RFM, best_direction

FITTED, HELD, WIDTH, STRONG = 240, 60, 768, 8.0
KINDS: tuple[Kind, ...] = ("ridge", "logistic", "means")


def measure(job: Job) -> dict[str, Any]:
    """CPU seconds of each kind, and how near its direction is to the planted one."""
    torch.set_num_threads(1)
    x, y, v = planted()
    rfm = RFM()

    def by_rfm() -> Tensor:
        return best_direction(x[:FITTED], y[:FITTED], x[FITTED:], y[FITTED:], rfm).direction

    def by(kind: Kind) -> Task:
        return lambda: fit_direction(kind, x, y, held_out=HELD / len(x)).direction

    tasks: dict[str, Task] = {"rfm": by_rfm, **{kind: by(kind) for kind in KINDS}}
    cosines = {name: abs(float(torch.as_tensor(task()).to(v) @ v)) for name, task in tasks.items()}
    return {
        "rows": compared(tasks, job.repeats),
        "cosines": cosines,
        "configurations": len(rfm.bandwidths) * len(rfm.normalised) * len(rfm.centred),
        "fitted": FITTED,
        "held": HELD,
        "width": WIDTH,
        "versions": versions("scikit-learn", "torch"),
    }


def planted() -> tuple[Tensor, Tensor, Tensor]:
    """Rows, their labels, and the unit direction along which the labels move them."""
    generator = torch.Generator().manual_seed(0)
    n = FITTED + HELD
    v = torch.nn.functional.normalize(torch.randn(WIDTH, generator=generator), dim=0)
    nuisance = torch.linalg.qr(torch.randn(WIDTH, 8, generator=generator))[0]
    y = (torch.arange(n) % 2).float()
    rows = 0.3 * torch.randn(n, WIDTH, generator=generator) + (2 * y[:, None] - 1) * v
    return rows + STRONG * torch.randn(n, 8, generator=generator) @ nuisance.T, y, v
