"""The frozen benchmark set: whole, honest about its model, and without leaks between splits."""

import gzip
import json
from pathlib import Path
from typing import Any

import benchmark_set as script
import pytest
from wordings import TOPICS

import steerlens
from analysis.judges import ATTRIBUTES
from steerlens.demo import benchmark_set
from steerlens.identity import fingerprint

TITLED = tuple(form.partition("{")[0] for form in script.ARTICLE_FORMS)
SMALLEST = {"train": 200, "validation": 40, "test": 100}


@pytest.fixture(autouse=True)
def _fresh() -> Any:
    yield
    benchmark_set._content.cache_clear()


def test_it_covers_every_attribute_and_is_small() -> None:
    assert set(benchmark_set.attributes()) == set(ATTRIBUTES)
    assert benchmark_set.FILE.stat().st_size < 2_000_000


def test_the_shipped_model_wrote_it() -> None:
    assert benchmark_set.model_fingerprint() == fingerprint(steerlens.load("demo"))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_splits_are_large_enough_and_share_no_question(name: str) -> None:
    attribute = benchmark_set.read(name)
    questions = {split: attribute.questions(split) for split in benchmark_set.SPLITS}
    for split, smallest in SMALLEST.items():
        assert len(questions[split]) >= smallest
    every = [question for split in questions.values() for question in split]
    assert len(set(every)) == len(every)
    topics = [
        {_about(question) for question in some if not question.startswith(TITLED)} & set(TOPICS)
        for some in questions.values()
    ]
    assert not topics[0] & topics[2]
    assert not topics[1] & topics[2]


def _about(question: str) -> str:
    """What a question is about: the words after the last "about a" or the like."""
    return (
        question.rstrip(".?").removesuffix(" that you saw").removesuffix(", please").split(" ")[-1]
    )


def test_there_are_enough_questions_for_the_full_set() -> None:
    titles = [f"Title {i}" for i in range(600)]
    for name in ATTRIBUTES:
        for split, size in {**script.SIZES, "train": script.MANY.get(name, 240)}.items():
            found = script.questions(name, split, size, titles)
            assert len(set(found)) == size
    with pytest.raises(ValueError, match="9999 different questions are wanted"):
        script.questions("positive", "test", 9999, titles)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_rows_have_two_answers_and_a_training_wording(name: str) -> None:
    attribute = benchmark_set.read(name)
    assert len(attribute.wordings) >= 10
    assert len(attribute.held_out) == 5
    assert not set(attribute.wordings) & set(attribute.held_out)
    for row in attribute.rows:
        assert row.instruction in attribute.wordings
        assert row.prompted.strip()
        assert row.plain.strip()
    assert any(row.prompted != row.plain for row in attribute.rows)


def test_pairs_are_ready_to_measure() -> None:
    model = steerlens.load("demo")
    pair = benchmark_set.read("positive").pairs("validation")[0]
    row = benchmark_set.read("positive").split("validation")[0]
    assert pair == steerlens.PromptPair.with_system(row.user, row.instruction, row.prompted)
    plain, prompted = steerlens.encode_pair(model, pair)
    assert plain.ids[plain.response :] == prompted.ids[prompted.response :]
    other = benchmark_set.read("positive").pairs("validation", "Be kind.")[0]
    assert other == steerlens.PromptPair.with_system(row.user, "Be kind.", row.prompted)


def test_what_it_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match=r"'angry'.*positive"):
        benchmark_set.read("angry")
    with pytest.raises(ValueError, match=r"'dev'.*validation"):
        benchmark_set.read("positive").split("dev")


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", gzip.compress(b"{")], ids=["empty", "no gzip", "no JSON"]
)
def test_a_damaged_file_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    file = tmp_path / "set.json.gz"
    file.write_bytes(content)
    monkeypatch.setattr(benchmark_set, "FILE", file)
    benchmark_set._content.cache_clear()
    with pytest.raises(ValueError, match="Reinstall steerlens"):
        benchmark_set.attributes()


def test_the_file_is_plain_json() -> None:
    content = json.loads(gzip.decompress(benchmark_set.FILE.read_bytes()))
    assert set(content) == {"fingerprint", "attributes", "digest"}
