"""Tokens of half a character are shown as what they are together, or as bytes; never as U+FFFD."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from analysis.figures.tokens import part_shown, token_view, visible
from steerlens.pieces import HALF, pieces
from steerlens.prompts import show, tokenizer_of

TEXT = "naïve 🙂👩‍💻 中文 مرحبا ok\n"


@pytest.fixture(scope="module")
def byte_level():
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet())}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture(scope="module")
def byte_fallback():
    vocab = {"<unk>": 0} | {f"<0x{byte:02X}>": byte + 1 for byte in range(256)}
    vocab |= {c: 257 + i for i, c in enumerate("▁abceiknov")}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def alphabet():
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_every_token_has_a_text_and_none_is_half_a_character(kind, request):
    tokenizer = request.getfixturevalue(kind)
    ids = ids_of(tokenizer, TEXT)
    texts = pieces(tokenizer, ids)
    assert len(texts) == len(ids)
    assert HALF not in "".join(texts)
    assert (
        "".join(map(part_shown, texts)).translate(str.maketrans("", "", "₂₃₄")).strip()
        == TEXT.strip()
    )


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_the_parts_of_a_character_are_numbered(kind, request):
    tokenizer = request.getfixturevalue(kind)
    texts = pieces(tokenizer, ids_of(tokenizer, "naïve"))
    assert [text for text in texts if "⟨" in text] == ["ï⟨1/2⟩", "ï⟨2/2⟩"]
    assert "🙂⟨4/4⟩" in pieces(tokenizer, ids_of(tokenizer, "🙂"))


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_a_character_that_is_never_whole_is_shown_as_bytes(kind, request):
    tokenizer = request.getfixturevalue(kind)
    ids = ids_of(tokenizer, "中")[-3:]
    assert pieces(tokenizer, ids[:2]) == ["⟨byte E4⟩", "⟨byte B8⟩"]
    assert pieces(tokenizer, [ids[2], *ids_of(tokenizer, "a")])[0] == "⟨byte AD⟩"


def test_the_character_u_fffd_itself_stays(byte_level):
    assert pieces(byte_level, ids_of(byte_level, HALF))[0].startswith(("⟨byte EF⟩", HALF))


def test_a_space_that_sentencepiece_decodes_away_is_shown(byte_fallback):
    assert pieces(byte_fallback, ids_of(byte_fallback, "a b"))[-2:] == [" ", "b"]


def test_show_is_pieces(gpt2):
    ids = ids_of(tokenizer_of(gpt2), "naïve 🙂")
    assert show(gpt2, ids) == pieces(tokenizer_of(gpt2), ids)


def test_a_view_shows_the_character_once_and_the_parts_as_small_numbers():
    import pandas as pd

    tokens = ["na", "ï⟨1/2⟩", "ï⟨2/2⟩", "ve"]
    table = pd.DataFrame(
        {"position": range(4), "token": tokens, "value": 0.5, "read": True, "steered": False}
    )
    html = token_view(table).html
    assert ">ï</span>" in html
    assert ">₂</span>" in html
    assert "“ï⟨2/2⟩”" in html
    assert visible("ï⟨2/2⟩") == "ï⟨2/2⟩"


def test_tables_of_such_tokens_can_be_written(tmp_path, byte_level):
    import pandas as pd

    table = pd.DataFrame({"token": pieces(byte_level, ids_of(byte_level, TEXT)[:-1])})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    assert pd.read_parquet(tmp_path / "t.parquet")["token"].tolist() == table["token"].tolist()
