"""The checks of unit 11, one's own model and data. Each is named like its exercise."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from checks.answers import called, described
from checks.comparing import as_number, expect
from checks.material import normal
from checks.verdicts import NotYet, require

MOST_CALLS = 300


def disagreement(disagreement):
    expected = 3 * normal(6, 40, seed=1)
    logits = expected + 0.2 * normal(6, 40, seed=2) + torch.arange(6.0)[:, None]
    logits[2] += 0.5 * normal(40, seed=3)

    def centred(x: Tensor) -> Tensor:
        return x - x.mean(dim=-1, keepdim=True)

    ours, theirs = centred(logits), centred(expected)
    apart = ours - theirs
    each = apart.square().mean(dim=-1).sqrt()
    spread = theirs.std()
    expect(
        called(disagreement, logits, expected),
        float(each.max() / spread),
        [
            (
                float((logits - expected).square().mean(dim=-1).sqrt().max() / expected.std()),
                "Logits are not centred: what is added to all words of a position changes no "
                "probability, and must not count.",
            ),
            (
                float((logits - expected).square().mean(dim=-1).sqrt().max() / spread),
                "Logits are not centred where you compare them. Subtract the mean of each position.",
            ),
            (
                float(apart.square().mean().sqrt() / spread),
                "You averaged over positions. Take the *largest*: one wrong position is enough.",
            ),
            (
                float(each.mean() / spread),
                "You averaged over positions. Take the *largest*: one wrong position is enough.",
            ),
            (float(each.max()), "The result is not divided by the spread of what is expected."),
            (
                float(apart.square().mean(dim=0).sqrt().max() / spread),
                "You took the mean over positions in place of the vocabulary, which is the last axis.",
            ),
            (
                float(apart.abs().max() / spread),
                "This is the worst single number of all. First take the root mean square of each "
                "position.",
            ),
            (
                float(each.max() / ours.std()),
                "You divided by the spread of `logits`; that of `expected` is asked for.",
            ),
            (
                float(each.max() / expected.std()),
                "The spread is that of the *centred* `expected`.",
            ),
            (float((each.max() / spread) ** 2), "The root is missing."),
            (
                float(apart.norm(dim=-1).max() / spread),
                "This is a sum of squares under the root. Take their mean: a larger vocabulary is no "
                "larger error.",
            ),
            (
                float((each / theirs.std(dim=-1)).max()),
                "You divided each position by its own spread. One spread, of all of `expected`.",
            ),
            *(
                (
                    float((a - b).square().mean(dim=-1).sqrt().max() / b.std()),
                    f"You centred {over}. The mean of each *position* is subtracted, over the "
                    "vocabulary, `dim=-1, keepdim=True`.",
                )
                for over, a, b in (
                    ("over positions", *(x - x.mean(dim=0) for x in (logits, expected))),
                    ("with one mean for all", *(x - x.mean() for x in (logits, expected))),
                )
            ),
            (
                float(apart.abs().mean(dim=-1).max() / spread),
                "This is the mean of the absolute differences. Take the root of the mean *square*.",
            ),
        ],
        what="`disagreement(logits, expected)`",
    )
    return "0 for the same function, and about 1 for an unrelated one."


def cache_bytes(cache_bytes):
    config = SimpleNamespace(
        num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=2, hidden_size=48
    )
    layers, kv, dim, rows, tokens, each = 5, 2, 8, 3, 11, 4
    one = rows * tokens * each
    right = 2 * layers * kv * dim * one
    got = called(cache_bytes, config, rows, tokens, each)
    if isinstance(got, float) and got.is_integer():
        raise NotYet("`cache_bytes(...)` should be an int; found a float.", "Divide with `//`.")
    expect(
        got,
        right,
        [
            (right // 2, "These are keys alone; values take as much again."),
            (
                2 * layers * 48 * one,
                "You counted all heads. Keys and values have `num_key_value_heads`, which are fewer, of "
                "`hidden_size // num_attention_heads` numbers each.",
            ),
            (right // layers, "This is one layer. Each layer has keys and values of its own."),
            (right // each, "This is how many numbers. Times the bytes of each."),
            (right * 8, "These are bits."),
            (right // kv, "This is one key-value head. There are several."),
            (right // rows, "This is one text. There are several."),
            (right // tokens, "This is one token of each text. There are several."),
            (right // dim, "This counts heads. Each has `head_dim` numbers."),
        ],
        what="`cache_bytes(config, 3, 11, 4)`",
    )
    return "It grows with the texts and with their length; the weights do not."


MESSAGES = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Tell me about a film."},
)


def chat_ids(chat_ids):
    tokenizer, messages = _demo_tokenizer(), [dict(message) for message in MESSAGES]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    open_ended = tokenizer.apply_chat_template(messages, tokenize=False)
    bare = {"add_special_tokens": False}
    alone = [
        tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=last)
        for message, last in zip(messages, (False, True), strict=True)
    ]
    got = called(chat_ids, tokenizer, messages)
    if isinstance(got, str):
        raise NotYet("this is still the text.", "`tokenizer.encode` makes tokens of it.")
    if hasattr(got, "input_ids"):
        raise NotYet("these are the ids and a mask.", "The ids are its `input_ids`.")
    if hasattr(got, "tolist"):
        raise NotYet(
            f"these are the ids as {described(got)}; a list is asked for.",
            "Leave out `return_tensors`: then `tokenizer.encode` gives a list.",
        )
    joined = [token for each in alone for token in tokenizer.encode(each, **bare)]
    contents = [message["content"] for message in messages]
    expect(
        got,
        tokenizer.encode(text, **bare),
        [
            (
                tokenizer.encode(text),
                "There is BOS twice: the template wrote one, and the tokenizer put another in front. "
                "`add_special_tokens=False`.",
            ),
            (
                tokenizer.encode(open_ended, **bare),
                "The assistant's turn is not opened, so the model may go on as the user. "
                "`add_generation_prompt=True`.",
            ),
            (
                tokenizer.encode(open_ended),
                "BOS twice, and the assistant's turn is not opened: `add_special_tokens=False` and "
                "`add_generation_prompt=True`.",
            ),
            (
                tokenizer.encode(
                    tokenizer.apply_chat_template(
                        messages[-1:], tokenize=False, add_generation_prompt=True
                    ),
                    **bare,
                ),
                "The first message is lost. Give the template the whole list.",
            ),
            (
                tokenizer.tokenize(text),
                "These are the tokens as texts. `tokenizer.encode` gives their ids.",
            ),
            (
                joined,
                "You wrote each message by itself, and each began a conversation of its own. Give the "
                "template the whole list.",
            ),
            *(
                (
                    tokenizer.encode(between.join(contents), **options),
                    "This is what was said, without the template: no turns, no roles.",
                )
                for between in ("\n", " ", "", "\n\n")
                for options in (bare, {})
            ),
        ],
        what="`chat_ids(tokenizer, messages)`",
    )
    return "What you see decoded is what the model reads."


def _demo_tokenizer() -> Any:
    """A tokenizer that puts BOS in front by itself, whatever the notebook's model does."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    import steerlens

    folder = Path(steerlens.__file__).parent / "demo" / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bos = tokenizer.bos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
    )
    return tokenizer


def own_system(own_system):
    default = "You are a helpful assistant."
    before, behind = "<s>[system]", "[/system]"

    def turns(messages: list[dict[str, str]], head: str) -> str:
        user = next(each["content"] for each in messages if each["role"] == "user")
        return head + f"[user]{user}[/user][answer]"

    def told(messages: list[dict[str, str]]) -> str | None:
        return next((each["content"] for each in messages if each["role"] == "system"), None)

    def with_default(messages: list[dict[str, str]]) -> str:
        said = told(messages)
        return turns(messages, before + (f" {default}\n" if said is None else said) + behind)

    def without(messages: list[dict[str, str]]) -> str:
        said = told(messages)
        return turns(messages, "<s>" if said is None else f"{before}{said}{behind}")

    def in_front(messages: list[dict[str, str]]) -> str:
        """The system text has no turn: it stands in front of the user's, after a lone BOS."""
        said = told(messages)
        return turns(messages, "<s>[a single turn]" if said is None else f"<s>{said}\n\n")

    def with_a_title(messages: list[dict[str, str]]) -> str:
        """Told nothing, it begins otherwise, and ends as it does with a system text."""
        said = told(messages)
        return turns(messages, "<s>[a single turn]" if said is None else f"<s>[told]{said}")

    whole = with_default([{"role": "user", "content": "Hello"}])
    expect(
        called(own_system, with_default),
        default,
        [
            (whole, "This is the whole text. What in it stands in the place of a system text?"),
            (f" {default}\n", "Nearly: `.strip()` takes away spaces and line breaks around it."),
            ("MARK", "This is what you put in. Render the user turn alone, and look there."),
            ("", "This template has a system text of its own, and it was not found."),
        ],
        what="of a template that writes a system text, what you found",
    )
    for template, kind in (
        (without, "has no text of its own"),
        (in_front, "writes none either"),
        (with_a_title, "writes none either"),
    ):
        got = called(own_system, template)
        require(
            got == "",
            f"A template that {kind} gave {got!r}: the frame is not there in the text of the user "
            'alone. It counts only if the text begins with it *and* ends with it; else return "".',
        )
    return "This is how the library finds it, too."


def read_pairs(read_pairs):
    rows = [
        {"user": f"Question {k}?", "system": "Sei höflich. 😀", "response": f"Answer {k}."}
        for k in range(4)
    ]
    # A character beyond 16 bits is two escapes in JSON, which `eval` would not put together.
    written = [json.dumps(row, ensure_ascii=k == 1) for k, row in enumerate(rows)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.jsonl"

        def file(lines: list[str]) -> Path:
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            return path

        whole = file([written[0], "", written[1], "   ", written[2], written[3]])
        try:
            got = called(read_pairs, whole)
        except NotYet as reason:
            if "ValueError" in str(reason) or "JSONDecodeError" in str(reason):
                raise NotYet(
                    "it refused a file with an empty line. Empty lines are left out.",
                    "`if not line.strip(): continue`",
                ) from None
            raise
        expect(got, rows, what="what was read")
        _require_refusals(read_pairs, file, written)
    return "Whoever gets this message knows where to look."


def _require_refusals(read: Callable, file: Callable, written: list[str]) -> None:
    """`NotYet` unless damaged lines are refused by their numbers."""
    damaged = '{"user": "And?", "system": '
    missing = json.dumps({"user": "And?", "system": "Be brief."})
    more = json.dumps({"user": "And?", "system": "", "response": "", "label": 1})
    cases = (
        ([*written[:3], damaged], 4, 4, "A line that is no JSON"),
        ([*written[:2], missing], 3, 3, "A field is missing in a line, which"),
        ([written[0], more], 2, 2, "A line with a field too many"),
        ([written[0], "", "", damaged], 4, 2, "A line that is no JSON"),
    )
    for lines, number, among_full, what in cases:
        try:
            read(file(lines))
        except ValueError as error:
            said = str(error).lower()
        except Exception as error:
            raise NotYet(
                f"{what} stopped it with {type(error).__name__}: {error}. A `ValueError` is asked for.",
                "Check the fields before you use them.",
            ) from error
        else:
            raise NotYet(f"{what} was taken without a word.", "Raise a `ValueError`.")
        if f"line {number}:" in said:
            continue
        if f"line {number - 1}:" in said:
            raise NotYet(f"It said line {number - 1} of line {number}. People count from 1.")
        if f"line {among_full}:" in said:
            raise NotYet(
                f"It said line {among_full} of line {number}. Empty lines are not counted, and an editor "
                "counts them.",
                "Number the lines first, and leave out empty ones after.",
            )
        if "(char" in said or "line" not in said:
            raise NotYet(
                f"The error does not say in which line it is: {said!r}.",
                'json counts within the one line that it got. Write "line 4: ..." in front.',
            )
        raise NotYet(f"The error should begin with 'line {number}:'; found {said!r}.")


def sinks(sinks):
    h = normal(12, 5, seed=4)
    h = h / h.norm(dim=-1, keepdim=True) * torch.linspace(0.8, 1.5, 12)[:, None]
    h[1], h[3], h[7], h[9] = 5.6 * h[1], 60 * h[3], 7 * h[7], 1.8 * h[9]
    # A sink that is long in one number alone, and lengths that do not happen to be about 1.
    h[5] = torch.tensor([4.9 * float(h.norm(dim=-1).median()), 0, 0, 0, 0])
    h = 5 * h
    norms, squares = h.norm(dim=-1), h.square().sum(dim=-1)
    got = called(sinks, h)
    if isinstance(got, Tensor) and got.shape == h.shape:
        raise NotYet(
            "this has a value for each number; one for each token is asked for.",
            "A token's length is `h.norm(dim=-1)`.",
        )
    if isinstance(got, Tensor) and got.shape == h.shape[1:]:
        raise NotYet("these are the lengths along the wrong axis.", "`h.norm(dim=-1)`")
    right = norms > 4 * norms.median()
    expect(
        got,
        right,
        [
            (
                norms > 4 * norms.mean(),
                "Only the longest. Did you compare with the mean? A single sink makes it large: the mean is "
                "drawn along by those it should find. Take the *median*.",
            ),
            (
                squares > 4 * squares.median(),
                "Squared lengths: twice as long is four times as much there. Compare norms.",
            ),
            (~right, "These are the tokens that are *no* sinks."),
            (
                norms > norms.median(),
                "`times` is missing: half of all tokens are above the median.",
            ),
            (norms > 4 + norms.median(), "`times` is a factor: multiply the median by it."),
            (
                h.abs().sum(dim=-1) > 4 * h.abs().sum(dim=-1).median(),
                "This is the sum of absolute values. The norm is the root of the sum of squares.",
            ),
        ],
        what="`sinks(h)`",
    )
    expect(
        called(sinks, h, times=2.0),
        norms > 2 * norms.median(),
        [(right, "`times` is not used: 4 is its default, not the only value.")],
        what="`sinks(h, times=2.0)`",
    )
    return "The median does not care how long the longest is."


def direction(direction):
    positive, negative = normal(9, 4, seed=5) + 0.5, normal(7, 4, seed=6)
    positive[2], negative[5] = 40 * positive[2], 30 * negative[5]
    # Long on its own side, ordinary beside both: only a common median keeps it.
    negative = torch.cat([0.2 * negative[:4], negative[4:], 1.2 * negative[6:]])
    both = torch.cat([positive, negative])
    norms = both.norm(dim=-1)
    sunk = norms > 4 * norms.median()
    n = len(positive)
    a, b = sunk[:n], sunk[n:]

    def alone(side: Tensor) -> Tensor:
        lengths = side.norm(dim=-1)
        return side[lengths <= 4 * lengths.median()].mean(dim=0)

    right = positive[~a].mean(dim=0) - negative[~b].mean(dim=0)
    zeros = positive * ~a[:, None], negative * ~b[:, None]
    expect(
        called(direction, positive, negative),
        right,
        [
            (positive.mean(dim=0) - negative.mean(dim=0), "The sinks are still in it."),
            *(
                (one - other, f"The sinks of `{side}` are still in it.")
                for side, one, other in (
                    ("negative", positive[~a].mean(dim=0), negative.mean(dim=0)),
                    ("positive", positive.mean(dim=0), negative[~b].mean(dim=0)),
                )
            ),
            (-right, "Wrong sign: it leads *from* negative *to* positive."),
            (
                alone(positive) - alone(negative),
                "You asked each side by itself. What is usual, both decide together: `torch.cat`.",
            ),
            (
                positive[a].mean(dim=0) - negative[b].mean(dim=0),
                "This is the mean of the sinks alone. `~` turns True and False around.",
            ),
            (
                zeros[0].mean(dim=0) - zeros[1].mean(dim=0),
                "The sinks count in the mean as zeros. Take them out: `h[~sunk]`.",
            ),
            (
                positive[~a].sum(dim=0) - negative[~b].sum(dim=0),
                "These are sums. The sides have different numbers of tokens.",
            ),
        ],
        what="`direction(positive, negative)`",
    )
    return "As long as the texts differ, and no longer."


def lost(lost):
    h = 4 * normal(50, 8, seed=7)
    push = 0.01 * normal(50, 8, seed=8) * torch.linspace(0.1, 3, 50)[:, None]
    push[::5] = 0.0
    half, pushed = torch.bfloat16, push != 0
    before = h.to(half)
    same = before + push.to(half) == before
    right = float(same[pushed].float().mean())
    expect(
        called(lost, h, push, half),
        right,
        [
            (
                float((h + push == h)[pushed].float().mean()),
                "The sum was never rounded: it was made in float32. Convert *both* to `dtype` first. One "
                "that is still float32 promotes the sum.",
            ),
            (
                float(same.float().mean()),
                "Numbers whose push is 0 from the start are counted. They cannot lose anything.",
            ),
            (1 - right, "This is the share that *arrived*."),
            (
                float((before + push.to(half) != before).float().mean()),
                "This is the share that *arrived*, of all numbers.",
            ),
            (float(same[pushed].sum()), "This is how many, not the share."),
            (100 * right, "This is in per cent; a share is between 0 and 1."),
            (
                float(((h + push).to(half) == before)[pushed].float().mean()),
                "You added in float32, and rounded after. A model adds what is rounded already.",
            ),
            (
                1.0,
                "All of them? `after += ...` writes into the very tensor that you compare with.",
            ),
        ],
        what="`lost(h, push, torch.bfloat16)`",
    )
    expect(
        called(lost, h, push, torch.float32),
        float((h + push == h)[pushed].float().mean()),
        [(right, "`dtype` is not used: this is the share for bfloat16.")],
        what="`lost(h, push, torch.float32)`",
    )
    tiny = push.clone()
    tiny[::2] *= 1e-6  # too small for float16, which makes 0 of it
    there = h.half() + tiny.half() == h.half()
    expect(
        called(lost, h, tiny, torch.float16),
        float(there[pushed].float().mean()),
        [
            (
                float(there[tiny.half() != 0].float().mean()),
                "A push that becomes 0 in `dtype` is lost, too. Ask which are 0 before you convert.",
            )
        ],
        what="`lost(h, push, torch.float16)`, where some pushes are very small,",
    )
    return "What is lost is lost without a warning."


class _Asked:
    """An effect that counts how often it is asked, and ends a search that does not end."""

    def __init__(self, effect: Callable[[float], float]) -> None:
        self.effect, self.calls = effect, 0

    def __call__(self, strength: float) -> float:
        self.calls += 1
        if self.calls > MOST_CALLS:
            raise NotYet(
                f"it asked for the effect {MOST_CALLS} times, and did not end: do the two ends move to "
                "the right side? Or do you try one strength after the other?",
                "If the middle has too small an effect, the middle becomes `low`, else `high`.",
            )
        return self.effect(strength)


def strength_for(strength_for):
    shapes: list[Callable[[float], float]] = [
        lambda s: 2.0 * (1 - 2.718281828 ** (-0.4 * s)),
        lambda s: 0.3 * s**2,
        lambda s: 0.01 * s,
    ]
    for shape, target in zip(shapes, (1.2, 0.2, 0.31), strict=True):
        strength = as_number(called(strength_for, _Asked(shape), target), "`strength_for`")
        require(math.isfinite(strength), f"`strength_for` is {strength}, which is no strength.")
        reached = shape(strength) / target
        if shape is shapes[0]:  # neither a line nor a parabola, so no guess meets it
            share = target / shape(64.0)
            require(
                min(abs(strength - 64 * share), abs(strength - 64 * share**0.5)) > 1e-6,
                "you guessed in proportion, but effects are seldom that simple. Search.",
            )
        if 0.5 < reached < 1 - 1e-6:
            raise NotYet(
                f"the effect is {reached:.3f} of the target, below the target. Which of the two ends has "
                "enough?",
                "Return `high`.",
            )
        require(
            1 - 1e-6 <= reached <= 1.0101,
            f"the effect is {reached:.3g} times the target: at most 1.01 is asked for, and this is more "
            "than 1 % above."
            if reached > 1
            else f"the effect is {reached:.3g} of the target.",
            "Go on halving until `effect(high)` is near enough.",
        )
    _require_told(strength_for)
    return "Report the effect beside the strength; the next reader has another model."


def _require_told(strength_for: Callable) -> None:
    """`NotYet` unless a target that cannot be reached is an error."""
    for most, given in ((64.0, {}), (2.0, {"most": 2.0})):
        weak = _Asked(lambda s: s / 50)
        try:
            got = strength_for(weak, 1.3 if most == 64 else 0.5, **given)
        except ValueError:
            continue
        except Exception as error:
            raise NotYet(
                f"where no strength reaches the target it stopped with {type(error).__name__}: {error}.",
                "Raise a `ValueError` that says so.",
            ) from error
        raise NotYet(
            f"no strength up to {most:g} reaches the target, it returned {described(got)}, and nobody "
            "is told.",
            "`if effect(most) < target: raise ValueError(...)`, before the search.",
        )
