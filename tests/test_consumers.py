"""What is exported, in the tools that read it: llama.cpp and its server, transformers, PEFT.

`make test-consumers` installs the versions that constraints/consumers.txt pins. Where one is not
installed, its tests are skipped. That a difference is seen at all is shown by putting the same
vectors one block off.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.models import DEMO

NEAR = 1e-2
"""The demonstration model in llama.cpp, whose sums are in another order; one block off is 3.7."""
STRENGTHS = (-2.0, 1.0, 4.0)
BLOCKS = (1, 2, 3, 4)
WORDS = "I went to see the film last night, and the acting was better than the story."


@pytest.fixture(scope="module")
def demo() -> Any:
    return sl.load("demo")


@pytest.fixture(scope="module")
def steering(demo: Any) -> sl.Steering:
    """CAA at four blocks."""
    return sl.CAA.fit(demo, (["I loved it"], ["I hated it"]), BLOCKS).steering


@pytest.fixture(scope="module")
def ids(demo: Any) -> list[int]:
    return demo.tokenizer(WORDS)["input_ids"]


@torch.no_grad()
def hooked(model: Any, ids: list[int], steering: sl.Steering | None = None) -> np.ndarray:
    tokens = torch.tensor([ids])
    if steering is None:
        return model(tokens)[0].numpy()
    with steering.applied(model):
        return model(tokens)[0].numpy()


def apart(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


def shifted(directions: dict[int, np.ndarray], n_layers: int) -> dict[int, np.ndarray]:
    """The same vectors one block later."""
    return {n + 1: v for n, v in directions.items() if n + 1 < n_layers}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model as an F32 GGUF file."""
    llama_cpp.engine()
    return llama_cpp.write_gpt2(tmp_path_factory.mktemp("llama") / "demo.gguf", DEMO)


def test_llama_cpp_computes_the_unsteered_model(whole, demo, ids):
    assert apart(llama_cpp.logits(whole, ids), hooked(demo, ids)) < NEAR


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_control_vector_does_in_llama_cpp_what_the_hooks_do(
    strength, whole, demo, steering, ids, tmp_path
):
    scaled = strength * steering
    scaled.export(tmp_path / "v.gguf", to="gguf", model=demo)
    directions = llama_cpp.directions_of(tmp_path / "v.gguf")
    expected = hooked(demo, ids, scaled)
    assert apart(llama_cpp.logits(whole, ids, directions), expected) < NEAR
    off = shifted(directions, demo.cfg.n_layers)
    assert apart(llama_cpp.logits(whole, ids, off), expected) > 50 * NEAR


def test_a_checkpoint_with_biases_steers_llama_cpp_without_any_vector(
    whole, demo, steering, ids, tmp_path
):
    steering.export(tmp_path / "baked", to="checkpoint", model=demo)
    file = llama_cpp.write_gpt2(tmp_path / "baked.gguf", tmp_path / "baked")
    assert apart(llama_cpp.logits(file, ids), hooked(demo, ids, steering)) < NEAR


def test_a_checkpoint_of_a_llama_steers_llama_cpp(folders, tmp_path):
    from tiny_gguf import write_gguf
    from tiny_models import D_MODEL, load

    model = load(folders["llama"], "bridge")
    v = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))
    own = sl.at([0, 2], sl.CAA(0.5 * v))
    own.export(tmp_path / "baked", to="checkpoint", model=model)
    llama_cpp.engine()
    file = write_gguf(tmp_path / "baked.gguf", tmp_path / "baked", "F32", pre=None)
    ids = list(range(20, 44))
    assert apart(llama_cpp.logits(file, ids), hooked(model, ids, own)) < NEAR
    assert apart(hooked(model, ids), hooked(model, ids, own)) > 50 * NEAR


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model as an F32 GGUF file with its vocabulary, which the server wants."""
    llama_cpp.engine()
    return llama_cpp.write_gpt2(tmp_path_factory.mktemp("server") / "demo.gguf", DEMO, "gpt-2")


def served(file: Path, ids: list[int], *arguments: str) -> list[tuple[int, float]]:
    """The tokens that llama-server writes at temperature 0, with their log-probabilities."""
    body = {
        "prompt": ids,
        "n_predict": N_SERVED,
        "temperature": 0,
        "n_probs": 1,
        "ignore_eos": True,
    }
    asked = {"arguments": ["--model", str(file), *arguments], "body": body}
    command = [sys.executable, str(Path(__file__).with_name("llama_server.py"))]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, input=json.dumps(asked)
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    return [(one["id"], one["logprob"]) for one in answer["completion_probabilities"]]


N_SERVED = 8


@torch.no_grad()
def greedy(model: Any, ids: list[int], steering: sl.Steering | None) -> list[tuple[int, float]]:
    """What our own hooks write, with the log-probabilities."""
    written: list[tuple[int, float]] = []
    for _ in range(N_SERVED):
        row = hooked(model, [*ids, *(token for token, _ in written)], steering)[-1]
        rates = torch.log_softmax(torch.from_numpy(row).double(), -1)
        written.append((int(rates.argmax()), float(rates.max())))
    return written


def same_text(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> bool:
    """Whether the tokens are the same, and as probable."""
    pairs = list(zip(found, expected, strict=True))
    print("log-probabilities apart by", max(abs(a[1] - b[1]) for a, b in pairs))
    return all(a[0] == b[0] and abs(a[1] - b[1]) < NEAR for a, b in pairs)


def test_llama_server_writes_what_the_model_writes(spoken, demo, ids):
    assert same_text(served(spoken, ids), greedy(demo, ids, None))


@pytest.mark.parametrize("strength", STRENGTHS)
def test_llama_server_takes_a_control_vector_by_its_flag(
    strength, spoken, demo, steering, ids, tmp_path
):
    steering.export(tmp_path / "v.gguf", to="gguf", model=demo)
    moved = tuple((sl.Site(site.layer + 1), steer) for site, steer in steering.placed)
    sl.Steering(moved, steering.origin).export(tmp_path / "off.gguf", to="gguf", model=demo)
    expected = greedy(demo, ids, strength * steering)
    flag = "--control-vector-scaled"
    assert same_text(served(spoken, ids, flag, f"{tmp_path}/v.gguf:{strength}"), expected)
    assert not same_text(served(spoken, ids, flag, f"{tmp_path}/off.gguf:{strength}"), expected)


def test_llama_server_takes_a_control_vector_as_it_is(spoken, demo, steering, ids, tmp_path):
    (2.0 * steering).export(tmp_path / "v.gguf", to="gguf", model=demo)
    found = served(spoken, ids, "--control-vector", str(tmp_path / "v.gguf"))
    assert same_text(found, greedy(demo, ids, 2.0 * steering))


READER = """
#include <cstring>
#include <string>
#include <vector>
struct common_control_vector_data { int n_embd; std::vector<float> data; };
struct common_control_vector_load_info { float strength; std::string fname; };
common_control_vector_data common_control_vector_load(
    const std::vector<common_control_vector_load_info> & infos);
extern "C" long read_vectors(const char * file, float * out, long room, int * width) {
    auto found = common_control_vector_load({{1.0f, file}});
    *width = found.n_embd;
    if (found.n_embd < 0 || (long) found.data.size() > room) return -1;
    std::memcpy(out, found.data.data(), 4 * found.data.size());
    return (long) found.data.size();
}
"""
"""llama.cpp's own reader of control vectors (common/common.cpp), as a function of C."""

CALL = """
import ctypes, json, sys
ctypes.CDLL(sys.argv[1])
call = ctypes.CDLL(sys.argv[2]).read_vectors
call.restype = ctypes.c_long
call.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p]
room, width = (ctypes.c_float * 100_000)(), ctypes.c_int()
size = call(sys.argv[3].encode(), room, len(room), ctypes.byref(width))
n = width.value
print(json.dumps(None if size < 0 else [room[k : k + n] for k in range(0, size, n)]))
"""
"""In a process of its own, since what is wrong in C++ ends the process."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What llama.cpp reads of a file: an array [block - 1, d_model], or None where it drops it."""
    llama_cpp.engine()
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++, with which llama.cpp's reader of files is called, is not installed")
    folder = tmp_path_factory.mktemp("reader")
    (folder / "reader.cpp").write_text(READER, encoding="utf-8")
    # The wheel is built with the older of GCC's two kinds of strings.
    options = ["-shared", "-fPIC", "-D_GLIBCXX_USE_CXX11_ABI=0", "-o", "reader.so"]
    library = llama_cpp.library()
    subprocess.run([compiler, *options, "reader.cpp", library], cwd=folder, check=True)

    def read(file: Path) -> np.ndarray | None:
        command = [sys.executable, "-c", CALL, library, folder / "reader.so", file]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = json.loads(said.splitlines()[-1])
        return None if found is None else np.array(found, np.float32)

    return read


def test_llama_cpps_own_reader_takes_the_file(reader, demo, steering, tmp_path):
    steering.export(tmp_path / "v.gguf", to="gguf", model=demo)
    found = reader(tmp_path / "v.gguf")
    expected = llama_cpp.directions_of(tmp_path / "v.gguf")
    assert found is not None
    assert len(found) == max(expected)
    for number, row in expected.items():
        assert np.array_equal(found[number - 1], row)


@pytest.mark.parametrize("spoilt", ["direction.0", "foreign.1", "half", "two axes"])
def test_llama_cpps_own_reader_drops_what_is_never_written(spoilt, reader, tmp_path):
    from gguf import GGUFWriter

    rows = {"direction.1": np.ones(8, np.float32)}
    if spoilt == "half":
        rows["direction.2"] = np.ones(8, np.float16)
    elif spoilt == "two axes":
        rows["direction.2"] = np.ones((1, 8), np.float32).repeat(2, 0)
    else:
        rows[spoilt] = np.ones(8, np.float32)
    writer = GGUFWriter(tmp_path / "v.gguf", "controlvector")
    for name, row in rows.items():
        writer.add_tensor(name, row)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert reader(tmp_path / "v.gguf") is None


@pytest.mark.real
@pytest.mark.slow
def test_a_control_vector_and_a_checkpoint_of_smollm2(one_smollm2, tmp_path):
    from tiny_gguf import write_gguf
    from transformers import AutoModelForCausalLM

    from steerlens.identity import loaded

    llama_cpp.engine()
    model, known = one_smollm2, loaded(one_smollm2)
    assert known is not None
    assert known.folder is not None
    file = write_gguf(tmp_path / "m.gguf", known.folder, "F32", pre="smollm")
    ids = model.tokenizer(WORDS)["input_ids"]
    fitted = sl.CAA.fit(model, (["I loved it"], ["I hated it"]), range(10, 16)).steering
    assert apart(llama_cpp.logits(file, ids), hooked(model, ids)) < 1e-3
    for strength in STRENGTHS:
        scaled = strength * fitted
        scaled.export(tmp_path / f"{strength}.gguf", to="gguf", model=model)
        directions = llama_cpp.directions_of(tmp_path / f"{strength}.gguf")
        expected = hooked(model, ids, scaled)
        found = apart(llama_cpp.logits(file, ids, directions), expected)
        off = shifted(directions, model.cfg.n_layers)
        wrong = apart(llama_cpp.logits(file, ids, off), expected)
        print(f"strength {strength:g}: {found:.1e}; one block off {wrong:.2g}")
        assert found < 1e-3
        assert wrong > 1
    fitted.export(tmp_path / "baked", to="checkpoint", model=model)
    baked = AutoModelForCausalLM.from_pretrained(tmp_path / "baked", dtype=torch.float32).eval()
    with torch.no_grad():
        plain = baked(torch.tensor([ids])).logits[0].numpy()
    print(f"checkpoint: {apart(plain, hooked(model, ids, fitted)):.1e}")
    assert apart(plain, hooked(model, ids, fitted)) < 2e-4
