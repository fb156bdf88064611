"""What there is to tell of a fit: how training went, how well directions tell prompts apart."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steerlens.cli import output

if TYPE_CHECKING:
    from steerlens.directions.labelled import FittedDirection
    from steerlens.methods.psr import PSR
    from steerlens.sites import Site
    from steerlens.steering import Steering
    from steerlens.training.fit import Fit
    from steerlens.training.loop import Trained


def finish(
    steering: "Steering", out: Path, content: dict[str, Any], as_json: bool, text: str
) -> None:
    """Write what was fitted, and tell of it; what cannot be told is an error without a file."""
    told = output.told(content, as_json, text)
    keep(steering, out)
    output.show(told)


def keep(steering: "Steering", out: Path) -> None:
    """Write what was fitted; where its place has become unwritable, in the temporary folder."""
    try:
        steering.save(out)
    except OSError as error:
        spare = Path(tempfile.mkdtemp(prefix="steerlens-")) / out.name
        try:
            steering.save(spare)
        except OSError:
            spare.parent.rmdir()
            raise error from None
        raise OSError(f"{error} What was fitted is kept in {spare}.") from error


def validation_losses(trained: "Trained | None") -> tuple[list[float | None], int]:
    """The loss at the start and at the epoch that is kept (None: no pair held back), and which."""
    assert trained is not None
    kept = trained.best_epoch
    losses = [trained.rows[epoch]["validation_loss"] for epoch in (0, kept)]
    return [None if math.isnan(loss) else loss for loss in losses], kept


def course(losses: Sequence[float | None], kept: int, start: str) -> str:
    """How far training brought the validation loss; `start` is what the start's parameters are."""
    first, best = losses
    if first is None or best is None:
        return "no pair held back to choose an epoch by"
    text = f"validation loss {first:.3g} -> {best:.3g}"
    if kept == 0:
        text += f" (no epoch was better than the start: these are {start})"
    return text


def scores_of(
    directions: "Mapping[Site, FittedDirection]",
) -> tuple[list[dict[str, Any]], str]:
    """How well each direction tells held-out prompts apart, as rows and as lines."""
    table, lines = [], []
    for site, v in directions.items():
        scored, pairs = v.auroc == v.auroc, v.n_held_out // 2  # nan where none was held out
        score = f"held-out AUROC {v.auroc:.2f} (on {pairs} pair{'s' * (pairs != 1)})"
        some = f"; {v.n_sinks} tokens left out as sinks" if v.n_sinks else ""
        said = score if scored else "not scored, no pair was held out"
        lines.append(f"\n{site}: {said}{some}")
        table.append(
            {
                "site": str(site),
                "auroc": v.auroc if scored else None,
                "correlation": v.correlation if scored else None,
                "held_out_pairs": pairs,
                "sinks": v.n_sinks,
            }
        )
    return table, "".join(lines)


def outcome_of(fit: "Fit[PSR]") -> tuple[dict[str, Any], str]:
    """The numbers of a fitted PSR, for `--json` and for reading."""
    losses, kept = validation_losses(fit.trained)
    firing = {str(site): rates.tolist() for site, rates in fit.firing.items()}
    content = {
        "method": fit.name,
        "validation_loss": losses,
        "epoch": kept,
        "firing": firing,
        "b_m": {str(site): steer.b_m for site, steer in fit.steers.items()},
    }
    shown = "".join(
        f"\n{site}: open on {', '.join(f'{rate:.0%}' for rate in rates)} of the tokens"
        for site, rates in firing.items()
    )
    return content, f"{fit.name}, {course(losses, kept, 'the random first parameters')}{shown}"
