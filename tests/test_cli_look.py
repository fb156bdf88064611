"""`steerlens explain` and `steerlens lens`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens as sl


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = sl.load("demo")
    fit = sl.CAA.fit(model, (["I loved it"], ["I hated it"]), [2, 5])
    return fit.steering.only(sl.response).save(tmp_path_factory.mktemp("look") / "c.safetensors")


def test_explain_tells_the_tokens_and_the_problems(run: Callable[..., Any], file: Path) -> None:
    code, said, err = run("explain", "--steering", file, "--prompt", "Review a film.")
    assert (code, err) == (0, "")
    assert "CAA at layer 2 resid_post, text 0: 1 of" in said
    found = json.loads(run("explain", "--steering", file, "-p", "A", "-p", "B", "--json")[1])
    assert len(found["kl"]) == 2
    assert {row["layer"] for row in found["tokens"]} == {2, 5}
    _, said, _ = run("explain", "--steering", file, "-p", "A film", "--strength", 100)
    assert "! 100 x CAA at layer 2 resid_post pushes text 0 by" in said


def test_lens_tells_words_of_directions_and_of_a_change(
    run: Callable[..., Any], file: Path
) -> None:
    code, said, err = run("lens", "--steering", file, "--top", 3)
    assert (code, err) == (0, "")
    assert len(said.strip().splitlines()) == 4
    assert "layer 5 resid_post CAA.direction up: " in said
    rows = json.loads(run("lens", "--steering", file, "--top", 2, "--json")[1])
    model = sl.load("demo")
    expected = sl.lens(sl.load_steering(file, model), model, top=2)
    assert [row["id"] for row in rows] == expected["id"].tolist()
    change = json.loads(run("lens", "--steering", file, "-p", "Hello", "--top", 1, "--json")[1])
    assert {row["name"] for row in change} == {"change"}
    assert {row["layer"] for row in change} == set(range(6))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("explain", "--steering", "no.safetensors", "--prompt", "I"), "no steering file"),
        (("explain",), "--prompt TEXT"),
        (("lens", "--top", 0), "--top is from 1 to 100"),
        (("explain", "--raw", "--system", "x", "--prompt", "I"), "--raw has no turns"),
    ],
)
def test_mistakes_are_one_line(
    run: Callable[..., Any], file: Path, arguments: tuple[Any, ...], says: str
) -> None:
    given = arguments if "--steering" in arguments else (*arguments, "--steering", file)
    code, _, err = run(*given)
    assert code == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1


def test_a_steer_without_directions_is_told(run: Callable[..., Any], tmp_path: Path) -> None:
    model = sl.load("demo")
    theta, sigma = torch.ones(model.cfg.n_heads, model.cfg.d_head), torch.ones(model.cfg.n_heads)
    heads = sl.at(sl.Site(2, "z"), sl.ITI(theta, sigma))
    path = heads.save(tmp_path / "i.safetensors", model)
    code, _, err = run("lens", "--steering", path)
    assert code == 2
    assert "holds no direction of 192 numbers" in err
