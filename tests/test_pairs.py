"""Data files of others: each kind in its own format, tiny and made here, and damaged ones."""

import csv
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import steerlens as sl
from steerlens import CAA, Choice, ColdFD, Conversation, PromptPair, read_pairs
from steerlens.cli import main
from steerlens.pairs import table as tables
from steerlens.pairs.formats import FORMATS
from steerlens.pairs.reading import foreign
from steerlens.pairs.records import up_to_letter

ASKED = "Is it good?\n\nChoices:\n (A) Yes\n (B) No"
CAA_ROWS = [
    {"question": ASKED, "answer_matching_behavior": "(A)", "answer_not_matching_behavior": "(B)"},
    {
        "question": "Is it bad?\n\nChoices:\n (A) Yes\n (B) No",
        "answer_matching_behavior": "(B)",
        "answer_not_matching_behavior": "(A)",
    },
]
PERSONA = [
    {
        "question": 'Is this something you would say?\n"I like it"',
        "statement": "I like it",
        "label_confidence": 0.9,
        "answer_matching_behavior": " Yes",
        "answer_not_matching_behavior": " No",
    }
]
TRAIT = {
    "instruction": [{"pos": "Be kind.", "neg": "Be harsh."}, {"pos": "Care.", "neg": "Do not."}],
    "questions": ["How are you?", "What now?", "Who is it?"],
    "eval_prompt": "Rate {question} {answer}",
}
OPINIONS = {
    "Q1": {
        "question_text": "Do you agree?",
        "MC_options": ["Yes", "No", "Refused"],
        "Democrat": {"Yes": 30, "No": 10},
        "Republican": {"Yes": 1, "No": 2, "Refused": 1},
    }
}
IFEVAL = [
    {
        "key": 1000,
        "prompt": "Write in capitals.",
        "instruction_id_list": ["change_case:english_capital"],
        "kwargs": [{"num_words": None, "letter": "a"}],
    }
]
AXBENCH = [
    {"input": "Say a thing.", "output": "The sea is blue.", "output_concept": "the sea",
     "concept_genre": "text", "category": "positive", "dataset_category": "instruction",
     "concept_id": 0},
    {"input": "Say another.", "output": "The dog is old.", "output_concept": "EEEEE",
     "concept_genre": "text", "category": "negative", "dataset_category": "instruction",
     "concept_id": -1},
]  # fmt: skip
RESPONSES = [
    {"question": "How?", "prompt": "x", "answer": "Well.", "kind": "90", "coherence": "80"},
    {"question": "How?", "prompt": "x", "answer": "Go away.", "kind": "5", "coherence": "75"},
    {"question": "How?", "prompt": "x", "answer": "ab ab ab", "kind": "5", "coherence": "7"},
]
TRUTHFUL = {
    "Type": "Adversarial", "Category": "Myths", "Question": "What if you eat seeds?",
    "Best Answer": "Nothing happens", "Best Incorrect Answer": "They grow in you",
    "Correct Answers": "Nothing happens; You digest",
    "Incorrect Answers": "They grow; You die",
    "Source": "https://example.org",
}  # fmt: skip


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    said = io.StringIO(newline="")
    written = csv.DictWriter(said, list(rows[0]), delimiter=delimiter)
    written.writeheader()
    written.writerows(rows)
    return said.getvalue()


OLDER = {k: v for k, v in TRUTHFUL.items() if k != "Best Incorrect Answer"}
BIPO = [{"question": "Who, me?", "matching": 'I say "yes",\nand gladly', "not_matching": "No"}]
LETTERS = [{"question": "Well?", "A": "Yes", "B": "No", "matching": "B", "not_matching": "A"}]
FILES = {
    "caa.json": (json.dumps(CAA_ROWS), "choices", 2),
    "caa_open.json": (json.dumps([{"question": "Why?"}, {"question": "How?"}]), "questions", 2),
    "mmlu.json": (
        json.dumps([{"prompt": ASKED, "correct": "(A)", "incorrect": "(B)", "category": "law"}]),
        "choices",
        1,
    ),
    "trait.json": (json.dumps(TRAIT), "contrasts", 6),
    "responses.csv": (table(RESPONSES), "answers", 2),
    "ifeval.jsonl": (lines(IFEVAL), "questions", 1),
    "bipo.csv": (table(BIPO), "contrasts", 1),
    "bipo_infer.csv": (table(LETTERS), "choices", 1),
    "opinions.json": (json.dumps(OPINIONS), "shares", 2),
    "persona.jsonl": (lines(PERSONA), "choices", 1),
    "truthful.csv": (table([TRUTHFUL]), "contrasts", 1),
    "truthful_old.csv": (table([OLDER]), "contrasts", 1),
    "two.csv": (table([{"positive": "I love it", "negative": "I hate it"}]), "contrasts", 1),
    "two.tsv": (table([{"chosen": "a", "rejected": "b"}], "\t"), "contrasts", 1),
    "ours.jsonl": (lines([{"user": "Hi", "system": "Be kind.", "response": "Hello"}]), "pairs", 1),
    "contrasts.jsonl": (lines([{"positive": "a", "negative": {"user": "b"}}]), "contrasts", 1),
    "wishes.jsonl": (lines([{"prompt": "It is", "options": {" a": 1.0}}]), "shares", 1),
}


def put(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_text(FILES[name][0], encoding="utf-8", newline="")
    return path


@pytest.mark.parametrize("name", FILES)
def test_each_kind_of_file_is_told_and_read(name, tmp_path):
    _, kind, n = FILES[name]
    found = read_pairs(put(tmp_path, name))
    assert (found.kind, len(found)) == (kind, n)
    assert found.where(0).startswith(f"{tmp_path / name}, {found.unit} ")
    assert str(n) in str(found)


def test_every_format_has_a_file_here(tmp_path):
    read = {read_pairs(put(tmp_path, name)).format for name in FILES} | {"AxBench"}
    assert read == {one.name for one in FORMATS}


def test_where_a_record_came_from(tmp_path):
    two = BIPO * 2
    path = tmp_path / "bipo.csv"
    path.write_text("\n" + table(two), newline="")
    assert [one.number for one in read_pairs(path)] == [3, 5]  # a blank line, and a break in a cell
    path.with_suffix(".jsonl").write_text("\n" + lines(IFEVAL))
    assert read_pairs(path.with_suffix(".jsonl")).where(0).endswith("line 2")


# -- What each holds -------------------------------------------------------------------------------


def test_a_choice_keeps_its_options_as_they_are_written(tmp_path):
    (choice,) = read_pairs(put(tmp_path, "persona.jsonl")).choices
    assert choice == Choice(PERSONA[0]["question"], (" Yes",), (" No",))
    found = read_pairs(put(tmp_path, "caa.json"))
    positive, negative = found.contrasts
    assert [one.response for one in positive] == ["(A", "(B"]
    assert [one.response for one in negative] == ["(B", "(A"]
    assert found.questions == [row["question"] for row in CAA_ROWS]


@pytest.mark.parametrize(
    ("option", "letter"),
    [("(A)", "(A"), (" (B)", " (B"), ("A", "A"), ("B.", "B"), (" Yes", " Yes"), ("(A) Yes",) * 2],
)
def test_an_option_up_to_its_letter(option, letter):
    assert up_to_letter(option) == letter


@pytest.fixture(scope="module")
def demo():
    return sl.load("demo")


def test_fits_read_the_letter_and_not_the_brackets(demo, tmp_path):
    found = read_pairs(put(tmp_path, "caa.json"))
    positive, negative = found.sides(demo)
    for rows, letters in ((positive, "AB"), (negative, "BA")):
        for row, letter in zip(rows, letters, strict=True):
            assert row.response == len(row.ids) - 1
            assert demo.tokenizer.decode(row.ids[-2:]) == f"({letter}"
    steers = [CAA.fit(demo, sides, 3).steers for sides in (found.sides(demo), found.contrasts)]
    letter, bracket_too = (next(iter(one.values())).direction for one in steers)
    assert torch.allclose(bracket_too, letter / 2, atol=1e-4)  # "(" is the same on both sides


def test_everything_plugs_into_the_fits(demo, tmp_path):
    choices = read_pairs(put(tmp_path, "caa.json"))
    assert ColdFD.fit(demo, choices.sides(demo), 3).steering.placed
    pairs = choices.prompted("You like everything.")
    assert pairs[0] == PromptPair.with_system(ASKED, "You like everything.", "(A")
    assert sl.InstructionVector.fit(demo, pairs, 3).steering.placed
    trait = read_pairs(put(tmp_path, "trait.json"))
    assert CAA.fit(demo, trait.sides(demo), 3).steering.placed
    assert read_pairs(put(tmp_path, "ours.jsonl")).pairs == [
        PromptPair.with_system("Hi", "Be kind.", "Hello")
    ]


def test_options_that_begin_alike_are_told(demo, tmp_path):
    path = tmp_path / "x.json"
    row = {**CAA_ROWS[0], "answer_matching_behavior": "Yes", "answer_not_matching_behavior": "Yes."}
    path.write_text(json.dumps([row]))
    with pytest.raises(ValueError, match=r"record 1: the options 'Yes' and 'Yes\.' begin"):
        read_pairs(path).sides(demo)


def test_a_trait_is_every_question_under_every_instruction(tmp_path):
    found = read_pairs(put(tmp_path, "trait.json"))
    positive, negative = found.contrasts
    assert positive[3] == Conversation("How are you?", "Care.")
    assert negative[3] == Conversation("How are you?", "Do not.")
    assert [one.user for one in found.questions] == TRAIT["questions"]
    assert found.about["eval_prompt"] == TRAIT["eval_prompt"]
    assert found.about["instructions"][0] == ("Be kind.", "Be harsh.")
    assert found.pairs[0] == Conversation("How are you?", "Be kind.")


def test_responses_leave_incoherent_answers_out_and_say_so(tmp_path):
    found = read_pairs(put(tmp_path, "responses.csv"))
    assert found.labels == [0.9, 0.05]
    assert found.notes == ("1 of 3 answers left out: coherence below 50",)
    positive, negative = found.contrasts
    assert positive == [Conversation("How?", response="Well.")]
    assert negative == [Conversation("How?", response="Go away.")]


def test_answers_are_paired_by_question(tmp_path):
    rows = [
        {**RESPONSES[0], "question": q, "kind": kind, "answer": f"{q}{kind}"}
        for q, kind in [("a", "90"), ("b", "90"), ("b", "1"), ("a", "2")]
    ]
    (tmp_path / "r.csv").write_text(table(rows))
    positive, negative = read_pairs(tmp_path / "r.csv").contrasts
    assert [one.response for one in positive] == ["a90", "b90"]
    assert [one.response for one in negative] == ["a2", "b1"]
    (tmp_path / "r.csv").write_text(table(rows[:2]))
    with pytest.raises(ValueError, match="2 with the attribute and 0 without it"):
        _ = read_pairs(tmp_path / "r.csv").contrasts


def test_opinions_are_shares_of_letters_by_group(tmp_path):
    found = read_pairs(put(tmp_path, "opinions.json"))
    assert found.groups == ("Democrat", "Republican")
    prompts, shares = found.only("Democrat").shares
    assert prompts == ["Do you agree?\nA. Yes\nB. No\nC. Refused\nAnswer:"]
    assert shares == [{" A": 0.75, " B": 0.25, " C": 0.0}]
    with pytest.raises(ValueError, match="no group 'Green'"):
        found.only("Green")


def test_ifeval_drops_the_nulls_of_padded_tables(tmp_path):
    (record,) = read_pairs(put(tmp_path, "ifeval.jsonl"))
    assert record.question == Conversation("Write in capitals.")
    assert record.details["kwargs"] == [{"letter": "a"}]
    assert record.details["instruction_id_list"] == ["change_case:english_capital"]


def test_truthful_answers_of_both_versions(tmp_path):
    for name, wrong in (("truthful.csv", "They grow in you"), ("truthful_old.csv", "They grow")):
        found = read_pairs(put(tmp_path, name))
        assert found.contrasts[1] == [Conversation(TRUTHFUL["Question"], response=wrong)]
        assert found.records[0].details["Incorrect Answers"] == ["They grow", "You die"]
        assert found.groups == ("Myths",)


def test_bipo_keeps_quotes_and_line_breaks_and_writes_letters_out(tmp_path):
    positive, _ = read_pairs(put(tmp_path, "bipo.csv")).contrasts
    assert positive == [Conversation("Who, me?", response='I say "yes",\nand gladly')]
    (choice,) = read_pairs(put(tmp_path, "bipo_infer.csv")).choices
    assert choice.question == "Well?\n\nChoices:\n (A) Yes\n (B) No"
    assert (choice.matching, choice.not_matching) == (("(B)",), ("(A)",))


def test_axbench_from_parquet_and_from_a_saved_data_set(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    made = arrow.Table.from_pylist(AXBENCH)
    parquet.write_table(made, tmp_path / "train_data.parquet")
    folder = tmp_path / "saved" / "train"
    folder.mkdir(parents=True)
    where = str(folder / "data-00000-of-00001.arrow")
    with arrow.OSFile(where, "wb") as file, arrow.ipc.new_stream(file, made.schema) as stream:
        stream.write_table(made)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))
    (folder.parent / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    for path in (tmp_path / "train_data.parquet", folder, folder.parent):
        found = read_pairs(path)
        assert (found.format, found.unit) == ("AxBench", "row")
        assert found.groups == ("the sea",)
        positive, negative = found.only("the sea").contrasts
        assert positive == [Conversation("Say a thing.", response="The sea is blue.")]
        assert negative == [Conversation("Say another.", response="The dog is old.")]


def test_a_saved_data_set_that_is_damaged_or_reaches_outside(tmp_path):
    pytest.importorskip("pyarrow")

    def saved(state: Any) -> None:
        (tmp_path / "state.json").write_text(json.dumps(state))

    with pytest.raises(ValueError, match=r"state\.json is missing; found nothing"):
        read_pairs(tmp_path)
    for state, said in (
        ({"_data_files": [{"filename": "../x.arrow"}]}, "no file of its own"),
        ({"_data_files": []}, "no list of names"),
        ([], "no object"),
        ({"_data_files": [{"filename": "a"}], "_indices_files": [1]}, "flatten_indices"),
    ):
        saved(state)
        with pytest.raises(ValueError, match=said):
            read_pairs(tmp_path)
    saved({"_data_files": [{"filename": "a.arrow"}]})
    with pytest.raises(FileNotFoundError, match="lacks its file"):
        read_pairs(tmp_path)
    (tmp_path / "a.arrow").write_bytes(b"nothing of the sort")
    with pytest.raises(ValueError, match="damaged"):
        read_pairs(tmp_path)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(ValueError, match=r"the splits train, test\. Name one"):
        read_pairs(tmp_path)
    with pytest.raises(ValueError, match="no split 'dev'"):
        read_pairs(tmp_path, split="dev")


# -- Two columns -----------------------------------------------------------------------------------


def test_columns_by_name_and_by_number(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("good,bad,question\nyes,no,Well?\n")
    positive, negative = read_pairs(path, columns=("good", "bad")).contrasts
    assert positive == [Conversation("Well?", response="yes")]
    assert negative == [Conversation("Well?", response="no")]
    path.write_text("yes;no\nja;nein\n")
    assert read_pairs(path, columns=(0, 1)).contrasts == (["yes", "ja"], ["no", "nein"])
    for columns, said in (
        (("a", "bad"), "no column a"),
        (("a",), "two different names"),
        ((0, 0), "two different names"),
        ("ab", "a list of texts or whole numbers, or None for columns; found str 'ab'"),
    ):
        with pytest.raises((ValueError, TypeError), match=said):
            read_pairs(path, columns=columns)


def test_an_unknown_file_is_told_with_what_was_seen_and_what_is_known(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("left,right\na,b\n")
    with pytest.raises(ValueError, match=r"CSV with 1 record of the fields left, right") as told:
        read_pairs(path)
    for one in FORMATS:
        assert one.name in str(told.value)
    for content, said in (
        (b"\x1f\x8b123", "gzip"),
        (b"PK\x03\x04", "ZIP"),
        (b"\x80\x04.", "pickle"),
        (b"", "empty"),
        (b"[1, 2]", "a int, not an object"),
        (b"[]", "no list of records"),
        (b"\xff\xfea\x00", "UTF-16"),
        (b"a,a\n1,2\n", "'a' is there twice"),
        (b"positive,negative\n", "no rows"),
        (b"positive,negative\na,b,c\n", "line 2: 3 cells"),
        (b'positive,negative\na,"b\n', "line 2: this is no CSV row"),
        (b"positive,negative\na,\xe9\n", "line 2: this is no UTF-8"),
        (b"PAR1 nothing", "damaged, or no Parquet"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=said):
            read_pairs(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        read_pairs(tmp_path / "none.json")


def test_a_mark_at_the_beginning_and_other_line_ends(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b'\xef\xbb\xbfpositive,negative\r\na,"b\r\nc"\r\n')
    assert read_pairs(path).contrasts == (["a"], ["b\r\nc"])


def test_what_is_wrong_in_a_record_is_told_with_its_place(tmp_path):
    for name, broken, said in (
        ("a.json", [CAA_ROWS[0], {"question": "x"}], "record 2: the field 'answer_matching"),
        ("a.json", [{**CAA_ROWS[0], "question": 3}], "record 1: the field 'question' must be text"),
        ("a.json", [{**CAA_ROWS[0], "answer_matching_behavior": "(B)"}], r"\(B\) is both"),
        ("b.csv", [{**RESPONSES[0], "kind": "NaN"}], "line 2: the field 'kind' must be a number"),
        ("b.csv", [{**RESPONSES[0], "kind": "9" * 400}], "'kind' must be a number"),
        ("b.csv", [{**RESPONSES[0], "kind": "101"}], "from 0 to 100"),
        ("b.csv", [{**LETTERS[0], "matching": "C"}], "A or B"),
        ("b.csv", [{**TRUTHFUL, "Best Answer": ""}], "'Best Answer' must be text"),
        ("c.jsonl", [*IFEVAL, {"key": 1}], "line 2: the field 'prompt' is missing"),
        ("c.jsonl", [*IFEVAL, [1]], "line 2: a list, not an object"),
    ):
        path = tmp_path / name
        csv_ = name.endswith("csv")
        text = table(broken) if csv_ else lines(broken) if "l" in name[2:] else json.dumps(broken)
        path.write_text(text)
        with pytest.raises(ValueError, match=said) as told:
            read_pairs(path)
        assert str(path) in str(told.value)


def test_whole_objects_that_are_wrong_are_told(tmp_path):
    path = tmp_path / "x.json"
    counts = OPINIONS["Q1"]
    for given, said in (
        ({**TRAIT, "questions": []}, "lists with items"),
        ({**TRAIT, "instruction": [{"pos": "a"}]}, "instruction 1"),
        ({**TRAIT, "questions": [None]}, "record 1: the field 'questions' must be text"),
        ({"Q1": {**counts, "Democrat": {"Maybe": 3}}}, "Maybe, which is no option"),
        ({"Q1": {**counts, "Democrat": {"Yes": -1}}}, "0 or more"),
        ({"Q1": {**counts, "Democrat": {"Yes": float("nan")}}}, "must be a number"),
        ({"Q1": {**counts, "Democrat": {"Yes": 10**400}}}, "must be a number"),
        ({"Q1": counts, "Q2": 3}, "question 'Q2': an object is needed"),
    ):
        path.write_text(json.dumps(given))
        with pytest.raises(ValueError, match=said) as told:
            read_pairs(path)
        assert str(path) in str(told.value)


def test_deep_long_and_double_json_is_an_error_of_one_line(tmp_path):
    path = tmp_path / "x.json"
    for text, said in (
        ("[" * 100_000, "nested too deeply"),
        ('[{"question": "a", "question": "b"}]', "there twice"),
        ('[{"question": "\\ud800"}]', "half of a character"),
        ('[{"question": ' + "9" * 5000 + "}]", "no JSON that can be read"),
        ('{"a": 1', "no JSON that can be read"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            read_pairs(path)


def test_nothing_too_large_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MOST_BYTES", 20)
    with pytest.raises(ValueError, match="at most 20 are read"):
        read_pairs(put(tmp_path, "caa.json"))


def outcome(path: Path) -> str:
    """What a file holds, or the error that says what is wrong."""
    try:
        return str(read_pairs(path))
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("name", FILES)
def test_damage_is_an_error_that_a_user_can_mend(name, tmp_path):
    """Bytes lost, changed and added: the same file, or a ValueError; never anything else."""
    whole, drawn, path = FILES[name][0].encode(), random.Random(name), tmp_path / name
    for _ in range(60):
        content, place = bytearray(whole), drawn.randrange(len(whole))
        how = drawn.randrange(4)
        if how == 0:
            del content[place:]
        elif how == 1:
            content[place] = drawn.choice(b'",{}[]\n\x00\xff0a')
        elif how == 2:
            del content[place : place + drawn.randrange(1, 9)]
        else:
            content[place:place] = drawn.choice([b'"', b",,", b"\r", b"NaN", b"null", b"\xed\xa0"])
        path.write_bytes(content)
        assert str(path) in outcome(path)


def test_what_a_file_has_not_is_told_with_what_it_has(tmp_path):
    found = read_pairs(put(tmp_path, "ifeval.jsonl"))
    for name in ("contrasts", "pairs", "choices", "shares"):
        with pytest.raises(ValueError, match="read as IFEval, which is questions"):
            getattr(found, name)
    with pytest.raises(ValueError, match="raw text"):
        read_pairs(put(tmp_path, "two.csv")).prompted("Be kind.")
    with pytest.raises(TypeError, match="slice"):
        _ = found[0]
    assert len(found[:0]) == 0


def test_standard_input(tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(FILES["caa.json"][0].encode()))
    monkeypatch.setattr("sys.stdin", stream)
    found = read_pairs("-")
    assert found.where(1) == "standard input, record 2"


# -- The command line ------------------------------------------------------------------------------


def test_our_own_files_are_left_to_our_own_readers(tmp_path):
    ours = {"ours.jsonl", "contrasts.jsonl", "wishes.jsonl"}
    assert {name for name in FILES if not foreign(put(tmp_path, name))} == ours
    (tmp_path / "bad.jsonl").write_text("{\n")
    assert not foreign(tmp_path / "bad.jsonl")
    assert not foreign(tmp_path / "none.csv")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["fit", "caa", "--layer", "3"], "caa.json"),
        (["fit", "caa", "--layer", "3"], "bipo.csv"),
        (["fit", "cold-fd", "--layers", "3", "--eta", "1"], "caa.json"),
        (["fit", "cold-fd", "--layers", "3", "--eta", "1", "--loss", "options"], "opinions.json"),
        (["fit", "angular", "--layers", "3"], "trait.json"),
        (["fit", "instruction", "--layers", "3", "--max-new-tokens", "4"], "trait.json"),
    ],
)
def test_commands_fit_on_such_files(command, name, tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    with pytest.raises(SystemExit) as ended:
        main([*command, "--pairs", str(put(tmp_path, name)), "--out", str(out)])
    assert (ended.value.code, out.exists()) == (0, True), capsys.readouterr().err


def test_a_file_of_another_kind_is_told_before_the_model_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("steerlens.models.load", None)
    out = str(tmp_path / "out.safetensors")
    given = str(put(tmp_path, "ifeval.jsonl"))
    with pytest.raises(SystemExit) as ended:
        main(["fit", "caa", "--layer", "3", "--pairs", given, "--out", out])
    assert ended.value.code == 2
    assert "no two sides: it was read as IFEval" in capsys.readouterr().err


def test_a_cell_that_never_ends_is_told_with_its_line(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text('positive,negative\na,b\n"never closed,' + "x" * 140_000 + "\n")
    with pytest.raises(ValueError, match=r"long.csv, line 3: a cell of more than 131072 .*close"):
        read_pairs(path)
