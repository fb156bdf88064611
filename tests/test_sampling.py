"""Sampling against transformers' own processors; stop strings; streams; what is not finite."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import BACKENDS, D_MODEL, END, PROMPTS
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import steerlens
from steerlens import CAA, Sampling, at, capture, generate, stream
from steerlens.sampling import choose
from steerlens.written import Stops, Written, tidies

V = torch.linspace(-1, 1, D_MODEL)
D_VOCAB = 60
SETTINGS = [
    {"top_k": 7},
    {"min_p": 0.1},
    {"repetition_penalty": 1.7},
    {"repetition_penalty": 0.6},
    {"top_k": 12, "top_p": 0.8},
    {"top_k": 200},
    {"top_p": 0.7, "min_p": 0.2, "temperature": 1.5},
    {"top_k": 9, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.3, "temperature": 0.6},
]


def processed(scores: torch.Tensor, ids: torch.Tensor, setting: dict[str, Any]) -> torch.Tensor:
    """What transformers makes of the scores, in the order of its `generate`."""
    steps: Any = LogitsProcessorList()
    if "repetition_penalty" in setting:
        steps.append(RepetitionPenaltyLogitsProcessor(setting["repetition_penalty"]))
    steps.append(TemperatureLogitsWarper(setting.get("temperature", 1.0)))
    if "top_k" in setting:
        steps.append(TopKLogitsWarper(setting["top_k"]))
    if "top_p" in setting:
        steps.append(TopPLogitsWarper(setting["top_p"]))
    if "min_p" in setting:
        steps.append(MinPLogitsWarper(setting["min_p"]))
    return steps(ids, scores)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_the_distribution_is_that_of_transformers(setting: dict[str, Any]) -> None:
    """Token by token: the draw at the middle of each token's share of transformers' softmax."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        scores = 3 * torch.randn((1, D_VOCAB), generator=generator)
        ids = torch.randint(0, D_VOCAB, (1, 9), generator=generator)
        counts = torch.zeros(1, D_VOCAB).scatter_add_(1, ids, torch.ones(1, 9))
        wanted = processed(scores.clone(), ids, setting).double().softmax(dim=1)[0]
        ends = wanted.cumsum(dim=0)
        kept = torch.nonzero(wanted > 0)[:, 0]
        middles = (ends - wanted / 2)[kept]
        rows = len(kept)
        found = choose(
            scores.expand(rows, -1), Sampling(**setting), counts.expand(rows, -1), middles
        )
        assert found.tolist() == kept.tolist()


def test_greedy_heeds_the_repetition_penalty() -> None:
    scores, counts = torch.tensor([[4.0, 3.0, -1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    for penalty, token in ((1.0, 0), (2.0, 1)):
        sampling = Sampling(temperature=0, repetition_penalty=penalty, top_k=1, min_p=0.5)
        assert choose(scores, sampling, counts, torch.zeros(1)).tolist() == [token]


def test_a_penalised_completion_is_that_of_transformers(model: Any, reference: Any) -> None:
    """Greedy, with the penalty on prompt and completion; rows of unequal length in one batch."""
    found = generate(
        model, PROMPTS, temperature=0, repetition_penalty=1.8, max_new_tokens=12, stop_at_end=False
    )
    for row in range(len(PROMPTS)):
        ids = found.tokens[row][found.mask[row]][None]
        n = int(found.window.response[row])
        wanted = reference.generate(
            ids[:, :n], attention_mask=torch.ones(1, n, dtype=torch.long), do_sample=False,
            repetition_penalty=1.8, min_new_tokens=12, max_new_tokens=12, pad_token_id=0,
            eos_token_id=None,
        )  # fmt: skip
        assert wanted[0].tolist() == ids[0].tolist()


@pytest.mark.parametrize("temperature", [1e-38, 1e-20, np.float32(1e-7), torch.tensor(1e-30)])
def test_a_temperature_near_none_is_greedy(gpt2: Any, temperature: Any) -> None:
    cold = steerlens.Sampling(temperature=temperature, max_new_tokens=6)
    written = steerlens.generate(gpt2, ["The dog ran"], sampling=cold)
    assert (
        written.texts
        == steerlens.generate(gpt2, ["The dog ran"], temperature=0.0, max_new_tokens=6).texts
    )


@pytest.mark.parametrize(
    "options",
    [
        {name: value}
        for name in ("top_p", "min_p", "repetition_penalty", "frequency_penalty")
        for value in (None, "0.9", float("nan"), True)
    ]
    + [{"seed": 1.5}, {"seed": None}],
)
def test_what_is_no_number_is_refused_by_name(unchecked: None, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        steerlens.Sampling(**options)


@pytest.mark.parametrize("n", [2.0, 0, True, "2", None])
def test_samples_are_counted_in_whole_numbers(unchecked: None, gpt2: Any, n: Any) -> None:
    says = (
        "n, the samples per prompt, must be at least 1|generate takes a whole number for n; found"
    )
    with pytest.raises((ValueError, TypeError), match=says):
        generate(gpt2, PROMPTS[:1], n=n)


def test_a_value_and_keywords_say_the_same(gpt2: Any) -> None:
    sampling = Sampling(6, 0.8, seed=3, top_k=20, stop="xyz")
    wanted = generate(
        gpt2, PROMPTS, max_new_tokens=6, temperature=0.8, seed=3, top_k=20, stop=["xyz"]
    )
    for found in (
        generate(gpt2, PROMPTS, sampling=sampling),
        generate(gpt2, PROMPTS, sampling=replace(sampling, temperature=9.0), temperature=0.8),
        generate(gpt2, PROMPTS, **vars(sampling)),
    ):
        assert torch.equal(found.tokens, wanted.tokens)
    pieces = list(stream(gpt2, PROMPTS[0], sampling=sampling))
    assert "".join(piece.text for piece in pieces) == wanted.texts[0]


def test_numbers_of_numpy() -> None:
    sampling = Sampling(np.int64(5), top_k=np.int32(3), seed=np.int64(2))
    assert sampling == Sampling(5, top_k=3, seed=2)
    assert Sampling(stop="a").stop == Sampling(stop=["a"]).stop == ("a",)
    assert Sampling(stop=None).stop == ()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"top_k": -1}, ValueError, "top_k must be at least 0; found -1"),
        ({"top_k": 2.5}, ValueError, "top_k"),
        ({"min_p": 1.5}, ValueError, "min_p"),
        ({"min_p": -0.1}, ValueError, "min_p"),
        ({"repetition_penalty": 0.0}, ValueError, "repetition_penalty must be above 0"),
        ({"repetition_penalty": float("nan")}, ValueError, "repetition_penalty"),
        ({"stop": ""}, ValueError, "A stop string is empty"),
        ({"stop": [3]}, TypeError, "stop is a string or several; found int"),
        ({"stop": f"{END}\n"}, ValueError, "Stop at .* alone"),
        ({"temprature": 1.0}, TypeError, "no option of sampling.*Did you mean temperature"),
        ({"sampling": {"top_k": 3}}, TypeError, "sampling"),
    ],
    ids=str,
)
def test_other_options_are_refused(gpt2: Any, options: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        generate(gpt2, PROMPTS[:1], **options)
    with pytest.raises(error, match=match):
        list(stream(gpt2, PROMPTS[0], **options))


# -- Stop strings ------------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {"max_new_tokens": 24, "seed": 5, "n": 3}


def middle_of(text: str) -> str:
    """A string from the middle of a text, which no token need be."""
    return text[len(text) // 3 : len(text) // 3 + 3]


def test_a_stop_string_ends_its_row_and_is_cut_off(model: Any) -> None:
    free = generate(model, PROMPTS[:2], **OPTIONS)
    stops = [middle_of(free.texts[0]), middle_of(free.texts[-1])]
    found = generate(model, PROMPTS[:2], stop=stops, **OPTIONS)
    assert found.texts != free.texts
    for row, (text, whole) in enumerate(zip(found.texts, free.texts, strict=True)):
        places = [whole.find(stop) for stop in stops if stop in whole]
        assert text == (whole[: min(places)] if places else whole)
        # All that was sampled, up to the token that completed the stop string.
        ids = found.response_ids(row)
        assert ids == free.response_ids(row)[: len(ids)]
        said = [model.tokenizer.decode(part, skip_special_tokens=True) for part in (ids, ids[:-1])]
        assert any(stop in said[0] for stop in stops) == bool(places)
        assert not any(stop in said[1] for stop in stops)


def test_streams_show_nothing_of_a_stop_string(model: Any) -> None:
    free = generate(model, PROMPTS[0], **OPTIONS)
    stops = [middle_of(free.texts[0]), middle_of(free.texts[1]), "qqqq"]
    wanted = generate(model, PROMPTS[0], stop=stops, **OPTIONS)
    shown = [""] * 3
    for piece in stream(model, PROMPTS[0], stop=stops, **OPTIONS):
        shown[piece.row] += piece.text
        assert wanted.texts[piece.row].startswith(shown[piece.row])
    assert tuple(shown) == wanted.texts


def test_the_beginning_of_a_stop_string_is_shown_when_it_is_none(gpt2: Any) -> None:
    text = generate(gpt2, PROMPTS[0], max_new_tokens=12, seed=1).texts[0]
    stops = [text[start : start + 2] + "\N{SNOWMAN}" for start in range(len(text) - 1)]
    pieces = list(stream(gpt2, PROMPTS[0], max_new_tokens=12, seed=1, stop=stops))
    assert "".join(piece.text for piece in pieces) == text


def test_a_special_token_as_a_stop_string_ends_as_the_end_token_does(gpt2: Any) -> None:
    free = generate(gpt2, PROMPTS[0], max_new_tokens=5, seed=1, stop_at_end=False)
    token = gpt2.tokenizer.convert_tokens_to_ids(END)
    stops = Stops.of(gpt2, frozenset(), (END, "a"))
    assert stops == Stops(frozenset({token}), ("a",))
    assert Stops(frozenset({free.response_ids(0)[2]})).strings == ()
    written = Written(gpt2.tokenizer, stops, 9)
    assert written.add(token) == ""
    assert written.over


def test_stop_strings_need_a_tokenizer(gpt2: Any) -> None:
    class Bare:
        def __init__(self) -> None:
            self.tokenizer, self.cfg, self.hook_dict = None, gpt2.cfg, gpt2.hook_dict
            self.parameters, self.hooks = gpt2.parameters, gpt2.hooks

        def __call__(self, *given: Any, **options: Any) -> Any:
            return gpt2(*given, **options)

    tokens, window = steerlens.batch(gpt2, PROMPTS[:1])
    with pytest.raises(ValueError, match="tokenizer"):
        generate(Bare(), (tokens, window.mask), stop="a")


# -- Streams -----------------------------------------------------------------------------------

STORIES = Path(__file__).parent.parent.parent / "shared" / "models" / "stories260K"
TEXTS = ("Zoë’s naïve — 日本 🙂 ends", "x = 'don't' , he said . \n\n\t end ?", "🙂", "é")


def written_of(tokenizer: Any, ids: list[int], stops: Stops | None = None) -> tuple[str, str]:
    """The pieces joined, and the text of the whole."""
    written = Written(tokenizer, stops or Stops(frozenset()), len(ids))
    return "".join(written.add(token) for token in ids), written.cut_text


def every_prefix(tokenizer: Any) -> None:
    """Whatever the last token is, half a character or not, the pieces are the text."""
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for n in range(1, len(ids) + 1):
            joined, whole = written_of(tokenizer, ids[:n])
            assert joined == whole == tokenizer.decode(ids[:n], skip_special_tokens=True)
            stopped, cut = written_of(tokenizer, ids[:n], Stops(frozenset(), (whole[-2:], "# #")))
            assert stopped == cut


def test_pieces_are_the_text_for_byte_level_tokenizers(gpt2: Any) -> None:
    every_prefix(gpt2.tokenizer)


def test_pieces_are_the_text_where_bytes_fall_back() -> None:
    """As SentencePiece has it: a space before words, and tokens <0xE2> for single bytes."""
    every_prefix(byte_fallback())


def test_random_tokens_of_a_tokenizer_with_byte_fallback() -> None:
    """Bytes in any order: those that are no character spoil the ones decoded with them."""
    tokenizer, drawn = byte_fallback(), np.random.default_rng(0)
    for _ in range(300):
        ids = drawn.integers(0, len(tokenizer), drawn.integers(1, 9)).tolist()
        joined, whole = written_of(tokenizer, ids)
        assert joined == whole == tokenizer.decode(ids, skip_special_tokens=True)


def test_random_tokens_of_a_byte_level_tokenizer(gpt2: Any) -> None:
    drawn = np.random.default_rng(0)
    for _ in range(300):
        ids = drawn.integers(0, len(gpt2.tokenizer), drawn.integers(1, 9)).tolist()
        joined, whole = written_of(gpt2.tokenizer, ids)
        assert joined == whole == gpt2.tokenizer.decode(ids, skip_special_tokens=True)


def test_pieces_are_the_text_of_a_tokenizer_that_tidies_up() -> None:
    """Spaces around an apostrophe go when the word after it is there."""
    tokenizer = spaced(clean_up_tokenization_spaces=True)
    ids = tokenizer("he do n't , it 's a ' a ? he", add_special_tokens=False)["input_ids"]
    for n in range(1, len(ids) + 1):
        joined, whole = written_of(tokenizer, ids[:n])
        assert joined == whole == tokenizer.decode(ids[:n])
    assert tokenizer.decode(ids) == "he don't, it's a'a? he"


def test_only_tokenizers_that_tidy_up_are_waited_for(gpt2: Any) -> None:
    assert not tidies(spaced())
    assert not tidies(gpt2.tokenizer)
    assert tidies(spaced(clean_up_tokenization_spaces=True))
    # What a BPE is asked in vain, as by many a tokenizer_config.json, delays no stream.
    asked = byte_fallback(clean_up_tokenization_spaces=True)
    ids = asked("x , x .", add_special_tokens=False)["input_ids"]
    assert tidies(asked) == (asked.decode(ids) == "x, x.")
    every_prefix(asked)


def test_pieces_are_the_text_of_word_pieces() -> None:
    every_prefix(word_piece())


@pytest.mark.skipif(not STORIES.is_dir(), reason="the model is not here")
def test_pieces_are_the_text_of_stories260k() -> None:
    model = steerlens.load(STORIES)
    every_prefix(model.tokenizer)
    for seed in range(4):
        options: dict[str, Any] = {"max_new_tokens": 20, "temperature": 3.0, "seed": seed, "n": 2}
        wanted = generate(model, "Once", **options).texts
        shown = ["", ""]
        for piece in stream(model, "Once", **options):
            shown[piece.row] += piece.text
        assert tuple(shown) == wanted


def byte_fallback(**options: Any) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"xendsaid='",
    ]
    bare = Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, [], unk_token="<unk>",
            byte_fallback=True, fuse_unk=True,
        )
    )  # fmt: skip
    bare.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )  # pyright: ignore
    bare.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )  # pyright: ignore
    return PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **options
    )


def spaced(**options: Any) -> Any:
    """A tokenizer of whole words, with a space between any two."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "he", "do", "n't", "'s", ",", ".", "?", "it", "'", "a"]
    bare = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="[UNK]", **options)


def word_piece() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "he", "do", "n", "'", "t", "said", "x", "end", "##s", ",", ".", "=", "?"]
    bare = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    bare.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore
    bare.decoder = decoders.WordPiece()  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="[UNK]")


def test_half_a_character_at_the_end_comes_with_the_last_piece(
    gpt2: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = gpt2.tokenizer("a 🙂", add_special_tokens=False)["input_ids"]
    import steerlens.generation as generation

    for n in range(1, len(ids) + 1):
        steps = [iter(ids), iter(ids)]
        monkeypatch.setattr(
            generation,
            "choose",
            lambda scores, *_, steps=steps: torch.tensor(
                [next(one) for one in steps[: len(scores)]]
            ),
        )
        wanted = gpt2.tokenizer.decode(ids[:n])
        pieces = list(stream(gpt2, PROMPTS[0], max_new_tokens=n, n=2))
        for row in range(2):
            assert "".join(piece.text for piece in pieces if piece.row == row) == wanted


# -- Not finite --------------------------------------------------------------------------------


class Overflows:
    def __call__(self, activation: Any, hook: Any = None) -> Any:
        return activation * float("inf")


@pytest.mark.parametrize("cache", [True, False])
def test_a_steering_that_overflows_is_told_from_the_model(model: Any, cache: bool) -> None:
    steering = at(1, CAA(V)) + at(2, Overflows()).only(steerlens.generated) + at(3, Overflows())
    with pytest.raises(ValueError, match=r"steering leaves.*Overflows at layer 3.*Lower the str"):
        generate(model, PROMPTS, steering, cache=cache)
    late = at(1, CAA(V)) + at(2, steerlens.Only(Overflows(), steerlens.generated))
    with pytest.raises(ValueError, match=r"Only at layer 2 resid_post was the first.*Lower the"):
        generate(model, PROMPTS, late, cache=cache, max_new_tokens=3)
    with pytest.raises(ValueError, match="Lower the strength"):
        list(stream(model, PROMPTS[0], late, max_new_tokens=3))


def test_finite_steers_whose_layers_above_overflow(gpt2: Any) -> None:
    huge = at(1, CAA(torch.full((D_MODEL,), 1e38).index_fill(0, torch.tensor([0]), -1e38)))
    with pytest.raises(ValueError, match=r"a layer above one of them did\. Lower the strength"):
        generate(gpt2, PROMPTS[:1], huge * 3.0 + at(3, CAA(V)), max_new_tokens=1)


@pytest.fixture(params=BACKENDS)
def broken(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Any:
    """A model whose own logits are NaN."""
    model: Any = steerlens.load(folders["llama"], backend=request.param)
    for parameter in model.ln_final.parameters():
        parameter.data[:] = float("nan")
    return model


def test_a_model_that_overflows_by_itself_is_told_from_a_steering(broken: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^Nothing is steered, .*float32 on cpu.*backend="
    ) as said:
        generate(broken, PROMPTS)
    assert "strength" not in str(said.value)
    with pytest.raises(ValueError, match=r"not for the steering: without it.*too") as said:
        generate(broken, PROMPTS, at(1, CAA(V)))
    assert "strength" not in str(said.value)


def test_capture_tells_them_apart_too(gpt2: Any, folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="without the steering none is: lower the strength"):
        capture(gpt2, PROMPTS, 2, steering=at(1, Overflows()))
    broken = steerlens.load(folders["gpt2"], backend=BACKENDS[0])
    for parameter in broken.blocks[1].ln1.parameters():
        parameter.data[:] = float("nan")
    for steering, match in (
        (None, "infinite: the model"),
        (at(0, CAA(V)), "steering too: the model"),
    ):
        with pytest.raises(ValueError, match=match) as said:
            capture(broken, PROMPTS, 2, steering=steering)
        assert "strength" not in str(said.value)


# -- The command line --------------------------------------------------------------------------


def test_the_command_line_takes_them(run: Any, folders: Any) -> None:
    asked = ["generate", "--model", str(folders["gpt2"]), "--prompt", "The dog", "--raw", "--json"]
    asked += ["--max-new-tokens", "8"]

    def written(*options: str) -> list[str]:
        code, out, err = run(*asked, *options)
        assert code == 0, err
        return json.loads(out)["unsteered"]

    (free,) = written("--seed", "1")
    likeliest = written("--top-k", "1", "--repetition-penalty", "1.5", "--temperature", "2")
    assert likeliest == written("--repetition-penalty", "1.5", "--temperature", "0")
    assert likeliest == written("--min-p", "1", "--repetition-penalty", "1.5")
    assert likeliest != written("--temperature", "0")
    assert free != written("--seed", "1", "--frequency-penalty", "9")[0]
    stop = free[3:5]
    assert written("--seed", "1", "--stop", stop, "--stop", "qqq") == [free[: free.index(stop)]]
