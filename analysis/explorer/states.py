"""The state of an explorer: what is shown, checked, and as the lines of Python that make it."""

import json
import math
from collections.abc import Mapping
from typing import Any

from steerlens.types import whole_number

from ..measures.plain_side import BY_TEMPLATE
from .methods import PROMPT, Method, by_name
from .payload import NAMES, State
from .readings import MEASURES, VIEWS
from .study import Study

ASKED = ("question", "instruction")


def first_state(study: Study) -> State:
    """What is shown first: the first method as fitted, where the last third of the layers begins.

    It is no layer below the method's own.
    """
    method, n_layers = study.methods[1], study.model.cfg.n_layers
    nearest = min(study.strengths, key=lambda strength: abs(strength - 1))
    state = {
        "text": 0,
        "method": method.name,
        "place": 0,
        "strength": nearest,
        "layer": max(method.places[0].lowest, 2 * n_layers // 3),
        "view": VIEWS[0],
        "measure": MEASURES[0],
        "minus": None,
        "token": 0,
    }
    return _with_text(study, state)


def checked(study: Study, state: Mapping[str, Any]) -> State:
    """The state with its places by number; ValueError for what there is not.

    A question with its instruction chooses the text, and makes one where it is new.
    """
    unknown = sorted(set(state) - {*NAMES, *ASKED})
    if unknown:
        raise ValueError(f"A state has no {unknown[0]!r}. It has {', '.join((*NAMES, *ASKED))}.")
    state = dict(state)
    state["text"] = _number_of_text(study, state)
    method = by_name(study.methods, state["method"])
    if state["minus"] is not None:
        by_name(study.methods, state["minus"])
    state["place"] = _place(method, state["place"])
    text = study.line(state["text"])
    for name, allowed in (("view", VIEWS), ("measure", MEASURES)):
        if state[name] not in allowed:
            raise ValueError(f"There is no {name} {state[name]!r}: {', '.join(allowed)}.")
    state["layer"] = _among("layer", state["layer"], study.model.cfg.n_layers)
    last = len(text.response) - 1
    beyond = (whole_number(state["token"]) or 0) > last
    state["token"] = last if beyond else _among("token", state["token"], last + 1)
    state["strength"] = 1.0 if method.name == PROMPT else _strength(state["strength"])
    return _with_text(study, state)


def subtracted(study: Study, state: State) -> tuple[str, int, float]:
    """The reading that is subtracted: at the same place and the nearest of the strengths."""
    other = by_name(study.methods, state["minus"])
    if other.name == PROMPT:
        return PROMPT, 0, 1.0
    here = by_name(study.methods, state["method"]).offered(True)[state["place"]].label
    labels = [place.label for place in other.offered(True)]
    nearest = min(study.strengths, key=lambda strength: abs(strength - state["strength"]))
    return other.name, labels.index(here) if here in labels else 0, nearest


def _with_text(study: Study, state: State) -> State:
    text = study.line(state["text"])
    return {**state, "question": text.question, "instruction": text.instruction}


def _number_of_text(study: Study, state: State) -> int:
    """The text that a state is of: by its question where that is another than the text's own."""
    number = state["text"]
    text = study.line(number) if whole_number(number) in range(len(study.pairs)) else None
    asked = tuple(state.get(name) for name in ASKED)
    if text is None and None in asked:
        _among("text", number, len(study.pairs))
    if text is not None and (None in asked or asked == (text.question, text.instruction)):
        return int(number)
    return study.ask(str(asked[0]), str(asked[1]))


def _place(method: Method, place: object) -> int:
    labels = [one.label for one in method.offered(True)]
    number = labels.index(str(place)) if place in labels else whole_number(place)
    if number is None or not 0 <= number < len(labels):
        raise ValueError(
            f"{method.name} has no place {place!r}. Its places are 0 to {len(labels) - 1}: "
            f"{', '.join(labels)}."
        )
    return number


def _strength(strength: object) -> float:
    number = math.nan if isinstance(strength, bool | str) else _float(strength)
    if not math.isfinite(number):
        raise ValueError(f"A strength is a finite number; found {strength!r}.")
    return number


def _float(value: object) -> float:
    """A number of Python, NumPy or torch; NaN for what is none."""
    try:
        return float(value)  # pyright: ignore[reportArgumentType]  it raises for what is no number
    except (TypeError, ValueError, RuntimeError):
        return math.nan


def _among(name: str, number: object, n: int) -> int:
    """The number as an int, -1 for the last; ValueError where there is none such."""
    whole = whole_number(number)
    if whole is None or not -n <= whole < n:
        raise ValueError(f"There is no {name} {number!r}: they are 0 to {n - 1}.")
    return whole % n


def state_json(state: State) -> str:
    """The state as text, for a note or a link."""
    return json.dumps(state, ensure_ascii=False)


def lines_of(study: Study, state: State) -> str:
    """Python that makes the state of a `model`, `steerings` and `pairs`, and steers alike."""
    text, sampling = study.line(state["text"]), study.sampling
    method = by_name(study.methods, state["method"])
    shown = {name: state[name] for name in NAMES if state[name] is not None and name != "text"}
    steering = _steering(method, state)
    asked = (
        f"explorer = explorer.ask({text.question!r}, {text.instruction!r})"
        if state["text"] >= len(study.units.kept)
        else f"explorer = explorer.set(text={state['text']})"
    )
    options = f"max_new_tokens={sampling.max_new_tokens}, temperature={sampling.temperature!r}"
    steered = [f"steering = {steering}"] if steering else []
    given = ", steering" if steering else ""
    side = "prompted" if method.name == PROMPT else "plain"
    # Another baseline is in the tokens that were asked, and not in the pair.
    as_given = method.name == PROMPT or study.baseline == BY_TEMPLATE
    question = f"[explorer.pair.{side}]" if as_given else "[explorer.asked]"
    return "\n".join(
        [
            "import steerlens as sl",
            "",
            "# model, steerings and pairs as they were given to sl.explore",
            "explorer = sl.explore(",
            f"    model, steerings=steerings, pairs=pairs, {options}, seed={sampling.seed},",
            f"    baseline={study.baseline!r}, sinks={_number(study.sinks)}, "
            f"strengths={study.strengths!r}, equivalents={study.equivalents!r},",
            ")",
            asked,
            f"explorer = explorer.set({', '.join(f'{n}={v!r}' for n, v in shown.items())})",
            "",
            "# the same without the explorer",
            *steered,
            f"print(sl.generate(model, {question}{given}, {options}, seed={sampling.seed}))",
            "",
        ]
    )


def _number(value: float) -> str:
    return f'float("{value}")' if math.isinf(value) else repr(float(value))


def _steering(method: Method, state: State) -> str:
    """The steering of a state as Python writes it; nothing for the prompt."""
    if method.name == PROMPT:
        return ""
    place, strength = method.offered(True)[state["place"]], state["strength"]
    named = f"steerings[{method.name!r}]"
    if state["place"] >= len(method.places):
        layer = place.layers[0]
        kept = f"for site, steer in {named}.on(model).placed if site.layer == {layer}"
        return f"{strength} * sl.Steering(tuple((site, steer) {kept}))"
    if method.keys:
        return f"{strength} * {named}[{method.keys[state['place']]!r}]"
    return f"{strength} * {named}"
