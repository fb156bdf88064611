"""Linear steering at one strength: what is added, and which strength the search takes."""

from typing import Any

import pytest
import torch
from catalogue import CATALOGUE
from tiny_models import D_MODEL

import steerlens
from steerlens import Site, generate
from steerlens.baselines import las
from steerlens.combinators import Scaled

DIRECTIONS = {Site(2): torch.full((D_MODEL,), 3.0), Site(0): torch.eye(D_MODEL)[1]}


def strength_of(steering: Any) -> float:
    """The strength that `search` put around the first steer."""
    steer = steering.placed[0][1]
    assert isinstance(steer, Scaled)
    return steer.strength


def test_every_site_gets_its_direction_at_length_1_and_the_same_strength(gpt2: Any) -> None:
    steering = las.fixed(DIRECTIONS, 2.5)
    assert steering.sites == (Site(0), Site(2))
    for site, v in DIRECTIONS.items():
        before, after = (
            steerlens.capture(gpt2, "the cat", site, moment=moment, steering=steering).at(site)
            for moment in ("before", "after")
        )
        expected = (2.5 * v / v.norm()).expand_as(before)
        torch.testing.assert_close(after - before, expected, rtol=1e-4, atol=1e-4)


def test_a_bare_layer_is_its_output() -> None:
    steering = las.fixed({2: torch.ones(D_MODEL), 0: torch.ones(D_MODEL)})
    assert steering.sites == (Site(0), Site(2))


def test_the_strength_of_the_largest_score_is_found() -> None:
    found = las.search(lambda s: -abs(strength_of(s) - 0.42), las.fixed(DIRECTIONS), las.GRID)
    assert found.strength == pytest.approx(0.4)
    assert found.table["strength"].tolist() == list(las.GRID)
    scores = [-abs(strength - 0.42) for strength in las.GRID]
    assert found.table["score"].tolist() == pytest.approx(scores)
    strength, table = found
    assert table["score"].idxmax() == las.GRID.index(strength)


@pytest.mark.parametrize(
    "grid", [[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0], [-3.0, 2.0, 3.0, 1.0]]
)
def test_of_equal_scores_the_smallest_strength_is_taken(grid: list[float]) -> None:
    found = las.search(lambda s: float(abs(strength_of(s)) >= 1.5), las.fixed(DIRECTIONS), grid)
    assert found.strength == 2.0


def test_the_papers_grid() -> None:
    assert len(las.GRID) == 20
    assert (las.GRID[0], las.GRID[1], las.GRID[-1]) == (0.0, 0.05, 0.95)


def test_a_search_by_what_the_steered_model_writes(gpt2: Any) -> None:
    token = 40
    v = gpt2.W_U[:, token].detach()

    def how_often(steering: Any) -> float:
        written = generate(gpt2, ["The dog"], steering, max_new_tokens=6, temperature=0.0)
        return sum(one == token for one in written.response_ids(0))

    steering = las.fixed({Site(3): v})
    found = las.search(how_often, steering, [0.0, 1.0, 100.0, 200.0])
    assert found.strength == 100.0
    assert found.table["score"].tolist()[2:] == [6.0, 6.0]


def test_a_steering_that_sees_the_tokens_can_be_searched_too(gpt2: Any) -> None:
    steering = CATALOGUE["a steer that sees the tokens"].build(gpt2)

    def moved(steering: Any) -> float:
        runs = [steerlens.capture(gpt2, "the cat", 1, steering=s).at(1) for s in (None, steering)]
        return float((runs[1] - runs[0]).norm())

    assert las.search(moved, steering, [0.5, 2.0, 1.0]).strength == 2.0


def test_mistakes_are_errors() -> None:
    steering = las.fixed(DIRECTIONS)
    with pytest.raises(ValueError, match=r"grid is empty.*las\.GRID"):
        las.search(strength_of, steering, [])
    with pytest.raises(ValueError, match=r"score at strength 2 is nan.*the lowest"):
        las.search(lambda s: float("nan"), steering, [2.0])
    with pytest.raises(ValueError, match=r"No directions were given"):
        las.fixed({})
    with pytest.raises(ValueError, match="cannot be normalised"):
        las.fixed({Site(0): torch.zeros(D_MODEL)})
