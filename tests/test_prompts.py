"""Text to tokens: every template, BOS exactly once, spans by name, pairs that line up."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from tiny_models import ASSISTANT, END, SYSTEM, USER, build_tokenizer

from steerlens import (
    PLAIN,
    Conversation,
    PromptPair,
    Scope,
    batch,
    capture,
    encode,
    encode_pair,
    prompt,
    question_and_response,
    response,
)
from steerlens.prompts import (
    Encoded,
    common_tail,
    encode_all,
    require_aligned,
    show,
    stack,
    with_response,
)

DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|system|>You help.<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}<|user|>{{ m['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SYSTEM_NEVER_ALONE = (
    "{{ bos_token }}{% if messages[-1]['role'] == 'system' %}{{ raise_exception('no user') }}"
    "{% endif %}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SYSTEM_INSIDE_USER = (
    "{{ bos_token }}<|user|>{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ m['content'] }}\n\n{% else %}{{ m['content'] }}{% endif %}{% endfor %}<|end|>"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


has_a_default = pytest.mark.filterwarnings("ignore:The model's chat template puts a system prompt")


@contextmanager
def with_template(model: Any, template: str | None) -> Iterator[None]:
    """The model with another chat template inside (None: its own); tests share models."""
    before = model.tokenizer.chat_template
    if template is not None:
        model.tokenizer.chat_template = template
    try:
        yield
    finally:
        model.tokenizer.chat_template = before


@dataclass
class Config:
    """What text needs of a model's configuration."""

    n_ctx: int = 128
    d_vocab: int = 60_000
    default_prepend_bos: bool = True


@dataclass
class TextOnly:
    """As much of a model as turning text into tokens needs."""

    tokenizer: Any
    cfg: Config = field(default_factory=Config)
    hook_dict: dict[str, Any] = field(default_factory=dict)

    def hooks(self, fwd_hooks: Any = ()) -> Any:
        raise NotImplementedError

    def __call__(self, *args: Any) -> Any:
        raise NotImplementedError

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])


def adding_bos(tokenizer: Any) -> Any:
    """The same tokenizer, which writes a BOS itself, as Llama's does."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return tokenizer


def two_breaks() -> Any:
    """A tokenizer with a token for two line breaks, which GPT-2 has: it stands only at an end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bare.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=258,
        special_tokens=["<s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bare.train_from_iterator(["a\n\n", "b\n\n", "c\n\n"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bare, bos_token="<s>")


@pytest.fixture(scope="module")
def text() -> TextOnly:
    return TextOnly(build_tokenizer("llama"))


@pytest.fixture(scope="module")
def without_bos() -> TextOnly:
    tokenizer = build_tokenizer("llama")
    tokenizer.bos_token = None
    return TextOnly(tokenizer)


def spans(model: Any, row: Encoded) -> tuple[str, str, str]:
    """What stands before the user turn, in it, and after it, as text."""
    decode = model.tokenizer.decode
    head, turn = row.ids[: row.question], row.ids[row.question : row.response]
    return decode(list(head)), decode(list(turn)), decode(list(row.ids[row.response :]))


ASK = "What is it?"
TURN = f"{USER}{ASK}{END}{ASSISTANT}"
QUESTIONS = [ASK, "naïve café — 東京 🙂", "  two  spaces\n\nand breaks\t", "?"]


@pytest.mark.parametrize("user", QUESTIONS)
@pytest.mark.parametrize("system", ["Be kind.", "A", "  Be\n\nkind. ", "東京 🙂"])
def test_the_spans_of_a_conversation_with_a_system_turn(text, user, system):
    row = encode(text, Conversation(user, system, "I see"))
    turn = f"{USER}{user}{END}{ASSISTANT}"
    assert spans(text, row) == (f"<s>{SYSTEM}{system}{END}", turn, "I see")
    assert row.bos


@pytest.mark.parametrize("user", QUESTIONS)
def test_the_spans_of_a_conversation_without_a_system_turn(text, user):
    row = encode(text, Conversation(user))
    assert spans(text, row) == ("<s>", f"{USER}{user}{END}{ASSISTANT}", "")
    assert (row.question, row.response) == (1, len(row.ids))


@has_a_default
@pytest.mark.parametrize(
    ("template", "system", "head", "turn"),
    [
        (DEFAULT_SYSTEM, None, f"{SYSTEM}You help.{END}", TURN),
        (DEFAULT_SYSTEM, "Be kind.", f"{SYSTEM}Be kind.{END}", TURN),
        (DEFAULT_SYSTEM, "You help.", f"{SYSTEM}You help.{END}", TURN),
        (NO_SYSTEM, None, "<s>", TURN),
        (SYSTEM_NEVER_ALONE, None, "<s>", TURN),
        (SYSTEM_NEVER_ALONE, "Be kind.", f"<s>{SYSTEM}Be kind.{END}", TURN),
        (SYSTEM_INSIDE_USER, "Be kind.", f"<s>{USER}Be kind.\n\n", f"{ASK}{END}{ASSISTANT}"),
        (PLAIN, None, "<s>", f"{ASK}\n"),
        (PLAIN, "Be kind.", "<s>Be kind.\n\n", f"{ASK}\n"),
    ],
    ids=lambda value: None,
)
def test_the_user_turn_begins_where_the_template_puts_it(text, template, system, head, turn):
    with with_template(text, template):
        row = encode(text, Conversation(ASK, system, "So"))
    assert spans(text, row) == (head, turn, "So")
    assert row.bos == head.startswith("<s>")


@has_a_default
def test_a_template_without_a_bos_gets_none(text):
    with with_template(text, DEFAULT_SYSTEM):
        row = encode(text, Conversation(ASK))
    assert text.tokenizer.bos_token_id not in row.ids
    assert not row.bos


def test_a_template_that_starts_at_once_with_the_user_has_its_question_at_0(text):
    with with_template(text, "{{ messages[-1]['content'] }}"):
        row = encode(text, Conversation(ASK))
    assert (row.question, row.bos) == (0, False)
    assert spans(text, row)[1] == ASK


@pytest.mark.parametrize("system", [None, "A", "Be kind", "Be\n\nkind"])
def test_a_token_of_two_line_breaks_does_not_move_the_user_turn(system):
    # GPT-2 writes "\n\n" as one token at the end of a text and as two before a word, so the system
    # turn alone is a token shorter than it is before the user turn.
    model = TextOnly(two_breaks())
    assert len(model.tokenizer("A\n\n")["input_ids"]) == 2
    assert len(model.tokenizer("A\n\nWho")["input_ids"]) == 6
    model.tokenizer.chat_template = PLAIN
    row = encode(model, Conversation("Who?", system))
    assert spans(model, row)[1] == "Who?\n"


def test_the_template_is_the_tokenizers_at_the_time_and_strings_go_by_it(text):
    own, raw = encode(text, Conversation(ASK)), encode(text, ASK)
    with with_template(text, PLAIN):
        plain = encode(text, Conversation(ASK))
        assert encode_all(text, [Conversation(ASK)]) == [plain]
        assert encode(text, ASK) == raw
    assert spans(text, plain) == ("<s>", f"{ASK}\n", "")
    assert encode(text, Conversation(ASK)) == own != plain


@pytest.mark.parametrize("adds", [False, True], ids=["bare tokenizer", "tokenizer that adds BOS"])
@pytest.mark.parametrize("written", ["", "<s>"], ids=["", "BOS already there"])
@pytest.mark.parametrize("words", ["The dog ran", " naïve 東京", "\n", "a<s>b"])
def test_a_string_has_one_bos_in_front(adds, written, words):
    tokenizer = build_tokenizer("llama")
    model = TextOnly(adding_bos(tokenizer) if adds else tokenizer)
    row = encode(model, written + words)
    bos = tokenizer.bos_token_id
    assert row.ids == (bos, *tokenizer(words, add_special_tokens=False)["input_ids"])
    assert row.ids[0] == bos != row.ids[1]
    assert (row.bos, row.question, row.response) == (True, 1, len(row.ids))
    assert tokenizer.decode(list(row.ids)) == f"<s>{words}"


@pytest.mark.parametrize("adds", [False, True])
def test_a_model_trained_without_a_bos_gets_none(adds):
    tokenizer = build_tokenizer("llama")
    model = TextOnly(
        adding_bos(tokenizer) if adds else tokenizer, Config(default_prepend_bos=False)
    )
    row = encode(model, "The dog")
    assert row.ids == tuple(tokenizer("The dog", add_special_tokens=False)["input_ids"])
    assert (row.bos, row.question) == (False, 0)
    assert encode(model, "<s>The dog").bos


def test_a_tokenizer_without_a_bos_adds_none(without_bos):
    row = encode(without_bos, "The dog")
    assert without_bos.tokenizer.decode(list(row.ids)) == "The dog"
    assert (row.bos, row.question, row.response) == (False, 0, len(row.ids))


def test_the_bos_alone_is_a_prompt(text):
    assert encode(text, "<s>").ids == (text.tokenizer.bos_token_id,)


@pytest.mark.parametrize("adds", [False, True])
def test_a_conversation_has_the_bos_of_its_template_and_no_other(adds):
    tokenizer = build_tokenizer("llama")
    model = TextOnly(adding_bos(tokenizer) if adds else tokenizer)
    for template, count in ((None, 1), (PLAIN, 1), (DEFAULT_SYSTEM, 0)):
        with with_template(model, template):
            row = encode(model, Conversation(ASK, "Be kind.", "I see"))
        assert row.ids.count(tokenizer.bos_token_id) == count


@pytest.mark.parametrize("words", [" I see, naïve 東京 🙂", "\n\n", "I see<|end|>"])
def test_a_response_is_its_own_tokens_as_text_or_as_ids(text, words):
    ids = tuple(text.tokenizer(words, add_special_tokens=False)["input_ids"])
    as_text, as_ids = (encode(text, Conversation(ASK, None, r)) for r in (words, ids))
    assert as_text == as_ids
    assert as_text.ids[as_text.response :] == ids
    assert as_text.prompt_ids == encode(text, Conversation(ASK)).ids


def test_another_response_takes_the_place_of_the_first(text):
    row = encode(text, Conversation(ASK, None, "I see"))
    assert with_response(text, row, (7, 8)).ids == (*row.prompt_ids, 7, 8)


@has_a_default
@pytest.mark.parametrize("answer", ["I see, 東京", (7, 8, 9)])
@pytest.mark.parametrize("template", [None, PLAIN, DEFAULT_SYSTEM])
def test_a_pair_lines_up_token_by_token_from_the_right(text, answer, template):
    pair = PromptPair.with_system(ASK, "Be kind.", answer)
    with with_template(text, template):
        plain, prompted = encode_pair(text, pair)
        turns = [encode(text, side).ids for side in (pair.plain, pair.prompted)]
    n = len(plain.ids) - plain.response
    assert n == len(prompted.ids) - prompted.response > 0
    assert plain.ids[-n:] == prompted.ids[-n:]
    assert [plain.prompt_ids, prompted.prompt_ids] == turns
    assert plain.ids[plain.question :] == prompted.ids[prompted.question :]
    assert common_tail(plain.ids, prompted.ids) >= len(plain.ids) - plain.question
    if isinstance(answer, tuple):
        assert plain.ids[plain.response :] == answer


def test_a_pair_may_hold_its_instruction_anywhere(text):
    pair = PromptPair(ASK, f"Be kind. {ASK}", (7, 8))
    plain, prompted = encode_pair(text, pair)
    assert plain.ids == (*encode(text, ASK).ids, 7, 8)
    assert prompted.ids == (*encode(text, f"Be kind. {ASK}").ids, 7, 8)


def test_a_response_inside_the_turns_of_a_pair_gives_way_to_the_pairs(text):
    pair = PromptPair(Conversation(ASK, None, "No"), Conversation(ASK, "Be kind.", "Yes"), (7, 8))
    assert [row.ids[row.response :] for row in encode_pair(text, pair)] == [(7, 8), (7, 8)]


def test_rows_that_do_not_line_up_are_refused_with_both_responses_shown(text):
    plain = encode(text, Conversation(ASK, None, "I see"))
    for other in ("I saw", "I see.", "You see", ""):
        prompted = encode(text, Conversation(ASK, "Be kind.", other))
        with pytest.raises(ValueError, match="same response tokens") as caught:
            require_aligned(text, plain, prompted)
        assert str(show(text, plain.ids[plain.response :])) in str(caught.value)
        assert str(show(text, prompted.ids[prompted.response :])) in str(caught.value)
    require_aligned(text, plain, encode(text, Conversation(ASK, "Be kind.", "I see")))


def test_rows_without_a_response_have_nothing_to_line_up(text):
    row = encode(text, Conversation(ASK))
    with pytest.raises(ValueError, match="same response tokens"):
        require_aligned(text, row, row)


def test_a_response_of_which_no_token_is_made_is_refused(text, monkeypatch):
    bare = text.tokenizer
    monkeypatch.setattr(
        "steerlens.prompts.ids_of", lambda _, words: bare(words.replace("-", ""))["input_ids"]
    )
    with pytest.raises(ValueError, match="same response tokens"):
        encode_pair(text, PromptPair.with_system(ASK, "Be kind.", "-"))


def test_a_shown_token_is_its_own_text(text):
    ids = encode(text, "The dog").ids
    assert show(text, ids)[0] == "<s>"
    assert "".join(show(text, ids)) == "<s>The dog"


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_and_its_window_agree_with_each_row(text, side):
    prompts = ["The dog ran", Conversation(ASK, "Be kind.", "I see"), Conversation(ASK), "I"]
    rows = encode_all(text, prompts)
    tokens, window = batch(text, prompts, side=side)
    width = max(len(row.ids) for row in rows)
    assert tokens.shape == window.mask.shape == (4, width)
    assert tokens.dtype == torch.long
    for number, row in enumerate(rows):
        real = window.mask[number]
        n, pad = len(row.ids), width - len(row.ids)
        assert real.tolist() == ([0] * pad + [1] * n if side == "left" else [1] * n + [0] * pad)
        assert tuple(tokens[number][real].tolist()) == row.ids
        assert window.positions[number][real].tolist() == list(range(n))
        assert (window.question[number], window.response[number]) == (row.question, row.response)
        assert window.bos[number] == row.bos
        assert window.first[number] == 0


@pytest.mark.parametrize("side", ["left", "right"])
def test_scopes_of_a_batch_hold_the_text_that_they_name(text, side):
    prompts = [Conversation(ASK, "Be kind.", "I see"), Conversation("Who?", None, "Me")]
    tokens, window = batch(text, prompts, side=side)

    def held(scope: Scope) -> list[str]:
        rows = zip(tokens, scope.where(window), strict=True)
        return [text.tokenizer.decode(row[inside]) for row, inside in rows]

    assert {s.name: held(s) for s in (prompt, response, question_and_response)} == {
        "prompt": [f"<s>{SYSTEM}Be kind.{END}{TURN}", f"<s>{USER}Who?{END}{ASSISTANT}"],
        "response": [f"{ASSISTANT}I see", f"{ASSISTANT}Me"],
        "question_and_response": [
            f"{END}{TURN}I see",
            f"<s>{USER}Who?{END}{ASSISTANT}Me",
        ],
    }


def test_tokens_with_a_mask_are_all_prompt_and_lose_their_padding(text):
    bos = text.tokenizer.bos_token_id
    tokens = torch.tensor([[0, bos, 7], [8, 9, 9], [bos, 7, 0]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [1, 1, 0]])
    rows = [
        Encoded((bos, 7), 1, 2, bos=True),
        Encoded((8, 9, 9), 0, 3, bos=False),
        Encoded((bos, 7), 1, 2, bos=True),
    ]
    assert encode_all(text, (tokens, mask)) == rows
    assert encode_all(text, (tokens, mask.bool())) == rows


def test_an_encoded_row_is_a_prompt_as_it_is(text):
    row = replace(encode(text, "The dog"), question=2)
    assert encode(text, row) is row
    assert encode_all(text, row) == [row]


def test_one_prompt_is_a_list_of_one(text):
    for one in ("The dog", Conversation(ASK)):
        assert encode_all(text, one) == encode_all(text, [one]) == encode_all(text, (one,))


def test_a_prompt_may_fill_the_context_and_not_a_token_more(text):
    model = TextOnly(text.tokenizer, Config(n_ctx=3))
    assert len(encode(model, Encoded((1, 2, 3), 0, 3, bos=False)).ids) == 3
    with pytest.raises(ValueError, match=r"4 tokens are asked for.*context holds 3"):
        encode(model, Encoded((1, 2, 3, 4), 0, 4, bos=False))


def test_random_text_comes_back_from_its_tokens(text):
    draw = random.Random(sum(map(ord, "prompts")))
    letters = "ab \n\t.é東🙂\u200b\u0301'\"<|{}%"
    for _ in range(60):
        words = "".join(draw.choice(letters) for _ in range(draw.randint(1, 20)))
        row = encode(text, words)
        assert text.tokenizer.decode(list(row.ids)) == f"<s>{words}"
        if words.strip():
            asked = encode(text, Conversation(words, words, words))
            assert spans(text, asked) == (
                f"<s>{SYSTEM}{words}{END}",
                f"{USER}{words}{END}{ASSISTANT}",
                words,
            )


def test_braces_in_a_turn_are_text_and_no_template(text):
    row = encode(text, Conversation("{{ bos_token }}{% if %}", "{{ 7 * 7 }}"))
    assert spans(text, row)[0] == f"<s>{SYSTEM}{{{{ 7 * 7 }}}}{END}"


def test_a_model_reads_a_conversation_as_the_tokens_that_the_batch_holds(model):
    asked = Conversation(ASK, "Be kind.", "I see")
    tokens, window = batch(model, [asked])
    read = capture(model, [asked], 0)
    assert torch.equal(read.tokens, tokens[0][window.mask[0]])
    assert model.tokenizer.decode(tokens[0]) == (
        f"{model.tokenizer.bos_token}{SYSTEM}Be kind.{END}{TURN}I see"
    )


def test_rows_of_one_length_need_no_padding():
    rows = [Encoded((1, 2), 0, 2, bos=False), Encoded((3, 4), 0, 1, bos=False)]
    tokens, window = stack(rows)
    assert tokens.tolist() == [[1, 2], [3, 4]]
    assert not window.padded


def test_ids_of_another_vocabulary_are_refused(gpt2: Any) -> None:
    pair = PromptPair.with_system("What is it?", "You are kind.", (5, gpt2.cfg.d_vocab))
    with pytest.raises(ValueError, match="not in this model's vocabulary"):
        encode_pair(gpt2, pair)
    tokens = torch.tensor([[1, 2, gpt2.cfg.d_vocab + 7]])
    with pytest.raises(ValueError, match="another model's tokenizer"):
        batch(gpt2, (tokens, torch.ones_like(tokens)))
