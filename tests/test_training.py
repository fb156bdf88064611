"""The demonstration model's training: it learns, stops, goes on where it stopped, and exports."""

import json
import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import export
import pandas as pd
import pytest
import torch
import train
from transformers import AutoModelForCausalLM, AutoTokenizer

import steerlens
from steerlens.models import DEMO

REVIEW = "This is a wonderful film, and I love the story. It is the best of the year. "
SETTINGS = {
    "layers": 2,
    "width": 32,
    "heads": 2,
    "batch_tokens": 1024,
    "matrix_rate": 6e-3,
    "other_rate": 1e-2,
    "seed": 0,
    "save_seconds": 1000.0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    rows = [
        {"split": split, "label": label, "stars": stars, "text": f"{REVIEW} Number {i}, {split}."}
        for split, label, stars in (
            ("train", "pos", 9), ("train", "neg", 2), ("train", "unsup", 0), ("test", "pos", 8)
        )
        for i in range(30)
    ]  # fmt: skip
    pd.DataFrame(rows).to_parquet(folder / "reviews.parquet")
    for name in ("encyclopedia", "fairytales"):
        titled = [
            {"title": f"Title {i}", "text": f"The city of {i} is large. " * 9} for i in range(40)
        ]
        pd.DataFrame(titled).to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    (tmp_path / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(DEMO / name, tmp_path / "tokenizer" / name)
    return tmp_path


def trained(corpus: Path, work_dir: Path, seconds: float, **changes: Any) -> dict[str, Any]:
    options = {**SETTINGS, "corpus": corpus, "work_dir": work_dir, "minutes": seconds / 60}
    train.train(Namespace(**{**options, **changes}))
    return train.load_checkpoint(work_dir / "checkpoint.pt")


@pytest.mark.slow
def test_it_learns_and_goes_on_where_it_stopped(corpus: Path, work_dir: Path) -> None:
    first = trained(corpus, work_dir, 12)
    assert first["done"]["seconds"] >= 12  # the budget that was given, not a speed
    log = [json.loads(line) for line in (work_dir / "log.jsonl").read_text().splitlines()]
    assert log[-1]["loss"] < log[0]["loss"]

    again = trained(corpus, work_dir, 12)  # the budget is used up
    assert again["done"]["steps"] == first["done"]["steps"]
    second = trained(corpus, work_dir, 16)
    assert second["done"]["steps"] > first["done"]["steps"]
    assert second["done"]["window"] > first["done"]["window"]
    with pytest.raises(ValueError, match="another --work-dir"):
        trained(corpus, work_dir, 6, width=64)

    export.write_folder(second, work_dir / "tokenizer", work_dir / "model")
    loaded = AutoModelForCausalLM.from_pretrained(work_dir / "model")
    name = "transformer.h.0.attn.c_attn.weight"
    expected = second["average"][name].half().float()
    torch.testing.assert_close(loaded.state_dict()[name], expected)
    assert steerlens.load(work_dir / "model").cfg.n_layers == 2


def test_prompts_weigh_little_and_answers_everything(corpus: Path, work_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(work_dir / "tokenizer")
    source = train.ConversationSource(train.Corpora.read(corpus), seed=0)
    seen = 0
    for index in range(40):
        ids, weights = train.token_row(source, index, tokenizer)
        assert len(ids) == len(weights) <= train.CONTEXT
        assert ids[0] == tokenizer.bos_token_id
        if 4 in ids:  # <|assistant|>
            answer = ids.index(4) + 1
            assert set(weights[:answer]) == {train.PROMPT_WEIGHT}
            assert set(weights[answer:]) == {1.0}
            seen += 1
    assert seen > 20


def test_test_reviews_and_held_out_titles_are_never_read(corpus: Path) -> None:
    known = train.Corpora.read(corpus)
    reviews = [*known.positive, *known.negative, *known.unlabelled]
    assert len(reviews) == 90
    assert not any("test" in review for review in reviews)
    assert not any(train_held_out(title) for title, _ in (*known.articles, *known.tales))
    assert 0 < len(known.articles) < 40


def train_held_out(title: str) -> bool:
    from conversations import held_out

    return held_out(title)


def test_rows_start_at_their_own_position_and_stay_in_the_context(
    corpus: Path, work_dir: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(work_dir / "tokenizer")
    source = train.ConversationSource(train.Corpora.read(corpus), seed=0)
    batches = train.batches(source, tokenizer, batch_tokens=2048, window=0)
    starts: set[int] = set()
    for _ in range(12):
        _, ids, weights, positions = next(batches)
        assert ids.shape == weights.shape == positions.shape
        assert int(positions.max()) < train.CONTEXT
        assert (positions.diff(dim=1) == 1).all()
        starts |= set(positions[:, 0].tolist())
    assert 0 in starts
    assert max(starts) > 20
    assert max(starts) <= train.FURTHEST_START
