"""The training loop of the learned methods, on a problem whose solution is known."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steerlens import SteeringWarning
from steerlens.training.loop import _Plan, train
from steerlens.training.schedule import Schedule, Share

TRUE = torch.tensor([1.0, -2.0, 0.5])


@dataclass
class Line:
    """y = x w + c by least squares; keeps a record of the examples of each loss."""

    n: int = 40
    noise: float = 0.0
    asked: list[list[int]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn((self.n, 3), generator=generator)
        self.y = self.x @ TRUE + 3 + self.noise * torch.randn(self.n, generator=generator)

    @property
    def size(self) -> int:
        return self.n

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {"w": torch.randn(3, generator=generator), "c": torch.zeros(1)}

    def loss(self, parameters: dict[str, Tensor], examples: Sequence[int]) -> Tensor:
        self.asked.append(list(examples))
        rows = list(examples)
        return (self.x[rows] @ parameters["w"] + parameters["c"] - self.y[rows]).square().mean()


# Most trainings here are too short on purpose; the warning about it has its own test.
pytestmark = pytest.mark.filterwarnings("ignore:.* can move a parameter")
LONG = Schedule(epochs=200, learning_rate=0.1, patience=None)


def test_it_finds_the_solution() -> None:
    found = train(Line(), LONG)
    torch.testing.assert_close(found.parameters["w"], TRUE, atol=1e-2, rtol=0)
    assert found.parameters["c"].item() == pytest.approx(3, abs=1e-2)
    assert not found.stopped_early
    assert len(found.table) == 201


def test_the_same_seed_gives_the_same_parameters_and_another_does_not() -> None:
    runs = [train(Line(), Schedule(epochs=3, seed=seed)).parameters["w"] for seed in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_validation_examples_are_never_trained_on() -> None:
    task = Line()
    train(task, Schedule(epochs=2, batch_size=100))
    held, *rest = task.asked  # the start is validated first; then training and validation in turn
    assert len(held) == 8
    assert set(rest[0]).isdisjoint(held)
    assert sorted(rest[0] + held) == list(range(40))
    assert rest[1] == held


def test_every_example_is_seen_once_an_epoch_in_another_order() -> None:
    task = Line()
    train(task, Schedule(epochs=2, batch_size=3, validation=0.0))
    first, second = task.asked[:14], task.asked[14:]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(40))
    assert first != second


def test_the_best_parameters_are_kept_and_the_start_is_a_candidate() -> None:
    class Worse(Line):
        def start(self, generator: torch.Generator) -> dict[str, Tensor]:
            return {"w": TRUE.clone(), "c": torch.full((1,), 3.0)}

    with pytest.warns(SteeringWarning, match="No epoch had a lower validation loss"):
        found = train(Worse(noise=0.0), Schedule(epochs=4, learning_rate=0.5, patience=None))
    assert found.best_epoch == 0
    assert torch.equal(found.parameters["w"], TRUE)
    best = found.table["validation_loss"].idxmin()
    assert found.table["epoch"][best] == 0


def test_it_stops_when_nothing_gets_better() -> None:
    class Solved(Line):
        def start(self, generator: torch.Generator) -> dict[str, Tensor]:
            return {"w": TRUE.clone(), "c": torch.full((1,), 3.0)}

    with pytest.warns(SteeringWarning, match="so the start is what is kept"):
        found = train(Solved(), Schedule(epochs=50, learning_rate=0.5, patience=3))
    assert found.stopped_early
    assert found.table["epoch"].max() == 3


def test_without_validation_the_last_parameters_are_returned() -> None:
    found = train(Line(), Schedule(epochs=3, validation=0.0))
    assert found.best_epoch == 3
    assert found.table["validation_loss"].isna().all()


@pytest.mark.parametrize("after", [1, 4])
def test_a_run_that_was_cut_off_ends_where_an_uncut_one_does(tmp_path: Path, after: int) -> None:
    class Cut(Exception):
        pass

    def cut(parameters: Any, epoch: int) -> None:
        if epoch == after + 1:
            raise Cut

    schedule = Schedule(epochs=6, patience=None)
    whole = train(Line(noise=1.0), schedule)
    with pytest.raises(Cut):
        train(Line(noise=1.0), schedule, after_epoch=cut, checkpoint=tmp_path / "run.safetensors")
    resumed = train(Line(noise=1.0), schedule, checkpoint=tmp_path / "run.safetensors")
    assert torch.equal(whole.parameters["w"], resumed.parameters["w"])
    assert whole.table.equals(resumed.table)
    assert [path.name for path in tmp_path.iterdir()] == ["run.safetensors"]
    again = train(Line(noise=1.0), schedule, checkpoint=tmp_path / "run.safetensors")
    assert torch.equal(again.parameters["w"], whole.parameters["w"])


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    train(Line(), Schedule(epochs=1), checkpoint=path)
    with pytest.raises(ValueError, match="another schedule"):
        train(Line(), Schedule(epochs=2), checkpoint=path)
    with pytest.raises(ValueError, match="other data"):
        train(Line(n=41), Schedule(epochs=1), checkpoint=path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="damaged"):
        train(Line(), Schedule(epochs=1), checkpoint=path)


def test_the_rate_falls_linearly_and_that_of_a_parameter_of_its_own_alike() -> None:
    moved = []

    class Push(Line):
        def loss(self, parameters: dict[str, Tensor], examples: Sequence[int]) -> Tensor:
            moved.append({name: value.detach().clone() for name, value in parameters.items()})
            return parameters["w"].sum() + parameters["c"].sum()

    schedule = Schedule(
        epochs=4, batch_size=40, learning_rate=0.5, validation=0.0, weight_decay=0.0,
        rates={"c": 1.0},
    )  # fmt: skip
    train(Push(), schedule)
    steps = [(a["w"] - b["w"])[0].item() for a, b in pairwise(moved)]
    assert steps == pytest.approx([0.5, 0.375, 0.25], rel=1e-4)  # Adam's step is the rate
    wider = [(a["c"] - b["c"])[0].item() for a, b in pairwise(moved)]
    assert wider == pytest.approx([1.0, 0.75, 0.5], rel=1e-4)
    with pytest.raises(ValueError, match="no parameter called d"):
        train(Line(), replace(schedule, rates={"d": 2.0}))
    with pytest.raises(ValueError, match=r"rate of c is a share .* not measured here"):
        train(Line(), replace(schedule, rates={"c": Share(0.1)}))


@pytest.mark.parametrize(
    ("steps", "rate"), [(15_000, 1e-3), (100_000, 1e-3), (3000, 5e-3), (900, 1e-2), (200, 1e-2)]
)
def test_without_a_rate_it_is_chosen_by_its_reach(steps: int, rate: float) -> None:
    assert Schedule().rate(steps) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("rate", "steps", "reach", "advice"),
    [
        (
            1e-3,
            900,
            r"0\.45",
            "Take more steps or a higher rate; learning_rate=None chooses one for so many",
        ),
        (1e-3, 199, r"0\.1", "Take more steps .steps=200, more epochs or smaller batches"),
        (None, 20, r"0\.1", "Take more steps .steps=200, more epochs or smaller batches"),
        (None, 199, r"0\.99", "Take more steps"),
    ],
)
def test_steps_that_reach_nowhere_are_warned_about(
    rate: float | None, steps: int, reach: str, advice: str
) -> None:
    with pytest.warns(SteeringWarning, match=rf"{steps} steps .* by {reach}\d* at most.* {advice}"):
        Schedule(learning_rate=rate).rate(steps)


def test_a_rate_that_does_not_fall_is_the_callers_choice() -> None:
    assert Schedule(learning_rate=1e-3, falling=False).rate(8) == 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"batch_size": 0}, {"validation": 1.0}, {"validation": -0.1},
        {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"patience": 0},
        {"rates": {"b": -1.0}}, {"rates": {"b": math.nan}}, {"rates": {"b": Share(math.inf)}},
    ],
    ids=str,
)  # fmt: skip
def test_a_schedule_that_makes_no_sense_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).removesuffix("s")):
        Schedule(**wrong)


def test_a_rate_is_for_the_parameter_of_every_site_or_of_one() -> None:
    names = ["1.resid_post.b", "2.resid_post.b", "2.resid_post.c"]
    schedule = Schedule(rates={"b": 0.02, "2.resid_post.b": 0.03})
    found = schedule.multipliers(0.01, names)
    assert found == pytest.approx(dict(zip(names, [2.0, 3.0, 1.0], strict=True)))


def test_without_a_batch_size_all_examples_are_one_batch() -> None:
    task = Line()
    train(task, Schedule.full_batch(2, 1e-2))
    assert [len(examples) for examples in task.asked] == [8, 32, 8, 32, 8]
    with pytest.raises(ValueError, match="steps is a number of updates"):
        Schedule.full_batch(0)


def test_too_few_examples_and_bad_losses_are_errors() -> None:
    with pytest.raises(ValueError, match="leave none to train on"):
        train(Line(n=0), Schedule())

    class Broken(Line):
        def loss(self, parameters: dict[str, Tensor], examples: Sequence[int]) -> Tensor:
            return parameters["w"].sum() * math.nan

    with pytest.raises(ValueError, match=r"nan in epoch 1.*NaN"):
        train(Broken(), Schedule())


def test_what_changes_after_each_epoch_is_trained_on() -> None:
    seen = []

    def change(parameters: dict[str, Tensor], epoch: int) -> None:
        seen.append(epoch)
        parameters["c"].fill_(9.0)

    with pytest.warns(SteeringWarning, match="The training loss ended higher"):
        found = train(Line(), Schedule(epochs=3, validation=0.0), after_epoch=change)
    assert seen == [1, 2]  # nothing follows the last epoch that could train what was mended
    assert found.parameters["c"].item() == pytest.approx(9, abs=0.1)  # one epoch of steps away


def test_a_cost_is_minimised_with_its_progress_and_validation_is_by_the_loss() -> None:
    seen = []

    def cost(parameters: dict[str, Tensor], examples: Sequence[int], progress: float) -> Tensor:
        seen.append(progress)
        return (parameters["c"] - 7).square().sum()

    task = Line()
    schedule = Schedule(epochs=2, batch_size=16, learning_rate=0.5, patience=None)
    found = train(task, schedule, cost=cost)
    assert seen == pytest.approx([0, 1 / 4, 2 / 4, 3 / 4])
    assert found.parameters["w"].equal(train(task, schedule, cost=cost).parameters["w"])
    _, held = schedule.split(40)
    with torch.no_grad():
        expected = task.loss(found.parameters, held).item()
    assert found.table["validation_loss"].min() == pytest.approx(expected)
    assert found.table["loss"][1] == pytest.approx((7**2 + 6.5**2) / 2, rel=1e-3)


def test_parameters_are_projected_after_every_step() -> None:
    lengths = []

    class Watched(Line):
        def loss(self, parameters: dict[str, Tensor], examples: Sequence[int]) -> Tensor:
            lengths.append(parameters["w"].norm().item())
            return super().loss(parameters, examples)

    def project(parameters: dict[str, Tensor]) -> None:
        parameters["w"] /= parameters["w"].norm()

    schedule = Schedule(epochs=2, batch_size=10, learning_rate=0.5, validation=0.0)
    found = train(Watched(), schedule, after_step=project)
    assert lengths[1:] == pytest.approx([1.0] * 7)
    assert abs(lengths[0] - 1) > 0.01
    assert found.parameters["w"].norm().item() == pytest.approx(1)


# -- How long, in steps ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "n_batches", "epochs", "steps"),
    [
        (Schedule(), 1, 15, 16),  # a few examples: several passes an epoch
        (Schedule(), 125, 15, 125),  # many: as ever
        (Schedule(epochs=15), 1, 15, 1),
        (Schedule(steps=200), 1, 15, 14),
        (Schedule(steps=200), 1000, 15, 14),  # a part of one pass
        (Schedule(steps=4), 3, 4, 1),
        (Schedule(steps=16), 3, 8, 2),  # no more than were asked for
        (Schedule(steps=100), 3, 15, 7),
        (Schedule(epochs=3, steps=72), 2, 3, 24),
        (Schedule(epochs=3, steps=72), 30, 3, 30),
        (Schedule.full_batch(8), 1, 8, 1),
    ],
)
def test_a_training_is_as_long_in_steps_whatever_the_number_of_examples(
    schedule: Schedule, n_batches: int, epochs: int, steps: int
) -> None:
    assert schedule.length(n_batches) == (epochs, steps)


def test_an_epoch_of_several_passes_sees_every_example_once_a_pass() -> None:
    task = Line(n=10)
    found = train(task, Schedule(steps=30, batch_size=4, validation=0.2, patience=None))
    trained_on = [asked for asked in task.asked if len(asked) == 4]
    assert len(trained_on) == 30
    for first in range(0, 30, 2):
        assert len(set(trained_on[first] + trained_on[first + 1])) == 8
    assert found.table["steps"].tolist() == list(range(0, 31, 2))


def test_passes_given_as_such_are_trained_as_ever() -> None:
    """The same parameters as version 0.1.0, whose epochs were passes."""
    schedule = Schedule(epochs=3, batch_size=8, validation=0.0)
    assert [list(batch) for batch, _ in _batches(schedule)] == _batches_of_0_1_0(schedule)


def _batches(schedule: Schedule) -> list[tuple[list[int], float]]:
    plan = _Plan.of(Line(n=20), schedule, None)
    return [batch for epoch in range(1, plan.epochs + 1) for batch in plan.batches(epoch)]


def _batches_of_0_1_0(schedule: Schedule) -> list[list[int]]:
    batches = []
    for epoch in (1, 2, 3):
        order = random.Random(f"epoch {epoch} of {schedule.seed}").sample(range(20), 20)
        batches += [order[start : start + 8] for start in (0, 8, 16)]
    return batches


@pytest.mark.parametrize("name", ["epochs", "steps", "batch_size"])
@pytest.mark.parametrize("wrong", [0, -1])
def test_counts_are_whole_and_at_least_one(name: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, and whole"):
        Schedule(**{name: wrong})


@pytest.mark.parametrize(
    ("schedule", "size"),
    [
        (Schedule(), 2),
        (Schedule(epochs=15), 8),
        (Schedule(steps=100), 8),
        (Schedule(batch_size=1), 1),
        (Schedule(batch_size=6), 6),  # what is asked for is taken
        (Schedule(batch_size=None), 6),
    ],
)
def test_of_few_examples_a_batch_is_a_quarter_unless_a_length_is_given(
    schedule: Schedule, size: int
) -> None:
    assert schedule.batch(6) == size
    assert Schedule().batch(1) == 1
    assert Schedule().batch(100) == 8


# -- A loss that gets worse ------------------------------------------------------------------------


def test_a_validation_loss_that_ends_higher_than_it_began_is_said() -> None:
    class Spoilt(Line):
        def loss(self, parameters: dict[str, Tensor], examples: Sequence[int]) -> Tensor:
            # Better for a while, then worse: w runs past its best.
            near = (parameters["w"].sum() - 1).square()
            return near if not torch.is_grad_enabled() else -parameters["w"].sum()

        def start(self, generator: torch.Generator) -> dict[str, Tensor]:
            return {"w": torch.zeros(3), "c": torch.zeros(1)}

    schedule = Schedule(epochs=12, batch_size=32, learning_rate=0.2, patience=None)
    with pytest.warns(SteeringWarning, match=r"ended higher than it began .* kept is epoch [1-9]"):
        train(Spoilt(), replace(schedule, falling=False))


def test_a_penalty_that_grows_with_the_steps_is_no_loss_that_got_worse() -> None:
    def cost(parameters: dict[str, Tensor], examples: Sequence[int], done: float) -> Tensor:
        return done + 0 * parameters["c"].sum()

    train(Line(), Schedule(epochs=3, validation=0.0), cost=cost)
