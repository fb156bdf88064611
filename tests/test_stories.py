"""A real model that this project did not train: happy against sad, read and written at layer 2.

stories260K lies in shared/ beside the checkout; without it these tests are skipped.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import BACKENDS, load

import steerlens
from steerlens import CAA, Scaled, at

FOLDER = Path(__file__).parents[1].parent / "shared" / "models" / "stories260K"
LAYER, SHARE = 2, 0.25

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="shared/models/stories260K is absent")

# Whole sentences: what is read is the full stop, which sums them up.
HAPPY = [
    "Lily was very happy. She smiled and laughed.",
    "Tom was so happy. He had fun and he jumped with joy.",
    "The dog was happy and excited. It was a fun day.",
    "They were happy. They laughed and hugged.",
    "It was the best day. She was happy and she smiled.",
    "He loved his new toy. He was so happy.",
    "They played and had fun. They were happy.",
    "Mom smiled and gave her a big hug. She felt happy.",
]
SAD = [
    "Lily was very sad. She cried and cried.",
    "Tom was so sad. He was hurt and he cried with fear.",
    "The dog was sad and scared. It was a bad day.",
    "They were sad. They cried and yelled.",
    "It was the worst day. She was sad and she cried.",
    "He lost his new toy. He was so sad.",
    "They fought and got hurt. They were sad.",
    "Mom yelled and gave her a bad look. She felt sad.",
]
NEUTRAL = [
    "Once upon a time, there was a boy named Ben. One day, he",
    "One day, a girl named Sue went to the park. She saw",
    "There was a big tree in the garden. A bird",
    "Mia and her brother went to the store. They",
    "The cat looked at the box. Then it",
    "A man had a red car. He",
    "Anna and Max were in the kitchen. Their mom",
    "In the forest, there was a small house. A bear",
]
POSITIVE_WORDS = re.compile(
    "happy|happily|smile[ds]?|smiling|laugh(ed|s|ing)?|fun|loved?|loves|joy|glad|excited|proud|best"
    "|great|wonderful|beautiful|nice|hug|hugged|kind|cheerful|yay"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A model this small is slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=BACKENDS)
def stories(request: pytest.FixtureRequest) -> Any:
    return load(FOLDER, request.param)


def happiness(model: Any) -> torch.Tensor:
    """Happy minus sad, at SHARE of the residual norm of tokens that are no BOS."""
    ((_, caa),) = CAA.from_prompts(model, HAPPY, SAD, LAYER).placed
    tokens = steerlens.everywhere.without_bos
    plain = steerlens.capture(model, NEUTRAL, LAYER, scope=tokens).at(LAYER)
    return SHARE * float(plain.norm(dim=1).mean()) * steerlens.unit(caa.direction)


def positive_words(texts: tuple[str, ...]) -> np.ndarray:
    """For each text: how many of its words are positive, and how many words it has."""
    rows = [re.findall(r"[a-z]+", text.lower()) for text in texts]
    return np.array([(sum(map(is_positive, words)), len(words)) for words in rows])


def is_positive(word: str) -> bool:
    return POSITIVE_WORDS.fullmatch(word) is not None


def per_hundred(counts: np.ndarray) -> float:
    return 100 * counts[:, 0].sum() / counts[:, 1].sum()


def lower_bound_of_difference(more: np.ndarray, fewer: np.ndarray) -> float:
    """The first percentile of the bootstrapped difference in positive words per 100."""
    generator = np.random.default_rng(0)
    drawn = [
        per_hundred(more[generator.integers(0, len(more), len(more))])
        - per_hundred(fewer[generator.integers(0, len(fewer), len(fewer))])
        for _ in range(500)
    ]
    return float(np.percentile(drawn, 1))


def test_it_loads_and_continues_a_story_as_transformers_does(stories: Any) -> None:
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(FOLDER).eval()
    tokens, _ = steerlens.batch(stories, NEUTRAL[:1])
    theirs = reference.generate(tokens, do_sample=False, max_new_tokens=30)
    ours = steerlens.generate(stories, NEUTRAL[:1], max_new_tokens=30, temperature=0.0)
    assert ours.response_ids(0) == tuple(theirs[0, tokens.shape[1] :].tolist())
    assert len(set(re.findall(r"[a-z]+", ours.texts[0].lower()))) > 8


@pytest.mark.slow
def test_happiness_makes_happier_stories_and_its_reverse_sadder_ones(
    stories: Any, record_property: Any
) -> None:
    direction = happiness(stories)
    counts = {}
    for strength in (1.0, 0.0, -1.0):
        steering = at(LAYER, Scaled(CAA(direction), strength))
        texts = steerlens.generate(
            stories, NEUTRAL, steering, max_new_tokens=80, n=20, seed=1, batch_size=160
        ).texts
        counts[strength] = positive_words(texts)
        per_100 = float(per_hundred(counts[strength]))  # workers send no NumPy numbers
        record_property(f"positive words per 100 at {strength}", per_100)
    print({strength: round(per_hundred(count), 2) for strength, count in counts.items()})
    assert lower_bound_of_difference(counts[1.0], counts[0.0]) > 0
    assert lower_bound_of_difference(counts[0.0], counts[-1.0]) > 0
    assert per_hundred(counts[1.0]) > 1.25 * per_hundred(counts[0.0])
    assert per_hundred(counts[-1.0]) < 0.8 * per_hundred(counts[0.0])
