"""Every mistake a caller can make: the exception says what was asked, what was found, what to do.

And nothing partial is left on disk: the folder that a row may write to is compared, byte for byte.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_models import BACKENDS, D_MODEL, N_CTX, N_LAYERS, SYSTEM, load, write_folder

import steerlens
from steerlens import (
    CAA,
    PLAIN,
    ActAdd,
    Chain,
    ColdFD,
    Conversation,
    Only,
    PromptPair,
    Scaled,
    Site,
    Steering,
    SteeringWarning,
    When,
    at,
    batch,
    capture,
    capture_stream,
    encode,
    encode_pair,
    generate,
    last,
    load_steering,
    positions,
    prompted_pairs,
    response,
    scaled,
    scope_named,
    stream,
    unit,
)
from steerlens.kinds import WrongKind
from steerlens.prompts import TooManyTokens, require_aligned
from steerlens.saving import digest_over, saveable
from steerlens.scopes import Window

ROOT = Path(__file__).parent.parent
ONES = torch.ones(D_MODEL)
GOOD = "good.safetensors"
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
)
DROPS_SYSTEM = (
    "{{ bos_token }}{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
)


@dataclass
class TextOnly:
    """As much of a model as turning text into tokens needs."""

    tokenizer: Any
    cfg: Any
    hook_dict: dict[str, Any] = field(default_factory=dict)

    def hooks(self, fwd_hooks: Any = ()) -> Any:
        raise NotImplementedError

    def __call__(self, *args: Any) -> Any:
        raise NotImplementedError


class Tokenizer:
    """A tokenizer with some of its attributes replaced, or told which ids a text has."""

    def __init__(self, inner: Any, ids: list[int] | None = None, **changed: Any) -> None:
        self.inner, self.ids, self.changed = inner, ids, changed

    def __getattr__(self, name: str) -> Any:
        return self.changed[name] if name in self.changed else getattr(self.inner, name)

    def __call__(self, text: str, **options: Any) -> Any:
        return {"input_ids": self.ids} if self.ids is not None else self.inner(text, **options)


@contextmanager
def with_template(model: Any, template: str) -> Iterator[None]:
    """The model with another chat template inside; tests share models."""
    before = model.tokenizer.chat_template
    model.tokenizer.chat_template = template
    try:
        yield
    finally:
        model.tokenizer.chat_template = before


@dataclass
class Scene:
    """What a row may use: a model, others like it, and a folder with a good steering in it."""

    model: Any
    folder: Path
    models: dict[str, Path]

    def path(self, name: str = GOOD) -> Path:
        return self.folder / name

    def other(self, name: str) -> Any:
        return load(self.models[name], BACKENDS[0])

    def text_only(self, **changed: Any) -> TextOnly:
        return TextOnly(Tokenizer(self.model.tokenizer, **changed), self.model.cfg)

    def written(self, content: bytes, name: str = "bad.safetensors") -> Path:
        self.path(name).write_bytes(content)
        return self.path(name)

    def forged(self, change: Callable[[dict[str, Any]], None]) -> Path:
        """The good file with its header changed and its digest made to fit."""
        with safe_open(self.path(), "pt") as file:
            header = json.loads(file.metadata()["steerlens"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header.pop("digest")
        change(header)
        header.setdefault("digest", digest_over(header, tensors))
        save_file(tensors, self.path("bad.safetensors"), {"steerlens": json.dumps(header)})
        return self.path("bad.safetensors")


@dataclass(frozen=True)
class Row:
    """A mistake, the exception's type, words of what it says, and words of its advice."""

    id: str
    call: Callable[[Scene], Any]
    says: tuple[str, ...]
    advice: str
    kind: type[BaseException] = ValueError


def under(template: str, call: Callable[[Scene], Any]) -> Callable[[Scene], Any]:
    """The call with another chat template."""

    def inside(scene: Scene) -> Any:
        with with_template(scene.model, template):
            return call(scene)

    return inside


def nothing(activation: Any, hook: Any = None) -> None:
    return None


def short(activation: Any, hook: Any = None) -> Any:
    return activation[:, :1]


def double(activation: Any, hook: Any = None) -> Any:
    return activation.double()


def not_a_number(activation: Any, hook: Any = None) -> Any:
    return activation * float("nan")


def without_shape(activation: Any) -> Any:
    return torch.tensor(True)


def of_floats(activation: Any) -> Any:
    return activation[..., 0]


def yes(activation: Any) -> Any:
    return True


def twice(scene: Scene) -> None:
    tokens, window = batch(scene.model, ["The dog ran"])
    with at(1, CAA(ONES)).applied(scene.model, window):
        scene.model(tokens)
        scene.model(tokens)


def other_pass(scene: Scene) -> None:
    tokens, _ = batch(scene.model, ["The dog ran to the house"])
    _, window = batch(scene.model, ["The dog"])
    with at(1, CAA(ONES)).applied(scene.model, window):
        scene.model(tokens)


def cold(scene: Scene) -> ColdFD:
    """A COLD-FD of the first embedding alone, as it might come from a file."""
    return ColdFD(("W_E",), (torch.ones(2, D_MODEL),), Site(1), (Site(1),))


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def foreign(scene: Scene) -> Path:
    save_file({"direction": ONES}, scene.path("bad.safetensors"))
    return scene.path("bad.safetensors")


def load_bad(change: Callable[[dict[str, Any]], None]) -> Callable[[Scene], Any]:
    return lambda s: load_steering(s.forged(change), s.model)


def renamed(header: dict[str, Any]) -> None:
    header["steering"]["fields"]["placed"]["tuple"][0]["tuple"][1]["class"] = "Unheard"


def with_field(header: dict[str, Any]) -> None:
    header["steering"]["fields"]["placed"]["tuple"][0]["tuple"][1]["fields"]["gain"] = 2.0


def on_layer_9(header: dict[str, Any]) -> None:
    header["steering"]["fields"]["placed"]["tuple"][0]["tuple"][0]["fields"]["layer"] = 9


NAN, INF = float("nan"), float("inf")
LONG = "the dog ran " * N_CTX
EMPTY = (torch.zeros((0, 3), dtype=torch.long), torch.ones((0, 3), dtype=torch.bool))
TOKENS = torch.tensor([[5, 6, 7], [8, 9, 10]])
HALF = torch.tensor([[1, 1, 1], [0, 0, 0]])
TWO = ["I love you", "You are kind"]

PLACES = [
    Row(
        "unknown layer",
        lambda s: generate(s.model, "The dog", at(9, CAA(ONES)), max_new_tokens=1),
        ("layer=9", "blocks.9.hook_resid_post", f"{N_LAYERS} layers, 0 to {N_LAYERS - 1}"),
        "Close to it: blocks.",
    ),
    Row(
        "unknown layer when capturing",
        lambda s: capture(s.model, "The dog", 9),
        ("blocks.9.hook_resid_post", f"{N_LAYERS} layers"),
        "Close to it: blocks.",
    ),
    Row(
        "unknown layer in applied",
        lambda s: at(9, CAA(ONES)).applied(s.model).__enter__(),
        ("blocks.9.hook_resid_post", f"{N_LAYERS} layers"),
        "Close to it: blocks.",
    ),
    Row(
        "unknown layer when saving for a model",
        lambda s: at(9, CAA(ONES)).save(s.path(), s.model),
        ("blocks.9.hook_resid_post", f"{N_LAYERS} layers"),
        "Close to it: blocks.",
    ),
    Row(
        "a layer below the first",
        lambda s: capture(s.model, TWO, -9),
        ("layer=-9", "counts 9 layers from the end", "-4 to -1"),
        "0 to 3",
    ),
    Row(
        "plain hooks at a layer from the end",
        lambda s: at(-1, CAA(ONES)).hooks(),
        ("layer=-1", "depends on the model"),
        "steering.on(model)",
    ),
    Row(
        "a file of a layer from the end",
        lambda s: at(-1, CAA(ONES)).save(s.folder / "unknown.safetensors"),
        ("from the end",),
        "steering.save(path, model)",
    ),
    Row(
        "unknown scope",
        lambda s: scope_named("respnse"),
        ("'respnse'",),
        "Use one of: everywhere, prompt, response",
    ),
    Row(
        "scope with an unknown name",
        lambda s: steerlens.Scope("respnse"),
        ("'respnse'",),
        "The scopes are: everywhere, prompt, response",
    ),
    Row(
        "no positions from the end",
        lambda s: positions(-3, -3),
        ("positions(-3, -3)", "holds no position"),
        "larger than start",
    ),
    Row("no listed positions", lambda s: positions([]), ("holds no position",), "at least one"),
    Row("positions that are no numbers", lambda s: positions([1.5]), ("1.5",), "whole number"),
    Row(
        "a mask for positions",
        lambda s: positions(torch.ones(3).bool()),
        ("for a mask",),
        "marked(mask)",
    ),
    Row("no last tokens", lambda s: steerlens.last_k(0), ("found 0",), "1 or more"),
    Row("a mask of numbers", lambda s: steerlens.marked([1, 0]), ("found 1",), "mask.bool()"),
    Row("an empty mask", lambda s: steerlens.marked([False]), ("True nowhere",), "holds no token"),
    Row(
        "a mask of other prompts",
        lambda s: generate(
            s.model, "Hi", at(1, Only(CAA(ONES), steerlens.marked([False] * 90 + [True])))
        ),
        ("in one of them a token that its prompt has not",),
        "marked(mask, window)",
    ),
    Row(
        "a mask of fewer prompts",
        lambda s: capture(s.model, [*TWO, "Hi"], 1, scope=steerlens.marked([[True], [True]])),
        ("marks 2 prompts", "3"),
        "one row for all",
    ),
    Row(
        "a scope joined with something else",
        lambda s: steerlens.prompt | 3,
        ("found int",),
        "prompt | generated",
        TypeError,
    ),
    Row("empty positions", lambda s: positions(4, 4), ("positions(4, 4)",), "larger than start"),
    Row(
        "positions beyond every prompt",
        lambda s: capture(s.model, TWO, 1, scope=positions(90, 95)),
        ("scope", "no token of these prompts"),
        "Choose another scope",
    ),
    Row(
        "steering beyond every prompt",
        lambda s: generate(s.model, TWO, at(1, Only(CAA(ONES), positions(90))), max_new_tokens=1),
        ("Only at layer 1 resid_post", "changed no activation"),
        "`positions(90, None)` met no token",
        SteeringWarning,
    ),
    Row(
        "no sites", lambda s: capture(s.model, "The dog", []), ("No sites",), "Pass a layer, a Site"
    ),
    Row(
        "a site that was not captured",
        lambda s: capture(s.model, "The dog", 1).at(2),
        ("layer 2 resid_post",),
        "captured: layer 1 resid_post",
    ),
    Row("steering nothing", lambda s: Steering(()), ("Steering(())",), "at(6, CAA(direction))"),
    Row("chain of nothing", lambda s: Chain(()), ("Chain(())",), "Give at least one"),
    Row(
        "positional steering without a window",
        lambda s: at(1, Only(CAA(ONES), response)).applied(s.model),
        ("Only at layer 1 resid_post", "a hook cannot see"),
        "steerlens.batch(model, prompts)",
    ),
    Row(
        "hooks of a positional steering without a window",
        lambda s: at(1, Scaled(Only(CAA(ONES), response), 2.0)).hooks(),
        ("Scaled at layer 1 resid_post", "positions"),
        "steerlens.generate",
    ),
    Row(
        "Only as a plain hook",
        lambda s: Only(CAA(ONES), response)(torch.zeros(1, 2, D_MODEL)),
        ("Only(..., response)", "a hook cannot see"),
        "steering.hooks(window)",
    ),
    Row(
        "ActAdd as a plain hook",
        lambda s: ActAdd(torch.ones(2, D_MODEL))(torch.zeros(1, 2, D_MODEL)),
        ("ActAdd", "a hook cannot see positions"),
        "steering.hooks(window)",
    ),
    Row(
        "COLD-FD as a plain hook",
        lambda s: cold(s)(torch.zeros(1, 2, D_MODEL)),
        ("COLD-FD must see the tokens", "a hook cannot"),
        "steering.applied(model, window)",
    ),
    Row(
        "hooks of COLD-FD without a window",
        lambda s: at(1, cold(s)).hooks(),
        ("ColdFD at layer 1 resid_post", "a hook cannot see"),
        "steerlens.batch(model, prompts)",
    ),
    Row(
        "hooks of COLD-FD for a window that does not know the tokens",
        lambda s: at(1, cold(s)).hooks(Window.of(torch.ones(1, 3).bool())),
        ("COLD-FD must see the tokens", "does not know them"),
        "window = steerlens.batch(model, prompts)",
    ),
    Row(
        "a second pass in a window",
        twice,
        ("second forward pass", "one pass"),
        "window.next(n)",
        RuntimeError,
    ),
    Row(
        "a pass that the window does not describe",
        other_pass,
        ("window describes (1, ", "this pass holds (1, "),
        "steerlens.batch(model, prompts)",
    ),
]

STEERS = [
    Row(
        "direction of another width",
        lambda s: generate(s.model, "The dog", at(1, CAA(torch.ones(7))), max_new_tokens=1),
        ("CAA at layer 1 resid_post", "d_model 7", f"d_model {D_MODEL}"),
        "fit it again",
    ),
    Row(
        "direction of another width inside wrappers",
        lambda s: at(1, Chain((Scaled(CAA(torch.ones(7)), 1.0),))).save(s.path(), s.model),
        ("CAA at layer 1", "d_model 7"),
        "fit it again",
    ),
    *(
        Row(
            f"steer that returns {what}",
            lambda s, steer=steer: generate(s.model, "The dog", at(1, steer), max_new_tokens=1),
            ("function at layer 1", "torch.float32", found),
            "must return a tensor like the activation",
        )
        for what, steer, found in [
            ("nothing", nothing, "NoneType"),
            ("another shape", short, "1, 32)"),
            ("another dtype", double, "torch.float64"),
        ]
    ),
    *(
        Row(
            f"steer that returns {what}, {how}",
            lambda s, steer=steer, wrap=wrap: generate(
                s.model, ["The dog", LONG[:60]], at(1, wrap(steer)), max_new_tokens=1
            ),
            ("function", "torch.float32", found),
            "must return a tensor like the activation",
        )
        for how, wrap in {
            "on a padded batch": lambda steer: steer,
            "scaled": lambda steer: Scaled(steer, 0.5),
            "limited": lambda steer: Only(steer, last),
            "gated": lambda steer: When(steer, lambda h: h[..., 0] > 0),
        }.items()
        for what, steer, found in [
            ("nothing", nothing, "NoneType"),
            ("another shape", short, "1, 32)"),
            ("another dtype", double, "torch.float64"),
        ]
    ),
    *(
        Row(
            f"condition that returns {what}",
            lambda s, gate=gate: capture(
                s.model, "The dog", 1, steering=at(1, When(CAA(ONES), gate))
            ),
            ("one bool a token", found),
            "lambda h: h @ direction > 0",
        )
        for what, gate, found in [
            ("another shape", without_shape, "torch.bool ()"),
            ("numbers", of_floats, "torch.float32 (1, "),
            ("one bool", yes, "returned bool"),
        ]
    ),
    *(
        Row(f"strength {s0}", lambda s, s0=s0: Scaled(CAA(ONES), s0), (str(s0),), "1 leaves it as")
        for s0 in (NAN, INF, -INF)
    ),
    Row(
        "strength of a whole steering",
        lambda s: scaled(at(1, CAA(ONES)), NAN),
        ("finite number; found nan",),
        "0 switches the steer off",
    ),
    Row(
        "direction with NaN",
        lambda s: CAA(torch.full((D_MODEL,), NAN)),
        ("CAA's direction", f"{D_MODEL} of {D_MODEL} values are NaN"),
        "float32 or bfloat16",
    ),
    Row(
        "fitting on infinite activations",
        lambda s: CAA.from_activations(torch.full((2, 3), INF), torch.zeros(2, 3)),
        ("positive activations", "6 of 6 values"),
        "torch.isfinite(x).all(dim=-1)",
    ),
    Row(
        "fitting on NaN negatives",
        lambda s: CAA.from_activations(torch.zeros(2, 3), torch.full((2, 3), NAN)),
        ("negative activations", "6 of 6 values"),
        "torch.isfinite(x).all(dim=-1)",
    ),
    Row(
        "fitting on no activations",
        lambda s: CAA.from_activations(torch.zeros(0, 3), torch.zeros(0, 3)),
        ("positive activations", "empty, shape (0, 3)"),
        "Give at least one row",
    ),
    Row(
        "means of NaN",
        lambda s: steerlens.difference_of_means(torch.zeros(2, 3), torch.full((1, 3), NAN)),
        ("negative activations", "3 of 3 values"),
        "float32 or bfloat16",
    ),
    Row(
        "principal direction of no variation",
        lambda s: steerlens.principal_direction(torch.ones(2, 3), torch.zeros(2, 3), "mean"),
        ("centring='mean'", "2 pairs"),
        "difference_of_means",
    ),
    Row(
        "unit of nothing",
        lambda s: unit(torch.zeros(3)),
        ("length 0.0",),
        "the same, or not finite",
    ),
    Row("unit of NaN", lambda s: unit(torch.full((3,), NAN)), ("length nan",), "not finite"),
    Row(
        "steer that makes NaN, captured",
        lambda s: capture(s.model, TWO, 2, steering=at(1, not_a_number)),
        ("activations at layer 2 resid_post are NaN or infinite",),
        "lower the strength",
    ),
    Row(
        "steer that makes NaN, generating",
        lambda s: generate(s.model, TWO, at(1, not_a_number), max_new_tokens=1),
        ("no finite logit",),
        "Lower the strength",
    ),
    Row(
        "ActAdd with infinite v",
        lambda s: ActAdd(torch.full((1, 4), INF)),
        ("ActAdd's v", "4 of 4 values"),
        "float32 or bfloat16",
    ),
    Row(
        "ActAdd with NaN coefficient",
        lambda s: ActAdd(torch.ones(1, 4), NAN),
        ("ActAdd's c", "nan is NaN or infinite"),
        "must be a finite number",
    ),
    Row(
        "ActAdd on dimensions that are not there",
        lambda s: ActAdd(torch.ones(1, 4), dims=(2, 9)),
        ("dims=(2, 9)",),
        "v has 4",
    ),
    Row(
        "ActAdd longer than the prompt",
        lambda s: generate(
            s.model, "The", at(Site(1, "resid_pre"), ActAdd(torch.ones(20, D_MODEL)))
        ),
        ("covers 20 positions", "only 2 tokens"),
        "Use a longer prompt",
    ),
    Row(
        "the empty prompt of ActAdd without a BOS",
        lambda s: ActAdd.fit(s.text_only(bos_token_id=None), ("love", ""), 1),
        ("empty prompt", "BOS"),
        "Use ' '",
    ),
    Row(
        "ActAdd's padding without a space token",
        lambda s: ActAdd.fit(
            s.text_only(convert_tokens_to_ids=lambda piece: None), ("love you", "hate"), 1
        ),
        ("no single token for a space",),
        "padding=model.tokenizer.encode",
    ),
    Row(
        "CAA with unequal lists",
        lambda s: CAA.from_prompts(s.model, [*TWO, "Go home"], TWO, 1),
        ("3 positive and 2 negative prompts",),
        "Give as many of each",
    ),
    *(
        Row(
            f"CAA reading a token that the {which} pair lacks",
            lambda s, texts=texts: CAA.from_prompts(s.model, texts, texts, 1, read=positions(8, 9)),
            (f"Row {row} of 2", "no captured token"),
            "Choose a scope that holds a token of every prompt",
        )
        for which, row, texts in [
            ("first", 0, ["The", LONG[:60]]),
            ("last", 1, [LONG[:60], "The"]),
        ]
    ),
    Row(
        "steerings of different models together",
        lambda s: (
            CAA.from_prompts(s.model, TWO[:1], TWO[1:], 1)
            + CAA.from_prompts(s.other("reseeded"), TWO[:1], TWO[1:], 1)
        ),
        ("different models", "fingerprint"),
        "Fit both on the same model",
    ),
]

TEXTS = [
    Row("empty prompt", lambda s: generate(s.model, ""), ("prompt is empty",), "at least one"),
    Row(
        "empty prompt among others", lambda s: batch(s.model, ["a", ""]), ("empty",), "at least one"
    ),
    Row("no prompts", lambda s: generate(s.model, []), ("No prompts",), "at least one string"),
    Row("nothing to capture", lambda s: capture(s.model, [], 1), ("No prompts",), "at least one"),
    Row(
        "nothing to stream",
        lambda s: list(capture_stream(s.model, iter([]), 1)),
        ("No prompts",),
        "at least one string",
    ),
    Row("no rows of tokens", lambda s: generate(s.model, EMPTY), ("No prompts",), "at least one"),
    Row(
        "prompt of which no token is made",
        lambda s: encode(s.text_only(ids=[], bos_token_id=None), " "),
        ("no token", "' '"),
        "Give it words",
    ),
    Row("empty user turn", lambda s: Conversation(" \n"), ("user turn is empty",), "Say what"),
    Row(
        "empty response of a pair",
        lambda s: PromptPair.with_system("Hi", "Be kind", ""),
        ("response=''",),
        "steerlens.prompted_pairs",
    ),
    Row(
        "response without tokens",
        lambda s: PromptPair.with_system("Hi", "Be kind", ()),
        ("response=''",),
        "steerlens.prompted_pairs",
    ),
    Row(
        "responses that differ",
        lambda s: require_aligned(
            s.model,
            replace(encode(s.model, "The dog"), response=2),
            replace(encode(s.model, "The cat"), response=2),
        ),
        ("Unprompted response: [' dog'", "prompted response: [' c"),
        "Give the response as token ids",
    ),
    Row(
        "no tokenizer",
        lambda s: generate(TextOnly(None, s.model.cfg), "Hi"),
        ("no tokenizer",),
        "Pass (tokens, mask)",
    ),
    Row(
        "no chat template",
        lambda s: encode(s.text_only(chat_template=None), Conversation("Hi")),
        ("no chat template",),
        "template=steerlens.PLAIN",
    ),
    Row(
        "a template that refuses a system turn",
        under(NO_SYSTEM, lambda s: encode(s.model, Conversation("Hi", "Be kind"))),
        ("System role not supported",),
        "put the instruction into the user turn",
    ),
    Row(
        "a template that drops the system turn",
        under(
            DROPS_SYSTEM,
            lambda s: encode_pair(s.model, PromptPair.with_system("Hi", "Be kind", "x")),
        ),
        ("left the system turn out",),
        "Put the instruction into the user turn",
    ),
    Row(
        "a template that is no template",
        under("{% for %}", lambda s: encode(s.model, Conversation("Hi"))),
        ("template refused",),
        "put the instruction into the user turn",
    ),
    Row(
        "prompt longer than the context",
        lambda s: capture(s.model, LONG, 1),
        ("tokens are asked for", f"context holds {N_CTX}"),
        "Shorten the prompt",
        kind=TooManyTokens,
    ),
    Row(
        "response that makes the pair too long",
        lambda s: encode_pair(s.model, PromptPair.with_system("Hi", "Be kind", (5,) * N_CTX)),
        (f"context holds {N_CTX}",),
        "Shorten the prompt",
        kind=TooManyTokens,
    ),
    Row(
        "tokens longer than the context",
        lambda s: capture(s.model, (torch.ones(1, 200).long(), torch.ones(1, 200).long()), 1),
        ("200 tokens are asked for", f"context holds {N_CTX}"),
        "Shorten the prompt",
        kind=TooManyTokens,
    ),
    Row(
        "prompt and completion longer than the context",
        lambda s: generate(s.model, "The dog", max_new_tokens=N_CTX),
        ("tokens are asked for", f"context holds {N_CTX}"),
        "lower max_new_tokens",
        kind=TooManyTokens,
    ),
    Row(
        "tokens and mask of different shapes",
        lambda s: generate(s.model, (TOKENS, HALF[:1])),
        ("(2, 3)", "the mask (1, 3)"),
        "1 on real tokens and 0 on padding",
    ),
    Row(
        "a row of padding",
        lambda s: generate(s.model, (TOKENS, HALF)),
        ("Row 1", "all padding"),
        "Leave it out",
    ),
    Row(
        "pairs of which every response is empty",
        lambda s: prompted_pairs(
            s.model, ["Hi"], "Be kind", max_new_tokens=1, temperature=0.0, seed=3
        ),
        ("Every response was empty",),
        "a higher temperature",
    ),
]

CHOICES = [
    *(
        Row(
            f"{option}={value}",
            lambda s, chosen={option: value}: generate(s.model, "The dog", **chosen),
            (option, f"found {value}"),
            advice,
        )
        for option, value, advice in [
            ("max_new_tokens", 0, "at least 1"),
            ("max_new_tokens", -4, "at least 1"),
            ("temperature", -0.5, "0 (greedy) or a positive number"),
            ("temperature", NAN, "0 (greedy) or a positive number"),
            ("top_p", 0.0, "above 0 and at most 1"),
            ("top_p", 1.5, "above 0 and at most 1"),
            ("top_p", NAN, "above 0 and at most 1"),
            ("frequency_penalty", INF, "must be finite"),
            ("n", 0, "at least 1"),
            ("batch_size", 0, "at least 1"),
        ]
    ),
    Row(
        "stream of n=0",
        lambda s: list(stream(s.model, "The dog", n=0)),
        ("n, the samples per prompt", "found 0"),
        "at least 1",
    ),
    Row(
        "capture with batch_size=0",
        lambda s: capture(s.model, "The dog", 1, batch_size=0),
        ("batch_size", "found 0"),
        "at least 1",
    ),
    Row(
        "capture_stream with batch_size=0",
        lambda s: list(capture_stream(s.model, TWO, 1, batch_size=0)),
        ("batch_size", "found 0"),
        "at least 1",
    ),
    Row(
        "capture_stream with buffer=0",
        lambda s: list(capture_stream(s.model, TWO, 1, buffer=0)),
        ("buffer", "found 0"),
        "at least 1",
    ),
    Row(
        "unknown padding side",
        lambda s: capture(s.model, TWO, 1, side="top"),
        ("found 'top'",),
        "'left' or 'right'",
    ),
    Row(
        "unknown padding side of a batch",
        lambda s: batch(s.model, TWO, side="top"),
        ("found 'top'",),
        "'left' or 'right'",
    ),
    Row(
        "unknown model",
        lambda s: steerlens.load("gpt3-small"),
        ("'gpt3-small'", "nor a hub name"),
        "Close to it: ",
    ),
    Row(
        "a folder that is not there",
        lambda s: steerlens.load(s.folder / "nowhere"),
        ("nowhere", "nor a folder that exists"),
        "Close to it: ",
    ),
    Row(
        "a folder that is no model",
        lambda s: steerlens.load(s.folder),
        ("has no config.json",),
        "It should hold config.json, model.safetensors, tokenizer.json",
    ),
]

FILES = [
    Row(
        "a steering for another model of the same shape",
        lambda s: load_steering(s.path(), s.other("reseeded")),
        (GOOD, "another model", "fingerprint"),
        "fit it again",
    ),
    Row(
        "a steering for a model of another shape",
        lambda s: load_steering(s.path(), s.other("narrow")),
        ("another model", f"d_model {D_MODEL} against 16"),
        "Load the model it was fitted on",
    ),
    Row(
        "a steering without an origin for a narrower model",
        lambda s: load_steering(
            at(1, CAA(ONES)).save(s.path("bad.safetensors")), s.other("narrow")
        ),
        (f"d_model {D_MODEL}", "d_model 16"),
        "fit it again",
    ),
    Row(
        "a steering without an origin at a layer that is not there",
        load_bad(lambda h: (on_layer_9(h), h.update(origin=None))),
        ("blocks.9.hook_resid_post",),
        "Close to it: blocks.",
    ),
    Row(
        "saving for a model that it was not fitted on",
        lambda s: load_steering(s.path(), s.model).save(s.path(), s.other("reseeded")),
        ("another model", "fingerprint"),
        "Save it with the model it was fitted on",
    ),
    Row(
        "a truncated file",
        lambda s: load_steering(s.written(s.path().read_bytes()[:-20]), s.model),
        ("bad.safetensors is damaged",),
        "Copy it again",
    ),
    Row(
        "a file cut in its header",
        lambda s: load_steering(s.written(s.path().read_bytes()[:40]), s.model),
        ("bad.safetensors is damaged",),
        "Copy it again",
    ),
    Row(
        "an empty file",
        lambda s: load_steering(s.written(b""), s.model),
        ("bad.safetensors is damaged",),
        "Copy it again",
    ),
    Row(
        "tampered tensor bytes",
        lambda s: load_steering(s.written(flipped(s.path().read_bytes())), s.model),
        ("changed after it was saved", "digest"),
        "Use the original",
    ),
    Row(
        "tampered metadata",
        lambda s: load_steering(
            s.written(s.path().read_bytes().replace(b"resid_post", b"resid_mid ")), s.model
        ),
        ("changed after it was saved", "digest"),
        "Use the original",
    ),
    Row(
        "a changed origin",
        lambda s: load_steering(
            s.written(s.path().read_bytes().replace(b'\\"n_layers\\": 4', b'\\"n_layers\\": 5')),
            s.model,
        ),
        ("changed after it was saved",),
        "Use the original",
    ),
    Row(
        "safetensors of something else",
        lambda s: load_steering(foreign(s), s.model),
        ("but not a steering", "'steerlens'"),
        "steering.save(path)",
    ),
    Row(
        "a pickle with another name",
        lambda s: load_steering(
            s.written(b"\x80\x04\x95\x1b\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n."), s.model
        ),
        ("is no safetensors file",),
        "Pickle files (.pt, .pkl) are never opened",
    ),
    Row(
        "a missing file",
        lambda s: load_steering(s.path("missing.safetensors"), s.model),
        ("no steering file", "missing.safetensors"),
        "steering.save(path)",
        FileNotFoundError,
    ),
    Row(
        "a folder in place of a file",
        lambda s: load_steering(s.folder, s.model),
        ("no steering file",),
        "steering.save(path)",
        FileNotFoundError,
    ),
    Row(
        "an unknown class in a file",
        load_bad(renamed),
        ("'Unheard'", "does not know"),
        "Import the module that defines it",
    ),
    Row(
        "an unknown field in a file", load_bad(with_field), ("CAA gain", "does not know"), "upgrade"
    ),
    Row(
        "a future format",
        load_bad(lambda header: header.update(format=2)),
        ("format 2", "reads format 1"),
        "Upgrade steerlens",
    ),
    Row(
        "metadata with a part missing",
        load_bad(lambda header: (header.pop("versions"), header.update(digest="x"))),
        ("metadata lacks versions",),
        "Use the original",
    ),
    Row(
        "a function",
        lambda s: at(1, nothing).save(s.path()),
        ("function cannot be saved",),
        "@steerlens.saving.saveable",
    ),
    Row(
        "an unknown dataclass inside wrappers",
        lambda s: at(1, Scaled(When(CAA(ONES), of_floats), 2.0)).save(s.path(), s.model),
        ("function cannot be saved",),
        "frozen dataclass",
    ),
    Row(
        "two saveable classes of one name",
        lambda s: saveable(dataclass(type("Scaled", (), {}))),
        ("Another class called Scaled",),
        "Rename one",
    ),
    Row(
        "a saveable class that is no dataclass",
        lambda s: saveable(Scene.__class__),
        ("type must be a dataclass",),
        "to be saved",
        TypeError,
    ),
    Row(
        "saving into a folder that is not there",
        lambda s: at(1, CAA(ONES)).save(s.folder / "no" / "where" / "s.safetensors"),
        ("Cannot write", "No such file or directory"),
        "Choose a folder that exists",
        OSError,
    ),
    Row(
        "saving onto a folder",
        lambda s: at(1, CAA(ONES)).save(s.folder / "folder"),
        ("Cannot write", "folder", "irectory"),
        "Choose the path of a file",
        OSError,
    ),
    Row(
        "saving under a file",
        lambda s: at(1, CAA(ONES)).save(s.path() / "s.safetensors"),
        ("Cannot write", "Not a directory"),
        "Choose a folder that exists",
        OSError,
    ),
]

ROWS = [*PLACES, *STEERS, *TEXTS, *CHOICES, *FILES]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that a steering of the tiny GPT-2 does not belong to."""
    root = tmp_path_factory.mktemp("others")
    return {
        "reseeded": write_folder(root / "reseeded", "gpt2", seed=1),
        "narrow": write_folder(root / "narrow", "gpt2", d_model=16),
    }


@pytest.fixture
def scene(gpt2: Any, tmp_path: Path, models: dict[str, Path]) -> Scene:
    at(1, CAA(torch.arange(1.0, D_MODEL + 1))).save(tmp_path / GOOD, gpt2)
    (tmp_path / "folder").mkdir()
    return Scene(gpt2, tmp_path, models)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, the one that a row makes to be refused left out."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != "bad.safetensors"
    }


def require_said(message: str, row: Row) -> None:
    for words in (*row.says, row.advice):
        assert words in message, f"the message lacks {words!r}: {message}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_mistake_is_named_with_what_was_found_and_what_to_do(row, scene, monkeypatch):
    if "every response is empty" in row.id:
        asked = [Conversation("Hi", "Be kind")]
        first = generate(scene.model, asked, max_new_tokens=1, temperature=0.0)
        monkeypatch.setattr("steerlens.generation.end_tokens", lambda _: set(first.response_ids(0)))
    before = contents(scene.folder)
    with pytest.raises(row.kind) as caught:
        row.call(scene)
    assert caught.type is row.kind or row.kind is OSError
    require_said(str(caught.value), row)
    assert contents(scene.folder) == before
    assert load_steering(scene.path(), scene.model).placed[0][1].direction[-1] == D_MODEL


def test_the_table_is_long_and_no_row_hides_another():
    assert len(ROWS) >= 45
    assert len({row.id for row in ROWS}) == len(ROWS)


# Here the shape and type checks of the tests would speak first: a process without them.
UNCHECKED = [
    Row(
        "unknown backend", "load(folder, backend='jax')", ("backend 'jax'",), "auto, hooked, bridge"
    ),
    Row(
        "unknown processing",
        "load(folder, processing='whiten')",
        ("processing 'whiten'",),
        "none, fold",
    ),
    Row("unknown stream", "Site(1, 'out')", ("stream 'out'",), "resid_pre, resid_mid"),
    Row("a layer that is no whole number", "Site(1.5)", ("layer=1.5",), "cfg.n_layers - 1"),
    Row("a layer that is a truth value", "Site(True)", ("layer=True",), "a whole number"),
    Row(
        "unknown centring",
        "principal_direction(x, x, 'both')",
        ("centring 'both'",),
        "pair, none, mean",
    ),
    Row("unknown alignment", "ActAdd(x, 1.0, 'top')", ("alignment 'top'",), "front, mid, back"),
    Row(
        "unknown alignment when fitting",
        "ActAdd.fit(model, ('love', 'hate'), 1, alignment='top')",
        ("alignment 'top'",),
        "front, mid, back",
    ),
    Row(
        "unknown moment",
        "capture(model, 'Hi', 1, moment='during')",
        ("found 'during'",),
        "'after' or 'before'",
    ),
    Row(
        "unequal pairs",
        "CAA.from_activations(torch.ones(4, 8), torch.zeros(5, 8))",
        ("(4, 8)", "(5, 8)"),
        "Give as many of each",
    ),
    Row(
        "one negative for many positives",
        "CAA.from_activations(torch.ones(4, 8), torch.zeros(1, 8))",
        ("(4, 8)", "(1, 8)"),
        "Give as many of each",
    ),
    Row(
        "unequal pairs for a principal direction",
        "principal_direction(torch.ones(4, 8), torch.zeros(1, 8))",
        ("(4, 8)", "(1, 8)"),
        "Give as many of each",
    ),
    Row("a tensor as a steer", "at(1, v)", ("found Tensor",), "write CAA(direction)", TypeError),
    Row("a tensor to scale", "Scaled(v, 2.0)", ("found Tensor",), "CAA(direction)", TypeError),
    Row("a tensor to limit", "Only(v, response)", ("found Tensor",), "CAA(direction)", TypeError),
    Row("a tensor in a chain", "Chain((v,))", ("found Tensor",), "CAA(direction)", TypeError),
    Row("a tensor to gate", "When(v, lambda h: h)", ("found Tensor",), "CAA(direc", TypeError),
    Row(
        "a tensor as a condition",
        "When(CAA(v), v)",
        ("as its condition", "found Tensor"),
        "a function",
        TypeError,
    ),
    Row(
        "a name as a scope",
        "Only(CAA(v), 'response')",
        ("found str",),
        "scope_named('response')",
        TypeError,
    ),
    Row(
        "a number after a plus",
        "at(1, CAA(v)) + 5",
        ("added to a int",),
        "write 5 * steering",
        TypeError,
    ),
    Row(
        "nothing before a plus",
        "None + at(1, CAA(v))",
        ("added to a NoneType",),
        "caa + act_add",
        TypeError,
    ),
    Row(
        "a bare steer after a plus",
        "at(1, CAA(v)) + CAA(v)",
        ("added to a CAA",),
        "at(6, steer)",
        TypeError,
    ),
    Row(
        "a fit after a plus",
        "at(1, CAA(v)) + CAA.fit(model, ('I love', 'You hate'), 1)",
        ("added to a Fit",),
        "fit.steering",
        TypeError,
    ),
    Row(
        "a text as a strength",
        "'2' * at(1, CAA(v))",
        ("found str",),
        "2.0 * steering",
        TypeError,
    ),
    Row(
        "a truth value as a strength",
        "at(1, CAA(v)) * True",
        ("found bool",),
        "2.0 * steering",
        TypeError,
    ),
    Row(
        "a layer in place of a site",
        "Steering(((1, CAA(v)),))",
        ("found int",),
        "(Site,",
        TypeError,
    ),
    Row(
        "a steer in place of a steering",
        "generate(model, 'Hi', CAA(v), max_new_tokens=1)",
        ("generate takes a Steering", "found a CAA"),
        "at(6, steer)",
        WrongKind,
    ),
    Row(
        "a number as a prompt", "generate(model, [3])", ("found int",), "a Conversation", TypeError
    ),
    Row(
        "tokens without their mask",
        "generate(model, torch.ones(1, 3).long())",
        ("bare tensor",),
        "pass (tokens, mask)",
        TypeError,
    ),
]


@pytest.fixture(scope="module")
def unchecked(folders: dict[str, Path]) -> dict[str, list[str]]:
    """Type and message of what each row of UNCHECKED raises, in a process without shape checks."""
    code = (
        "import json, sys, torch\n"
        "from steerlens import *\n"
        "folder, backend, calls = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])\n"
        "model, v, x = load(folder, backend=backend), torch.ones(32), torch.ones(2, 32)\n"
        "said = {}\n"
        "for name, call in calls.items():\n"
        "    try:\n"
        "        said[name] = ['nothing', repr(eval(call))]\n"
        "    except Exception as error:\n"
        "        said[name] = [type(error).__name__, str(error)]\n"
        "print(json.dumps(said))\n"
    )
    calls = json.dumps({row.id: row.call for row in UNCHECKED})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(folders["gpt2"]), BACKENDS[0], calls],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("row", UNCHECKED, ids=lambda row: row.id)
def test_a_mistake_of_kind_is_named_without_the_checks_of_the_tests(row, unchecked):
    kind, message = unchecked[row.id]
    assert kind == row.kind.__name__, message
    require_said(message, row)


@pytest.mark.parametrize("n", [1, 3])
def test_a_template_for_plain_text_needs_no_advice(gpt2, n):
    prompts = [Conversation("Hi", "Be kind")] * n
    with with_template(gpt2, PLAIN):
        assert len(generate(gpt2, prompts, max_new_tokens=1).texts) == n


def test_an_unknown_layer_is_refused_on_every_backend(model):
    # A TransformerBridge 3.x would ignore a hook on a point that it does not have.
    for call in (
        lambda: generate(model, "The dog", at(9, CAA(ONES)), max_new_tokens=1),
        lambda: capture(model, "The dog", Site(9, "mlp_out")),
        lambda: at(9, CAA(ONES)).applied(model).__enter__(),
    ):
        with pytest.raises(ValueError, match=r"blocks\.9\.hook_\w+.*4 layers, 0 to 3.*Close to it"):
            call()


def test_an_exception_inside_a_run_leaves_no_hook_behind(model):
    tokens, window = batch(model, ["The dog ran"])
    plain = model(tokens)
    with pytest.raises(ValueError, match="must return a tensor like"):
        generate(model, "The dog ran", at(1, nothing), max_new_tokens=1)
    steered = at(1, CAA(ONES)).applied(model, window)
    with pytest.raises(RuntimeError, match="second forward pass"), steered:  # noqa: PT012
        model(tokens)
        model(tokens)
    torch.testing.assert_close(model(tokens), plain, rtol=0, atol=0)


def test_role_words_in_the_user_turn_are_no_system_turn(gpt2):
    row = encode(gpt2, Conversation(f"What is {SYSTEM}?"))
    assert row.question == 1
