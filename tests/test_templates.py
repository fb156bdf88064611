"""Templates of real models: spans, dropped turns, borders, default system prompts, several turns.

Every tokenizer kind is tried: byte-level BPE, one that adds a space as SentencePiece does, and
tokenizers without offsets.
"""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from real_templates import (
    APART,
    GEMMA_2,
    INSIDE,
    LLAMA_2,
    LLAMA_3_1,
    MISTRAL_V1,
    NO_SYSTEM,
    PHI_3,
    QWEN_2_5,
    QWEN_3,
    SMOLLM_2,
    VICUNA,
)
from test_prompts import ASK, Config, TextOnly, two_breaks
from tiny_models import CORPUS, build_tokenizer

import steerlens
from steerlens import (
    PLAIN,
    PSR,
    ColdKernel,
    Conversation,
    Examples,
    PromptPair,
    Schedule,
    SteeringWarning,
    Template,
    analysis,
    encode,
    encode_pair,
    generate,
    prompted_pairs,
    question_and_response,
    use_template,
)
from steerlens.borders import split_at
from steerlens.methods.cold.examples import examples_of
from steerlens.methods.psr import difference_of_means
from steerlens.prompts import Encoded, encode_all, with_response
from steerlens.templates import default_system, plain_system

STORIES = Path(__file__).parents[1].parent / "shared" / "models" / "stories260K"
MAY_WARN = pytest.mark.filterwarnings("ignore:The model's chat template puts a system prompt")


def adding_a_space(corpus: tuple[str, ...] = CORPUS) -> Any:
    """A tokenizer that puts a space before every piece of text, as Llama-2's does."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.BPE(unk_token="<unk>"))
    bare.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    bare.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    bare.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    letters = sorted({*"".join(map(chr, range(32, 127))), *"\n東é"})
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=letters,
        show_progress=False,
    )
    bare.train_from_iterator(corpus, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


class Slow:
    """A tokenizer that gives no offsets."""

    is_fast = False

    def __init__(self, inner: Any) -> None:
        self.__dict__["inner"] = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.inner, name, value)

    def __call__(self, text: str, **options: Any) -> Any:
        assert "return_offsets_mapping" not in options
        return self.inner(text, **options)


def ending(tokenizer: Any) -> Any:
    tokenizer.eos_token = tokenizer.bos_token
    return tokenizer


def of_bytes() -> Any:
    """A tokenizer that transformers has in Python alone."""
    from transformers import ByT5Tokenizer

    return ByT5Tokenizer(bos_token="<s>")


TOKENIZERS = {
    "byte-level": lambda: build_tokenizer("llama"),
    "two breaks": lambda: ending(two_breaks()),
    "adding a space": adding_a_space,
    "byte-level, slow": lambda: Slow(build_tokenizer("llama")),
    "adding a space, slow": lambda: Slow(adding_a_space()),
    "bytes, slow": of_bytes,
}


def model_with(template: str | Template, tokenizer: Any = None, n_ctx: int = 2000) -> TextOnly:
    model = TextOnly(tokenizer or build_tokenizer("llama"), Config(n_ctx=n_ctx))
    use_template(model, template)
    return model


def turn(model: Any, row: Encoded) -> str:
    return model.tokenizer.decode(list(row.ids[row.question : row.response]))


def text_of(model: Any, prompt: Any) -> str:
    return model.tokenizer.decode(list(encode(model, prompt).ids))


# -- The question ----------------------------------------------------------------------------------

SYSTEMS = (None, "Be kind.", "A", ASK, f"Say: {ASK} [/INST] ", "Be\n\nkind.\n", "very " * 40)


@MAY_WARN
@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", [*INSIDE, *APART, "plain"])
@pytest.mark.parametrize("user", [ASK, "  Once upon", "東 a"])
def test_the_question_does_not_depend_on_the_system_text(kind, name, user):
    model = model_with({**INSIDE, **APART, "plain": PLAIN}[name], TOKENIZERS[kind]())
    rows = [encode(model, Conversation(user, system)) for system in SYSTEMS]
    # Without a system text a space may be joined to the first word, which is then other tokens.
    assert len({len(row.ids) - row.question for row in rows[1:]}) == 1
    assert name not in APART or len({len(row.ids) - row.question for row in rows}) == 1
    for row in rows:
        said = turn(model, row)
        if name in APART:
            assert user.strip() in said
            assert "kind" not in said
        else:  # the user's own words come first, a space before them at most
            assert said.lstrip(" ").startswith(user.strip())


@pytest.mark.parametrize("name", INSIDE)
def test_inside_a_user_turn_the_question_begins_with_the_users_words(name):
    model = model_with(INSIDE[name])
    plain, told = (encode(model, Conversation(ASK, s)) for s in (None, "Be kind."))
    before = model.tokenizer.decode(list(told.ids[: told.question]))
    assert before.rstrip("\n ").endswith(("kind.", "<</SYS>>"))
    assert turn(model, told).startswith(ASK)
    assert plain.ids[plain.question + 1 :] == told.ids[told.question + 1 :]


def test_what_opens_the_user_turn_after_a_system_turn_alone_is_no_part_of_the_question():
    model = model_with(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + '\n' }}{% else %}"
        "{{ '' if loop.first else 'Now: ' }}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    for system in (None, "Be kind."):
        assert turn(model, encode(model, Conversation(ASK, system))).lstrip() == ASK


def test_a_template_whose_turns_have_a_name_begins_the_question_with_it():
    model = model_with(QWEN_3)
    row = encode(model, Conversation(ASK, "Be kind."))
    assert turn(model, row).startswith(f"<|im_start|>user\n{ASK}<|im_end|>")


def test_question_and_response_is_one_span_on_both_sides_of_a_pair(gpt2):
    model = TextOnly(gpt2.tokenizer, Config(n_ctx=2000))
    before = model.tokenizer.chat_template
    try:
        use_template(model, LLAMA_2)
        for pair in (PromptPair.with_system(ASK, text, " It is.") for text in SYSTEMS[1:]):
            plain, prompted = encode_pair(model, pair)
            assert len(plain.ids) - plain.question == len(prompted.ids) - prompted.question
            assert turn(model, prompted).startswith(ASK)
    finally:
        use_template(model, before)


def test_a_first_word_of_more_tokens_without_a_space_leaves_both_sides_as_long():
    # " girl" is one token here, and "girl" after a line break is several.
    model = model_with(LLAMA_2, adding_a_space(("a little girl", "the girl", "a girl ran") * 9))
    plain, prompted = (encode(model, Conversation("girl?", s)) for s in (None, "A"))
    lengths = [len(row.ids) - row.question for row in (plain, prompted)]
    assert lengths[0] < lengths[1]
    assert [turn(model, row).lstrip()[:5] for row in (plain, prompted)] == ["girl?", "girl?"]
    both = encode_pair(model, PromptPair.with_system("girl?", "A", (5, 6)))
    assert {len(row.ids) - row.question for row in both} == {lengths[0] + 2}
    assert both[0].ids[both[0].question + 1 :] == both[1].ids[both[1].question + 1 :]


@pytest.fixture
def alone(folders, request) -> Any:
    """A model of one's own, whose template may be changed."""
    return steerlens.load(folders["llama"])


@pytest.mark.parametrize("template", [LLAMA_2, Template(GEMMA_2, instruction="user")])
def test_psr_learns_on_the_user_turn_where_the_instruction_stands_in_it(alone, template):
    use_template(alone, template)
    pairs = prompted_pairs(alone, ["What?", "Who?"], "Be kind.", max_new_tokens=3)
    schedule = Schedule(epochs=1, learning_rate=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SteeringWarning)  # a single step
        fit = PSR.fit(alone, pairs, 1, surface="QR", schedule=schedule)
    assert fit.steering.sites
    assert difference_of_means(alone, pairs, 1, surface="QR").sites


def test_other_words_in_the_user_turn_are_still_refused_on_the_user_turn(alone):
    use_template(alone, LLAMA_2)
    asked = [Conversation("The dog ran"), Conversation("I dog ran")]
    first, second = (encode(alone, each) for each in asked)
    assert first.ids[first.question + 1 :] == second.ids[second.question + 1 :]
    with pytest.raises(ValueError, match="they must be the same tokens"):
        difference_of_means(alone, [PromptPair(*asked, (5, 6))], 1, surface="QR")
    later = PromptPair(Conversation("I am?"), Conversation("I am!"), (5, 6))
    with pytest.raises(ValueError, match="they must be the same tokens"):
        difference_of_means(alone, [later], 1, surface="QR")


def test_a_bos_before_the_user_turn_is_no_part_of_it():
    model = model_with(
        "{% for m in messages %}{{ bos_token if m['role'] == 'user' else 'S: ' }}"
        "{{ 'USER: ' if m['role'] == 'user' else '' }}{{ m['content'] }}{% endfor %}"
    )
    rows = [encode(model, Conversation(ASK, system)) for system in (None, "A")]
    assert [turn(model, row) for row in rows] == [f"USER: {ASK}"] * 2
    assert [row.bos for row in rows] == [True, False]


# -- A system turn that is left out ----------------------------------------------------------------

UPPER = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | upper }}{% endfor %}"
SHORT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'][:30] }}{% endfor %}"
FIRST_TURN_LOST = "{% for m in messages[-1:] %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
TRIMMED = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "system", "user", "done"),
    [
        (MISTRAL_V1, "movie", "Review a movie.", "left the system turn out"),
        (MISTRAL_V1, "INST", ASK, "left the system turn out"),
        (MISTRAL_V1, "a", ASK, "left the system turn out"),
        (FIRST_TURN_LOST, "Be kind.", "Say: Be kind.", "left the system turn out"),
        (UPPER, "Be kind.", "Be kind.", "altered the system text"),
        (SHORT, "Be kind and " * 9, ASK, "cut it short"),
        (SHORT, "Be kind and " * 9, "Be kind and " * 9, "cut it short"),
    ],
)
def test_a_system_turn_that_is_not_there_is_noticed(template, system, user, done):
    with pytest.raises(ValueError, match=done) as caught:
        encode(model_with(template), Conversation(user, system))
    assert "instruction='user'" in str(caught.value)


@pytest.mark.parametrize(
    ("template", "system"), [(TRIMMED, "  Be kind.\n"), (SHORT, "Be kind."), (UPPER, "42")]
)
def test_a_system_turn_that_is_there_is_found(template, system):
    assert system.strip() in text_of(model_with(template), Conversation(ASK, system))


def test_an_earlier_turn_that_is_not_there_is_noticed():
    talk = Conversation(ASK, history=(("user", ASK), ("assistant", ASK)))
    with pytest.raises(ValueError, match="left 2 of 2 earlier turns out"):
        encode(model_with(FIRST_TURN_LOST), talk)
    # Thoughts may go.
    thought = replace(talk, history=(("user", "Hi"), ("assistant", "<think>Oh.</think>Ho")))
    assert "Ho<|im_end|>" in text_of(model_with(QWEN_3), thought)


# -- The response's border -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("response", ["Once", " Once", "\nOnce", "東", "\n", "I see <s>"])
@pytest.mark.parametrize("template", [PLAIN, LLAMA_2, QWEN_3])
def test_prompt_and_response_are_the_tokens_of_the_joint_text(kind, response, template):
    model = model_with(template, TOKENIZERS[kind]())
    bare = encode(model, Conversation(ASK, "Be kind."))
    row = encode(model, Conversation(ASK, "Be kind.", response))
    joint = model.tokenizer(str(bare.text) + response, add_special_tokens=False)["input_ids"]
    assert list(row.ids) == joint
    assert row.question == bare.question
    pair = PromptPair.with_system(ASK, "Be kind.", response)
    plain, prompted = encode_pair(model, pair)
    assert prompted.ids == row.ids
    assert plain.ids[plain.response :] == row.ids[row.response :] != ()


def test_no_space_comes_in_at_the_border():
    model = model_with(PLAIN, adding_a_space())
    assert text_of(model, Conversation(ASK, None, "Once")).endswith("?\nOnce")


@pytest.mark.skipif(not STORIES.is_dir(), reason="shared/models/stories260K is absent")
def test_no_space_comes_in_at_the_border_of_a_real_model():
    model = steerlens.load(STORIES, template=PLAIN)
    row = encode(model, Conversation(ASK, None, "Once"))
    assert model.tokenizer.convert_ids_to_tokens(list(row.ids[row.response :])) == ["O", "n", "ce"]
    wish = Examples(["She", "The dog"], probabilities=[{" was": 0.9, " had": 0.1}] * 2)
    assert ColdKernel.fit(model, wish, 2, loss="options").steering.sites


def test_raw_text_has_the_joint_tokens_too():
    model = model_with(PLAIN, adding_a_space())
    plain, prompted = encode_pair(model, PromptPair(ASK, f"Be kind. {ASK}", "Once"))
    for row, text in ((plain, ASK), (prompted, f"Be kind. {ASK}")):
        ids = model.tokenizer(f"{text}Once", add_special_tokens=False)["input_ids"]
        assert row.ids == (model.tokenizer.bos_token_id, *ids)
    assert plain.ids[plain.response :] == prompted.ids[prompted.response :]


@pytest.mark.parametrize("kind", ["byte-level", "byte-level, slow"])
def test_a_token_on_the_border_is_the_responses_first(kind):
    model = model_with("{{ messages[-1]['content'] }}", TOKENIZERS[kind]())
    row = encode(model, Conversation("I love you beca", None, "use"))
    assert row.ids == encode(model, Conversation("I love you because")).ids
    assert model.tokenizer.decode(list(row.ids[row.response :])) == " because"
    plain, prompted = encode_pair(model, PromptPair("I beca", "You beca", "use"))
    assert plain.ids[plain.response :] == prompted.ids[prompted.response :] == row.ids[-1:]


def test_a_response_that_took_a_token_of_the_prompt_gives_it_back_to_another():
    model = model_with("{{ messages[-1]['content'] }}")
    begun = Conversation("I love you beca", None, "use")
    plain, prompted = encode_pair(model, PromptPair(begun, begun, (5, 6)))
    bare = encode(model, replace(begun, response=""))
    assert plain == prompted == replace(bare, ids=(*bare.ids, 5, 6))


def test_sides_that_end_otherwise_are_refused_where_the_response_is_other_tokens():
    model = model_with(PLAIN)
    with pytest.raises(ValueError, match="Give the response as token ids"):
        encode_pair(model, PromptPair("I beca", "You.", "use"))


def test_ids_stay_as_they_are_and_rows_of_ids_take_text():
    model = model_with(PLAIN, adding_a_space())
    bare = encode(model, Conversation(ASK))
    assert with_response(model, bare, (7, 8)).ids == (*bare.ids, 7, 8)
    known = with_response(model, bare, "Once")
    assert with_response(model, replace(bare, text=None), "Once").ids == known.ids


@pytest.mark.parametrize("prompt", ["She", Conversation("She")])
def test_an_option_of_cold_is_the_token_that_it_is_after_the_prompt(prompt):
    spaced = adding_a_space(("She was", "he was", "it was good", "was", "he had") * 9)
    model = TextOnly(spaced)
    use_template(model, "{{ messages[-1]['content'] }}")
    assert len(spaced(" was", add_special_tokens=False)["input_ids"]) == 2
    wish = {" was": 0.5, " had": 0.5}
    (example,) = examples_of(model, "options", Examples([prompt], probabilities=[wish]))
    ids = [token for token, _ in example.options]
    assert spaced.convert_ids_to_tokens(ids) == ["▁was", "▁had"]
    long = {"it was good": 0.5, " had": 0.5}
    with pytest.raises(ValueError, match="An option is one token, and 'it was good'"):
        examples_of(model, "options", Examples([prompt], probabilities=[long]))


def test_an_option_after_a_prompt_that_ends_in_a_space_leaves_the_prompt_as_it_is():
    spaced = adding_a_space(("She was", "he was", "it was good", "was", "he had") * 9)
    model = model_with(PLAIN, spaced)
    wish = {"was": 0.5, "had": 0.5}
    (example,) = examples_of(model, "options", Examples(["She "], probabilities=[wish]))
    ids = [token for token, _ in example.options]
    assert spaced.convert_ids_to_tokens(ids) == ["was", "had"]


class Words:
    """A slow tokenizer: a word after a space is one token, any other a token a letter."""

    is_fast = False

    def __init__(self) -> None:
        self.known: list[str] = []

    def __call__(self, text: str, **_: Any) -> Any:
        first, *rest = text.split(" ")
        pieces = [*first, *(f" {word}" for word in rest)]
        self.known += [piece for piece in dict.fromkeys(pieces) if piece not in self.known]
        return {"input_ids": [self.known.index(piece) for piece in pieces]}

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(self.known[number] for number in ids)


@pytest.mark.parametrize(("start", "before"), [(0, 0), (1, 1), (2, 1), (3, 1), (12, 2), (20, 3)])
def test_without_offsets_a_token_is_found_that_alone_would_be_many(start, before):
    parts = split_at(Words(), "x abcdefghi jklmnop", start)
    assert [len(part) for part in parts] == [before, 3 - before]


# -- The system prompt that a template has by itself -----------------------------------------------

QWENS = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
LLAMA_2_DEFAULT = LLAMA_2.replace("system_message = false", "system_message = 'Be safe.'")


@pytest.mark.parametrize(
    ("template", "default"),
    [
        (QWEN_2_5, QWENS),
        (SMOLLM_2, "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
        (VICUNA, "A chat between a curious user and an artificial intelligence assistant."),
        (LLAMA_2_DEFAULT, "Be safe."),
        *((INSIDE[name], "") for name in INSIDE),
        *((NO_SYSTEM[name], "") for name in NO_SYSTEM),
        *((APART[name], "") for name in ("qwen-3", "llama-3.1", "phi-3")),
        (PLAIN, ""),
    ],
)
def test_a_system_prompt_of_the_templates_own_is_told_once(template, default):
    model = model_with(template)
    assert default_system(model.tokenizer) == default
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encode(model, Conversation(ASK))
        encode(model, Conversation(ASK))
    assert len(caught) == bool(default)
    for warning in caught:
        assert issubclass(warning.category, SteeringWarning)
        assert default in str(warning.message)
        assert "Template(system=None)" in str(warning.message)


@pytest.mark.parametrize(("template", "default"), [(QWEN_2_5, QWENS), (SMOLLM_2, "named SmolLM")])
def test_the_user_chooses_what_the_plain_side_holds(template, default):
    asked, told = Conversation(ASK), Conversation(ASK, "Be kind.")
    model = model_with(template)
    with pytest.warns(SteeringWarning, match="of its own"):
        assert default in text_of(model, asked)
    assert default in plain_system(model)
    own = text_of(model, told)

    use_template(model, Template(system=None))
    user = f"<|im_start|>user\n{ASK}<|im_end|>\n<|im_start|>assistant\n"
    assert text_of(model, asked) == user
    assert turn(model, encode(model, asked)) == user
    assert (text_of(model, told), plain_system(model)) == (own, "none")

    use_template(model, Template(system=""))
    assert text_of(model, asked) == f"<|im_start|>system\n<|im_end|>\n{user}"

    use_template(model, Template(system="You are a critic."))
    assert text_of(model, asked) == f"<|im_start|>system\nYou are a critic.<|im_end|>\n{user}"
    assert (text_of(model, told), plain_system(model)) == (own, "'You are a critic.', as chosen")


@MAY_WARN
def test_no_system_turn_keeps_the_bos_and_every_turn_that_was_said():
    model = model_with(Template(APART["vicuna"], system=None))
    talk = Conversation(ASK, history=(("user", "Hi"), ("assistant", "Ho")))
    assert text_of(model, talk) == f"<s>USER: Hi ASSISTANT: Ho</s>USER: {ASK} ASSISTANT:"
    use_template(model, Template(LLAMA_3_1, system=None))
    assert text_of(model, Conversation(ASK)).startswith("<s><|start_header_id|>user")
    use_template(model, Template(QWEN_3, system=None))
    assert text_of(model, Conversation(ASK)).startswith("<|im_start|>user")


def test_a_default_inside_the_user_turn_cannot_be_left_out_but_can_be_empty():
    model = model_with(Template(LLAMA_2_DEFAULT, system=None))
    with pytest.raises(ValueError, match=r"Template\(system=''\) puts an empty one"):
        encode(model, Conversation(ASK))
    use_template(model, Template(system=""))
    assert "Be safe" not in text_of(model, Conversation(ASK))
    # A blank between two texts opens no turn.
    spaced = LLAMA_2_DEFAULT.replace("<<SYS>>\\n", "").replace("\\n<</SYS>>\\n\\n", " ")
    use_template(model, Template(spaced, system=None))
    with pytest.raises(ValueError, match=r"Template\(system=''\) puts an empty one"):
        encode(model, Conversation(ASK))


@pytest.mark.parametrize("template", [PLAIN, LLAMA_2, GEMMA_2, "[gMASK]<sop>" + PHI_3])
def test_where_there_is_no_system_turn_none_leaves_the_text_as_it_is(template):
    model = model_with(template)
    own = text_of(model, Conversation(ASK))
    use_template(model, Template(system=None))
    assert text_of(model, Conversation(ASK)) == own


@MAY_WARN
def test_tables_and_reports_say_what_the_plain_side_held(alone):
    use_template(alone, QWEN_2_5.replace(QWENS, "You are Q."))
    pairs = [PromptPair.with_system(text, "Be kind.", (5, 6)) for text in ("A", "B", "C", "D")]
    steering = steerlens.at(1, steerlens.CAA(torch.ones(32)))
    compared = analysis.compare(alone, pairs, {"CAA": steering})
    said = "'You are Q.', the chat template's own"
    for table in (compared.coefficients, compared.faithfulness, compared.logit_shift):
        assert table.attrs["plain_system"] == said
    assert said in analysis.provenance(alone, compared, "x").values()
    shown = analysis.side_by_side(alone, ["A"], "Be kind.", [], max_new_tokens=2)
    assert shown.attrs["plain_system"] == said
    use_template(alone, Template(system=None))
    assert "none" in analysis.provenance(alone, compared, "x").values()


# -- Templates without a system role, and with arguments -------------------------------------------


@pytest.mark.parametrize("template", [GEMMA_2, MISTRAL_V1, QWEN_3, LLAMA_2])
def test_an_instruction_may_stand_in_the_user_turn(template):
    model = model_with(Template(template, instruction="user"))
    plain, prompted = encode_pair(model, PromptPair.with_system(ASK, "Be kind.", (5, 6)))
    assert f"Be kind.\n\n{ASK}" in model.tokenizer.decode(list(prompted.ids))
    assert len(plain.ids) - plain.question == len(prompted.ids) - prompted.question
    assert turn(model, prompted).startswith(ASK)
    talk = Conversation("Why?", "Be kind.", history=(("user", ASK), ("assistant", "It.")))
    assert f"Be kind.\n\n{ASK}" in text_of(model, talk)
    assert turn(model, encode(model, talk)).startswith("Why?")


def test_a_model_without_a_system_role_writes_pairs(folders):
    template = Template(GEMMA_2, instruction="user")
    model = steerlens.load(folders["gpt2"], template=template)
    pairs = prompted_pairs(model, ["Hi"], "Be kind.", max_new_tokens=3)
    assert pairs[0].prompted == Conversation("Hi", "Be kind.")
    own = model_with(GEMMA_2, model.tokenizer)
    with pytest.raises(ValueError, match=r"Template\(instruction='user'\)"):
        prompted_pairs(replace(own), ["Hi"], "Be kind.", max_new_tokens=3)


def test_arguments_reach_the_template():
    model = model_with(Template(QWEN_3, arguments={"enable_thinking": False}))
    assert text_of(model, Conversation(ASK)).endswith("<think>\n\n</think>\n\n")
    model = model_with(Template(LLAMA_3_1, arguments={"date_string": "1 May 2020"}))
    assert "Today Date: 1 May 2020" in text_of(model, Conversation(ASK))
    model.tokenizer.chat_template = PLAIN  # from now on
    assert text_of(model, Conversation(ASK)) == f"<s>{ASK}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"enable_thinkin": False}, "does not ask for 'enable_thinkin'"), ({"tokenize": 1}, "itself")],
)
def test_arguments_that_go_nowhere_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        model_with(Template(QWEN_3, arguments=arguments))


@pytest.mark.usefixtures("unchecked")
def test_a_template_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="instruction"):
        Template(instruction="assistant")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="template is empty"):
        Template(" ")


def test_a_model_has_its_own_template(folders):
    given = Template(system="Hi", arguments={})
    first, second = (steerlens.load(folders["llama"], template=t) for t in (given, None))
    assert "Hi" in text_of(first, Conversation(ASK))
    assert "Hi" not in text_of(second, Conversation(ASK))


# -- Several turns ---------------------------------------------------------------------------------

TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Ho"},
    {"role": "user", "content": ASK},
]
TALK_BEFORE = (("user", "Hi"), ("assistant", "9041702"))
BEGUN = [*TALK, {"role": "assistant", "content": "It"}]


def test_messages_are_a_conversation():
    history = (("user", "Hi"), ("assistant", "Ho"))
    talk = Conversation(ASK, "Be kind.", history=history)
    assert Conversation.of(TALK) == talk
    assert Conversation.of(BEGUN) == replace(talk, response="It")
    assert Conversation.of(TALK[1:2]) == Conversation("Hi")
    assert talk.without_system() == Conversation(ASK, history=history)
    hash(talk)


@MAY_WARN
@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("name", [*INSIDE, *APART])
def test_the_question_of_several_turns_is_the_last_user_turn(kind, name):
    model = model_with({**INSIDE, **APART}[name], TOKENIZERS[kind]())
    told, plain = (encode(model, talk) for talk in (TALK, TALK[1:]))
    for row, system in ((told, "Be kind."), (plain, None)):
        alone = encode(model, Conversation(ASK, system if name != "llama-2" else None))
        assert len(row.ids) - row.question == len(alone.ids) - alone.question
    assert ASK in turn(model, told)
    assert "Ho" not in turn(model, told)
    head = model.tokenizer.decode(list(told.ids[: told.question]))
    assert "Hi" in head
    assert "Ho" in head


def test_without_a_system_role_a_later_user_turn_begins_with_what_opens_it():
    model = model_with(GEMMA_2)
    said = turn(model, encode(model, TALK[1:]))
    assert said.startswith(f"<start_of_turn>user\n{ASK}<end_of_turn>")


@pytest.mark.parametrize("number", ["9041700", "9041700 9041701", "Is it 9041701?"])
def test_numbers_in_the_turns_are_words_like_others(number):
    # The library's own stand-ins are such numbers.
    model = model_with(LLAMA_2)
    row = encode(model, Conversation(number, f"Say {number}.", history=TALK_BEFORE))
    assert turn(model, row) == f"{number} [/INST]" or turn(model, row).startswith(f" {number}")
    with pytest.raises(ValueError, match="left the system turn out"):
        encode(model_with(MISTRAL_V1), Conversation(number, number))


def test_messages_are_taken_wherever_a_prompt_is(model):
    talk = Conversation.of(BEGUN)
    row = encode(model, talk)
    assert encode(model, BEGUN) == row
    assert encode_all(model, BEGUN) == encode_all(model, [BEGUN]) == [row]
    tokens, window = steerlens.batch(model, [TALK, "Hi"])
    assert tokens.shape[0] == 2
    wide = question_and_response.where(window)[0]
    assert ASK in model.tokenizer.decode(tokens[0][wide])
    options: dict[str, Any] = {"max_new_tokens": 3, "temperature": 0.0}
    assert generate(model, BEGUN, **options).texts == generate(model, [talk], **options).texts
    assert len(list(steerlens.stream(model, talk, max_new_tokens=2))) > 0
    seen = steerlens.capture(model, TALK, 1)
    assert torch.equal(seen.tokens, torch.tensor(encode(model, TALK).ids))
    pair = PromptPair(TALK[1:], TALK, (5, 6))
    assert pair == PromptPair.with_system(TALK[1:], "Be kind.", (5, 6))
    written = prompted_pairs(model, [TALK[1:]], "Be kind.", max_new_tokens=3)
    assert written[0].prompted == Conversation.of(TALK)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "no turns"),
        (TALK[:1], "no turns"),
        (TALK[2:3], "no turns"),
        ([*TALK[1:3], TALK[2]], "user, assistant"),
        ([TALK[1], TALK[0]], "one system turn, and it stands first"),
        ([TALK[0], *TALK], "one system turn, and it stands first"),
        ([{"role": "tool", "content": "x"}], "Message 0 has the unknown role 'tool'"),
        ([{"role": "user"}], "Message 0 is not .* found the fields role"),
        ([{"role": "user", "content": "x", "name": "y"}], "found the fields role, content, name"),
        (["Hi"], "Message 0 is not .* found str"),
        ([{"role": "user", "content": ["x"]}], "content of message 0 must be text; found list"),
        ([{"role": "user", "content": " "}], "user turn is empty"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_messages_that_make_no_conversation_are_refused(messages, said):
    with pytest.raises(ValueError, match=said):
        Conversation.of(messages)


@pytest.mark.usefixtures("unchecked")
def test_other_mistakes_about_turns_are_refused():
    model = model_with(LLAMA_2)
    with pytest.raises(ValueError, match="roles must alternate"):
        encode(model, [TALK[1], TALK[1]])
    with pytest.raises(TypeError, match="one message alone"):
        encode(model, TALK[1])
    with pytest.raises(ValueError, match=r"system turn of its own, 'Be kind\.'"):
        PromptPair.with_system(Conversation.of(TALK), "Be rude.", "x")
    with pytest.raises(ValueError, match="history of a Conversation holds user and assistant"):
        Conversation("Hi", history=(("system", "Be kind."),))
