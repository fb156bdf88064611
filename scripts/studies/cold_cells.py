"""The cells of the COLD study on attributes: pairs, and scores where coherence is 80 %."""

from __future__ import annotations

from dataclasses import replace
from time import process_time
from typing import Any

from cold_fits import FITS, Case, on_common_scale
from cold_plan import CONFIGURATIONS, SEARCHED_WITH, SEEN, TRIES
from study import material, model, options, scores_by_question

import steerlens
from analysis import Tradeoff, c80
from analysis.judges import FormatJudge
from steerlens import Conversation
from steerlens.steering import Steering


def pool(attribute: str) -> list[tuple[str, str, str]]:
    """(question, answer with the attribute, answer without), as many as can be found."""
    found = material(attribute)
    assert found.judge is not None
    assert found.coherence is not None
    users, liked = [], []
    for pair in found.successful(model()):
        assert isinstance(pair.plain, Conversation)
        users.append(pair.plain.user)
        text = pair.response
        liked.append(text if isinstance(text, str) else model().tokenizer.decode(list(text)))
    written = steerlens.generate(
        model(), [Conversation(user) for user in users], n=TRIES, max_new_tokens=64, seed=7
    )
    texts, judge = list(written.texts), found.judge
    shown = judge.holds(texts) if isinstance(judge, FormatJudge) else judge(texts) >= 50
    without = ~shown & (found.coherence(texts) >= 50)
    first: dict[int, str] = {}
    for number, text, good in zip(written.prompt, written.texts, without.tolist(), strict=True):
        if good:
            first.setdefault(int(number), text)
    return [(users[i], liked[i], text) for i, text in sorted(first.items())]


def reference(attribute: str, split: str, seed: int) -> dict[str, Any]:
    """The unsteered and the prompted scores of a split."""
    setting = _setting(attribute, split, seed)
    return {
        "unsteered": scores_by_question(setting.score()),
        "prompt": scores_by_question(setting.score(instruction=material(attribute).instruction)),
    }


def search(attribute: str, method: str, configuration: int) -> dict[str, Any]:
    """The validation score at C80 of a configuration, and whether there is such a strength."""
    case = Case(attribute, SEARCHED_WITH, 0, *CONFIGURATIONS[configuration])
    steering = FITS[method](case)
    if steering is None:
        scored = _setting(attribute, "validation", 0).score()
        return {"attribute": scored.mean_attribute, "strength": 0.0, "met": False}
    found = _at_c80(_scaled(steering, case), attribute, 0)
    about = {"strength": found.strength, "met": found.reached}
    return {"attribute": found.scored.mean_attribute, **about}


def test(attribute: str, method: str, configuration: int, n: int, seed: int) -> dict[str, Any]:
    """The test scores at the strength that has C80 on validation questions.

    Where there is none, or no steering, they are those of the model itself.
    """
    case = Case(attribute, n, seed, *CONFIGURATIONS[configuration])
    _ = case.drawn
    started = process_time()
    steering = FITS[method](case)
    seconds = process_time() - started
    about: dict[str, Any] = {"seconds": seconds, "n": len(case.drawn)}
    setting = _setting(attribute, "test", seed)
    if steering is not None:
        ready = _scaled(steering, case)
        found = _at_c80(ready, attribute, seed)
        if found.reached:
            scored = Tradeoff(setting, ready).at(found.strength)
            return {
                **scores_by_question(scored),
                "strength": found.strength,
                "met": found.bounded,
                **about,
            }
    return {**scores_by_question(setting.score()), "strength": 0.0, "met": False, **about}


def _setting(attribute: str, split: str, seed: int) -> Any:
    found = material(attribute).setting(model(), split, 1 if split == "test" else 2, seed)
    assert found is not None
    return replace(found, questions=questions_of(attribute, split))


def questions_of(group: str, split: str) -> list[str]:
    found = material(group).questions
    assert found is not None
    sizes = {"validation": options().n_validation, "test": options().n_test}
    return list(found[split])[SEEN if split == "test" else 0 :][: sizes.get(split)]


def _scaled(steering: Steering, case: Case) -> Steering:
    return on_common_scale(steering, case.layer, case.liked[:10])


def _at_c80(steering: Steering, attribute: str, seed: int) -> Any:
    tried = Tradeoff(_setting(attribute, "validation", seed), steering)
    target = c80(tried.at(0.0).mean_coherence)
    return tried.at_coherence(target, bisections=options().bisections)
